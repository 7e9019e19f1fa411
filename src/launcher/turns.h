/* Turns of local compiles while the syncer, which gives them, is silent: of a build with more jobs at
 * a time than this machine has cores, all would else run here at once. distbuild/wrapper/turns.py has
 * the same rules, for the Python client.
 */
#ifndef DIST_BUILD_TURNS_H
#define DIST_BUILD_TURNS_H

#include <sched.h>
#include <sys/file.h>
#include <time.h>

#include "syncer.h"

/* Set for what runs in a turn: what that calls runs within it. */
#define IN_TURN "DIST_BUILD_IN_TURN"

/* Takes a turn if it is free: a file that stays open, and that the compiler inherits. */
static bool is_taken(const char *directory, int number)
{
    char path[PATH_MAX + 32];
    (void)snprintf(path, sizeof path, "%s/%d", directory, number);
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666), kept = -1;
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        kept = fcntl(fd, F_DUPFD, STDERR_FILENO + 1); /* not a stream that the build has closed */
    if (fd >= 0)
        (void)close(fd);
    return kept >= 0;
}

/* Waits for a turn, a minute at the most: one may have been inherited by what never ends. */
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
