/* ballastctl pause, resume, destroy: the life of VMs. */
#include "daemon/ballastctl/options.h"

/* Every VM named, in order; ends at the first that is refused. */
static int each_vm(struct ctl *ctl, int argc, char **argv, const char *method)
{
    int status = options_none(argc, argv, 1, argc);
    for (int i = optind; status == CTL_OK && i < argc; i++)
        status = ctl_do(ctl, method, json_pack("{s:s}", "vm", argv[i]));
    return status;
}

static int pause_vms(struct ctl *ctl, int argc, char **argv)
{
    return each_vm(ctl, argc, argv, "vm.pause");
}

static int resume_vms(struct ctl *ctl, int argc, char **argv)
{
    return each_vm(ctl, argc, argv, "vm.resume");
}

static int destroy_vms(struct ctl *ctl, int argc, char **argv)
{
    return each_vm(ctl, argc, argv, "vm.destroy");
}

const struct command command_pause = {
    .name = "pause",
    .arguments = "VM...",
    .summary = "stop virtual machines where they are; done when they stand still",
    .run = pause_vms,
};

const struct command command_resume = {
    .name = "resume",
    .arguments = "VM...",
    .summary = "let paused virtual machines go on",
    .run = resume_vms,
};

const struct command command_destroy = {
    .name = "destroy",
    .arguments = "VM...",
    .summary = "end virtual machines at once and forget them; their memory comes back",
    .run = destroy_vms,
};
