/* Pausing as one mutex, one condition and two counts; pause_gate.h says how it is used. */
#include "vmm-core/machine/pause_gate.h"

void pause_gate_init(struct pause_gate *gate)
{
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->changed, NULL);
    atomic_init(&gate->pause_wanted, false);
    atomic_init(&gate->ended, false);
    gate->members = gate->quiet = 0;
}

void pause_gate_destroy(struct pause_gate *gate)
{
    pthread_cond_destroy(&gate->changed);
    pthread_mutex_destroy(&gate->lock);
}

static void count_member(struct pause_gate *gate, int change)
{
    pthread_mutex_lock(&gate->lock);
    gate->members += (unsigned)change;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

void pause_gate_join(struct pause_gate *gate)
{
    count_member(gate, 1);
}

void pause_gate_leave(struct pause_gate *gate)
{
    count_member(gate, -1);
}

bool pause_gate_pass(struct pause_gate *gate)
{
    if (!atomic_load(&gate->pause_wanted) && !atomic_load(&gate->ended))
        return true;
    pthread_mutex_lock(&gate->lock);
    gate->quiet++;
    pthread_cond_broadcast(&gate->changed);
    while (gate->pause_wanted && !gate->ended)
        pthread_cond_wait(&gate->changed, &gate->lock);
    gate->quiet--;
    bool go_on = !gate->ended;
    pthread_mutex_unlock(&gate->lock);
    return go_on;
}

static void set_flag(struct pause_gate *gate, _Atomic bool *flag, bool value)
{
    pthread_mutex_lock(&gate->lock);
    atomic_store(flag, value);
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

void pause_gate_want(struct pause_gate *gate)
{
    set_flag(gate, &gate->pause_wanted, true);
}

void pause_gate_wait_quiet(struct pause_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    while (gate->quiet < gate->members && gate->pause_wanted && !gate->ended)
        pthread_cond_wait(&gate->changed, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

void pause_gate_resume(struct pause_gate *gate)
{
    set_flag(gate, &gate->pause_wanted, false);
}

void pause_gate_end(struct pause_gate *gate)
{
    set_flag(gate, &gate->ended, true);
}
