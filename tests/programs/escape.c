/* The program of a site that tries to get out. Static; each attempt is made in a child of its own.
 *
 * As a program of a site: QUERY_STRING is NAME:VALUE&NAME:VALUE…, and each gives a line `try NAME RESULT`, where RESULT
 * is `done`, the name of an error, or `killed N`. Outside: `escape serve ABSTRACT PATH` hands a descriptor of the
 * host's root to whoever connects; `escape hunt PROGRAM VICTIM` takes hold
 * of such processes until its input ends.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <netinet/in.h>
#include <unistd.h>

/* The file that is on the host and in no cell. */
#define CANARY "srv/canary"

static long opened(int directory, const char *path)
{
    char byte;
    int fd = openat(directory, path, O_RDONLY | O_NOCTTY | O_NONBLOCK);
    return fd < 0 ? -1 : read(fd, &byte, 1);
}

static long climb(const char *path)
{
    for (int i = 0; i < 64; i++)
        if (chdir("..") != 0) break;
    return opened(AT_FDCWD, path);
}

/* Any descriptor of a directory would be a door. */
static long descriptors(const char *path)
{
    for (int fd = 0; fd < 1024; fd++)
        if (opened(fd, path) >= 0 || (fd > 2 && fcntl(fd, F_GETFD) >= 0)) return 0;
    errno = ENOENT;
    return -1;
}

/* Below /proc/PID: root, cwd, fd, environ, mem. */
static long of_process(const char *pid, const char *what)
{
    char path[256];
    snprintf(path, sizeof path, "/proc/%s/%s", pid, what);
    return opened(AT_FDCWD, path);
}

/* At the same address in every process of this program: it is linked to a fixed place. */
static const char here = 'x';

static long memory_of(const char *pid)
{
    char path[64], byte;
    snprintf(path, sizeof path, "/proc/%s/mem", pid);
    int fd = open(path, O_RDONLY);
    return fd < 0 ? -1 : pread(fd, &byte, 1, (off_t)(size_t)&here);
}

static long connected(const char *name, int abstract, int type)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path + abstract, name, sizeof to.sun_path - 2);
    int fd = socket(AF_UNIX, type, 0);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name) + (size_t)abstract);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, abstract ? length : sizeof to) != 0) return -1;
    return fd;
}

