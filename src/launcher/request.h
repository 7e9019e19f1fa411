/* Encodes the request to the syncer, SubmitRequest of distbuild/protocol/messages.py: arguments,
 * environment, directory and terminal of this process. MessagePack has shorter forms for small
 * values; the long ones suffice.
 */
#ifndef DIST_BUILD_REQUEST_H
#define DIST_BUILD_REQUEST_H

#include <sys/ioctl.h>

#include "drivers.h"

/* The version in distbuild/protocol/coding.py, encoded. */
#define PROTOCOL_VERSION "\3"

struct message {
    char *data;
    size_t used, size;
};

enum { STRING = 0xdb, BYTES = 0xc6, ARRAY = 0xdd, MAP = 0xdf, NIL = 0xc0, TRUE = 0xc3, UINT32 = 0xce };

static void put(struct message *message, const void *data, size_t length)
{
    if (message->size - message->used < length) {
        size_t size = 2 * (message->used + length);
        char *larger = malloc(size);
        if (larger == NULL)
            abort(); /* unlikely: no larger than this process's arguments and environment */
        memcpy(larger, message->data, message->used);
        message->data = larger; /* the old buffer is not freed: this process is short-lived */
        message->size = size;
    }
    memcpy(message->data + message->used, data, length);
    message->used += length;
}

static void put_head(struct message *message, unsigned kind, size_t count)
{
    const unsigned char head[5] = {(unsigned char)kind, (unsigned char)(count >> 24),
                                   (unsigned char)(count >> 16), (unsigned char)(count >> 8),
                                   (unsigned char)count};
    put(message, head, sizeof head);
}

static void put_text(struct message *message, unsigned kind, const char *text, size_t length)
{
    put_head(message, kind, length);
    put(message, text, length);
}

static void put_key(struct message *message, const char *name)
{
    put_text(message, STRING, name, strlen(name));
}

/* The variables to send: telling_environment of distbuild/command/probe.py; also LC_* and a PWD
 * below /proc. */
static const char *const TOLD[] = {
    "CCC_ADD_ARGS", "CCC_OVERRIDE_OPTIONS", "CC_LOG_DIAGNOSTICS", "CC_PRINT_HEADERS",
    "CC_PRINT_INTERNAL_STAT", "CC_PRINT_OPTIONS", "CC_PRINT_PROC_STAT", "CL",
    "CLANG_CONFIG_FILE_SYSTEM_DIR", "CLANG_CONFIG_FILE_USER_DIR", "CLANG_NO_DEFAULT_CONFIG",
    "CLICOLOR_FORCE", "COLORTERM", "COLUMNS", "COMPILER_PATH", "CPATH", "CPLUS_INCLUDE_PATH",
    "C_INCLUDE_PATH", "DEPENDENCIES_OUTPUT", "DIST_BUILD_BUILD", "DIST_BUILD_CACHE",
    "DRIVERKIT_DEPLOYMENT_TARGET", "EXPERIMENTAL_SARIF_SOCKET", "EXTERNAL_INCLUDE", "GCC_COLORS",
    "GCC_COMPARE_DEBUG", "GCC_DIAGNOSTICS_LOG", "GCC_EXEC_PREFIX", "GCC_EXTRA_DIAGNOSTIC_OUTPUT",
    "GCC_URLS",
    "GCONV_PATH", "HOME", "INCLUDE", "IPHONEOS_DEPLOYMENT_TARGET", "LANG", "LANGUAGE", "LD_AUDIT",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "LLVM_OVERRIDE_PRODUCER", "LOCPATH", "MACOSX_DEPLOYMENT_TARGET", "NO_COLOR",
    "OBJCPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH", "PATH", "RC_DEBUG_OPTIONS", "RC_DEBUG_PREFIX_MAP",
    "SDKROOT", "SOURCE_DATE_EPOCH", "SUNPRO_DEPENDENCIES", "TERM", "TERMINFO", "TERMINFO_DIRS",
    "TERM_URLS", "TVOS_DEPLOYMENT_TARGET", "TZ", "VCINSTALLDIR", "VCToolsInstallDir",
    "WATCHOS_DEPLOYMENT_TARGET", "XROS_DEPLOYMENT_TARGET", "_CL_",
};

/* Whether a PWD is valid in this process only: in the syncer it names another directory. */
static bool is_odd_pwd(const char *path)
{
    static const char proc[] = "/proc/";
    return strncmp(path, proc, sizeof proc - 1) == 0;
}

/* Whether a variable is sent. Not one with a name outside ASCII: no locale variable has such a
 * name, and a string on the wire has to be UTF-8. */
static bool is_told(const char *name, size_t length, const char *value)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] >= 0x80)
            return false;
    if (length >= 3 && memcmp(name, "LC_", 3) == 0)
        return true;
    if (length == 3 && memcmp(name, "PWD", 3) == 0)
        return is_odd_pwd(value);
    for (size_t i = 0; i < COUNT(TOLD); i++)
        if (*TOLD[i] == *name && strncmp(TOLD[i], name, length) == 0 && TOLD[i][length] == '\0')
            return true;
    return false;
}

