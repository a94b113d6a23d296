/* Starts a program in a state that no shell can make: descriptors, limits, timers, signals, the environment and the
 * argument list entry by entry, keyrings, scheduling, the identity of the web server.
 *
 * usage: call ORDERS      ORDERS is a file of NUL-ended words; each order is a verb and its fixed number of words.
 * Orders are obeyed one after the other; the last one is `exec PATH`. A failed order ends with status 250 and says so.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static char *at, *end;
static char **arguments, **entries;
static size_t argument_count, entry_count;

static void stop(const char *what)
{
    fprintf(stderr, "call: %s: %s\n", what, strerror(errno));
    _exit(250);
}

static void need(long result, const char *what)
{
    if (result < 0) stop(what);
}

static char *word(void)
{
    if (at >= end) {
        errno = EINVAL;
        stop("orders end early");
    }
    char *start = at;
    at += strlen(at) + 1;
    return start;
}

static long number(void)
{
    return strtol(word(), NULL, 0);
}

static void add(char ***list, size_t *count, char *value)
{
    if ((*count & (*count - 1)) == 0 || *count == 0) {
        size_t room = *count ? *count * 2 : 1;
        *list = realloc(*list, (room + 1) * sizeof **list);
        if (!*list) stop("memory");
    }
    (*list)[(*count)++] = value;
    (*list)[*count] = NULL;
}

static void place(int fd, int target)
{
    need(fd, "open a descriptor");
    if (fd != target) {
        need(dup2(fd, target), "dup2");
        close(fd);
    }
}

/* fd TARGET KIND PATH */
static void descriptor(void)
{
    int target = (int)number();
    const char *kind = word(), *path = word();
    int pair[2];
    if (!strcmp(kind, "read")) place(open(path, O_RDONLY), target);
    else if (!strcmp(kind, "write")) place(open(path, O_WRONLY | O_CREAT | O_APPEND, 0644), target);
    else if (!strcmp(kind, "path")) place(open(path, O_PATH), target);
    else if (!strcmp(kind, "directory")) place(open(path, O_RDONLY | O_DIRECTORY), target);
    else if (!strcmp(kind, "memory")) place((int)syscall(SYS_memfd_create, "call", 0), target);
    else if (!strcmp(kind, "epoll")) place(epoll_create1(0), target);
    else if (!strcmp(kind, "socket")) {
        need(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
        place(pair[0], target);
    } else if (!strcmp(kind, "pipe")) {
        need(pipe(pair), "pipe");
        place(pair[1], target);
    } else if (!strcmp(kind, "listen")) {
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        strncpy(name.sun_path, path, sizeof name.sun_path - 1);
        int made = socket(AF_UNIX, SOCK_STREAM, 0);
        need(made, "socket");
        need(bind(made, (struct sockaddr *)&name, sizeof name), "bind");
        need(listen(made, 5), "listen");
        place(made, target);
    } else {
        errno = EINVAL;
        stop(kind);
    }
}

static void signals(int ignore)
{
    const char *which = word();
    sigset_t set;
    sigemptyset(&set);
    for (int i = 1; i < NSIG; i++) {
        if (strcmp(which, "all") && atoi(which) != i) continue;
        if (ignore) signal(i, SIG_IGN);
        else sigaddset(&set, i);
    }
    if (!ignore) need(sigprocmask(SIG_BLOCK, &set, NULL), "sigprocmask");
}

static void timer(void)
{
    const char *kind = word();
    long milliseconds = number();
    int which = !strcmp(kind, "real") ? ITIMER_REAL : !strcmp(kind, "virtual") ? ITIMER_VIRTUAL : ITIMER_PROF;
    struct itimerval value = {{0, 0}, {milliseconds / 1000, milliseconds % 1000 * 1000}};
    need(setitimer(which, &value, NULL), "setitimer");
}

static void limit(void)
{
    int which = (int)number();
    struct rlimit value;
    value.rlim_cur = strtoull(word(), NULL, 0);
    value.rlim_max = strtoull(word(), NULL, 0);
    need(setrlimit(which, &value), "setrlimit");
}

/* soft NUMBER VALUE: nobody but root could give back the hard limit. */
static void soft_limit(void)
{
    int which = (int)number();
    struct rlimit value;
    need(getrlimit(which, &value), "getrlimit");
    value.rlim_cur = strtoull(word(), NULL, 0);
    need(setrlimit(which, &value), "setrlimit");
}

static void keyring(void)
{
    need(syscall(SYS_keyctl, 1, "cellwall-call"), "join session keyring");
    need(syscall(SYS_add_key, "user", "cellwall-test", "secret", 6, -3), "add key");
    /* Anybody who has the keyring may read it. */
    need(syscall(SYS_keyctl, 5, syscall(SYS_keyctl, 0, -3, 0), 0x3f3f3f3f), "keyring permissions");
}

/* become UID GID GROUPS: groups separated by commas */
static void become(void)
{
    uid_t uid = (uid_t)number();
    gid_t gid = (gid_t)number(), groups[64];
    size_t count = 0;
    for (char *one = strtok(word(), ","); one && count < 64; one = strtok(NULL, ",")) groups[count++] = (gid_t)atoi(one);
    need(setgroups(count, groups), "setgroups");
    need(setresgid(gid, gid, gid), "setresgid");
    need(setresuid(uid, uid, uid), "setresuid");
    prctl(PR_SET_DUMPABLE, 1);
}

static void put(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY);
    need(fd, path);
    need(write(fd, value, strlen(value)), path);
    close(fd);
}