/* Takes the descriptor that the helper offers, and opens the canary beneath it. */
static long through(const char *name, int abstract)
{
    char byte, room[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    int fd = (int)connected(name, abstract, SOCK_STREAM), door;
    if (fd < 0 || recvmsg(fd, &message, 0) < 0) return -1;
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (!head) {
        errno = ENOMSG;
        return -1;
    }
    memcpy(&door, CMSG_DATA(head), sizeof door);
    return opened(door, CANARY);
}

static long read_memory(pid_t pid)
{
    char byte;
    struct iovec own = {&byte, 1}, other = {(void *)&here, 1};
    return process_vm_readv(pid, &own, 1, &other, 1, 0);
}

static long take_descriptor(pid_t pid)
{
    int process = (int)syscall(SYS_pidfd_open, pid, 0);
    return process < 0 ? -1 : syscall(SYS_pidfd_getfd, process, 0, 0);
}

static long by_handle(void)
{
    struct file_handle *handle = calloc(1, sizeof *handle + 8);
    handle->handle_bytes = 8;
    handle->handle_type = 1;
    handle->f_handle[0] = 2;
    return syscall(SYS_open_by_handle_at, AT_FDCWD, handle, O_RDONLY);
}

#ifdef __x86_64__
/* Numbers of x32 from here on are handed to whoever listens, who is returned: a filter of the process's own, and a weaker one
 * than any that denies. */
static int listener_for_x32(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

/* chroot("/") as x32 numbers it. A kernel without x32 says ENOSYS, as the cell's filter does: so EXDEV is the answer where no
 * filter stands before the listener's. */
static long x32_door(void)
{
    int listener = listener_for_x32(), status = 0;
    if (listener < 0) return -1;
    pid_t child = fork();
    if (child == 0) _exit(syscall(0x40000000 | 161, "/") < 0 ? errno : 0);
    while (waitpid(child, &status, WNOHANG) == 0) {
        struct pollfd heard = {listener, POLLIN, 0};
        struct seccomp_notif call = {0};
        if (poll(&heard, 1, 20) < 1 || ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) continue;
        struct seccomp_notif_resp answer = {.id = call.id, .error = -EXDEV};
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
    if (WIFSIGNALED(status)) raise(WTERMSIG(status));
    errno = WEXITSTATUS(status);
    return errno ? -1 : 0;
}

/* The doors of other architectures into the same kernel. */
static long foreign_door(const char *which)
{
    long answer = -1;
    if (!strcmp(which, "x32")) return x32_door();
    /* getpid, which everybody may, as i386 numbers it. */
    __asm__ volatile("int $0x80" : "=a"(answer) : "a"(20L) : "memory");
    return answer;
}
#else
static long foreign_door(const char *which)
{
    (void)which;
    errno = ENOSYS;
    return -1;
}
#endif

static long datagram(const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, (struct sockaddr *)&to, sizeof to);
}

static int is(const char *name, const char *other)
{
    return strcmp(name, other) == 0;
}

static long by_path(const char *name, char *value)
{
    struct stat facts;
    struct statvfs system;
    if (is(name, "climb")) return climb(value);
    if (is(name, "descriptors")) return descriptors(value);
    if (is(name, "open")) return opened(AT_FDCWD, value);
    if (is(name, "write")) return open(value, O_WRONLY | O_APPEND);
    if (is(name, "truncate")) return truncate(value, 0);
    if (is(name, "list")) return open(value, O_RDONLY | O_DIRECTORY);
    if (is(name, "create")) return open(value, O_CREAT | O_EXCL | O_WRONLY, 0644);
    if (is(name, "mkdir")) return mkdir(value, 0755);
    if (is(name, "unlink")) return unlink(value);
    if (is(name, "symlink")) return symlink("x", value);
    if (is(name, "rename")) return rename(value, strcat(strcpy(malloc(4096), value), ".moved"));
    if (is(name, "link")) return link(value, strcat(strcpy(malloc(4096), value), ".linked"));
    if (is(name, "stat")) return stat(value, &facts);
    if (is(name, "access")) return access(value, F_OK);
    if (is(name, "readlink")) return readlink(value, malloc(4096), 4096);
    if (is(name, "chdir")) return chdir(value);
    if (is(name, "opath")) return open(value, O_PATH);
    if (is(name, "statvfs")) return statvfs(value, &system);
    if (is(name, "inotify")) return inotify_add_watch(inotify_init1(0), value, IN_OPEN);
    if (is(name, "chmod")) return chmod(value, 0600);
    if (is(name, "chown")) return chown(value, (uid_t)-1, getgid());
    if (is(name, "utimes")) return utimensat(AT_FDCWD, value, NULL, 0);
    if (is(name, "xattr")) return setxattr(value, "user.cellwall", "x", 1, 0);
    if (is(name, "execute")) return execl(value, value, (char *)NULL);
    errno = ENOSYS;
    return -2;
}

static long by_process(const char *name, char *value)
{
    if (is(name, "proc-root")) return of_process(value, "root/" CANARY);
    if (is(name, "proc-cwd")) return of_process(value, "cwd/" CANARY);
    if (is(name, "proc-fd")) return of_process(value, "fd/3/" CANARY);
    if (is(name, "proc-environ")) return of_process(value, "environ");
    if (is(name, "proc-mem")) return memory_of(value);
    if (is(name, "ptrace")) return ptrace(PTRACE_SEIZE, atoi(value), 0, 0);
    if (is(name, "readv")) return read_memory(atoi(value));
    if (is(name, "getfd")) return take_descriptor(atoi(value));
    if (is(name, "signal")) return kill(atoi(value), 0);
    if (is(name, "abstract")) return connected(value, 1, SOCK_STREAM);
    if (is(name, "abstract-door")) return through(value, 1);
    if (is(name, "socket")) return through(value, 0);
    if (is(name, "connect")) return connected(value, 0, SOCK_STREAM);
    if (is(name, "udp")) return datagram(value);
    return -2;
}

static long by_call(const char *name, const char *value)
{
    char attributes[128] = {0};
    if (is(name, "mount")) return mount("none", "/", "tmpfs", 0, NULL);
    if (is(name, "umount")) return umount2("/", MNT_DETACH);
    if (is(name, "pivot_root")) return syscall(SYS_pivot_root, ".", ".");
    if (is(name, "chroot")) return chroot(".");
    if (is(name, "setns")) return setns(open("/proc/self/ns/mnt", O_RDONLY), 0);
    if (is(name, "userns")) return unshare(CLONE_NEWUSER);
    if (is(name, "mountns")) return unshare(CLONE_NEWNS);
    if (is(name, "clone-userns")) return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (is(name, "bpf")) return syscall(SYS_bpf, 0, attributes, sizeof attributes);
    if (is(name, "keyctl")) return syscall(SYS_keyctl, 0, -3, 1);
    if (is(name, "perf")) return syscall(SYS_perf_event_open, attributes, 0, -1, -1, 0);
    if (is(name, "handle")) return by_handle();
    if (is(name, "userfaultfd")) return syscall(SYS_userfaultfd, 0);
    if (is(name, "io_uring")) return syscall(SYS_io_uring_setup, 4, attributes);
    if (is(name, "memfd")) return syscall(SYS_memfd_create, "x", 0);
    if (is(name, "shm")) return shmat(atoi(value), NULL, SHM_RDONLY) == (void *)-1 ? -1 : 0;
    if (is(name, "segment")) return shmget(IPC_PRIVATE, (size_t)atoi(value), 0600);
    if (is(name, "semaphores")) return semget(IPC_PRIVATE, 1, 0600);
    if (is(name, "messages")) return msgget(IPC_PRIVATE, 0600);
    if (is(name, "queue")) return syscall(SYS_mq_open, value, O_RDWR | O_CREAT, 0600, NULL);
    if (is(name, "aio")) return syscall(SYS_io_setup, atoi(value), attributes);
    if (is(name, "mknod")) return mknod("node", S_IFBLK | 0600, 0);
    if (is(name, "push")) return ioctl(0, TIOCSTI, value);
    if (is(name, "foreign")) return foreign_door(value);
    if (is(name, "setuid")) return setuid(0);
    errno = EINVAL;
    return -1;
}

static long attempt(const char *name, char *value)
{
    long answer = by_path(name, value);
    if (answer == -2) answer = by_process(name, value);
    return answer == -2 ? by_call(name, value) : answer;
}

static void all_attempts(char *wishes)
{
    for (char *wish = strtok(wishes, "&"); wish; wish = strtok(NULL, "&")) {
        char *value = strchr(wish, ':');
        if (!value) continue;
        *value++ = 0;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            errno = 0;
            _exit(attempt(wish, value) < 0 ? errno : 0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status)) printf("try %s killed %d\n", wish, WTERMSIG(status));
        else printf("try %s %s\n", wish, WEXITSTATUS(status) ? strerrorname_np(WEXITSTATUS(status)) : "done");
    }
}

static int listening(const char *name, int abstract)
{
    struct sockaddr_un own = {.sun_family = AF_UNIX};
    strncpy(own.sun_path + abstract, name, sizeof own.sun_path - 2);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name) + (size_t)abstract);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&own, abstract ? length : sizeof own) != 0 || listen(fd, 50) != 0) exit(1);
    return fd;
}

