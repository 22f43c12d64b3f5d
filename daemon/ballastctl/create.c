/* ballastctl create: a VM from options, a JSON file, or a file with options over it. */
#include "daemon/ballastctl/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPT_FILE = 1, OPT_TEXT, OPT_PATH, OPT_SHARES, OPT_TAX, OPT_DISK, OPT_FLAG, OPT_NOT };

/* An option, and the parameter of vm.create it becomes. */
static const struct option options[] = {
    {"file", required_argument, NULL, OPT_FILE},
    {"memory", required_argument, NULL, OPT_TEXT},
    {"min", required_argument, NULL, OPT_TEXT},
    {"append", required_argument, NULL, OPT_TEXT},
    {"kernel", required_argument, NULL, OPT_PATH},
    {"initrd", required_argument, NULL, OPT_PATH},
    {"shares", required_argument, NULL, OPT_SHARES},
    {"idle-tax", required_argument, NULL, OPT_TAX},
    {"disk", required_argument, NULL, OPT_DISK},
    {"sv48", no_argument, NULL, OPT_FLAG},
    {"deflate-on-oom", no_argument, NULL, OPT_FLAG},
    {"free-page-reporting", no_argument, NULL, OPT_FLAG},
    {"no-start", no_argument, NULL, OPT_NOT},
    {"sharing-domain", required_argument, NULL, OPT_TEXT},
    {"no-sharing", no_argument, NULL, OPT_NOT},
    {0},
};
static const char *const parameters[] = {
    NULL,     "memory",           "min",     "append", "kernel",         "initrd",
    "shares", "idle_tax_percent", "disks",   "sv48",   "deflate_on_oom", "free_page_reporting",
    "start",  "sharing_domain",   "sharing",
};

/* The daemon has another working folder: paths go absolute. Taken over; NULL: no memory. */
static json_t *absolute_path(const char *path)
{
    char *folder;
    if (path[0] == '/')
        return json_string(path);
    folder = getcwd(NULL, 0);
    json_t *joined = folder ? json_sprintf("%s/%s", folder, path) : NULL;
    free(folder);
    return joined;
}

static void make_absolute(json_t *object, const char *member)
{
    const char *path = json_string_value(json_object_get(object, member));
    if (path)
        json_object_set_new(object, member, absolute_path(path));
}

static int read_file(const char *path, json_t **params)
{
    json_error_t error;
    size_t index;
    json_t *disk;
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (!file)
        return ctl_fail(CTL_USAGE, "%s: %s", path, strerror(errno));
    *params = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
    if (file != stdin)
        fclose(file);
    if (!*params)
        return ctl_fail(CTL_USAGE, "%s:%d: %s", path, error.line, error.text);
    if (!json_is_object(*params))
        return ctl_fail(CTL_USAGE, "%s: must hold one JSON object, the parameters of vm.create",
                        path);
    make_absolute(*params, "kernel");
    make_absolute(*params, "initrd");
    json_array_foreach(json_object_get(*params, "disks"), index, disk)
    {
        make_absolute(disk, "path");
    }
    return CTL_OK;
}

/* FILE or FILE,ro */
static void add_disk(json_t *params, const char *text)
{
    size_t length = strlen(text);
    bool read_only = length > 3 && strcmp(text + length - 3, ",ro") == 0;
    char *path = strndup(text, read_only ? length - 3 : length);
    json_t *disks = json_object_get(params, "disks");
    if (!disks) {
        disks = json_array();
        json_object_set_new(params, "disks", disks);
    }
    if (path)
        json_array_append_new(
            disks, json_pack("{s:o, s:b}", "path", absolute_path(path), "read_only", read_only));
    free(path);
}

/* Put one option into params. */
static int take_option(json_t *params, int option, const char *name)
{
    uint64_t number;
    switch (option) {
    case OPT_TEXT:
        json_object_set_new(params, name, json_string(optarg));
        return CTL_OK;
    case OPT_PATH:
        json_object_set_new(params, name, absolute_path(optarg));
        return CTL_OK;
    case OPT_SHARES:
        if (ctl_parse_count("create", "--shares", optarg, 1, UINT32_MAX, &number) != CTL_OK)
            return CTL_USAGE;
        json_object_set_new(params, name, json_integer((json_int_t)number));
        return CTL_OK;
    case OPT_TAX:
        if (ctl_parse_count("create", "--idle-tax", optarg, 0, 99, &number) != CTL_OK)
            return CTL_USAGE;
        json_object_set_new(params, name, json_integer((json_int_t)number));
        return CTL_OK;
    case OPT_DISK:
        add_disk(params, optarg);
        return CTL_OK;
    case OPT_FLAG:
        json_object_set_new(params, name, json_true());
        return CTL_OK;
    default:
        json_object_set_new(params, name, json_false());
        return CTL_OK;
    }
}

/* The whole command line: file, then options over it, then the name. */
static int read_arguments(int argc, char **argv, json_t *from_options, json_t **params)
{
    int option, index = 0, status;
    const char *file = NULL;
    while ((option = options_next(argc, argv, options, &index)) > 0) {
        if (option == OPT_FILE)
            file = optarg;
        else if ((status = take_option(from_options, option, parameters[index])) != CTL_OK)
            return status;
    }
    if (option == 0)
        return CTL_USAGE;
    if ((status = options_end(argc, argv, file ? 0 : 1, 1)) != CTL_OK)
        return status;
    if (file && (status = read_file(file, params)) != CTL_OK)
        return status;
    if (!*params)
        *params = json_object();
    json_object_update(*params, from_options);
    if (optind < argc)
        json_object_set_new(*params, "name", json_string(argv[optind]));
    return CTL_OK;
}

static int run(struct ctl *ctl, int argc, char **argv)
{
    json_t *from_options = json_object(), *params = NULL;
    int status = read_arguments(argc, argv, from_options, &params);
    json_decref(from_options);
    if (status != CTL_OK) {
        json_decref(params);
        return status;
    }
    return ctl_do(ctl, "vm.create", params);
}

const struct command command_create = {
    .name = "create",
    .arguments = "[OPTION...] [NAME]",
    .summary = "create a virtual machine and start it",
    .details = "NAME may be left out if the file gives it.\n"
               "\n"
               "  --memory SIZE          memory of the VM, a multiple of 2 MiB (required)\n"
               "  --kernel FILE          Linux Image, raw, gzip- or EFI-wrapped (required)\n"
               "  --initrd FILE          initial ramdisk\n"
               "  --append TEXT          kernel command line\n"
               "  --disk FILE[,ro]       raw disk image; may be given again, up to eight\n"
               "  --min SIZE             memory it is never reclaimed below; default half\n"
               "  --shares N             its weight; default 10 a MiB of memory\n"
               "  --idle-tax PERCENT     idle memory tax of its own, 0 to 99; default: the host's\n"
               "  --sv48                 offer Sv48 page tables beside Sv39\n"
               "  --deflate-on-oom       let the guest take balloon pages back before it kills\n"
               "  --free-page-reporting  let the guest hand back free pages\n"
               "  --no-start             create it paused\n"
               "  --sharing-domain NAME  share pages with the other VMs of that domain; default:\n"
               "                         inside the VM alone\n"
               "  --no-sharing           share none of its pages\n"
               "  -f, --file FILE        parameters of vm.create as a JSON object (- for standard\n"
               "                         input); options go over it\n"
               "\n"
               "Paths count from the current folder.\n",
    .run = run,
};