/* A user namespace in which the caller is root: all the capabilities there, none outside. */
static void user_namespace(void)
{
    char map[64];
    uid_t uid = geteuid();
    gid_t gid = getegid();
    need(unshare(CLONE_NEWUSER), "user namespace");
    put("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "0 %u 1", uid);
    put("/proc/self/uid_map", map);
    snprintf(map, sizeof map, "0 %u 1", gid);
    put("/proc/self/gid_map", map);
}

/* The parent goes as soon as the program runs. */
static void orphan(void)
{
    pid_t child = fork();
    need(child, "fork");
    if (child > 0) {
        usleep(300000);
        _exit(0);
    }
}

/* deep NAME COUNT: a chain of directories, one inside the other, and stay in the last. */
static void deep(void)
{
    const char *name = word();
    for (long left = number(); left > 0; left--) {
        need(mkdir(name, 0755), "mkdir");
        need(chdir(name), "chdir");
    }
}

/* inherit NUMBER: a capability in the inheritable set, as a unit's AmbientCapabilities= leaves it. */
static void inherit(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];
    need(syscall(SYS_capget, &header, sets), "capget");
    sets[0].inheritable |= 1u << number();
    need(syscall(SYS_capset, &header, sets), "capset");
}

/* capability PATH: the file gets cap_net_raw, permitted and effective. */
static void file_capability(void)
{
    const unsigned int value[5] = {0x02000001, 1 << 13, 0, 0, 0};
    need(setxattr(word(), "security.capability", value, sizeof value, 0), "setxattr");
}

/* Whoever started this program is its tracer from here on, and is waited for. */
static void traced(void)
{
    need(ptrace(PTRACE_TRACEME, 0, NULL, NULL), "ptrace");
    need(raise(SIGSTOP), "stop");
}

/* A new network has its loopback interface down. */
static void loopback(void)
{
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    need(fd, "socket");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    need(ioctl(fd, SIOCSIFFLAGS, &request), "loopback");
}

