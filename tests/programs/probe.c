/* The program of a site that tells what it was given. Static; /proc is not needed.
 *
 * It leaves a marker <uid>-<pid> below /var/marks or /var/stray-marks where it can, and prints one fact a line: a name, a blank, a value.
 * Foreign bytes are written \xNN. What the query string asks for with do= is tried after the facts are told.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void text(const char *name, const char *value)
{
    printf("%s ", name);
    for (const unsigned char *at = (const unsigned char *)value; *at; at++) {
        if (*at >= 0x20 && *at < 0x7f && *at != '\\') putchar(*at);
        else printf("\\x%02x", *at);
    }
    putchar('\n');
}

static void attempt(const char *name, long result)
{
    printf("try %s %s\n", name, result < 0 ? strerrorname_np(errno) : "done");
}

static void identity(void)
{
    uid_t u[3];
    gid_t g[3], groups[256];
    getresuid(&u[0], &u[1], &u[2]);
    getresgid(&g[0], &g[1], &g[2]);
    printf("uid %u %u %u\ngid %u %u %u\n", u[0], u[1], u[2], g[0], g[1], g[2]);
    int count = getgroups(256, groups);
    printf("groups");
    for (int i = 0; i < count; i++) printf(" %u", groups[i]);
    putchar('\n');

    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct caps[2] = {{0}};
    long got = syscall(SYS_capget, &head, caps);
    uint64_t bounding = 0, ambient = 0;
    for (int cap = 0; cap < 64; cap++) {
        if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1) bounding |= 1ULL << cap;
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1) ambient |= 1ULL << cap;
    }
    if (got == 0) {
        printf("cap_effective %08x%08x\n", caps[1].effective, caps[0].effective);
        printf("cap_permitted %08x%08x\n", caps[1].permitted, caps[0].permitted);
        printf("cap_inheritable %08x%08x\n", caps[1].inheritable, caps[0].inheritable);
    }
    printf("cap_bounding %016llx\ncap_ambient %016llx\n", (unsigned long long)bounding, (unsigned long long)ambient);
    printf("no_new_privs %d\nsecurebits %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), prctl(PR_GET_SECUREBITS));
    printf("seccomp %d\n", prctl(PR_GET_SECCOMP));
}

static void limits(void)
{
    static const char *names[] = {"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock",
                                  "as", "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime"};
    for (int i = 0; i < 16; i++) {
        struct rlimit now = {0, 0};
        getrlimit(i, &now);
        printf("limit_%s %llu %llu\n", names[i], (unsigned long long)now.rlim_cur, (unsigned long long)now.rlim_max);
    }
}

static void signals(void)
{
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    printf("blocked");
    for (int i = 1; i < NSIG; i++) if (sigismember(&blocked, i) == 1) printf(" %d", i);
    printf("\nignored");
    for (int i = 1; i < NSIG; i++) {
        struct sigaction action;
        if (sigaction(i, NULL, &action) == 0 && action.sa_handler == SIG_IGN) printf(" %d", i);
    }
    putchar('\n');
    static const int which[] = {ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF};
    static const char *names[] = {"timer_real", "timer_virtual", "timer_prof"};
    for (int i = 0; i < 3; i++) {
        struct itimerval now = {{0, 0}, {0, 0}};
        getitimer(which[i], &now);
        printf("%s %ld.%06ld\n", names[i], (long)now.it_value.tv_sec, (long)now.it_value.tv_usec);
    }
}

static void scheduling(void)
{
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    sched_getaffinity(0, sizeof cpus, &cpus);
    errno = 0;
    printf("nice %d\nscheduler %d\ncpus %d\n", getpriority(PRIO_PROCESS, 0), sched_getscheduler(0), CPU_COUNT(&cpus));
    printf("io_priority %ld\ntimer_slack %d\n", syscall(SYS_ioprio_get, 1, 0), prctl(PR_GET_TIMERSLACK));
    printf("personality %d\nhuge_pages_off %d\n", personality(0xffffffff), prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    int policy = -1;
    if (syscall(SYS_get_mempolicy, &policy, NULL, 0, NULL, 0) == 0) printf("memory_policy %d\n", policy);
    int deathsig = -1;
    prctl(PR_GET_PDEATHSIG, &deathsig);
    printf("death_signal %d\ndumpable %d\n", deathsig, prctl(PR_GET_DUMPABLE));
    char score[16] = "";
    int fd = open("/proc/self/oom_score_adj", O_RDONLY);
    if (fd >= 0) {
        ssize_t got = read(fd, score, sizeof score - 1);
        if (got > 0) score[strcspn(score, "\n")] = 0;
        close(fd);
        printf("oom_score %s\n", score);
    }
}

static void surroundings(int argc, char **argv)
{
    /* Before anything is opened here: what was handed over. */
    char cwd[8192];
    mode_t mask = umask(0);
    umask(mask);
    printf("umask %03o\n", mask);
    text("cwd", getcwd(cwd, sizeof cwd) ? cwd : strerrorname_np(errno));
    printf("pid %d\nparent %d\ngroup %d\nsession %d\n", getpid(), getppid(), getpgid(0), getsid(0));
    int tty = open("/dev/tty", O_RDWR);
    printf("tty %s\n", tty >= 0 ? "yes" : "no");
    if (tty >= 0) close(tty);
    long serial = syscall(SYS_keyctl, 0, -3, 0);
    printf("session_keyring %ld\n", serial);
    long key = syscall(SYS_keyctl, 10, -3, "user", "cellwall-test", 0);
    printf("session_key %s\n", key < 0 ? strerrorname_np(errno) : "found");
    struct stat root;
    if (stat("/", &root) == 0) printf("root %llu:%llu\n", (unsigned long long)root.st_dev, (unsigned long long)root.st_ino);
    for (int i = 0; i < argc && i < 64; i++) text("arg", argv[i]);
    size_t words = 0;
    for (int i = 0; i < argc; i++) words += strlen(argv[i]) + 1;
    printf("arguments %d\nargument_bytes %zu\n", argc, words);
    size_t entries = 0, bytes = 0;
    for (char **at = environ; *at; at++) {
        entries++;
        bytes += strlen(*at) + 1;
        if (strlen(*at) <= 4096) text("env", *at);
        else printf("env_long %.60s %zu\n", *at, strlen(*at));
    }
    printf("entries %zu\nentry_bytes %zu\n", entries, bytes);
}

