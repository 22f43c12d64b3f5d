/*
 * ballastd's configuration file: whatever is in it, reading ends in a
 * configuration that the supervisor can have, or in an error that names file
 * and line. Its text once more as the value of one option.
 */
#include "daemon/daemon_config.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "daemon_config: %s (%s)\n", #condition, err.text);                     \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char *const options[] = {"machine-memory", "period_ms", "high",
                                          "run-dir",        "policy",    "no-such"};
    struct daemon_config config;
    struct err err = {0};
    char path[40], start[48];
    int fd = memfd_create("config", MFD_CLOEXEC);
    REQUIRE(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    snprintf(start, sizeof start, "%s:", path);

    daemon_config_default(&config);
    if (daemon_config_read(&config, path, &err) < 0) {
        REQUIRE(!strncmp(err.text, start, strlen(start)) && atoi(err.text + strlen(start)) > 0);
    } else if (daemon_config_finish(&config, &err) < 0) {
        REQUIRE(err.text[0]);
    } else {
        REQUIRE(config.host.machine_bytes % 4096 == 0 && config.host.machine_bytes > 0);
        REQUIRE(config.host.period_ms > 0 && config.host.run_dir[0] && config.socket[0]);
        REQUIRE(state_thresholds_check(&config.host.settings.thresholds, &err) == 0);
    }
    daemon_config_free(&config);
    close(fd);

    char value[256];
    size_t length = size < sizeof value - 1 ? size : sizeof value - 1;
    memcpy(value, bytes, length);
    value[length] = '\0';
    daemon_config_default(&config);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        err.text[0] = '\0';
        int result = daemon_config_option(&config, options[i], value, &err);
        REQUIRE(result == 0 ? !strcmp(options[i], "no-such") : result == 1 || err.text[0]);
    }
    daemon_config_free(&config);
    return 0;
}
