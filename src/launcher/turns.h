/* Limits parallel local compiles to the number of cores while the syncer, which does that
 * otherwise, is silent: a build may run more jobs at a time. take_turn of
 * distbuild/wrapper/local.py has the same rules, for the Python client.
 */
#ifndef DIST_BUILD_TURNS_H
#define DIST_BUILD_TURNS_H

#include <sched.h>
#include <sys/file.h>
#include <time.h>

#include "syncer.h"

/* Set for a program that runs in a turn: its children need no turn of their own. */
#define IN_TURN "DIST_BUILD_IN_TURN"

/* Takes a turn if it is free: a locked file that stays open, and that the compiler inherits. */
static bool is_taken(const char *directory, int number)
{
    char path[PATH_MAX + 32];
    (void)snprintf(path, sizeof path, "%s/%d", directory, number);
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666), kept = -1;
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        kept = fcntl(fd, F_DUPFD, STDERR_FILENO + 1); /* not a standard stream's number */
    if (fd >= 0)
        (void)close(fd);
    return kept >= 0;
}

/* Waits for a turn, at most a minute: one may have been inherited by a process that never ends. */
static void take_turn(void)
{
    static const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
    enum { LOOKS = 1200 };
    char home[PATH_MAX], directory[PATH_MAX + 16];
    cpu_set_t cores;
    if (getenv(IN_TURN) != NULL || !find_home(home) ||
        sched_getaffinity(0, sizeof cores, &cores) != 0)
        return;
    (void)snprintf(directory, sizeof directory, "%s/state/turns", home);
    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        return;
    for (int looks = 0; looks < LOOKS; looks++) {
        for (int i = 0; i < CPU_COUNT(&cores); i++)
            if (is_taken(directory, i)) {
                (void)setenv(IN_TURN, "1", 1);
                return;
            }
        (void)nanosleep(&pause, NULL);
    }
    (void)setenv(IN_TURN, "1", 1);
}

#endif
