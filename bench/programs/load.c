/* Runs commands, so many at a time, at next to no cost of its own, and logs when each ended.
 *
 * usage: load PARALLEL COMMANDS LOG
 * COMMANDS: for each command its working directory and its words, each ended by a NUL byte, then one
 * more NUL. LOG: a line "START END STATUS" for each command in the order of their ends, in seconds
 * since the start; last a line "CPU USER SYSTEM" of all commands and what they waited for.
 */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { MAX_WORDS = 512, MAX_RUNNING = 16384 };

extern char **environ;
static struct { pid_t pid; double start; } running[MAX_RUNNING];

static void fail(const char *what)
{
    perror(what);
    exit(2);
}

static double now(void)
{
    static struct timespec first;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    if (first.tv_sec == 0)
        first = t;
    return (double)(t.tv_sec - first.tv_sec) + (double)(t.tv_nsec - first.tv_nsec) / 1e9;
}

static char *contents(const char *path, char **end)
{
    struct stat status;
    FILE *file = fopen(path, "r");
    if (!file || fstat(fileno(file), &status) != 0)
        fail(path);
    char *data = malloc((size_t)status.st_size + 1);
    if (!data || fread(data, 1, (size_t)status.st_size, file) != (size_t)status.st_size)
        fail(path);
    fclose(file);
    *end = data + status.st_size;
    return data;
}

/* Starts the command at `at`; returns what follows it. */
static char *start(char *at, int slot)
{
    char *words[MAX_WORDS + 1], *directory = at;
    int count = 0;
    for (at += strlen(at) + 1; *at && count < MAX_WORDS; at += strlen(at) + 1)
        words[count++] = at;
    words[count] = NULL;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, directory);
    running[slot].start = now();
    if (posix_spawnp(&running[slot].pid, words[0], &actions, NULL, words, environ) != 0)
        fail(words[0]);
    posix_spawn_file_actions_destroy(&actions);
    return at + 1;
}

/* Waits for any command; returns its slot. */
static int finish(FILE *log, int slots)
{
    int status, slot = 0;
    pid_t pid = wait(&status);
    while (slot < slots && running[slot].pid != pid)
        slot++;
    if (pid < 0 || slot == slots)
        fail("wait");
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    fprintf(log, "%.6f %.6f %d\n", running[slot].start, now(), code);
    return slot;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    char *end, *at = contents(argv[2], &end);
    int slots = atoi(argv[1]), busy = 0;
    FILE *log = fopen(argv[3], "w");
    if (!log || slots < 1 || slots > MAX_RUNNING)
        fail(argv[3]);
    now();
    for (; at < end && busy < slots; busy++)
        at = start(at, busy);
    for (; at < end;)
        at = start(at, finish(log, slots));
    for (; busy > 0; busy--)
        finish(log, slots);
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    fprintf(log, "CPU %ld.%06ld %ld.%06ld\n", (long)used.ru_utime.tv_sec,
            (long)used.ru_utime.tv_usec, (long)used.ru_stime.tv_sec, (long)used.ru_stime.tv_usec);
    return fclose(log) != 0;
}
