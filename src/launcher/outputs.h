/* Puts the outputs of a worker's compiler in place, from descriptors that the syncer sends.
 *
 * The syncer has written the contents. The descriptors in its answer are of files without a name
 * (O_TMPFILE) or, on file systems without such files, of temporary ones. Only this process puts
 * them in place. So a syncer that was stopped while it answered, and continues later, can never
 * overwrite the output of the compile that was done here meanwhile. distbuild/write_outputs.py has
 * the same rules for the Python client.
 */
#ifndef DIST_BUILD_OUTPUTS_H
#define DIST_BUILD_OUTPUTS_H

#include <fcntl.h>
#include <limits.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "say.h"

/* A few less than one message may carry (SCM_MAX_FD of the kernel is 253). */
enum { MAX_OUTPUTS = 250 };

/* A record of the syncer's list: KIND, then two texts that end with a NUL. */
enum { NEW_FILE = 'f', INTO_OLD_FILE = 'o', REMOVED = 'r' };

struct output {
    char kind;
    const char *temporary; /* "" for a file without a name, or none */
    const char *path;
};

/* Removes the next record from a list of LENGTH bytes; false: it is malformed. */
static bool next_output(const char **list, size_t *length, struct output *output)
{
    const char *end = *list + *length;
    output->kind = **list;
    output->temporary = *list + 1;
    const char *gap = memchr(output->temporary, '\0', *length - 1);
    if (gap == NULL)
        return false;
    output->path = gap + 1;
    const char *last = memchr(output->path, '\0', (size_t)(end - output->path));
    if (last == NULL || *output->path != '/')
        return false;
    *length = (size_t)(end - last) - 1;
    *list = last + 1;
    return strchr("for", output->kind) != NULL && output->kind != '\0';
}

/* Whether only writing into the old file at PATH keeps its mode, owner or hard links. */
static bool differs_from_new(const char *path, int fd)
{
    struct stat old, new;
    if (lstat(path, &old) != 0 || fstat(fd, &new) != 0 || !S_ISREG(old.st_mode))
        return false;
    return (old.st_mode & 07777) != (new.st_mode & 07777) || old.st_nlink != 1 ||
           old.st_uid != geteuid();
}

static bool copy_into(const char *path, int from)
{
    int to = open(path, O_WRONLY | O_TRUNC | O_NOFOLLOW | O_CLOEXEC);
    if (to < 0)
        return false;
    off_t offset = 0;
    ssize_t sent;
    do
        sent = sendfile(to, from, &offset, INT_MAX);
    while (sent > 0 || (sent < 0 && errno == EINTR));
    return close(to) == 0 && sent == 0;
}

/* False: not in place, errno has the reason. */
static bool put_in_place(const struct output *output, int fd)
{
    enum { TRIES = 20 }; /* another compile may write the same file at the same time */
    char unnamed[32];
    bool is_named = *output->temporary != '\0';
    (void)snprintf(unnamed, sizeof unnamed, "/proc/self/fd/%d", fd);
    for (int i = 0; i < TRIES; i++) {
        if (!is_named) {
            if (linkat(AT_FDCWD, unnamed, AT_FDCWD, output->path, AT_SYMLINK_FOLLOW) == 0)
                return true;
            if (errno != EEXIST)
                return false;
        }
        if (output->kind == INTO_OLD_FILE && differs_from_new(output->path, fd))
            return copy_into(output->path, fd);
        if (is_named)
            return rename(output->temporary, output->path) == 0;
        /* Not a rename over the old file: ext4 would write the new one to the disk at once. */
        if (unlink(output->path) != 0 && errno != ENOENT)
            return false;
    }
    errno = EEXIST;
    return false;
}

/* Puts all files of a LIST in place; their descriptors are the COUNT FDS, in its order, and are
 * then closed: one may have the number of a standard stream that the build has closed. On failure
 * errno has the reason; EPROTO: the list is malformed. */
static bool put_all_in_place(const char *list, size_t length, const int *fds, size_t count)
{
    size_t used = 0;
    int failed = 0;
    struct output output;
    while (length > 0 && failed == 0) {
        if (!next_output(&list, &length, &output) || (output.kind != REMOVED && used == count))
            failed = EPROTO;
        else if (output.kind == REMOVED)
            (void)unlink(output.path);
        else if (!put_in_place(&output, fds[used++]))
            failed = errno;
    }
    if (failed == 0 && used != count)
        failed = EPROTO;
    for (size_t i = 0; i < count; i++)
        (void)close(fds[i]);
    errno = failed;
    return failed == 0;
}

#endif
