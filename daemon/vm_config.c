/*
 * The configuration as a table of keys: name, kind, where the value goes, and
 * the range of a number. Reading and writing both follow the table, so that they
 * cannot disagree.
 */
#include "daemon/vm_config.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum key_kind { KEY_TEXT, KEY_BOOL, KEY_U32, KEY_U64, KEY_DISKS, KEY_CONSOLE };

struct key {
    const char *name;
    enum key_kind kind;
    size_t offset; /* in struct vm_config */
    bool required;
    json_int_t min, max; /* numbers */
};

#define AT(member) offsetof(struct vm_config, member)

static const struct key keys[] = {
    {"name", KEY_TEXT, AT(name), true, 0, 0},
    {"ram_bytes", KEY_U64, AT(ram_bytes), true, 16 << 20, INT64_C(1) << 40},
    {"kernel", KEY_TEXT, AT(kernel), true, 0, 0},
    {"initrd", KEY_TEXT, AT(initrd), false, 0, 0},
    {"append", KEY_TEXT, AT(append), false, 0, 0},
    {"disks", KEY_DISKS, AT(disks), false, 0, 0},
    {"sv48", KEY_BOOL, AT(sv48), false, 0, 0},
    {"deflate_on_oom", KEY_BOOL, AT(deflate_on_oom), false, 0, 0},
    {"free_page_reporting", KEY_BOOL, AT(free_page_reporting), false, 0, 0},
    {"swap_slots", KEY_U32, AT(swap_slots), false, 0, MAX_VM_PAGES},
    {"random_seed", KEY_U64, AT(random_seed), false, 0, INT64_MAX},
    {"uart", KEY_CONSOLE, AT(uart), false, 0, 0},
    {"virtcon", KEY_CONSOLE, AT(virtcon), false, 0, 0},
};

#define KEYS (sizeof keys / sizeof keys[0])

static void *member(const struct vm_config *config, const struct key *key)
{
    return (char *)config + key->offset;
}

/* ---- Reading ---- */

static int read_text(const json_t *value, const char *name, char **to, struct err *err)
{
    if (!json_is_string(value))
        return err_set(err, 0, "key '%s' must be a string", name);
    if (strlen(json_string_value(value)) != json_string_length(value))
        return err_set(err, 0, "key '%s' contains a NUL character", name);
    *to = strdup(json_string_value(value));
    return *to ? 0 : err_set(err, ENOMEM, "key '%s'", name);
}

static int read_bool(const json_t *value, const char *name, bool *to, struct err *err)
{
    if (!json_is_boolean(value))
        return err_set(err, 0, "key '%s' must be true or false", name);
    *to = json_is_true(value);
    return 0;
}

static int read_number(const json_t *value, const struct key *key, uint64_t *to, struct err *err)
{
    if (!json_is_integer(value))
        return err_set(err, 0, "key '%s' must be an integer", key->name);
    json_int_t number = json_integer_value(value);
    if (number < key->min || number > key->max)
        return err_set(err, 0, "key '%s' is %lld, must be %lld to %lld", key->name,
                       (long long)number, (long long)key->min, (long long)key->max);
    *to = (uint64_t)number;
    return 0;
}

static int read_disk(const json_t *value, struct vm_config_disk *disk, struct err *err)
{
    const char *name;
    json_t *part;
    if (!json_is_object(value))
        return err_set(err, 0, "a disk must be an object");
    json_object_foreach((json_t *)value, name, part)
    {
        int result = !strcmp(name, "path")        ? read_text(part, name, &disk->path, err)
                     : !strcmp(name, "read_only") ? read_bool(part, name, &disk->read_only, err)
                                                  : err_set(err, 0, "unknown key '%s'", name);
        if (result)
            return -1;
    }
    return disk->path ? 0 : err_set(err, 0, "key 'path' is missing");
}

static int read_disks(const json_t *value, struct vm_config *config, struct err *err)
{
    if (!json_is_array(value))
        return err_set(err, 0, "key 'disks' must be an array");
    if (json_array_size(value) > MACHINE_MAX_DISKS)
        return err_set(err, 0, "%zu disks, at most %d", json_array_size(value), MACHINE_MAX_DISKS);
    for (size_t i = 0; i < json_array_size(value); i++) {
        config->disk_count++; /* so that vm_config_free finds what read_disk has made */
        if (read_disk(json_array_get(value, i), &config->disks[i], err))
            return err_prefix(err, "disks[%zu]", i);
    }
    return 0;
}

static int read_console(const json_t *value, const char *console_name,
                        struct vm_config_console *console, struct err *err)
{
    const char *name;
    json_t *part;
    if (!json_is_object(value))
        return err_set(err, 0, "key '%s' must be an object", console_name);
    console->present = true;
    json_object_foreach((json_t *)value, name, part)
    {
        bool *to = !strcmp(name, "in")       ? &console->in
                   : !strcmp(name, "out")    ? &console->out
                   : !strcmp(name, "listen") ? &console->listen
                                             : NULL;
        if (!to)
            return err_set(err, 0, "%s: unknown key '%s'", console_name, name);
        if (read_bool(part, name, to, err))
            return err_prefix(err, "%s", console_name);
    }
    return 0;
}

