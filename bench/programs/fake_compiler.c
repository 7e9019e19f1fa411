/* A compiler that only sleeps: what a farm costs when compiling costs nothing.
 *
 * With -c it sleeps as long as -frandom-seed=NNNms says (an option that every tool hands on and no
 * compiler minds), then writes a small object, the dependency file that -MD or -MMD ask for, and the
 * assembler's list of inputs that a specs file asks for.
 * Everything else, which is how tools find out what a compiler is, goes to the real one, REAL.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *output, *dependencies, *target, *source, *specs;
static int compiling, wants_dependencies;
static long sleep_ms;

static int ends_in(const char *word, const char *suffix)
{
    size_t length = strlen(word), wanted = strlen(suffix);
    return length > wanted && strcmp(word + length - wanted, suffix) == 0;
}

static void read_words(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "-c") == 0)
            compiling = 1;
        else if (strcmp(argv[i], "-o") == 0)
            output = next;
        else if (strcmp(argv[i], "-MF") == 0)
            dependencies = next;
        else if (strcmp(argv[i], "-MT") == 0 || strcmp(argv[i], "-MQ") == 0)
            target = next;
        else if (strcmp(argv[i], "-MD") == 0 || strcmp(argv[i], "-MMD") == 0)
            wants_dependencies = 1;
        else if (strncmp(argv[i], "-specs=", 7) == 0)
            specs = argv[i] + 7;
        else if (argv[i][0] != '-' && (ends_in(argv[i], ".c") || ends_in(argv[i], ".i")))
            source = argv[i];
        else
            sscanf(argv[i], "-frandom-seed=%ldms", &sleep_ms);
    }
}

static void put(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

/* A daemon has the assembler list what it reads: "--MD PATH" in a specs file, PATH with backslashes
 * before what has a meaning there. */
static void list_assembler_inputs(void)
{
    static char text[8192], path[8192];
    FILE *file = fopen(specs, "r");
    size_t length = file ? fread(text, 1, sizeof text - 1, file) : 0;
    const char *from = strstr(text, "--MD ");
    if (length == 0 || from == NULL || fclose(file) != 0)
        return;
    char *to = path;
    for (from += 5; *from != '\n' && *from != '\0'; from++)
        if (*from != '\\')
            *to++ = *from;
    put(path, "object: text.s\n");
}

int main(int argc, char **argv)
{
    read_words(argc, argv);
    if (!compiling || !output || !source) {
        argv[0] = REAL; /* gcc looks for its parts from there */
        execv(REAL, argv);
        perror(REAL);
        return 127;
    }
    struct timespec rest = {sleep_ms / 1000, sleep_ms % 1000 * 1000000};
    while (nanosleep(&rest, &rest) != 0)
        ;
    static char text[16384];
    snprintf(text, sizeof text, "an object of %s, %900d\n", source, 0);
    put(output, text);
    if (specs)
        list_assembler_inputs();
    if (wants_dependencies) {
        char beside[4096];
        const char *suffix = strrchr(output, '.');
        int stem = (int)(suffix ? suffix - output : (long)strlen(output));
        snprintf(beside, sizeof beside, "%.*s.d", stem, output);
        snprintf(text, sizeof text, "%s: %s\n", target ? target : output, source);
        put(dependencies ? dependencies : beside, text);
    }
    return 0;
}
