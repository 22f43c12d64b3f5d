/*
 * Devices with all the threads around them at work: drivers on threads of their
 * own, the device thread, guest memory that is paged because there are too few
 * frames, targets set by a supervisor, and pauses in between. What was written to
 * the disk must come back, and no reset may leave the device at work. Run under
 * ThreadSanitizer too.
 */
#include "balloon-driver/balloon_wire.h"
#include "tests/dev/virtio_rig.h"
#include "tests/mem/fake_supervisor.h"
#include "vmm-core/machine/device_thread.h"

#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define RAM_PAGES     512
#define MACHINE_PAGES 200
#define HALF_PAGES    (RAM_PAGES / 2) /* the block driver's, then the balloon driver's */
#define DISK_PAGES    64
#define BLOCK_ROUNDS  400
#define WRITE         VIRTQ_DESC_WRITE

struct scene {
    struct fake_supervisor *s;
    struct pause_gate gate;
    struct device_thread *thread;
    struct virtio_env env;
    struct rig block, balloon;
    int disk_fd;
    _Atomic bool finish;
    _Atomic unsigned broken; /* promises */
};

static void ignore_irq(void *controller, unsigned source, bool level)
{
    (void)controller;
    (void)source;
    (void)level;
}

/* A rig over the scene's memory and thread. */
static void open_rig(struct scene *scene, struct rig *rig, struct virtio_device *device,
                     ppn_t first_ppn)
{
    struct err err = {0};
    const struct irq_line irq = {.set = ignore_irq};
    assert_non_null(device);
    *rig = (struct rig){.gmem = scene->s->gmem, .env = scene->env, .device = device};
    rig->next_free_pa = page_pa(first_ppn);
    assert_int_equal(virtio_attach(device, &rig->bus, RIG_DEVICE_PA, &irq, &err), 0);
}

static int open_scene(void **state)
{
    static struct scene scene;
    struct err err = {0};
    const struct fake_host host = {.ram_pages = RAM_PAGES,
                                   .machine_pages = MACHINE_PAGES,
                                   .swap_slots = RAM_PAGES,
                                   .swap_fd = -1,
                                   .seed = 1};
    memset(&scene, 0, sizeof scene);
    scene.s = fake_supervisor_new(&host);
    pause_gate_init(&scene.gate);
    scene.thread = device_thread_new(&scene.gate, &err);
    scene.env = (struct virtio_env){.gmem = scene.s->gmem, .thread = scene.thread};
    scene.disk_fd = memfd_create("disk", MFD_CLOEXEC);
    *state = &scene;
    return scene.thread && ftruncate(scene.disk_fd, DISK_PAGES * PAGE_BYTES) == 0 ? 0 : -1;
}

static void close_scene(struct scene *scene)
{
    pause_gate_end(&scene->gate);
    gmem_stop(scene->s->gmem);
    device_thread_stop(scene->thread);
    virtio_device_free(scene->block.device);
    virtio_device_free(scene->balloon.device);
    device_thread_free(scene->thread);
    pause_gate_destroy(&scene->gate);
    fake_supervisor_free(scene->s);
    close(scene->disk_fd);
}

/* Wait up to ten seconds for the next used element. */
static bool await_used(struct rig *rig, unsigned queue)
{
    time_t end = time(NULL) + 10;
    while (!rig_used(rig, queue, NULL, NULL)) {
        if (time(NULL) > end)
            return false;
        sched_yield();
    }
    return true;
}

/* ---- The block driver ---- */

static bool request(struct rig *rig, uint32_t type, uint64_t sector, uint64_t pa, uint32_t bytes,
                    bool await)
{
    const struct block_request header = {type, 0, sector};
    uint8_t status = 0xff;
    uint64_t header_pa = rig->next_free_pa;
    gmem_write(rig->gmem, header_pa, &header, sizeof header);
    rig_offer(rig, 0, {header_pa, sizeof header, 0}, {pa, bytes, type == BLOCK_READ ? WRITE : 0},
              {header_pa + 64, 1, WRITE});
    if (!await)
        return true;
    return await_used(rig, 0) && gmem_read(rig->gmem, header_pa + 64, &status, 1) &&
           status == BLOCK_OK;
}