static int read_key(const json_t *value, const struct key *key, struct vm_config *config,
                    struct err *err)
{
    uint64_t number = 0;
    switch (key->kind) {
    case KEY_TEXT:
        return read_text(value, key->name, member(config, key), err);
    case KEY_BOOL:
        return read_bool(value, key->name, member(config, key), err);
    case KEY_U32:
        if (read_number(value, key, &number, err))
            return -1;
        *(uint32_t *)member(config, key) = (uint32_t)number;
        return 0;
    case KEY_U64:
        return read_number(value, key, member(config, key), err);
    case KEY_DISKS:
        return read_disks(value, config, err);
    case KEY_CONSOLE:
        return read_console(value, key->name, member(config, key), err);
    }
    return -1;
}

static const struct key *find_key(const char *name)
{
    for (size_t i = 0; i < KEYS; i++)
        if (!strcmp(keys[i].name, name))
            return &keys[i];
    return NULL;
}

static int read_object(const json_t *object, struct vm_config *config, struct err *err)
{
    const char *name;
    json_t *value;
    if (!json_is_object(object))
        return err_set(err, 0, "must be a JSON object");
    json_object_foreach((json_t *)object, name, value)
    {
        const struct key *key = find_key(name);
        if (!key)
            return err_set(err, 0, "unknown key '%s'", name);
        if (read_key(value, key, config, err))
            return -1;
    }
    for (size_t i = 0; i < KEYS; i++)
        if (keys[i].required && !json_object_get(object, keys[i].name))
            return err_set(err, 0, "key '%s' is missing", keys[i].name);
    return 0;
}

int vm_config_parse(const char *text, size_t len, struct vm_config *config, struct err *err)
{
    *config = (struct vm_config){0};
    if (len > VM_CONFIG_MAX_BYTES)
        return err_set(err, 0, "VM configuration: more than %u bytes", VM_CONFIG_MAX_BYTES);
    json_error_t where;
    json_t *object = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    if (!object)
        return err_set(err, 0, "VM configuration: line %d: %s", where.line, where.text);
    int result = read_object(object, config, err);
    json_decref(object);
    if (result) {
        vm_config_free(config);
        err_prefix(err, "VM configuration");
    }
    return result;
}

/* ---- Writing ---- */

static json_t *write_disks(const struct vm_config *config)
{
    json_t *disks = json_array();
    for (unsigned i = 0; i < config->disk_count; i++)
        if (json_array_append_new(disks, json_pack("{s:s, s:b}", "path", config->disks[i].path,
                                                   "read_only", (int)config->disks[i].read_only))) {
            json_decref(disks);
            return NULL;
        }
    return disks;
}

static json_t *write_console(const struct vm_config_console *console)
{
    return json_pack("{s:b, s:b, s:b}", "in", (int)console->in, "out", (int)console->out, "listen",
                     (int)console->listen);
}

static json_t *write_key(const struct vm_config *config, const struct key *key)
{
    switch (key->kind) {
    case KEY_TEXT:
        return json_string(*(char **)member(config, key));
    case KEY_BOOL:
        return json_boolean(*(bool *)member(config, key));
    case KEY_U32:
        return json_integer(*(uint32_t *)member(config, key));
    case KEY_U64:
        return json_integer((json_int_t) * (uint64_t *)member(config, key));
    case KEY_DISKS:
        return write_disks(config);
    case KEY_CONSOLE:
        return write_console(member(config, key));
    }
    return NULL;
}

static bool is_absent(const struct vm_config *config, const struct key *key)
{
    if (key->kind == KEY_TEXT)
        return !*(char **)member(config, key);
    return key->kind == KEY_CONSOLE && !((struct vm_config_console *)member(config, key))->present;
}

char *vm_config_format(const struct vm_config *config, struct err *err)
{
    json_t *object = json_object();
    char *text = NULL;
    for (size_t i = 0; i < KEYS; i++) {
        if (is_absent(config, &keys[i]))
            continue;
        if (json_object_set_new(object, keys[i].name, write_key(config, &keys[i]))) {
            err_set(err, 0, "VM configuration: key '%s' is not UTF-8, or no memory", keys[i].name);
            json_decref(object);
            return NULL;
        }
    }
    text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    if (!text)
        err_set(err, ENOMEM, "VM configuration");
    return text;
}

void vm_config_free(struct vm_config *config)
{
    free(config->name);
    free(config->kernel);
    free(config->initrd);
    free(config->append);
    for (unsigned i = 0; i < config->disk_count; i++)
        free(config->disks[i].path);
    *config = (struct vm_config){0};
}
