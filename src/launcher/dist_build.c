/* dist_build.exe: the native front of dist_build, started once for every compile.
 *
 * Duty: hand the command to the syncer over its Unix socket, wait, give back what it answers; or
 * become the compiler that it names. Whatever it cannot do itself is left to the Python client
 * beside it, which has the whole ladder down to the local compile. Unaware of what a command means:
 * it parses no option, opens no source and writes no output.
 *
 * Its death closes the socket, which cancels the job; so it handles no signal.
 */
#define _GNU_SOURCE
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "become.h"
#include "request.h"

static const size_t MAX_HEAD = 16 * 1024;
static const size_t MAX_BODY = 512 * 1024 * 1024;

/* Requests and answers mostly fit here: pages that are not touched cost nothing, malloc does. */
static char room[64 * 1024];

/* --- the syncer's socket --------------------------------------------------------------------- */

/* DIST_BUILD_HOME as config.find_home has it; false: only Python knows. */
static bool find_home(char *home)
{
    const char *named = getenv("DIST_BUILD_HOME"), *user = "";
    if (named == NULL || *named == '\0')
        named = "~/dist_build";
    if (*named == '~') {
        user = getenv("HOME");
        named++;
        if (user == NULL || *user == '\0' || (*named != '\0' && *named != '/'))
            return false;
    }
    return snprintf(home, PATH_MAX, "%s%s", user, named) < PATH_MAX;
}

/* A socket that is not a standard stream which the build has closed: compilers write to those. */
static int new_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    int higher = fcntl(fd, F_DUPFD, STDERR_FILENO + 1);
    (void)close(fd);
    return higher;
}

static int connect_to_syncer(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char home[PATH_MAX];
    int fd = -1, directory = -1, failed;
    if (!find_home(home) || (fd = new_socket()) < 0)
        return -1;
    if (strlen(home) + sizeof "/syncer.sock" <= sizeof address.sun_path) {
        (void)stpcpy(stpcpy(address.sun_path, home), "/syncer.sock");
    } else { /* the path of a socket has 107 bytes, the path of a home may have more */
        directory = open(home, O_PATH | O_DIRECTORY | O_CLOEXEC);
        (void)snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/syncer.sock",
                       directory);
    }
    do
        failed = connect(fd, (const struct sockaddr *)&address, sizeof address);
    while (failed && errno == EINTR);
    if (directory >= 0)
        (void)close(directory);
    if (!failed)
        return fd;
    (void)close(fd);
    return -1;
}

static bool send_request(int fd, const struct message *body)
{
    char head[160];
    int length = snprintf(head, sizeof head,
                          "POST /api/v1/run HTTP/1.1\r\nHost: syncer\r\n"
                          "Content-Type: application/msgpack\r\nContent-Length: %zu\r\n\r\n",
                          body->used);
    struct iovec parts[2] = {{head, (size_t)length}, {body->data, body->used}};
    struct msghdr rest = {.msg_iov = parts, .msg_iovlen = 2};
    while (parts[0].iov_len + parts[1].iov_len > 0) {
        ssize_t sent = sendmsg(fd, &rest, MSG_NOSIGNAL); /* a syncer that ends is not our end */
        if (sent < 0 && errno != EINTR)
            return false;
        for (size_t i = 0; sent > 0; i++) {
            size_t step = (size_t)sent < parts[i].iov_len ? (size_t)sent : parts[i].iov_len;
            parts[i].iov_base = (char *)parts[i].iov_base + step;
            parts[i].iov_len -= step;
            sent -= (ssize_t)step;
        }
    }
    return true;
}

/* --- the answer ------------------------------------------------------------------------------ */

enum field { KIND, LENGTH, EXIT, STDOUT, WORKER, SILENT, PROGRAM, FIELDS };
static const char *const FIELD_NAMES[FIELDS] = {
    "Dist-Build", "Content-Length", "Dist-Build-Exit", "Dist-Build-Stdout",
    "Dist-Build-Worker", "Dist-Build-Silent", "Dist-Build-Program",
};

struct answer {
    const char *fields[FIELDS]; /* "" where the header is missing */
    char *body;
    size_t length;
};

/* Up to SIZE bytes, as many as there are or at least one; 0: no more will come. */
static size_t receive(int fd, char *data, size_t size)
{
    ssize_t got;
    do
        got = recv(fd, data, size, 0);
    while (got < 0 && errno == EINTR);
    return got < 0 ? 0 : (size_t)got;
}

/* A decimal number of at most MOST. */
static bool read_number(const char *text, size_t most, size_t *value)
{
    const char *digit = text;
    for (*value = 0; *digit >= '0' && *digit <= '9' && *value <= most; digit++)
        *value = *value * 10 + (size_t)(*digit - '0');
    return digit > text && *digit == '\0' && *value <= most;
}

