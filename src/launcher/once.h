/* Says once a build why it is compiled locally: a build starts this program for every file.
 *
 * A build is the foreground job of a terminal, or, without one, a session. Who said the last line
 * of a reason is written down in the home; distbuild/wrapper/once.py has the same rules.
 */
#ifndef DIST_BUILD_ONCE_H
#define DIST_BUILD_ONCE_H

#include <sys/file.h>
#include <time.h>

#include "syncer.h"

/* A session may last for days: after so many seconds without such a line it is said again. */
enum { QUIET_S = 600 };
/* Files for each reason, which builds share by their number. */
enum { SHARES = 16 };

static int describe_build(char *text, size_t size)
{
    int terminal = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);
    long job = terminal < 0 ? 0 : (long)tcgetpgrp(terminal);
    if (terminal >= 0)
        (void)close(terminal);
    return snprintf(text, size, "%ld.%ld", (long)getsid(0), job);
}

/* A file for the reason that TEXT begins with; -1: there is no place for one. */
static int open_reason(const char *text, size_t length)
{
    char home[PATH_MAX], path[PATH_MAX + 64];
    size_t letters = 0;
    while (letters < length && letters < 40 &&
           ((text[letters] >= 'a' && text[letters] <= 'z') || text[letters] == '_'))
        letters++;
    if (letters == 0 || !find_home(home))
        return -1;
    (void)snprintf(path, sizeof path, "%s/state/said", home);
    (void)mkdir(path, 0700);
    (void)snprintf(path, sizeof path, "%s/state/said/%.*s.%d", home, (int)letters, text,
                   (int)(getsid(0) % SHARES));
    return open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
}

/* Whether this build has not said it yet. UNKNOWN is the answer where that cannot be told. */
static bool is_first(const char *text, size_t length, bool unknown)
{
    char build[64], last[64];
    struct stat file;
    int size = describe_build(build, sizeof build), fd = open_reason(text, length);
    if (fd < 0)
        return unknown;
    bool is_first = false; /* another one is just saying it */
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &file) == 0) {
        time_t age = time(NULL) - file.st_mtime;
        is_first = age < -QUIET_S || age > QUIET_S || read(fd, last, sizeof last) != size ||
                   memcmp(last, build, (size_t)size) != 0;
        if (ftruncate(fd, 0) != 0 || pwrite(fd, build, (size_t)size, 0) != size)
            is_first = unknown; /* a full disk */
    }
    (void)close(fd);
    return is_first;
}

/* Why it is compiled here. MUST_SAY: even where it cannot be told whether it was said. */
static void say_once(const char *text, size_t length, bool must_say)
{
    static const char advice[] = "; run dist_build.exe doctor (said once a build)";
    char *line;
    if (is_first(text, length, must_say) &&
        asprintf(&line, "%.*s%s", (int)length, text, advice) > 0)
        say("compiled locally: ", line, strlen(line));
}

#endif
