/* dist_build.exe: the native launcher, started by the build in front of every compile.
 *
 * It sends the command to the syncer over its Unix socket, waits, puts the outputs in place and
 * prints the compiler's output; or it replaces itself by the compiler that the syncer names. All
 * else is left to the Python client beside it, which has every fallback down to the local compile.
 * It does not interpret the command: it parses no option, opens no source and knows no output
 * format.
 *
 * Its end closes the socket, which cancels the job; so it handles no signal.
 */
#define _GNU_SOURCE
#include <strings.h>
#include <time.h>

#include "become.h"
#include "once.h"
#include "outputs.h"
#include "request.h"
#include "syncer.h"
#include "turns.h"

static const size_t MAX_HEAD = 16 * 1024;
static const size_t MAX_BODY = 512 * 1024 * 1024;
/* A syncer that ends without an answer may be restarting: wait for TRIES times BETWEEN_TRIES,
 * RESTARTS times. Otherwise all waiting wrappers would become as many Python processes at the same
 * time. */
static const int RESTARTS = 2, TRIES = 30;
static const struct timespec BETWEEN_TRIES = {.tv_nsec = 100 * 1000 * 1000};

/* Most requests and answers fit in this buffer: its untouched pages cost nothing, malloc does. */
static char room[64 * 1024];

/* --- the answer ------------------------------------------------------------------------------ */

enum field { KIND, LENGTH, EXIT, OUTPUTS, STDOUT, WORKER, TIMES, SILENT, PROGRAM, FIELDS };
static const char *const FIELD_NAMES[FIELDS] = {
    "Dist-Build", "Content-Length", "Dist-Build-Exit", "Dist-Build-Outputs",
    "Dist-Build-Stdout", "Dist-Build-Worker", "Dist-Build-Times", "Dist-Build-Silent",
    "Dist-Build-Program",
};
/* Dist-Build-Silent: a failure, by design, or by design but not expected by the user. */
enum { FAILURE, BY_DESIGN, UNEXPECTED };

struct answer {
    bool is_none; /* the connection ended before its first byte */
    const char *fields[FIELDS]; /* "" where the header is missing */
    char *body;
    size_t length;
    int fds[MAX_OUTPUTS]; /* of the outputs */
    size_t fd_count;
};

/* Why the client must compile locally without asking the syncer; NULL: it may ask. */
static const char *obstacle;
/* When this process first asked the syncer. */
static struct timespec began;

static void take_fds(struct msghdr *message, struct answer *answer)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (count > MAX_OUTPUTS - answer->fd_count)
            count = MAX_OUTPUTS - answer->fd_count; /* put_all_in_place finds some missing */
        memcpy(answer->fds + answer->fd_count, CMSG_DATA(part), count * sizeof(int));
        answer->fd_count += count;
    }
}

/* Receives at least one and up to SIZE bytes, and the descriptors with them; 0: end or error. */
static size_t receive(int fd, char *data, size_t size, struct answer *answer)
{
    static _Alignas(struct cmsghdr) char control[CMSG_SPACE(MAX_OUTPUTS * sizeof(int))];
    struct iovec part = {data, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control};
    ssize_t got;
    do {
        message.msg_controllen = sizeof control;
        got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    } while (got < 0 && may_try_again(fd));
    if (got <= 0)
        return 0;
    vain_looks = 0;
    take_fds(&message, answer);
    return (size_t)got;
}

/* Parses a decimal number of at most MOST. */
static bool read_number(const char *text, size_t most, size_t *value)
{
    const char *digit = text;
    for (*value = 0; *digit >= '0' && *digit <= '9' && *value <= most; digit++)
        *value = *value * 10 + (size_t)(*digit - '0');
    return digit > text && *digit == '\0' && *value <= most;
}

/* Splits the head into its fields, in place. A field that occurs twice may have been injected
 * through the value of another: such a head is refused, as is one with a NUL or half a line end in
 * it. */
