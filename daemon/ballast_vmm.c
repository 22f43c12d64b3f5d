/*
 * ballast-vmm: one VM by hand on a terminal, started as people start QEMU. It is
 * the supervisor with one worker, no socket and no files: machine memory is the
 * VM's size with headroom, so nothing is ever reclaimed. Exit status: 0 after the
 * guest's power-off and after Ctrl-a x, 1 with a message otherwise.
 */
#include "daemon/end_signals.h"
#include "daemon/size_text.h"
#include "daemon/supervisor.h"
#include "daemon/terminal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB              (UINT64_C(1) << 20)
#define DEFAULT_BYTES    (128 * MIB)
#define HEADROOM_BYTES   (64 * MIB) /* and an eighth: states stay "high" with the VM at its max */
#define HEADROOM_DIVISOR 8
#define VM_UNIT_BYTES    (2 * MIB)

struct vmm {
    struct vm_settings settings;
    bool no_reboot, verbose;
    char drive_paths[VM_MAX_DISKS][4096];
    sd_event *event;
    struct supervisor *supervisor;
    struct terminal *terminal;
    int exit_status;
    char last_words[512];
};

static const char usage[] =
    "usage: ballast-vmm -kernel FILE [options]\n"
    "\n"
    "  -m SIZE           memory of the guest in MiB, or with a unit: 256, 512M, 1G (128)\n"
    "  -kernel FILE      Linux for riscv64: Image, Image.gz or an EFI-wrapped vmlinux/vmlinuz\n"
    "  -initrd FILE      initial RAM disk\n"
    "  -append TEXT      kernel command line, e.g. \"console=ttyS0\"\n"
    "  -drive FILE       raw disk image; also [file=]FILE[,readonly=on][,format=raw]\n"
    "  -name NAME        name of the VM (vm)\n"
    "  -smp 1            one hart is what there is\n"
    "  -nographic        accepted; the console is always this terminal\n"
    "  -no-reboot        end, with status 1, when the guest asks for a reset\n"
    "  -sv48             offer Sv48 to the guest beside Sv39\n"
    "  -verbose          say on standard error what happens to the VM\n"
    "  -version, -help\n"
    "\n"
    "On the terminal: Ctrl-a h help, Ctrl-a x end, Ctrl-a c monitor.\n"
    "Exit status: 0 after a power-off by the guest; otherwise 1, and a message says why.\n";

static int fail(const char *text)
{
    fprintf(stderr, "ballast-vmm: %s\n", text);
    return -1;
}

/* ---- options ---- */

/* 1: on, 0: off, -1: neither. */
static int is_on(const char *value)
{
    if (!strcmp(value, "on") || !strcmp(value, "true") || !strcmp(value, "yes"))
        return 1;
    return !strcmp(value, "off") || !strcmp(value, "false") || !strcmp(value, "no") ? 0 : -1;
}

/* One KEY=VALUE of -drive. */
static int drive_key(char *path, size_t path_bytes, struct vm_disk_settings *disk, const char *key,
                     const char *value)
{
    if (!strcmp(key, "file")) {
        if (snprintf(path, path_bytes, "%s", value) >= (int)path_bytes)
            return fail("-drive: path too long");
        return 0;
    }
    if (!strcmp(key, "readonly") || !strcmp(key, "read-only")) {
        int on = is_on(value);
        if (on < 0) { /* taken for "off" it would let the guest write */
            fprintf(stderr, "ballast-vmm: -drive: %s is on or off, not '%s'\n", key, value);
            return -1;
        }
        disk->read_only = on;
        return 0;
    }
    if (!strcmp(key, "format") && strcmp(value, "raw") != 0) {
        fprintf(stderr, "ballast-vmm: -drive: format %s is not known here; only raw is\n", value);
        return -1;
    }
    if (!strcmp(key, "if") && strcmp(value, "virtio") != 0 && strcmp(value, "none") != 0) {
        fprintf(stderr, "ballast-vmm: -drive: if=%s is not known here; only virtio is\n", value);
        return -1;
    }
    if (!strcmp(key, "format") || !strcmp(key, "if") || !strcmp(key, "id"))
        return 0;
    fprintf(stderr, "ballast-vmm: -drive: unknown key '%s'\n", key);
    return -1;
}

