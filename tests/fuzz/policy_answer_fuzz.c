/*
 * What an external policy answers: JSON against a question. The first four bytes
 * make the question (VMs, their bounds, what there is for all), the rest is the
 * answer's text. Whatever it is: an answer that is taken keeps to every rule, one
 * that is not says why in printable ASCII, and bounds are never changed.
 */
#include "daemon/policy_answer.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "policy_answer: %s\n", #condition);                                    \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static bool is_printable(const char *text)
{
    for (; *text; text++)
        if (*text < ' ' || *text > '~')
            return false;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char *const names[] = {"a", "b", "web", "v.1-_x"};
    struct answer_vm vms[4], before[4];
    if (size < 4)
        return 0;
    size_t count = bytes[0] % 5;
    uint64_t available_pages = bytes[3] * 4u;
    memset(vms, 0, sizeof vms);
    for (size_t i = 0; i < count; i++) {
        vms[i].id = (uint32_t)i;
        vms[i].min_pages = bytes[1];
        vms[i].max_pages = bytes[1] + bytes[2];
        strcpy(vms[i].name, names[i]);
    }
    memcpy(before, vms, sizeof vms);
    json_t *answer = json_loadb((const char *)bytes + 4, size - 4,
                                JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
    struct err err = {0};
    int result = policy_answer_read(answer, vms, count, available_pages, &err);
    uint64_t sum_pages = 0;
    for (size_t i = 0; i < count; i++) {
        REQUIRE(vms[i].min_pages == before[i].min_pages && vms[i].max_pages == before[i].max_pages);
        REQUIRE(vms[i].id == before[i].id && strcmp(vms[i].name, before[i].name) == 0);
        sum_pages += vms[i].target_pages;
        if (result == 0)
            REQUIRE(vms[i].target_pages >= vms[i].min_pages &&
                    vms[i].target_pages <= vms[i].max_pages);
    }
    if (result == 0) {
        REQUIRE(json_is_object(answer) && json_object_size(answer) == count);
        REQUIRE(sum_pages <= available_pages);
    } else {
        REQUIRE(result == -1 && err.text[0] && is_printable(err.text));
    }
    json_decref(answer);
    return 0;
}