static bool was_seen(char **entry, size_t length)
{
    for (char **earlier = environ; earlier < entry; earlier++)
        if (strncmp(*earlier, *entry, length + 1) == 0)
            return true; /* of two equal names, getenv and Python use the first */
    return false;
}

static void put_environment(struct message *message)
{
    size_t start = message->used, count = 0;
    put_head(message, MAP, 0);
    for (char **entry = environ; *entry != NULL; entry++) {
        const char *sign = strchr(*entry, '=');
        size_t length = sign == NULL ? 0 : (size_t)(sign - *entry);
        if (length == 0 || !is_told(*entry, length, sign + 1) || was_seen(entry, length))
            continue;
        put_text(message, STRING, *entry, length);
        put_text(message, BYTES, sign + 1, strlen(sign + 1));
        count++;
    }
    size_t end = message->used;
    message->used = start;
    put_head(message, MAP, count);
    message->used = end;
}

/* PWD if it names the current directory, as compilers use it; else the real path. */
static const char *working_directory(char *buffer)
{
    const char *logical = getenv("PWD");
    struct stat named, present;
    if (logical != NULL && logical[0] == '/' && !is_odd_pwd(logical) &&
        stat(logical, &named) == 0 && stat(".", &present) == 0 && same_file(&named, &present))
        return logical;
    return getcwd(buffer, PATH_MAX);
}

/* Identifies the file system view in which this process's paths are valid: the root directory, with
 * its mount, which differs between mount namespaces, or with the mount namespace. The mount is
 * tried first: a process's first access to /proc costs as much as all its other system calls. */
static size_t describe_place(char *place, size_t size)
{
    struct stat root;
#ifdef STATX_MNT_ID /* Linux 5.8 */
    struct statx mounted;
    if (statx(AT_FDCWD, "/", 0, STATX_INO | STATX_MNT_ID, &mounted) == 0 &&
        (mounted.stx_mask & STATX_MNT_ID) != 0)
        return (size_t)snprintf(place, size, "mount:%llu %u:%u:%llu",
                                (unsigned long long)mounted.stx_mnt_id, mounted.stx_dev_major,
                                mounted.stx_dev_minor, (unsigned long long)mounted.stx_ino);
#endif
    ssize_t length = readlink("/proc/self/ns/mnt", place, size / 2);
    if (length < 0 || stat("/", &root) != 0)
        return 0;
    return (size_t)length + (size_t)snprintf(place + length, size - (size_t)length, " %llu:%llu",
                                             (unsigned long long)root.st_dev,
                                             (unsigned long long)root.st_ino);
}

static void put_window(struct message *message, const char *name, int terminal)
{
    struct winsize window = {0};
    (void)ioctl(terminal, TIOCGWINSZ, &window);
    put_key(message, name);
    put_head(message, MAP, 2);
    put_key(message, "columns");
    put_head(message, UINT32, window.ws_col);
    put_key(message, "rows");
    put_head(message, UINT32, window.ws_row);
}

/* The size of standard error if it is a terminal, then of standard input too: compilers examine
 * both. */
static void put_terminal(struct message *message)
{
    if (!isatty(STDERR_FILENO)) {
        put(message, (const char[]){(char)NIL}, 1);
        return;
    }
    bool input = isatty(STDIN_FILENO);
    put_head(message, MAP, 1 + input);
    put_window(message, "stderr", STDERR_FILENO);
    if (input)
        put_window(message, "stdin", STDIN_FILENO);
}

static bool put_request(struct message *message, char **words)
{
    char place[256], buffer[PATH_MAX];
    const char *cwd = working_directory(buffer);
    if (cwd == NULL)
        return false;
    size_t count = 0;
    while (words[count] != NULL)
        count++;
    mode_t mask = umask(0);
    (void)umask(mask);
    bool timed = verbosity() > 1;
    put_head(message, MAP, 10 + timed);
    put_key(message, "argv");
    put_head(message, ARRAY, count);
    for (size_t i = 0; i < count; i++)
        put_text(message, BYTES, words[i], strlen(words[i]));
    put_key(message, "cwd");
    put_text(message, BYTES, cwd, strlen(cwd));
    put_key(message, "env");
    put_environment(message);
    put_key(message, "group");
    put_head(message, UINT32, getegid());
    put_key(message, "place");
    put_text(message, BYTES, place, describe_place(place, sizeof place));
    put_key(message, "places_outputs");
    put(message, (const char[]){(char)TRUE}, 1);
    put_key(message, "session");
    put_head(message, UINT32, (size_t)getsid(0));
    put_key(message, "terminal");
    put_terminal(message);
    if (timed) {
        put_key(message, "timed");
        put(message, (const char[]){(char)TRUE}, 1);
    }
    put_key(message, "umask");
    put_head(message, UINT32, mask);
    put_key(message, "version");
    put(message, PROTOCOL_VERSION, 1);
    return true;
}

#endif
