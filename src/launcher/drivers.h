/* Finds the compiler that a name means, behind the wrappers that may stand in front of it.
 *
 * A wrapper is a link to a known program, or this program under another name. A script that calls
 * this program is recognised by DIST_BUILD_SKIP: it lists for every compiler that is started which
 * ones were started before it. distbuild/compiler/find.py has the same rules.
 */
#ifndef DIST_BUILD_DRIVERS_H
#define DIST_BUILD_DRIVERS_H

#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "say.h"

#define SELF "/proc/self/exe"
#define SKIP "DIST_BUILD_SKIP"
#define COUNT(table) (sizeof(table) / sizeof *(table))

static const char *const WRAPPERS[] = {
    "ccache", "distcc", "icecc", "sccache", "dist_build", "dist_build.exe", "dist_build_client",
};

static bool same_file(const struct stat *one, const struct stat *other)
{
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

/* Whether a file is this program, perhaps as a copy: only files of the same size are read. */
static bool is_self(const char *path, const struct stat *file)
{
    struct stat self;
    if (stat(SELF, &self) != 0 || self.st_size != file->st_size)
        return false;
    if (same_file(&self, file))
        return true;
    size_t size = (size_t)file->st_size;
    int fds[2] = {open(SELF, O_RDONLY | O_CLOEXEC), open(path, O_RDONLY | O_CLOEXEC)};
    void *one = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fds[0], 0);
    void *other = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fds[1], 0);
    return one != MAP_FAILED && other != MAP_FAILED && memcmp(one, other, size) == 0;
}

/* Whether a file found for NAME only passes commands on; the program NAME itself does not. */
static bool is_wrapper(const char *path, const struct stat *file, const char *name)
{
    char real[PATH_MAX];
    const char *called = realpath(path, real) == NULL ? base(path) : base(real);
    for (size_t i = 0; i < COUNT(WRAPPERS); i++)
        if (strcmp(called, WRAPPERS[i]) == 0 && strcmp(called, name) != 0)
            return true;
    return is_self(path, file);
}

/* Removes the next entry from a colon-separated list; returns its length, or -1 after the last. */
static int next_entry(const char **list, const char **entry)
{
    if (*list == NULL)
        return -1;
    const char *colon = strchrnul(*list, ':');
    *entry = *list;
    *list = *colon == '\0' ? NULL : colon + 1;
    return (int)(colon - *entry);
}

/* Copies to PATH the next program in LIST (DIST_BUILD_SKIP) that is called NAME; false: none. */
static bool next_passed(const char **list, const char *name, char *path)
{
    const char *entry;
    int wanted = (int)strlen(base(name));
    for (int length; (length = next_entry(list, &entry)) >= 0;) {
        int start = length - wanted;
        if (start < 0 || length >= PATH_MAX || strncmp(entry + start, base(name), (size_t)wanted) ||
            (start > 0 && entry[start - 1] != '/'))
            continue;
        (void)snprintf(path, PATH_MAX, "%.*s", length, entry);
        return true;
    }
    return false;
}

/* Whether FILE is a program called NAME that has called this program. */
static bool was_passed(const struct stat *file, const char *name)
{
    char path[PATH_MAX];
    struct stat passed;
    for (const char *list = getenv(SKIP); next_passed(&list, name, path);)
        if (stat(path, &passed) == 0 && same_file(&passed, file))
            return true;
    return false;
}

/* Whether PATH can be run and, if BEHIND, neither is a wrapper nor was started before. */
static bool suits(const char *path, const char *name, bool behind)
{
    struct stat file;
    if (stat(path, &file) != 0 || !S_ISREG(file.st_mode) || access(path, X_OK) != 0)
        return false;
    return !behind || (!is_wrapper(path, &file, base(name)) && !was_passed(&file, name));
}

static bool make_absolute(char *path, const char *name)
{
    char cwd[PATH_MAX] = "";
    if (name[0] != '/' && getcwd(cwd, sizeof cwd) == NULL)
        return false;
    return snprintf(path, PATH_MAX, "%s%s%s", cwd, *cwd ? "/" : "", name) < PATH_MAX;
}

/* The file that a shell runs for NAME; BEHIND: the compiler behind the wrappers. */
static bool find_program(const char *name, bool behind, char *path)
{
    if (strchr(name, '/') != NULL) {
        bool fits = make_absolute(path, name);
        if (fits && suits(path, name, behind))
            return true;
        /* For a wrapper that is named by its path the search continues on PATH, as its own does. */
        if (!behind || !fits || !suits(path, name, false))
            return false;
    }
    const char *list = getenv("PATH"), *entry;
    if (list == NULL)
        list = "/bin:/usr/bin";
    char joined[PATH_MAX];
    for (int length; (length = next_entry(&list, &entry)) >= 0;)
        if (snprintf(joined, sizeof joined, "%.*s%s%s", length, entry, length > 0 ? "/" : "",
                     base(name)) < PATH_MAX &&
            make_absolute(path, joined) && suits(path, name, behind))
            return true;
    return false;
}

#endif
