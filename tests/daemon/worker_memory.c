#include "tests/daemon/worker_memory.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static uint64_t random_state;

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_changed = PTHREAD_COND_INITIALIZER;
static bool paused, quiet;

uint64_t worker_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

void worker_memory_gate(void)
{
    pthread_mutex_lock(&gate);
    while (paused) {
        quiet = true;
        pthread_cond_broadcast(&gate_changed);
        pthread_cond_wait(&gate_changed, &gate);
    }
    quiet = false;
    pthread_mutex_unlock(&gate);
}

static void set_paused(void *ctx, bool on)
{
    (void)ctx;
    pthread_mutex_lock(&gate);
    paused = on;
    pthread_cond_broadcast(&gate_changed);
    while (on && !quiet)
        pthread_cond_wait(&gate_changed, &gate);
    pthread_mutex_unlock(&gate);
}

static void park(void *ctx)
{
    (void)ctx;
    worker_memory_gate();
}

static void quit(void *ctx)
{
    (void)ctx;
    _exit(WORKER_EXIT_QUIT);
}

void worker_memory_open(struct gmem **gmem, const struct worker_parts *parts,
                        void (*set_balloon)(void *ctx, uint64_t target_pages))
{
    struct err err;
    struct gmem_config config = {
        .region = parts->region,
        .machine = parts->machine,
        .kick_fd = WORKER_FD_KICK,
        .notify_fd = WORKER_FD_NOTIFY,
        .swap_fd = parts->config.swap_slots ? WORKER_FD_SWAP : -1,
        .swap_slots = parts->config.swap_slots,
        .random_seed = parts->config.random_seed,
        .set_balloon = set_balloon,
        .set_paused = set_paused,
        .quit = quit,
        .park = park,
    };
    random_state = parts->config.random_seed | 1;
    *gmem = gmem_new(&config, &err);
    if (!*gmem || gmem_start(*gmem, &err) < 0) {
        fprintf(stderr, "test worker: %s\n", err.text);
        _exit(WORKER_EXIT_ERROR);
    }
}
