/*
 * ballast-worker: one VM. Takes its descriptors and configuration as
 * worker_fds.h says, builds the machine, opens everything, closes the sandbox
 * behind itself, loads the guest and runs it. Not started by hand.
 */
#include "daemon/sandbox.h"
#include "daemon/vm_config.h"
#include "daemon/worker_fds.h"
#include "vmm-core/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Private memory of a worker: what it needs for itself, and tables that grow with guest memory. */
#define PRIVATE_BYTES          (UINT64_C(192) << 20)
#define PRIVATE_BYTES_PER_PAGE 64u

static int read_config(struct vm_config *config, struct err *err)
{
    char *text = malloc(VM_CONFIG_MAX_BYTES + 1);
    if (!text)
        return err_set(err, ENOMEM, "VM configuration");
    size_t used = 0;
    ssize_t got;
    while (used <= VM_CONFIG_MAX_BYTES &&
           (got = read(WORKER_FD_CONFIG, text + used, VM_CONFIG_MAX_BYTES + 1 - used)) != 0) {
        if (got < 0 && errno != EINTR) {
            free(text);
            return err_set(err, errno, "VM configuration: read descriptor %d", WORKER_FD_CONFIG);
        }
        used += got > 0 ? (size_t)got : 0;
    }
    int result = vm_config_parse(text, used, config, err);
    free(text);
    close(WORKER_FD_CONFIG);
    return result;
}

/* Map a memfd whole. */
static void *map_all(int fd, const char *what, uint64_t *bytes, struct err *err)
{
    struct stat status;
    if (fstat(fd, &status)) {
        err_set(err, errno, "%s (descriptor %d)", what, fd);
        return NULL;
    }
    *bytes = (uint64_t)status.st_size;
    void *at = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED) {
        err_set(err, errno, "map %s of %llu bytes", what, (unsigned long long)*bytes);
        return NULL;
    }
    close(fd);
    return at;
}

static int map_memory(const struct vm_config *config, struct gmem_config *memory, struct err *err)
{
    uint64_t region_bytes, machine_bytes;
    struct vm_region *region = map_all(WORKER_FD_REGION, "shared region", &region_bytes, err);
    if (!region)
        return -1;
    if (region_bytes < sizeof *region ||
        region_bytes != vm_region_bytes((uint32_t)(config->ram_bytes / PAGE_BYTES)))
        return err_set(err, 0, "the shared region has %llu bytes, which is not that of this VM",
                       (unsigned long long)region_bytes);
    uint8_t *machine = map_all(WORKER_FD_MACHINE, "machine memory", &machine_bytes, err);
    if (!machine)
        return -1;
    if (machine_bytes != (uint64_t)region->machine_pages * PAGE_BYTES)
        return err_set(err, 0, "machine memory has %llu bytes, not %u pages",
                       (unsigned long long)machine_bytes, region->machine_pages);
    *memory = (struct gmem_config){
        .region = region,
        .machine = machine,
        .kick_fd = WORKER_FD_KICK,
        .notify_fd = WORKER_FD_NOTIFY,
        .swap_fd = config->swap_slots ? WORKER_FD_SWAP : -1,
        .swap_slots = config->swap_slots,
        .random_seed = config->random_seed,
    };
    return 0;
}

static struct machine_console console_of(const struct vm_config_console *console,
                                         enum worker_fd first)
{
    return (struct machine_console){
        .in_fd = console->in ? (int)first : -1,
        .out_fd = console->out ? (int)first + 1 : -1,
        .listen_fd = console->listen ? (int)first + 2 : -1,
    };
}

static struct machine *build(const struct vm_config *config, struct err *err)
{
    struct gmem_config memory;
    if (map_memory(config, &memory, err))
        return NULL;
    struct machine_config machine = {
        .name = config->name,
        .ram_bytes = config->ram_bytes,
        .kernel = config->kernel,
        .initrd = config->initrd,
        .append = config->append,
        .disk_count = config->disk_count,
        .uart = console_of(&config->uart, WORKER_FD_UART_IN),
        .virtcon = console_of(&config->virtcon, WORKER_FD_VIRTCON_IN),
        .have_virtcon = config->virtcon.present,
        .have_balloon = true,
        .have_rng = true,
        .deflate_on_oom = config->deflate_on_oom,
        .free_page_reporting = config->free_page_reporting,
        .sv48 = config->sv48,
    };
    for (unsigned i = 0; i < config->disk_count; i++)
        machine.disks[i] = (struct machine_disk){.path = config->disks[i].path,
                                                 .read_only = config->disks[i].read_only};
    return machine_new(&machine, &memory, err);
}

static enum worker_exit exit_status(enum machine_end end)
{
    switch (end) {
    case MACHINE_POWEROFF:
        return WORKER_EXIT_POWEROFF;
    case MACHINE_REBOOT:
        return WORKER_EXIT_REBOOT;
    case MACHINE_FAILED:
        return WORKER_EXIT_FAILED;
    case MACHINE_QUIT:
        return WORKER_EXIT_QUIT;
    }
    return WORKER_EXIT_ERROR;
}

static int run(enum worker_exit *status, struct err *err)
{
    struct vm_config config;
    signal(SIGPIPE, SIG_IGN);
    if (sandbox_follow_parent(err) || read_config(&config, err))
        return -1;
    uint64_t private_bytes = PRIVATE_BYTES + config.ram_bytes / PAGE_BYTES * PRIVATE_BYTES_PER_PAGE;
    struct machine *machine = build(&config, err);
    vm_config_free(&config);
    if (!machine)
        return -1;
    int result = machine_dump_on_signal(machine, err);
    if (!result)
        result = sandbox_close(private_bytes, err);
    if (!result)
        result = machine_load(machine, err);
    if (!result)
        *status = exit_status(machine_run(machine));
    machine_free(machine);
    return result;
}

int main(int argc, char **argv)
{
    struct err err = {0};
    enum worker_exit status = WORKER_EXIT_ERROR;
    const char *name = argc > 1 ? argv[1] : "?";
    if (run(&status, &err))
        fprintf(stderr, "ballast-worker: VM %s: %s\n", name, err.text);
    return (int)status;
}