static void *drive_block(void *argument)
{
    struct scene *scene = argument;
    struct rig *rig = &scene->block;
    static uint8_t out[8 * PAGE_BYTES], in[8 * PAGE_BYTES];
    uint32_t random = 12345;
    for (unsigned round = 0; round < BLOCK_ROUNDS && !scene->broken; round++) {
        random = random * 1103515245 + 12345;
        uint64_t sector = (random >> 16) % (DISK_PAGES - 8) * 8;
        uint64_t pa = page_pa(16 + (random >> 8) % (HALF_PAGES - 32));
        if (round % 16 == 0) {
            rig->next_free_pa = page_pa(0);
            rig_fill(rig, page_pa(0), 0, PAGE_BYTES * 2);
            rig_start(rig, round % 32 ? UINT64_C(1) << VIRTIO_F_EVENT_IDX : 0, 1);
        }
        memset(out, (int)(random >> 24), sizeof out);
        bool ok = gmem_write(scene->s->gmem, pa, out, sizeof out) &&
                  request(rig, BLOCK_WRITE, sector, pa, sizeof out, true);
        memset(in, 0, sizeof in);
        ok = ok && gmem_write(scene->s->gmem, pa, in, sizeof in) &&
             request(rig, BLOCK_READ, sector, pa, sizeof in, true) &&
             gmem_read(scene->s->gmem, pa, in, sizeof in) && memcmp(in, out, sizeof in) == 0;
        if (!ok)
            scene->broken++;
        if (round % 16 == 15) { /* a reset in the middle of a read: the memory is ours again */
            request(rig, BLOCK_READ, sector, pa, sizeof in, false);
            rig_write(rig, VIRTIO_MMIO_STATUS, 0);
            memset(out, 0x77, sizeof out);
            gmem_write(scene->s->gmem, pa, out, sizeof out);
            sched_yield();
            gmem_read(scene->s->gmem, pa, in, sizeof in);
            scene->broken += memcmp(in, out, sizeof in) != 0;
        }
    }
    scene->finish = true;
    return NULL;
}

/* ---- The balloon driver: follows the target with pages of its half ---- */

static bool tell(struct rig *rig, unsigned queue, ppn_t ppn, uint32_t count)
{
    balloon_page_number numbers[16];
    for (uint32_t i = 0; i < count; i++)
        numbers[i] = (balloon_page_number)(page_pa(ppn + i) >> BALLOON_PAGE_SHIFT);
    gmem_write(rig->gmem, rig->next_free_pa, numbers, sizeof numbers);
    rig_offer(rig, queue, {rig->next_free_pa, count * 4, 0});
    return await_used(rig, queue);
}

static void *drive_balloon(void *argument)
{
    struct scene *scene = argument;
    struct rig *rig = &scene->balloon;
    const ppn_t first = HALF_PAGES + 16;
    uint32_t held = 0;
    rig_start(rig, 0, 2);
    while (!scene->finish && !scene->broken) {
        uint32_t target = rig_read(rig, VIRTIO_MMIO_CONFIG) % (HALF_PAGES - 32) & ~15u;
        uint8_t byte = 1;
        if (held < target) {
            gmem_write(rig->gmem, page_pa(first + held), &byte, 1);
            scene->broken += !tell(rig, BALLOON_QUEUE_INFLATE, first + held, 16);
            held += 16;
        } else if (held > target) {
            held -= 16;
            scene->broken += !tell(rig, BALLOON_QUEUE_DEFLATE, first + held, 16);
        }
        rig_write(rig, VIRTIO_MMIO_CONFIG + 4, held);
        rig_take_interrupt(rig);
    }
    return NULL;
}