static bool read_head(char *head, struct answer *answer)
{
    static const char ok[] = "HTTP/1.1 200 ", none[] = "";
    char *line = strstr(head, "\r\n"), *next;
    for (size_t i = 0; i < FIELDS; i++)
        answer->fields[i] = none;
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
        if (strpbrk(line, "\r\n") != NULL || strpbrk(value, "\r\n") != NULL)
            return false;
        for (size_t i = 0; i < FIELDS; i++) {
            if (strcasecmp(line, FIELD_NAMES[i]) != 0)
                continue;
            if (answer->fields[i] != none)
                return false;
            answer->fields[i] = value;
        }
    }
    return true;
}

/* Drops the interim responses, the syncer's heartbeats (RFC 9110, 15.2), with which the USED bytes
 * begin; returns how many bytes are left. */
static size_t drop_interim(size_t used)
{
    static const char interim[] = "HTTP/1.1 1";
    char *end;
    while (used >= sizeof interim - 1 && memcmp(room, interim, sizeof interim - 1) == 0 &&
           (end = memmem(room, used, "\r\n\r\n", 4)) != NULL) {
        used -= (size_t)(end + 4 - room);
        memmove(room, end + 4, used);
    }
    return used;
}

static bool receive_answer(int fd, struct answer *answer)
{
    size_t used = 0;
    char *end = NULL;
    while (end == NULL && used < MAX_HEAD) {
        size_t got = receive(fd, room + used, MAX_HEAD - used, answer);
        if (got == 0) {
            answer->is_none = used == 0;
            return false;
        }
        used = drop_interim(used + got);
        end = memmem(room, used, "\r\n\r\n", 4);
    }
    if (end == NULL)
        return false;
    answer->body = end + 4;
    end[2] = '\0';
    if (memchr(room, '\0', (size_t)(end - room)) != NULL || !read_head(room, answer) ||
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
        if ((got = receive(fd, answer->body + have, answer->length - have, answer)) == 0)
            return false;
    return true;
}

/* Prints the worker, and for DIST_BUILD_VERBOSE=2 the job's phases and its time in this process. */
static void say_worker(const struct answer *answer)
{
    char line[1024];
    const char *worker = answer->fields[WORKER], *times = answer->fields[TIMES];
    struct timespec now;
    if (verbosity() == 1)
        say("compiled by ", worker, strlen(worker));
    if (verbosity() < 2)
        return;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    double total_ms = (double)(now.tv_sec - began.tv_sec) * 1e3 +
                      (double)(now.tv_nsec - began.tv_nsec) / 1e6;
    (void)snprintf(line, sizeof line, "%.400s: %.400s%stotal %.1f ms", worker, times,
                   *times == '\0' ? "" : ", ", total_ms);
    say("compiled by ", line, strlen(line));
}

/* Prints the compiler's output and exits with its code; returns only if the answer is malformed or
 * the outputs cannot be written. */
static void give_back(const struct answer *answer)
{
    size_t code, list = 0, out;
    if (!read_number(answer->fields[EXIT], 255, &code) ||
        (*answer->fields[OUTPUTS] != '\0' &&
         !read_number(answer->fields[OUTPUTS], answer->length, &list)) ||
        !read_number(answer->fields[STDOUT], answer->length - list, &out))
        return;
    if (!put_all_in_place(answer->body, list, answer->fds, answer->fd_count)) {
        static char why[200];
        obstacle = errno == EPROTO ? NULL : why; /* EPROTO: a malformed answer */
        (void)snprintf(why, sizeof why, "output_not_written: cannot write the result: %s",
                       strerror(errno));
        return;
    }
    const char *text = answer->body + list;
    say_worker(answer);
    if (!write_fully(STDOUT_FILENO, text, out) && errno != EBADF) { /* closed */
        complain("standard output: %s\n", strerror(errno));
        code = code == 0 ? FAILED : code;
    }
    (void)write_fully(STDERR_FILENO, text + out, answer->length - list - out);
    exit((int)code);
}

/* Runs the real compiler instead; returns only if the answer names none or is malformed. */
static void compile_here(const struct answer *answer, char **words)
{
    size_t program_length, silent;
    if (!read_number(answer->fields[PROGRAM], answer->length, &program_length) ||
        !read_number(answer->fields[SILENT], UNEXPECTED, &silent) ||
        (program_length == 0 && silent != UNEXPECTED))
        return;
    char *program = strndup(answer->body, program_length);
    if (program == NULL || strlen(program) != program_length)
        return;
    const char *text = answer->body + program_length;
    size_t length = answer->length - program_length;
    while (length > 0 && strchr(": \n", text[length - 1]) != NULL && text[length - 1] != '\0')
        length--; /* a reason without a detail */
    if (silent == FAILURE && is_set("DIST_BUILD_FALLBACK", "0")) {
        say("not compiled: ", text, length);
        exit(NO_FALLBACK);
    }
    if (silent != BY_DESIGN || verbosity() > 0)
        say_once(NULL, text, length, silent == FAILURE);
    if (silent == UNEXPECTED)
        go_on_behind(words); /* the syncer sees other files, and may find another compiler */
    become_compiler(program, words); /* the socket stays open: it holds a local slot */
}

/* False: the syncer ended, or went silent, without an answer. */
static bool ask(int fd, char **words)
{
    struct message request = {.data = room, .size = sizeof room};
    struct answer answer = {.is_none = false};
    if (!put_request(&request, words))
        return true;
    if (!send_request(fd, &request))
        return false;
    if (receive_answer(fd, &answer)) {
        if (strcmp(answer.fields[KIND], "done") == 0)
            give_back(&answer);
        else if (strcmp(answer.fields[KIND], "local") == 0)
            compile_here(&answer, words);
    }
    return !answer.is_none;
}

/* Without the client, which is a Python process: a build has many of these at the same moment.
 * Where DIST_BUILD_FALLBACK forbids local compiles it returns: the client knows what is local
 * anyway, such as links. */
static void compile_without_syncer(char **words)
{
    obstacle = "the syncer has said nothing for 10 s: it is stopped, or stuck";
    if (is_set("DIST_BUILD_FALLBACK", "0"))
        return;
    say_once("unreachable", obstacle, strlen(obstacle), true);
    if (looks_like_compiler(base(words[0]))) /* others may start whole builds */
        take_turn();
    go_on_behind(words);
}

/* Returns if there is no syncer or its answer is malformed. */
static void ask_syncer(char **words)
{
    (void)clock_gettime(CLOCK_MONOTONIC, &began);
    int fd = connect_to_syncer();
    for (int restarts = 0; fd >= 0; restarts++) {
        bool is_answered = ask(fd, words);
        (void)close(fd);
        fd = -1;
        for (int i = 0; !is_answered && !is_silent && restarts < RESTARTS && fd < 0 && i < TRIES;
             i++) {
            (void)nanosleep(&BETWEEN_TRIES, NULL);
            fd = connect_to_syncer();
        }
    }
    if (is_silent)
        compile_without_syncer(words);
}

/* --- the steps ------------------------------------------------------------------------------- */

static bool is_subcommand(const char *word)
{
    static const char *const known[] = {"status", "install", "clean", "doctor", "explain",
                                        "cache",  "builds",  "trace", "top",    "dashboard",
                                        "help",   "-h",      "--help", "version", "--version",
                                        "setup",  "workers", "completion"};
    for (size_t i = 0; i < COUNT(known); i++)
        if (strcmp(word, known[i]) == 0)
            return true;
    return false;
}

/* Whether an argument names this program: CC and CMake's launcher may both name it. */
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
    } else { /* called as gcc, through a link: run the gcc behind that link */
        words[0] += base(words[0]) - words[0];
    }
    if (next_passed(&list, words[0], passed))
        go_on_behind(words);
    ask_syncer(words);
    (void)(obstacle != NULL ? setenv(OBSTACLE, obstacle, 1) : unsetenv(OBSTACLE));
    become_client(words, true);
}
