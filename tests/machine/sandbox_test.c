/* What a worker can still do behind its sandbox, each tried in a process of its own. */
#include "daemon/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PRIVATE_BYTES (UINT64_C(256) << 20)

/* Run deed behind the sandbox; the wait status. A deed returns 0 when all was as expected. */
static int behind_the_sandbox(int (*deed)(void))
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct err err;
        if (sandbox_close(PRIVATE_BYTES, &err)) {
            (void)!write(2, err.text, strlen(err.text));
            _exit(99);
        }
        _exit(deed());
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void *thread_main(void *argument)
{
    return argument;
}

static int ordinary_work(void)
{
    pthread_t thread;
    int token;
    void *result;
    if (pthread_create(&thread, NULL, thread_main, &token) || pthread_join(thread, &result) ||
        result != &token)
        return 1;
    char *memory = malloc(50 << 20);
    if (!memory)
        return 2;
    memset(memory, 1, 50 << 20);
    free(memory);
    int ends[2] = {-1, -1};
    if (pread(0, ends, 0, 0) > 0) /* I/O on what is open */
        return 3;
    return usleep(1000) ? 4 : 0;
}

static int opening_files(void)
{
    return open("/etc/passwd", O_RDONLY) == -1 && errno == EACCES ? 0 : 1;
}

static int executing_programs(void)
{
    execl("/bin/true", "true", (char *)NULL);
    return 1;
}

static int making_sockets(void)
{
    socket(AF_INET, SOCK_STREAM, 0);
    return 1;
}

static int making_processes(void)
{
    fork();
    return 1;
}

static int killing_others(void)
{
    kill(getppid(), 0);
    return 1;
}

static int executable_memory(void)
{
    mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return 1;
}

static int aborting(void)
{
    abort();
}

static int ends_of_pipe[2];

static int waiting(void)
{
    char byte;
    return read(ends_of_pipe[0], &byte, 1) == 1 ? 0 : 1;
}

static void ordinary_work_goes_on(void **state)
{
    (void)state;
    assert_int_equal(behind_the_sandbox(ordinary_work), 0);
}

static void opening_files_fails_politely(void **state)
{
    (void)state;
    if (!sandbox_filters())
        skip();
    assert_int_equal(behind_the_sandbox(opening_files), 0);
}

static void everything_else_is_fatal(void **state)
{
    (void)state;
    static int (*const deeds[])(void) = {executing_programs, making_sockets, making_processes,
                                         killing_others, executable_memory};
    if (!sandbox_filters())
        skip();
    for (unsigned i = 0; i < sizeof deeds / sizeof deeds[0]; i++) {
        int status = behind_the_sandbox(deeds[i]);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGSYS);
    }
}

static void a_broken_invariant_still_aborts(void **state)
{
    (void)state;
    int status = behind_the_sandbox(aborting);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void limits_are_set(void **state)
{
    (void)state;
    int ready[2];
    struct rlimit core, files;
    assert_int_equal(pipe(ends_of_pipe), 0);
    assert_int_equal(pipe(ready), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        if (sandbox_close(PRIVATE_BYTES, NULL))
            _exit(99);
        (void)!write(ready[1], "x", 1);
        _exit(waiting());
    }
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(prlimit(child, RLIMIT_CORE, NULL, &core), 0);
    assert_int_equal(prlimit(child, RLIMIT_NOFILE, NULL, &files), 0);
    assert_int_equal(core.rlim_max, 0);
    assert_true(files.rlim_max <= 128);
    (void)!write(ends_of_pipe[1], "x", 1);
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

static void a_worker_without_supervisor_is_told(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    close(ends[0]); /* before there is a child: nobody reads it when the child looks */
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        struct err err;
        _exit(sandbox_follow_parent(&err) == -1 && strstr(err.text, "gone") ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    close(ends[1]);
    assert_int_equal(status, 0);
    /* With the supervisor there, nothing is wrong. */
    assert_int_equal(pipe(ends), 0);
    child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        struct err err;
        _exit(sandbox_follow_parent(&err) == 0 ? 0 : 1);
    }
    waitpid(child, &status, 0);
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ordinary_work_goes_on),
        cmocka_unit_test(opening_files_fails_politely),
        cmocka_unit_test(everything_else_is_fatal),
        cmocka_unit_test(a_broken_invariant_still_aborts),
        cmocka_unit_test(limits_are_set),
        cmocka_unit_test(a_worker_without_supervisor_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
