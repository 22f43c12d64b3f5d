/*
 * What a worker taken over by its guest can do to the supervisor: any messages
 * in any order on its ring, any values in the counters of both rings, in the
 * statistics and in the pmap. Whatever it does, the frame table stays true, the
 * supervisor's count of the VM's frames equals the table's, and another VM
 * keeps every frame.
 *
 * The supervisor is the real one with two VMs that have no processes; the
 * input is a list of steps for the one that lies.
 */
#include "daemon/supervisor_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define MIB         (UINT64_C(1) << 20)
#define MACHINE_MIB 64
#define VM_MIB      16
#define HELD_PAGES  40u
#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "ring: %s\n", #condition);                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static struct supervisor *supervisor;
static struct vm *honest, *liar;
static char folder[] = "/tmp/ballast-fuzz-XXXXXX";

static sd_event *event;

static void remove_folder(void)
{
    char command[100];
    supervisor_free(supervisor); /* VMs live where a leak checker does not look */
    sd_event_unref(event);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    if (system(command) != 0)
        fprintf(stderr, "ring: %s is left behind\n", folder);
}

static struct vm *make_vm(const char *name)
{
    struct err err = {0};
    struct vm_settings settings;
    vm_settings_default(&settings);
    settings.name = name;
    settings.memory_bytes = VM_MIB * MIB;
    settings.min_bytes = VM_MIB / 2 * MIB;
    settings.kernel = "/dev/null";
    settings.no_start = true;
    struct vm *vm = supervisor_create_vm(supervisor, &settings, &err);
    if (!vm)
        fprintf(stderr, "ring: %s\n", err.text);
    REQUIRE(vm);
    return vm;
}

static void make_host(void)
{
    struct supervisor_config config;
    struct err err = {0};
    supervisor_config_default(&config);
    REQUIRE(mkdtemp(folder));
    atexit(remove_folder);
    config.machine_bytes = MACHINE_MIB * MIB;
    config.run_dir = folder;
    config.worker_path = "/bin/true";
    config.overhead_bytes = MIB;
    config.random_seed = 1;
    REQUIRE(sd_event_new(&event) >= 0);
    supervisor = supervisor_new(&config, event, &err);
    if (!supervisor)
        fprintf(stderr, "ring: %s\n", err.text);
    REQUIRE(supervisor);
    honest = make_vm("honest");
    liar = make_vm("liar");
}

static uint64_t count_frames(const struct vm *vm)
{
    uint64_t count = 0;
    for (mpn_t mpn = 0; mpn < machine_memory_pages(supervisor->machine); mpn++)
        count += machine_memory_is_private(supervisor->machine, vm->number, mpn);
    return count;
}

static void hold_frames(struct vm *vm)
{
    mpn_t first;
    while (vm->held_pages < HELD_PAGES)
        vm->held_pages += machine_memory_take(supervisor->machine, vm->number, NO_MPN,
                                              HELD_PAGES - (uint32_t)vm->held_pages, &first);
}

/* A running worker's rings, without the worker: a descriptor that takes no signal in its place. */
static void attach(struct vm *vm)
{
    vm->region_bytes = vm_region_bytes((uint32_t)vm->memory_pages);
    vm->region =
        mmap(NULL, vm->region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(vm->region != MAP_FAILED);
    vm_region_init(vm->region, (uint32_t)vm->memory_pages,
                   machine_memory_pages(supervisor->machine));
    vm->to_worker = vm_region_to_worker(vm->region);
    vm->to_supervisor = vm_region_to_supervisor(vm->region);
    vm->put_count = vm->take_count = 0;
    vm->pid_fd = eventfd(0, EFD_CLOEXEC);
    vm->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    vm->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    vm->life = LIFE_RUNNING;
    hold_frames(vm);
}

static void detach(struct vm *vm)
{
    requests_stale(vm);
    machine_memory_give_back_all(supervisor->machine, vm->number);
    worker_clear(vm);
    vm_frames_reset(vm);
    vm->held_pages = 0;
    vm->life = LIFE_NEW;
}

/* ---- the input as steps ---- */

struct input {
    const uint8_t *bytes;
    size_t left;
};

static uint8_t next_byte(struct input *in)
{
    if (!in->left)
        return 0;
    in->left--;
    return *in->bytes++;
}

/* Numbers near what matters: small, a frame of its own or of the other, the ends of ranges. */
static uint64_t next_number(struct input *in)
{
    static const uint64_t ends[] = {
        MACHINE_MIB * 256 - 1, MACHINE_MIB * 256, VM_MIB * 256, RING_SLOTS, UINT32_MAX, UINT64_MAX,
        UINT64_C(1) << 63,     UINT64_C(1) << 32};
    uint8_t kind = next_byte(in), low = next_byte(in);
    switch (kind % 4) {
    case 0:
        return low;
    case 1:
        return ends[low % (sizeof ends / sizeof ends[0])];
    case 2:
        return (uint64_t)low << 8 | next_byte(in);
    default:
        return (uint64_t)next_byte(in) << (low % 64);
    }
}

static void say(struct input *in)
{
    uint8_t type = next_byte(in), count = next_byte(in);
    struct ring_message message = {.type = type < 230 ? RING_RELEASED + type % 4 : type,
                                   .count = count % 16,
                                   .order = count >= 250};
    message.value = next_number(in);
    message.value2 = (uint32_t)next_number(in);
    message.request = (uint32_t)next_number(in);
    for (unsigned i = 0; i < RING_BATCH; i++)
        message.numbers[i] = (uint32_t)next_number(in);
    ring_put(liar->to_supervisor, &message);
}

static void scribble(struct input *in)
{
    struct ring *rings[] = {liar->to_worker, liar->to_supervisor};
    struct ring *ring = rings[next_byte(in) % 2];
    uint64_t number = next_number(in);
    switch (next_byte(in) % 6) {
    case 0:
        atomic_store(&ring->head, number);
        break;
    case 1:
        atomic_store(&ring->tail, number);
        break;
    case 2: /* an honest turn of the worker's end */
        atomic_store(&liar->to_worker->head, atomic_load(&liar->to_worker->tail));
        break;
    case 3:
        atomic_store(&liar->region->stats.pool_pages, number);
        break;
    case 4:
        atomic_store(&vm_region_pmap(liar->region)[number % (VM_MIB * 256)], next_number(in));
        break;
    default:
        memset(liar->region->text, (int)number, sizeof liar->region->text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input in = {bytes, size};
    struct machine_counts counts;
    struct vm_row row;
    struct err err;
    if (!supervisor)
        make_host();
    attach(honest);
    attach(liar);
    while (in.left > 0) {
        switch (next_byte(&in) % 8) {
        case 0:
            scribble(&in);
            break;
        case 1:
            request_new(liar, RING_CHECK, next_number(&in), NULL, NULL, &err);
            break;
        case 2:
            supervisor_vm_row(supervisor, liar, &row);
            break;
        case 3:
            messages_on_notify(NULL, liar->notify_fd, 0, liar);
            break;
        default:
            say(&in);
        }
    }
    messages_on_notify(NULL, liar->notify_fd, 0, liar);

    REQUIRE(machine_memory_recount(supervisor->machine, &counts));
    REQUIRE(count_frames(honest) == HELD_PAGES && honest->held_pages == HELD_PAGES);
    REQUIRE(count_frames(liar) == liar->held_pages);
    detach(liar);
    detach(honest);
    counts = machine_memory_counts(supervisor->machine);
    REQUIRE(counts.free_pages == machine_memory_pages(supervisor->machine));
    return 0;
}
