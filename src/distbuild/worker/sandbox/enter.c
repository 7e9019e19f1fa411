/* Runs a command in namespaces that exist already, with mounts, processes and IPC of its own.
 *
 *   enter REPORT NAMESPACE... LIMIT... OPERATION... -- COMMAND...
 *
 * REPORT is the number of an inherited descriptor. The namespaces (user, cgroup, net, uts, mnt) are
 * paths; the limits are of address space (bytes), CPU time (seconds), file size (bytes) and the number
 * of processes. enter.py, which writes this line, describes the operations; they happen in the given
 * order.
 *
 * Three processes: the first stays outside; the second is the first one of the new process namespace,
 * reports the command's exit code and ends all others with itself; the third is the command. Each
 * ends when the one before does. Without a report the command did not run. Nothing here allocates
 * memory. Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FAILED = 125, SIGNALLED = 128 };
enum { NAMESPACES = 5, LIMITS = 4, FIRST_OPERATION = 2 + NAMESPACES + LIMITS };
/* linux/capability.h, which a C library need not come with. */
enum { CAPABILITY_VERSION = 0x20080522, CAPABILITY_WORDS = 2, MAX_CAPABILITY = 63 };

static _Noreturn void fail(const char *what, const char *which)
{
    (void)dprintf(STDERR_FILENO, "%s %s: %s\n", what, which, strerror(errno));
    _exit(FAILED);
}

static unsigned long long number(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0') {
        errno = EINVAL;
        fail("not a number:", text);
    }
    return value;
}

/* All are opened before the first is entered: afterwards the paths need not be readable. The first is
 * the user namespace, which owns the others: it gives the rights to enter them. */
static void enter_namespaces(char **paths)
{
    static const int kinds[NAMESPACES] = {CLONE_NEWUSER, CLONE_NEWCGROUP, CLONE_NEWNET, CLONE_NEWUTS,
                                          CLONE_NEWNS};
    int opened[NAMESPACES];
    for (int i = 0; i < NAMESPACES; i++)
        if ((opened[i] = open(paths[i], O_RDONLY | O_CLOEXEC)) < 0)
            fail("cannot open", paths[i]);
    for (int i = 0; i < NAMESPACES; i++)
        if (setns(opened[i], kinds[i]) != 0 || close(opened[i]) != 0)
            fail("cannot enter", paths[i]);
}

/* The limits that a parent sets after the start would come too late for a command started at once. */
static void set_limits(char **values)
{
    static const int kinds[LIMITS] = {RLIMIT_AS, RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_NPROC};
    for (int i = 0; i < LIMITS; i++) {
        struct rlimit limit;
        rlim_t value = (rlim_t)number(values[i]);
        if (getrlimit(kinds[i], &limit) != 0)
            fail("cannot read limit", values[i]);
        if (limit.rlim_max > value)
            limit.rlim_max = value;
        if (limit.rlim_cur > value)
            limit.rlim_cur = value;
        if (setrlimit(kinds[i], &limit) != 0)
            fail("cannot set limit", values[i]);
    }
}

/* Shows DIRECTORY with what is written there kept in LAYERS/up; a path without special characters. */
static int overlay(const char *directory, const char *layers)
{
    char options[512];
    int length = snprintf(options, sizeof options, "lowerdir=.,upperdir=%s/up,workdir=%s/work,userxattr",
                          layers, layers);
    if (length < 0 || (size_t)length >= sizeof options) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return chdir(directory) != 0
               ? -1
               : mount("overlay", directory, "overlay", MS_NOSUID | MS_NODEV, options);
}