static void obey(const char *verb)
{
    if (!strcmp(verb, "arg")) add(&arguments, &argument_count, word());
    else if (!strcmp(verb, "args")) {
        long count = number();
        char *value = word();
        while (count-- > 0) add(&arguments, &argument_count, value);
    } else if (!strcmp(verb, "env")) add(&entries, &entry_count, word());
    else if (!strcmp(verb, "fd")) descriptor();
    else if (!strcmp(verb, "close")) close((int)number());
    else if (!strcmp(verb, "cwd")) need(chdir(word()), "chdir");
    else if (!strcmp(verb, "rmdir")) need(rmdir(word()), "rmdir");
    else if (!strcmp(verb, "umask")) umask((mode_t)number());
    else if (!strcmp(verb, "limit")) limit();
    else if (!strcmp(verb, "soft")) soft_limit();
    else if (!strcmp(verb, "ignore")) signals(1);
    else if (!strcmp(verb, "block")) signals(0);
    else if (!strcmp(verb, "timer")) timer();
    else if (!strcmp(verb, "nice")) need(setpriority(PRIO_PROCESS, 0, (int)number()), "nice");
    else if (!strcmp(verb, "batch")) {
        struct sched_param none = {0};
        need(sched_setscheduler(0, (int)number(), &none), "scheduler");
    } else if (!strcmp(verb, "cpus")) {
        cpu_set_t set;
        CPU_ZERO(&set);
        for (long i = number(); i > 0; i--) CPU_SET((int)i - 1, &set);
        need(sched_setaffinity(0, sizeof set, &set), "affinity");
    } else if (!strcmp(verb, "io")) need(syscall(SYS_ioprio_set, 1, 0, (int)number()), "ioprio");
    else if (!strcmp(verb, "slack")) need(prctl(PR_SET_TIMERSLACK, number()), "timer slack");
    else if (!strcmp(verb, "write")) {
        const char *path = word();
        put(path, word());
    } else if (!strcmp(verb, "keyring")) keyring();
    else if (!strcmp(verb, "no_new_privs")) need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    else if (!strcmp(verb, "securebits")) need(prctl(PR_SET_SECUREBITS, number()), "securebits");
    else if (!strcmp(verb, "bound")) need(prctl(PR_CAPBSET_DROP, number(), 0, 0, 0), "bounding set");
    else if (!strcmp(verb, "inherit")) inherit();
    else if (!strcmp(verb, "personality")) need(personality((unsigned long)number()) == -1 ? -1 : 0, "personality");
    else if (!strcmp(verb, "huge_pages_off")) need(prctl(PR_SET_THP_DISABLE, number(), 0, 0, 0), "huge pages");
    else if (!strcmp(verb, "memory_policy")) {
        unsigned long node = 1;
        need(syscall(SYS_set_mempolicy, (int)number(), &node, 8 * sizeof node), "memory policy");
    } else if (!strcmp(verb, "death")) need(prctl(PR_SET_PDEATHSIG, number()), "death signal");
    else if (!strcmp(verb, "become")) become();
    else if (!strcmp(verb, "userns")) user_namespace();
    else if (!strcmp(verb, "orphan")) orphan();
    else if (!strcmp(verb, "deep")) deep();
    else if (!strcmp(verb, "traced")) traced();
    else if (!strcmp(verb, "capability")) {
        file_capability();
        exit(0);
    } else if (!strcmp(verb, "loopback")) {
        loopback();
        exit(0);
    }
    else if (!strcmp(verb, "exec")) {
        char *none[] = {NULL};
        char *path = word();
        execve(path, arguments ? arguments : none, entries ? entries : none);
        stop(path);
    } else {
        errno = EINVAL;
        stop(verb);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        errno = EINVAL;
        stop("usage: call ORDERS");
    }
    /* What the test's own surroundings left open, ignored or blocked is no part of a test. */
    need(close_range(3, ~0U, 0), "close_range");
    for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    need(sigprocmask(SIG_SETMASK, &none, NULL), "sigprocmask");
    int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    need(fd, argv[1]);
    struct stat facts;
    need(fstat(fd, &facts), "fstat");
    at = mmap(NULL, (size_t)facts.st_size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED) stop("mmap");
    end = at + facts.st_size;
    close(fd);
    while (at < end) obey(word());
    errno = EINVAL;
    stop("no exec order");
}