/* Cuts the head into its fields, in place. */
static bool read_head(char *head, struct answer *answer)
{
    static const char ok[] = "HTTP/1.1 200 ";
    char *line = strstr(head, "\r\n"), *next;
    for (size_t i = 0; i < FIELDS; i++)
        answer->fields[i] = "";
    if (line == NULL || strncmp(head, ok, sizeof ok - 1) != 0)
        return false;
    for (line += 2; *line != '\0'; line = next) {
        next = strstr(line, "\r\n");
        char *colon = strchr(line, ':');
        if (next == NULL || colon == NULL || colon > next)
            return false;
        *colon = *next = '\0';
        next += 2;
        const char *value = colon + 1 + strspn(colon + 1, " \t");
        for (size_t i = 0; i < FIELDS; i++)
            if (strcasecmp(line, FIELD_NAMES[i]) == 0)
                answer->fields[i] = value;
    }
    return true;
}

static bool receive_answer(int fd, struct answer *answer)
{
    size_t used = 0;
    char *end = NULL;
    while (end == NULL && used < MAX_HEAD) {
        size_t got = receive(fd, room + used, MAX_HEAD - used);
        if (got == 0)
            return false;
        used += got;
        end = memmem(room, used, "\r\n\r\n", 4);
    }
    if (end == NULL)
        return false;
    answer->body = end + 4;
    end[2] = '\0';
    if (!read_head(room, answer) ||
        !read_number(answer->fields[LENGTH], MAX_BODY, &answer->length))
        return false;
    size_t have = used - (size_t)(answer->body - room);
    if (answer->length > (size_t)(room + sizeof room - answer->body)) {
        char *larger = malloc(answer->length);
        if (larger == NULL)
            return false;
        answer->body = memcpy(larger, answer->body, have);
    }
    for (size_t got; have < answer->length; have += got)
        if ((got = receive(fd, answer->body + have, answer->length - have)) == 0)
            return false;
    return true;
}

/* The compiler's own answer; returns only if it is not understood. */
static void give_back(const struct answer *answer)
{
    size_t code, out;
    if (!read_number(answer->fields[EXIT], 255, &code) ||
        !read_number(answer->fields[STDOUT], answer->length, &out))
        return;
    if (is_set("DIST_BUILD_VERBOSE", "1"))
        say("compiled by ", answer->fields[WORKER], strlen(answer->fields[WORKER]));
    if (!write_fully(STDOUT_FILENO, answer->body, out) && errno != EBADF) { /* closed */
        complain("standard output: %s\n", strerror(errno));
        code = code == 0 ? FAILED : code;
    }
    (void)write_fully(STDERR_FILENO, answer->body + out, answer->length - out);
    exit((int)code);
}

/* The real compiler in our place; returns only if there is none or it is not understood. */
static void compile_here(const struct answer *answer, char **words)
{
    size_t program_length, silent;
    if (!read_number(answer->fields[PROGRAM], answer->length, &program_length) ||
        !read_number(answer->fields[SILENT], 1, &silent) || program_length == 0)
        return;
    char *program = strndup(answer->body, program_length);
    if (program == NULL || strlen(program) != program_length)
        return;
    const char *text = answer->body + program_length;
    size_t length = answer->length - program_length;
    while (length > 0 && (text[length - 1] == ':' || text[length - 1] == ' '))
        length--; /* a reason without a detail */
    if (!silent && is_set("DIST_BUILD_FALLBACK", "0")) {
        say("not compiled: ", text, length);
        exit(NO_FALLBACK);
    }
    if (!silent || is_set("DIST_BUILD_VERBOSE", "1"))
        say("compiled locally: ", text, length);
    become_compiler(program, words); /* the socket stays open: it holds a local slot */
}

/* Returns if there is no syncer or its answer is not understood. */
static void ask_syncer(char **words)
{
    struct message request = {.data = room, .size = sizeof room};
    struct answer answer;
    int fd = connect_to_syncer();
    if (fd < 0)
        return;
    if (put_request(&request, words) && send_request(fd, &request) && receive_answer(fd, &answer)) {
        if (strcmp(answer.fields[KIND], "done") == 0)
            give_back(&answer);
        else if (strcmp(answer.fields[KIND], "local") == 0)
            compile_here(&answer, words);
    }
    (void)close(fd);
}

/* --- the ladder ------------------------------------------------------------------------------ */

static bool is_subcommand(const char *word)
{
    static const char *const known[] = {"status", "install", "clean", "doctor",
                                        "explain", "-h",      "--help"};
    for (size_t i = 0; i < COUNT(known); i++)
        if (strcmp(word, known[i]) == 0)
            return true;
    return false;
}

/* In front twice, as where CC and CMake's launcher both name it, it is there once. */
static bool is_ourselves(const char *word)
{
    return strcmp(base(word), "dist_build.exe") == 0 || strcmp(base(word), "dist_build") == 0;
}

int main(int argc, char **argv)
{
    static const char own[] = "dist_build";
    char passed[PATH_MAX];
    const char *list = getenv(SKIP);
    char **words = argv;
    if (argc == 0 || strncmp(base(argv[0]), own, sizeof own - 1) == 0) {
        words += argc > 0;
        while (*words != NULL && is_ourselves(*words))
            words++;
        if (*words == NULL || is_subcommand(*words))
            become_client(words, false);
    } else { /* called as gcc, through a link: it means the gcc behind that link */
        words[0] += base(words[0]) - words[0];
    }
    if (next_passed(&list, words[0], passed))
        go_on_behind(words);
    ask_syncer(words);
    become_client(words, true);
}