/* ---- The supervisor: targets and pauses ---- */

static void *supervise(void *argument)
{
    struct scene *scene = argument;
    for (uint64_t round = 0; !scene->finish; round++) {
        virtio_balloon_set(scene->balloon.device, round * 37 % RAM_PAGES);
        pause_gate_want(&scene->gate);
        device_thread_wake(scene->thread);
        pause_gate_wait_quiet(&scene->gate);
        pause_gate_resume(&scene->gate);
        usleep(500);
    }
    return NULL;
}

static void devices_and_paging_and_pauses_agree(void **state)
{
    struct scene *scene = *state;
    const struct virtio_balloon_options options = {0};
    struct err err = {0};
    char path[64];
    void *(*const actors[])(void *) = {drive_block, drive_balloon, supervise};
    pthread_t threads[3];
    snprintf(path, sizeof path, "/proc/self/fd/%d", scene->disk_fd);
    open_rig(scene, &scene->block, virtio_block_new(&scene->env, path, false, &err), 0);
    open_rig(scene, &scene->balloon, virtio_balloon_new(&scene->env, &options, &err), HALF_PAGES);
    assert_int_equal(device_thread_start(scene->thread, &err), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, actors[i], scene), 0);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    uint64_t swap_out_pages = gmem_stats(scene->s->gmem)->swap_out_pages;
    close_scene(scene);
    assert_int_equal(scene->broken, 0);
    assert_true(swap_out_pages > 0); /* or it was too easy */
}

/* ---- A device that is kept at its work ---- */

static sem_t at_work, let_go;

static void stay(struct virtio_device *device, unsigned index)
{
    (void)device;
    (void)index;
    sem_post(&at_work);
    sem_wait(&let_go);
}

static void no_free(struct virtio_device *device)
{
    (void)device;
}

static struct {
    _Atomic unsigned left, pauses, entered;
} outside;

static void note_left(void *ctx)
{
    (void)ctx;
    outside.left++;
}

static void note_pause_point(void *ctx)
{
    (void)ctx;
    if (outside.pauses++ == 3) /* the pause is over: the device may go on */
        sem_post(&let_go);
}

static void note_entered(void *ctx)
{
    (void)ctx;
    outside.entered++;
}

static void a_reset_waits_outside_guest_code_and_passes_pauses(void **state)
{
    static const struct virtio_ops ops = {
        .name = "stubborn",
        .device_id = 99,
        .queue_count = 1,
        .queue_size = 16,
        .queue = stay,
        .free = no_free,
    };
    struct scene *scene = *state;
    struct virtio_device device = {0};
    struct err err = {0};
    sem_init(&at_work, 0, 0);
    sem_init(&let_go, 0, 0);
    scene->env.leave_guest = note_left;
    scene->env.pause_point = note_pause_point;
    scene->env.enter_guest = note_entered;
    assert_int_equal(virtio_device_init(&device, &ops, &scene->env, 0, &err), 0);
    open_rig(scene, &scene->block, &device, 0);
    assert_int_equal(device_thread_start(scene->thread, &err), 0);
    rig_start(&scene->block, 0, 1);
    sem_wait(&at_work);
    rig_write(&scene->block, VIRTIO_MMIO_STATUS, 0);
    assert_int_equal(outside.left, 1);
    assert_true(outside.pauses > 3);
    assert_int_equal(outside.entered, 1);
    assert_int_equal(rig_read(&scene->block, VIRTIO_MMIO_STATUS), 0);
    close_scene(scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(devices_and_paging_and_pauses_agree, open_scene),
        cmocka_unit_test_setup(a_reset_waits_outside_guest_code_and_passes_pauses, open_scene),
    };
    return cmocka_run_group_tests_name("virtio threads", tests, NULL, NULL);
}