static int add_drive(struct vmm *vmm, const char *text)
{
    if (vmm->settings.disk_count == VM_MAX_DISKS)
        return fail("too many drives");
    struct vm_disk_settings *disk = &vmm->settings.disks[vmm->settings.disk_count];
    char *path = vmm->drive_paths[vmm->settings.disk_count++];
    disk->path = path;
    char copy[4096];
    if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy)
        return fail("-drive: too long");
    char *rest = copy, *part;
    while ((part = strsep(&rest, ","))) {
        char *value = strchr(part, '=');
        if (!value && part == copy) { /* FILE alone, or first */
            if (drive_key(path, sizeof vmm->drive_paths[0], disk, "file", part) < 0)
                return -1;
            continue;
        }
        if (!value) {
            fprintf(stderr, "ballast-vmm: -drive: '%s' is not KEY=VALUE\n", part);
            return -1;
        }
        *value++ = 0;
        if (drive_key(path, sizeof vmm->drive_paths[0], disk, part, value) < 0)
            return -1;
    }
    return path[0] ? 0 : fail("-drive: no file=");
}

static int set_memory(struct vmm *vmm, const char *text)
{
    struct err err;
    if (!strncmp(text, "size=", 5))
        text += 5;
    if (size_parse(text, MIB, &vmm->settings.memory_bytes, &err) < 0) {
        fprintf(stderr, "ballast-vmm: -m: %s\n", err.text);
        return -1;
    }
    return 0;
}

static int set_smp(struct vmm *vmm, const char *text)
{
    (void)vmm;
    return !strcmp(text, "1") || !strcmp(text, "cpus=1") ? 0
                                                         : fail("-smp: one hart is what there is");
}

static int set_kernel(struct vmm *vmm, const char *text)
{
    vmm->settings.kernel = text;
    return 0;
}

static int set_initrd(struct vmm *vmm, const char *text)
{
    vmm->settings.initrd = text;
    return 0;
}

static int set_append(struct vmm *vmm, const char *text)
{
    vmm->settings.append = text;
    return 0;
}

static int set_name(struct vmm *vmm, const char *text)
{
    vmm->settings.name = text;
    return 0;
}

static int set_no_reboot(struct vmm *vmm, const char *text)
{
    (void)text;
    vmm->no_reboot = true;
    return 0;
}

static int set_verbose(struct vmm *vmm, const char *text)
{
    (void)text;
    vmm->verbose = true;
    return 0;
}

static int set_sv48(struct vmm *vmm, const char *text)
{
    (void)text;
    vmm->settings.sv48 = true;
    return 0;
}

static int accept_only(struct vmm *vmm, const char *text)
{
    (void)vmm;
    (void)text;
    return 0;
}

static const struct {
    const char *name;
    bool value;
    int (*set)(struct vmm *vmm, const char *text);
} options[] = {
    {"m", true, set_memory},
    {"kernel", true, set_kernel},
    {"initrd", true, set_initrd},
    {"append", true, set_append},
    {"drive", true, add_drive},
    {"name", true, set_name},
    {"smp", true, set_smp},
    {"nographic", false, accept_only},
    {"no-reboot", false, set_no_reboot},
    {"sv48", false, set_sv48},
    {"verbose", false, set_verbose},
};

