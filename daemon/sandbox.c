/*
 * The filter is two lists: calls that are allowed and calls that fail politely
 * because libraries try them and live without; a few are allowed by their
 * arguments. Everything else is fatal.
 */
#include "daemon/sandbox.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define MAX_DESCRIPTORS 128

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FILTERS false
#else
#define FILTERS true
#endif

static const int allowed[] = {
    /* I/O on what is open */
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(preadv),
    SCMP_SYS(pwritev),
    SCMP_SYS(preadv2),
    SCMP_SYS(pwritev2),
    SCMP_SYS(lseek),
    SCMP_SYS(fsync),
    SCMP_SYS(fdatasync),
    SCMP_SYS(fallocate),
    SCMP_SYS(close),
    SCMP_SYS(fstat),
    SCMP_SYS(accept4),
    SCMP_SYS(sendto),
    SCMP_SYS(recvfrom),
    SCMP_SYS(sendmsg),
    SCMP_SYS(recvmsg),
    SCMP_SYS(shutdown),
    /* waiting and time */
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(futex),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(sched_yield),
    /* memory; mmap and mprotect by their arguments, below */
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    /* threads and signals of our own; clone by its arguments, below */
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(getrandom),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

static const struct {
    int call, errnum;
} refused[] = {
    {SCMP_SYS(open), EACCES},     {SCMP_SYS(openat), EACCES}, {SCMP_SYS(newfstatat), EACCES},
    {SCMP_SYS(stat), EACCES},     {SCMP_SYS(statx), EACCES},  {SCMP_SYS(access), EACCES},
    {SCMP_SYS(readlink), EACCES}, {SCMP_SYS(ioctl), ENOTTY},  {SCMP_SYS(getcwd), EACCES},
    {SCMP_SYS(clone3), ENOSYS}, /* its flags lie in memory; the C library falls back to clone */
};

static int fill_filter(scmp_filter_ctx filter)
{
    int failed = 0;
    for (unsigned i = 0; i < sizeof allowed / sizeof allowed[0] && !failed; i++)
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
    for (unsigned i = 0; i < sizeof refused / sizeof refused[0] && !failed; i++)
        failed = seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint16_t)refused[i].errnum),
                                  refused[i].call, 0);
    if (failed)
        return failed;
    /* Data memory only; new threads, not processes; signals to ourselves (abort); thread names. */
    if ((failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                                   SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0))) ||
        (failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                                   SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0))) ||
        (failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                                   SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD))) ||
        (failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                                   SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()))) ||
        (failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
                                   SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME))))
        return failed;
    return seccomp_load(filter);
}

static int limit(int resource, uint64_t value, const char *what, struct err *err)
{
    struct rlimit now;
    if (getrlimit((__rlimit_resource_t)resource, &now))
        return err_set(err, errno, "limit of %s", what);
    if (value > now.rlim_max)
        value = now.rlim_max;
    struct rlimit wanted = {.rlim_cur = value, .rlim_max = value};
    if (setrlimit((__rlimit_resource_t)resource, &wanted))
        return err_set(err, errno, "limit %s to %llu", what, (unsigned long long)value);
    return 0;
}

int sandbox_follow_parent(struct err *err)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL))
        return err_set(err, errno, "PR_SET_PDEATHSIG");
    struct pollfd reader = {.fd = STDERR_FILENO}; /* asks for nothing but POLLERR */
    if (poll(&reader, 1, 0) == 1 && reader.revents & POLLERR)
        return err_set(err, 0, "the supervisor is gone");
    return 0;
}

bool sandbox_filters(void)
{
    return FILTERS;
}

int sandbox_close(uint64_t private_bytes, struct err *err)
{
    if (limit(RLIMIT_CORE, 0, "core size", err) ||
        limit(RLIMIT_NOFILE, MAX_DESCRIPTORS, "descriptors", err) ||
        (FILTERS && limit(RLIMIT_DATA, private_bytes, "private memory", err)))
        return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return err_set(err, errno, "PR_SET_NO_NEW_PRIVS");
    if (!FILTERS)
        return 0;
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!filter)
        return err_set(err, ENOMEM, "seccomp filter");
    int failed = fill_filter(filter);
    seccomp_release(filter);
    return failed ? err_set(err, -failed, "seccomp filter") : 0;
}