/* Does the operation at *AT and moves behind it; false at the "--". */
static bool operate(char ***at)
{
    char **words = *at;
    const char *name = words[0];
    if (name == NULL || strcmp(name, "--") == 0)
        return false;
    bool has_two = strcmp(name, "bind") == 0 || strcmp(name, "move") == 0 ||
                   strcmp(name, "link") == 0 || strcmp(name, "overlay") == 0;
    const char *path = words[1], *to = path == NULL || !has_two ? NULL : words[2];
    if (path == NULL || (has_two && to == NULL)) {
        errno = EINVAL;
        fail("too few words after", name);
    }
    int done = -1;
    errno = EINVAL;
    if (strcmp(name, "bind") == 0)
        done = mount(path, to, NULL, MS_BIND | MS_REC, NULL);
    else if (strcmp(name, "move") == 0)
        done = mount(path, to, NULL, MS_MOVE, NULL);
    else if (strcmp(name, "overlay") == 0)
        done = overlay(path, to);
    else if (strcmp(name, "link") == 0)
        done = symlink(path, to);
    else if (strcmp(name, "proc") == 0)
        done = mount("proc", path, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    else if (strcmp(name, "tmpfs") == 0)
        done = mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
    else if (strcmp(name, "directory") == 0)
        done = mkdir(path, 0755);
    else if (strcmp(name, "file") == 0)
        done = mknod(path, S_IFREG | 0644, 0);
    else if (strcmp(name, "detach") == 0)
        done = umount2(path, MNT_DETACH);
    else if (strcmp(name, "chdir") == 0)
        done = chdir(path);
    if (done != 0)
        fail(name, has_two ? to : path);
    *at = words + (has_two ? 3 : 2);
    return true;
}

/* No process here can get a right again: not by a program's file, nor as user 0. */
static void drop_rights(void)
{
    struct {
        unsigned version;
        int pid;
    } header = {CAPABILITY_VERSION, 0};
    struct {
        unsigned effective, permitted, inheritable;
    } none[CAPABILITY_WORDS];
    memset(none, 0, sizeof none);
    for (int i = 0; i <= MAX_CAPABILITY; i++)
        if (prctl(PR_CAPBSET_DROP, i, 0, 0, 0) != 0)
            break; /* the kernel has no more of them */
    if (prctl(PR_CAPBSET_READ, 0, 0, 0, 0) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        syscall(SYS_capset, &header, none) != 0)
        fail("cannot drop", "rights");
}

static int exit_code(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : SIGNALLED + WTERMSIG(status);
}

static int wait_for(pid_t child)
{
    int status;
    for (;;) {
        pid_t ended = wait(&status);
        if (ended == child)
            return exit_code(status);
        if (ended < 0 && errno != EINTR)
            fail("cannot wait for", "the command");
    }
}

/* To be called after the namespaces are entered, which clears it. PIPE is one of which only the
 * parent has the other end: it may have ended before. */
static void die_with_parent(int pipe)
{
    struct pollfd parent = {.fd = pipe, .events = 0};
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || poll(&parent, 1, 0) != 0)
        _exit(FAILED);
}

/* Runs the command in a process without rights, which can neither stop nor read this one. */
static int run(char **words)
{
    volatile int error = 0; /* the child of vfork has the same memory */
    pid_t command = vfork();
    if (command == 0) {
        execvp(words[0], words);
        error = errno;
        _exit(FAILED);
    }
    int code = command < 0 ? FAILED : wait_for(command);
    if (command > 0)
        errno = error;
    if (command < 0 || error != 0)
        fail("cannot run", words[0]);
    return code;
}

static _Noreturn void run_inside(char **words, int report)
{
    while (operate(&words))
        ;
    if (words[0] == NULL || words[1] == NULL) {
        errno = EINVAL;
        fail("no", "command");
    }
    drop_rights();
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || fcntl(report, F_SETFD, FD_CLOEXEC) != 0)
        fail("cannot close", "the report");
    int code = run(words + 1);
    (void)dprintf(report, "{\"exit-code\": %d}\n", code);
    _exit(code);
}

int main(int count, char **words)
{
    int alive[2];
    if (count <= FIRST_OPERATION) {
        errno = EINVAL;
        fail("too few", "words");
    }
    int report = (int)number(words[1]);
    enter_namespaces(words + 2);
    die_with_parent(report);
    set_limits(words + 2 + NAMESPACES);
    if (unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        fail("cannot make", "a namespace");
    if (pipe2(alive, O_CLOEXEC) != 0)
        fail("cannot make", "a pipe");
    pid_t inside = fork();
    if (inside == 0) {
        close(alive[1]);
        die_with_parent(alive[0]);
        close(alive[0]);
        run_inside(words + FIRST_OPERATION, report);
    }
    if (inside < 0)
        fail("cannot start", "a process");
    close(alive[0]);
    close(report);
    return wait_for(inside);
}
