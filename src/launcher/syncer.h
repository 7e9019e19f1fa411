/* Connects to the syncer's socket in DIST_BUILD_HOME, sends a request there, and detects a syncer
 * that is stopped or stuck.
 */
#ifndef DIST_BUILD_SYNCER_H
#define DIST_BUILD_SYNCER_H

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "request.h"

/* DIST_BUILD_HOME by the rules of config.find_home; false: left to the Python client. */
static bool find_home(char *home)
{
    const char *named = getenv("DIST_BUILD_HOME"), *user = "";
    if (named == NULL || *named == '\0')
        named = "~/dist_build";
    if (*named == '~') {
        user = getenv("HOME");
        named++;
        if (user == NULL || *user == '\0' || (*named != '\0' && *named != '/'))
            return false;
    }
    return snprintf(home, PATH_MAX, "%s%s", user, named) < PATH_MAX;
}

/* A syncer sends a heartbeat every few seconds. One that sends nothing in MAX_LOOKS waits, ten
 * seconds together, is stopped or stuck. Several waits, since a machine that was paused resumes
 * with a clock that has jumped: that costs one of them. The short one is for a syncer that another
 * wrapper has found silent. */
static const struct timeval SHORT_LOOK = {.tv_usec = 300 * 1000},
                            LOOK = {.tv_sec = 2, .tv_usec = 500 * 1000};
enum { MAX_LOOKS = 4 };
static int vain_looks;
static bool is_silent;

/* Makes every blocking call on the socket fail after this time, with EAGAIN. */
static void limit_waits(int fd, const struct timeval *limit)
{
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, limit, sizeof *limit);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, limit, sizeof *limit);
}

/* Opens a marker file, made with O_CREAT in FLAGS; returns whether it exists. A wrapper that has
 * found the syncer silent makes it, and the syncer removes it every few seconds. So only the first
 * wrappers of a build wait for ten seconds. */
static bool open_mark(int flags)
{
    char home[PATH_MAX], path[PATH_MAX + 16];
    if (!find_home(home))
        return false;
    (void)snprintf(path, sizeof path, "%s/state/silent", home);
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags, 0600);
    if (fd >= 0)
        (void)close(fd);
    return fd >= 0;
}

/* Whether to retry a call on the socket that failed; sets is_silent. */
static bool may_try_again(int fd)
{
    if (errno == EINTR)
        return true;
    if (errno != EAGAIN)
        return false;
    is_silent = ++vain_looks == MAX_LOOKS || open_mark(0);
    if (is_silent)
        (void)open_mark(O_CREAT);
    limit_waits(fd, &LOOK);
    return !is_silent;
}

/* A socket that has no standard stream's number, even if the build has closed that stream:
 * compilers write to those. */
static int new_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    int higher = fcntl(fd, F_DUPFD, STDERR_FILENO + 1);
    (void)close(fd);
    return higher;
}

static int connect_to_syncer(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char home[PATH_MAX];
    int fd = -1, directory = -1, failed;
    if (!find_home(home) || (fd = new_socket()) < 0)
        return -1;
    if (strlen(home) + sizeof "/syncer.sock" <= sizeof address.sun_path) {
        (void)stpcpy(stpcpy(address.sun_path, home), "/syncer.sock");
    } else { /* a socket's path is limited to 107 bytes, a home's may be longer */
        directory = open(home, O_PATH | O_DIRECTORY | O_CLOEXEC);
        (void)snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/syncer.sock",
                       directory);
    }
    limit_waits(fd, open_mark(0) ? &SHORT_LOOK : &LOOK);
    do
        failed = connect(fd, (const struct sockaddr *)&address, sizeof address);
    while (failed && may_try_again(fd));
    if (directory >= 0)
        (void)close(directory);
    if (!failed)
        return fd;
    (void)close(fd);
    return -1;
}

static bool send_request(int fd, const struct message *body)
{
    char head[160];
    int length = snprintf(head, sizeof head,
                          "POST /api/v1/run HTTP/1.1\r\nHost: syncer\r\n"
                          "Content-Type: application/msgpack\r\nContent-Length: %zu\r\n\r\n",
                          body->used);
    struct iovec parts[2] = {{head, (size_t)length}, {body->data, body->used}};
    struct msghdr rest = {.msg_iov = parts, .msg_iovlen = 2};
    while (parts[0].iov_len + parts[1].iov_len > 0) {
        ssize_t sent = sendmsg(fd, &rest, MSG_NOSIGNAL); /* survive a syncer that ends */
        if (sent < 0 && !may_try_again(fd))
            return false;
        for (size_t i = 0; sent > 0; i++) {
            size_t step = (size_t)sent < parts[i].iov_len ? (size_t)sent : parts[i].iov_len;
            parts[i].iov_base = (char *)parts[i].iov_base + step;
            parts[i].iov_len -= step;
            sent -= (ssize_t)step;
        }
    }
    return true;
}

#endif