/* 1: go on; 0: done (help); -1: refused, said. */
static int read_options(struct vmm *vmm, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            fprintf(stderr, "ballast-vmm: '%s' is not an option; see -help\n", argv[i]);
            return -1;
        }
        const char *name = argv[i] + 1 + (argv[i][1] == '-');
        if (!strcmp(name, "help") || !strcmp(name, "h")) {
            fputs(usage, stdout);
            return 0;
        }
        if (!strcmp(name, "version")) {
            puts("ballast-vmm " BALLAST_VERSION);
            return 0;
        }
        size_t found = 0;
        while (found < sizeof options / sizeof options[0] && strcmp(options[found].name, name) != 0)
            found++;
        if (found == sizeof options / sizeof options[0]) {
            fprintf(stderr, "ballast-vmm: unknown option '%s'; see -help\n", argv[i]);
            return -1;
        }
        if (options[found].value && i + 1 == argc) {
            fprintf(stderr, "ballast-vmm: %s needs a value\n", argv[i]);
            return -1;
        }
        if (options[found].set(vmm, options[found].value ? argv[++i] : NULL) < 0)
            return -1;
    }
    return vmm->settings.kernel ? 1 : fail("no -kernel given; see -help");
}

/* ---- the monitor ---- */

static void show_info(struct vmm *vmm)
{
    struct vm *vm = supervisor_first_vm(vmm->supervisor);
    struct vm_row row;
    char text[700], memory[32], held[32], overhead[32];
    if (!vm)
        return;
    supervisor_vm_row(vmm->supervisor, vm, &row);
    snprintf(text, sizeof text,
             "%s: %s, memory %s, allocated %s, ballooned %" PRIu64 " pages, paged %" PRIu64
             " pages\n"
             "instructions %" PRIu64 ", traps %" PRIu64 ", shadow fills %" PRIu64 ", overhead %s\n",
             row.name, row.state, size_format(row.memory_pages * 4096, memory),
             size_format(row.allocated_pages * 4096, held), row.balloon_pages, row.paged_pages,
             row.instructions, row.traps, row.shadow_fills,
             size_format(row.overhead.total_bytes, overhead));
    terminal_say(vmm->terminal, text);
}

static void on_checked(void *ctx, const struct check_result *result)
{
    struct vmm *vmm = ctx;
    char text[400];
    if (!vmm->terminal)
        return;
    snprintf(text, sizeof text, "%s: %" PRIu64 " violations%s%s\n", result->ok ? "sound" : "BROKEN",
             result->violations, result->described ? ", the first: " : "",
             result->described ? result->violation[0].text : "");
    terminal_say(vmm->terminal, text);
    terminal_prompt(vmm->terminal);
}

static void on_done(void *ctx, int result, const struct err *err)
{
    struct vmm *vmm = ctx;
    if (result < 0 && vmm->terminal) {
        terminal_say(vmm->terminal, err->text);
        terminal_say(vmm->terminal, "\n");
    }
}

static void on_quit_done(void *ctx, int result, const struct err *err)
{
    (void)result;
    (void)err;
    sd_event_exit(((struct vmm *)ctx)->event, 0);
}

static void quit(void *ctx)
{
    struct vmm *vmm = ctx;
    if (supervisor_quit(vmm->supervisor, on_quit_done, vmm, NULL) == 0) {
        vmm->exit_status = 1; /* 0 says that the guest powered off */
        snprintf(vmm->last_words, sizeof vmm->last_words, "terminated");
    }
}

static void on_command(void *ctx, const char *line)
{
    struct vmm *vmm = ctx;
    struct vm *vm = supervisor_first_vm(vmm->supervisor);
    struct err err = {0};
    int result = 0;
    if (!strcmp(line, "quit") || !strcmp(line, "q"))
        quit(vmm);
    else if (!strcmp(line, "info") || !strcmp(line, "info status"))
        show_info(vmm);
    else if (!strcmp(line, "check"))
        result = supervisor_check(vmm->supervisor, on_checked, vmm, &err);
    else if (!strcmp(line, "stop") && vm)
        result = supervisor_pause_vm(vmm->supervisor, vm, on_done, vmm, &err);
    else if ((!strcmp(line, "cont") || !strcmp(line, "c")) && vm)
        result = supervisor_resume_vm(vmm->supervisor, vm, on_done, vmm, &err);
    else if (line[0])
        terminal_say(vmm->terminal, "info, check, stop, cont, quit; Ctrl-a c goes back\n");
    if (result < 0) {
        terminal_say(vmm->terminal, err.text);
        terminal_say(vmm->terminal, "\n");
    }
    terminal_prompt(vmm->terminal);
}

