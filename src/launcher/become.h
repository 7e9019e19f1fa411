/* Replaces this process by the real compiler, or by the Python client. Contacts no syncer. */
#ifndef DIST_BUILD_BECOME_H
#define DIST_BUILD_BECOME_H

#include "drivers.h"
#include "say.h"

enum { FAILED = 1, NO_FALLBACK = 103, NOT_RUNNABLE = 126, NOT_FOUND = 127 };

/* Passes to the client why it must not ask the syncer; read by wrapper/main.py. */
#define OBSTACLE "DIST_BUILD_OBSTACLE"

/* More wrappers of one name than any set-up stacks are a loop. */
enum { MAX_PASSED = 16 };

static bool looks_like_compiler(const char *name)
{
    static const char *const parts[] = {"cc", "g++", "c++", "clang"};
    for (size_t i = 0; i < COUNT(parts); i++)
        if (strstr(name, parts[i]) != NULL)
            return true;
    return false;
}

/* Adds PROGRAM to the list by which the programs that this one runs detect a loop. */
static void extend_skip(const char *program)
{
    const char *passed = getenv(SKIP);
    char *list;
    if (asprintf(&list, "%s%s%s", passed ? passed : "", passed ? ":" : "", program) < 0 ||
        setenv(SKIP, list, 1) != 0) {
        complain("%s: %s\n", program, strerror(errno));
        exit(NOT_RUNNABLE);
    }
}

/* A script without an interpreter line: a shell runs it, as in execvp(3). */
static void run_by_shell(char *program, char **words)
{
    size_t count = 0;
    while (words[count] != NULL)
        count++;
    char **line = calloc(count + 2, sizeof *line);
    if (line == NULL)
        return;
    line[0] = "/bin/sh";
    line[1] = strchr(words[0], '/') != NULL ? words[0] : program;
    memcpy(line + 2, words + 1, (count - 1) * sizeof *line);
    execve(line[0], line, environ);
}

/* WORDS[0] stays as the build spelled it, unless that names a wrapper: gcc looks for its own
 * programs beside the program of that name. */
static _Noreturn void become_compiler(char *program, char **words)
{
    char called[PATH_MAX];
    struct stat one, other;
    if (!find_program(words[0], false, called) || stat(called, &one) != 0 ||
        stat(program, &other) != 0 || !same_file(&one, &other))
        words[0] = program;
    if (looks_like_compiler(base(program)))
        extend_skip(program);
    execve(program, words, environ);
    if (errno == ENOEXEC)
        run_by_shell(program, words);
    complain("%s: %s\n", program, strerror(errno));
    exit(NOT_RUNNABLE);
}

/* Runs the real compiler: a wrapper that was started before has called this program, or there is
 * no syncer to ask. */
static _Noreturn void go_on_behind(char **words)
{
    static char program[PATH_MAX];
    const char *self_call = getenv("COLLECT_GCC"), *list = getenv(SKIP);
    size_t passed = 0;
    while (next_passed(&list, words[0], program))
        passed++;
    if (passed >= MAX_PASSED) {
        complain("%s: called through itself %zu times (%s)\n", words[0], passed, getenv(SKIP));
        exit(NOT_FOUND);
    }
    /* gcc -flto runs gcc by name: it must find itself, not the next one on PATH. */
    if (passed > 0 && self_call != NULL && strcmp(base(self_call), base(words[0])) == 0)
        become_compiler(program, words);
    if (find_program(words[0], true, program))
        become_compiler(program, words);
    if (passed > 0)
        complain("%s: no compiler behind the wrappers on PATH (tried %s)\n", words[0],
                 getenv(SKIP));
    else
        complain("%s: command not found\n", words[0]);
    exit(NOT_FOUND);
}

/* Runs the Python client, which has every fallback; if it cannot be run, subcommands fail and
 * compiles are local. */
static _Noreturn void become_client(char **words, bool is_compile)
{
    char client[PATH_MAX + sizeof "dist_build_client"];
    ssize_t length = readlink(SELF, client, PATH_MAX - 1);
    client[length < 0 ? 0 : length] = '\0';
    strcpy(client + (base(client) - client), "dist_build_client");
    size_t count = 0;
    while (words[count] != NULL)
        count++;
    char **line = calloc(count + 2, sizeof *line);
    if (line != NULL) {
        line[0] = client;
        memcpy(line + 1, words, count * sizeof *line);
        execve(client, line, environ);
    }
    const char *why = strerror(errno);
    (void)unsetenv(OBSTACLE);
    if (!is_compile) {
        complain("%s: %s\n", client, why);
        exit(FAILED);
    }
    if (is_set("DIST_BUILD_FALLBACK", "0")) {
        complain("not compiled: %s: %s\n", client, why);
        exit(NO_FALLBACK);
    }
    complain("compiled locally: %s: %s\n", client, why);
    go_on_behind(words);
}

#endif
