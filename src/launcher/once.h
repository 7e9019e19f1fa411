/* Prints once a build why it compiles locally: a build starts this program for every file.
 *
 * A build is the foreground job of a terminal, or, without one, a session. A file in the home
 * stores which build printed a reason last; is_first of distbuild/wrapper/local.py has the same
 * rules.
 */
#ifndef DIST_BUILD_ONCE_H
#define DIST_BUILD_ONCE_H

#include <sys/file.h>
#include <time.h>

#include "syncer.h"

/* A session may last for days: after so many seconds without such a line it is printed again. */
enum { QUIET_S = 600 };
/* The number of files for each reason; builds share them, by session number. */
enum { SHARES = 16 };

static int describe_build(char *text, size_t size)
{
    int terminal = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);
    long job = terminal < 0 ? 0 : (long)tcgetpgrp(terminal);
    if (terminal >= 0)
        (void)close(terminal);
    return snprintf(text, size, "%ld.%ld", (long)getsid(0), job);
}

/* Opens the file for a REASON; -1: there can be none. */
static int open_reason(const char *reason, int length)
{
    char home[PATH_MAX], path[PATH_MAX + 64];
    if (length == 0 || !find_home(home))
        return -1;
    (void)snprintf(path, sizeof path, "%s/state/said", home);
    (void)mkdir(path, 0700);
    (void)snprintf(path, sizeof path, "%s/state/said/%.*s.%d", home, length, reason,
                   (int)(getsid(0) % SHARES));
    return open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
}

/* The length of the reason's name with which a text begins. */
static int name_length(const char *text, size_t length)
{
    enum { LONGEST = 40 };
    int letters = 0;
    while ((size_t)letters < length && letters < LONGEST &&
           ((text[letters] >= 'a' && text[letters] <= 'z') || text[letters] == '_'))
        letters++;
    return letters;
}

/* Whether this build has not printed REASON yet; UNKNOWN where that cannot be determined. */
static bool is_first(const char *reason, int length, bool unknown)
{
    char build[64], last[64];
    struct stat file;
    int size = describe_build(build, sizeof build), fd = open_reason(reason, length);
    if (fd < 0)
        return unknown;
    bool is_first = false; /* if the file is locked: another process is just printing it */
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

/* Prints why it is compiled here. REASON: its name; NULL: the text begins with it. MUST_SAY: print
 * also where it is unknown whether it was printed. */
static void say_once(const char *reason, const char *text, size_t length, bool must_say)
{
    static const char advice[] = "; run dist_build.exe doctor (said once a build)";
    int letters = reason != NULL ? (int)strlen(reason) : name_length(text, length);
    char *line;
    if (verbosity() > 0)
        say("compiled locally: ", text, length);
    else if (is_first(reason != NULL ? reason : text, letters, must_say) &&
             asprintf(&line, "%.*s%s", (int)length, text, advice) > 0)
        say("compiled locally: ", line, strlen(line));
}

#endif
