/* Writes the compiler's output in full, and dist_build's own messages to standard error. */
#ifndef DIST_BUILD_SAY_H
#define DIST_BUILD_SAY_H

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define complain(...) ((void)dprintf(STDERR_FILENO, "dist_build: " __VA_ARGS__))

static bool write_fully(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, data, length);
        if (written >= 0) {
            data += written;
            length -= (size_t)written;
        } else if (errno == EAGAIN) { /* a process that shares the pipe made it non-blocking */
            struct pollfd writable = {.fd = fd, .events = POLLOUT};
            (void)poll(&writable, 1, -1);
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

/* Prints "dist_build: WHAT TEXT" as one line, in one write so that parallel compiles do not mix. */
static void say(const char *what, const char *text, size_t length)
{
    char line[8 * 1024];
    const char *const end = line + sizeof line - 2;
    char *const start = stpcpy(stpcpy(line, "dist_build: "), what);
    char *to = start;
    bool gap = false;
    for (const char *from = text; from < text + length && to < end; from++) {
        if (*from == ' ' || (*from >= '\t' && *from <= '\r')) {
            gap = to > start;
            continue;
        }
        if (gap)
            *to++ = ' ';
        gap = false;
        *to++ = *from;
    }
    *to++ = '\n';
    (void)write_fully(STDERR_FILENO, line, (size_t)(to - line));
}

static bool is_set(const char *variable, const char *value)
{
    const char *found = getenv(variable);
    return found != NULL && strcmp(found, value) == 0;
}

/* 0, 1 (one line a command) or 2 (its phases too), as DIST_BUILD_VERBOSE asks. */
static int verbosity(void)
{
    return is_set("DIST_BUILD_VERBOSE", "2") ? 2 : is_set("DIST_BUILD_VERBOSE", "1");
}

static const char *base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

#endif