static void try_escalation(void)
{
    gid_t none = 0;
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct all[2] = {{~0u, ~0u, 0}, {0x1ff, 0x1ff, 0}};
    attempt("setuid", syscall(SYS_setuid, 0));
    attempt("setresuid", syscall(SYS_setresuid, -1, 0, 0));
    attempt("setgid", syscall(SYS_setgid, 0));
    attempt("setresgid", syscall(SYS_setresgid, -1, 0, 0));
    attempt("setgroups", syscall(SYS_setgroups, 1, &none));
    attempt("setfsuid", syscall(SYS_setfsuid, 0) == 0 || syscall(SYS_setfsuid, -1) == 0 ? 0 : (errno = EPERM, -1));
    attempt("capset", syscall(SYS_capset, &head, all));
    attempt("chroot", syscall(SYS_chroot, "/"));
    attempt("userns", syscall(SYS_unshare, 0x10000000));
    attempt("www_data", syscall(SYS_setuid, 33));
    attempt("nice", syscall(SYS_setpriority, PRIO_PROCESS, 0, -5));
}

static void try_reading(const char *path)
{
    struct stat facts;
    attempt("stat", stat(path, &facts));
    int fd = open(path, O_RDONLY);
    attempt("open", fd);
    if (fd >= 0) {
        char start[64];
        ssize_t got = read(fd, start, sizeof start - 1);
        if (got > 0) {
            start[got] = 0;
            text("content", start);
        }
    }
}

static void wait_and_burn(void)
{
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        for (volatile int i = 0; i < 1000000; i++) { }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < 600);
    struct timespec pause = {0, 500000000};
    while (nanosleep(&pause, &pause) != 0) { }
}

static void act(const char *wish)
{
    if (strncmp(wish, "escalate", 8) == 0) try_escalation();
    else if (strncmp(wish, "read:", 5) == 0) try_reading(wish + 5);
    else if (strncmp(wish, "burn", 4) == 0) wait_and_burn();
    else if (strncmp(wish, "sleep:", 6) == 0) { fflush(stdout); sleep((unsigned)atoi(wish + 6)); }
    else if (strncmp(wish, "exit:", 5) == 0) { printf("end\n"); fflush(stdout); _exit(atoi(wish + 5)); }
    else if (strncmp(wish, "kill:", 5) == 0) { fflush(stdout); raise(atoi(wish + 5)); }
    else if (strncmp(wish, "push", 4) == 0) attempt("push", ioctl(0, TIOCSTI, "x"));
    else if (strncmp(wish, "say", 3) == 0) {
        /* Each descriptor gets its own word: none may turn up where another belongs. */
        fflush(stdout);
        attempt("say_in", write(0, "word-in\n", 8));
        attempt("say_out", write(1, "word-out\n", 9));
        attempt("say_err", write(2, "word-err\n", 9));
    }
}

int main(int argc, char **argv)
{
    /* Taken before stdio or anything else may open one. */
    static char open_ones[1 << 20];
    size_t used = 0;
    const char *query = getenv("QUERY_STRING");
    unsigned long most = query && strstr(query, "high") ? 1100000 : 4096;
    for (unsigned long fd = 0; fd < most && used < sizeof open_ones - 16; fd++)
        if (fcntl((int)fd, F_GETFD) >= 0) used += (size_t)sprintf(open_ones + used, " %lu", fd);

    /* A site's own directory where there is one; else the one for all. */
    char marker[256];
    const char *user = getenv("USER");
    snprintf(marker, sizeof marker, "/var/marks/%s/%u-%d", user ? user : ".", getuid(), getpid());
    int mark = open(marker, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (mark < 0) {
        snprintf(marker, sizeof marker, "/var/stray-marks/%u-%d", getuid(), getpid());
        mark = open(marker, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    }
    if (mark >= 0) close(mark);

    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    printf("Content-Type: text/plain\r\n\r\nprobe\nfds%s\nmarker %s\n", open_ones, mark >= 0 ? marker : "none");
    identity();
    limits();
    signals();
    scheduling();
    surroundings(argc, argv);
    fflush(stdout);
    const char *wish = query ? strstr(query, "do=") : NULL;
    if (wish && (wish == query || wish[-1] == '&')) act(wish + 3);
    printf("end\n");
    return fflush(stdout) == 0 ? 0 : 1;
}
