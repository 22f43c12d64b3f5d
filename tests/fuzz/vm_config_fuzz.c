/*
 * The worker's configuration: whatever the bytes, parsing ends in an error with
 * words or in a configuration that is written and read again as the same text.
 */
#include "daemon/vm_config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct vm_config config, again;
    struct err err = {0};
    if (vm_config_parse((const char *)bytes, size, &config, &err)) {
        if (!err.text[0] || config.name)
            abort();
        return 0;
    }
    char *text = vm_config_format(&config, &err);
    if (!text || vm_config_parse(text, strlen(text), &again, &err))
        abort();
    char *same = vm_config_format(&again, &err);
    if (!same || strcmp(text, same))
        abort();
    free(text);
    free(same);
    vm_config_free(&config);
    vm_config_free(&again);
    return 0;
}