/* ---- running ---- */

static void on_event(void *ctx, const struct supervisor_event *event)
{
    struct vmm *vmm = ctx;
    if (vmm->verbose)
        fprintf(stderr, "ballast-vmm: %s: %s\r\n", event->kind, event->text);
    if (strcmp(event->kind, "vm-stopped") != 0 || vmm->exit_status >= 0)
        return;
    struct vm *vm = supervisor_first_vm(vmm->supervisor);
    struct vm_row row;
    supervisor_vm_row(vmm->supervisor, vm, &row);
    vmm->exit_status = row.exit_clean ? 0 : 1;
    if (!row.exit_clean)
        snprintf(vmm->last_words, sizeof vmm->last_words, "%s", row.exit_text);
    sd_event_exit(vmm->event, 0);
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *how, void *ctx)
{
    (void)source;
    struct vmm *vmm = ctx;
    snprintf(vmm->last_words, sizeof vmm->last_words, "ended by signal %u", how->ssi_signo);
    vmm->exit_status = 1;
    if (supervisor_quit(vmm->supervisor, on_quit_done, vmm, NULL) < 0)
        sd_event_exit(vmm->event, 0);
    return 0;
}

static int start(struct vmm *vmm, struct err *err)
{
    struct supervisor_config config;
    supervisor_config_default(&config);
    uint64_t memory = vmm->settings.memory_bytes;
    config.machine_bytes =
        (memory + memory / HEADROOM_DIVISOR + HEADROOM_BYTES) & ~(VM_UNIT_BYTES - 1);
    config.run_dir = NULL;
    config.policy = "static";
    config.no_reboot = vmm->no_reboot;
    config.sharing.enabled = false; /* one VM with all the memory it may have gains nothing */
    vmm->settings.min_bytes = memory;
    if (sd_event_default(&vmm->event) < 0 || end_signals_watch(vmm->event, on_signal, vmm) < 0)
        return err_set(err, 0, "event loop");
    vmm->supervisor = supervisor_new(&config, vmm->event, err);
    if (!vmm->supervisor || !supervisor_listen(vmm->supervisor, on_event, vmm))
        return -1;
    struct terminal_calls calls = {.ctx = vmm, .quit = quit, .command = on_command};
    int guest_in, guest_out;
    vmm->terminal = terminal_new(vmm->event, &calls, &guest_in, &guest_out, err);
    if (!vmm->terminal)
        return -1;
    vmm->settings.terminal = true;
    vmm->settings.uart = (struct vm_console_settings){guest_in, guest_out};
    struct vm *vm = supervisor_create_vm(vmm->supervisor, &vmm->settings, err);
    close(guest_in);
    close(guest_out);
    return vm ? 0 : -1;
}

int main(int argc, char **argv)
{
    static struct vmm vmm = {.exit_status = -1};
    vm_settings_default(&vmm.settings);
    vmm.settings.name = "vm";
    vmm.settings.memory_bytes = DEFAULT_BYTES;
    vmm.settings.deflate_on_oom = true;
    int result = read_options(&vmm, argc, argv);
    if (result <= 0)
        return result < 0 ? 1 : 0;

    struct err err = {0};
    result = start(&vmm, &err);
    if (result == 0 && sd_event_loop(vmm.event) < 0)
        result = err_set(&err, 0, "event loop");
    struct terminal *terminal = vmm.terminal;
    vmm.terminal = NULL;
    supervisor_free(vmm.supervisor);
    terminal_free(terminal);
    sd_event_unref(vmm.event);
    if (result < 0) {
        fprintf(stderr, "ballast-vmm: %s\n", err.text);
        return 1;
    }
    if (vmm.last_words[0])
        fprintf(stderr, "ballast-vmm: %s\n", vmm.last_words);
    return vmm.exit_status;
}