static void serve(const char *abstract, const char *path)
{
    int door = open("/", O_RDONLY | O_DIRECTORY);
    struct pollfd both[2] = {{.fd = listening(abstract, 1), .events = POLLIN}, {.fd = listening(path, 0), .events = POLLIN}};
    chmod(path, 0777);
    printf("ready\n");
    fflush(stdout);
    while (poll(both, 2, -1) > 0) {
        for (int i = 0; i < 2; i++) {
            if (!(both[i].revents & POLLIN)) continue;
            char byte = 'x', room[CMSG_SPACE(sizeof door)];
            struct iovec part = {&byte, 1};
            struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
            struct cmsghdr *head = CMSG_FIRSTHDR(&message);
            head->cmsg_level = SOL_SOCKET;
            head->cmsg_type = SCM_RIGHTS;
            head->cmsg_len = CMSG_LEN(sizeof door);
            memcpy(CMSG_DATA(head), &door, sizeof door);
            int client = accept(both[i].fd, NULL, NULL);
            sendmsg(client, &message, MSG_NOSIGNAL);
            close(client);
        }
    }
}

/* Is the process still PROGRAM? A process never becomes it again: what is true after an attempt was true before. */
static int runs(pid_t pid, const char *program)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0) return 0;
    ssize_t got = read(fd, name, sizeof name - 1);
    close(fd);
    return got > 0 && strncmp(name, program, strlen(program)) == 0;
}

/* Every way in that a process of the same uid has. 0: none. */
static const char *taken(pid_t pid)
{
    char path[64], bytes[16];
    static const char *files[] = {"environ", "mem", "fd/0", "root/", "cwd/"};
    for (int i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", pid, files[i]);
        if (readlink(path, bytes, sizeof bytes) > 0 || opened(AT_FDCWD, path) >= 0) return files[i];
        int fd = open(path, O_RDONLY);
        if (fd >= 0) {
            close(fd);
            return files[i];
        }
    }
    int descriptor = (int)take_descriptor(pid);
    if (descriptor >= 0) {
        close(descriptor);
        return "pidfd_getfd";
    }
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
        ptrace(PTRACE_INTERRUPT, pid, 0, 0);
        waitpid(pid, NULL, __WALL);
        ptrace(PTRACE_DETACH, pid, 0, 0);
        return "ptrace";
    }
    return NULL;
}

/* PROGRAM while it prepares, and VICTIM, the site's own program, which shows that the hunter can hunt. */
static void hunt(const char *program, const char *victim)
{
    unsigned long tried = 0, own = 0;
    struct pollfd input = {.fd = 0, .events = POLLIN};
    while (poll(&input, 1, 0) == 0) {
        DIR *all = opendir("/proc");
        for (struct dirent *entry; (entry = readdir(all));) {
            pid_t pid = atoi(entry->d_name);
            int launcher = pid > 0 && runs(pid, program);
            if (!launcher && !(pid > 0 && runs(pid, victim))) continue;
            const char *how = taken(pid);
            tried += launcher;
            own += how && !runs(pid, program);
            if (how && runs(pid, program)) printf("breach %s\n", how);
        }
        closedir(all);
    }
    printf("tried %lu\nown %lu\n", tried, own);
}

int main(int argc, char **argv)
{
    if (argc == 4 && is(argv[1], "serve")) serve(argv[2], argv[3]);
    else if (argc == 4 && is(argv[1], "hunt")) hunt(argv[2], argv[3]);
    else {
        printf("Content-Type: text/plain\r\n\r\nprobe\nuid %u %u\nend\n", getuid(), geteuid());
        char *wishes = getenv("QUERY_STRING");
        if (wishes) all_attempts(wishes);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
