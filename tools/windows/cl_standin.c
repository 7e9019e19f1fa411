/* Stands in for Microsoft's cl.exe in tests under wine: reads its command line as cl.exe does, and
 * has zig's clang do the work in cl mode. The banner, the echo of each source's name, exit code 2,
 * response files in any encoding, /sourceDependencies and a program database are cl.exe's ways
 * that clang has not. Built by mingw as a wide-character program; knows nothing of dist_build. */
#include <windows.h>

#include <shellapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define MAX_WORDS 8192
#define MAX_LINE 30000
#define NOTE "Note: including file:"

static const wchar_t *words[MAX_WORDS];
static int count;

static void fail(const char *what) {
    fprintf(stderr, "cl : Command line error D8000 : stand-in: %s (%lu)\n", what, GetLastError());
    exit(2);
}

static void *memory(size_t bytes) {
    void *made = calloc(1, bytes);
    if (!made) fail("memory");
    return made;
}

/* A file's bytes, followed by two zero bytes; NULL when it cannot be read. */
static char *contents(const wchar_t *path, size_t *size) {
    FILE *file = _wfopen(path, L"rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *data = memory(*size + 2);
    if (fread(data, 1, *size, file) != *size) fail("reading");
    fclose(file);
    return data;
}

static wchar_t *decoded(UINT page, DWORD flags, const char *data) {
    int length = MultiByteToWideChar(page, flags, data, -1, NULL, 0);
    if (length == 0) return NULL;
    wchar_t *text = memory((size_t)length * sizeof *text);
    MultiByteToWideChar(page, flags, data, -1, text, length);
    return text;
}

/* Text as a response file may have it: UTF-16 or UTF-8 by its mark, else UTF-8 or code page 1252. */
static wchar_t *text_of(char *data, size_t size) {
    if (size >= 2 && !memcmp(data, "\xff\xfe", 2)) return (wchar_t *)(data + 2);
    if (size >= 3 && !memcmp(data, "\xef\xbb\xbf", 3)) return decoded(CP_UTF8, 0, data + 3);
    wchar_t *text = decoded(CP_UTF8, MB_ERR_INVALID_CHARS, data);
    return text ? text : decoded(1252, 0, data);
}

static void add(const wchar_t *word) {
    if (count == MAX_WORDS) fail("too many words");
    words[count++] = word;
}

static void add_file(const wchar_t *path) {
    size_t size = 0;
    char *data = contents(path, &size);
    if (!data) fail("cannot open command file");
    wchar_t *text = text_of(data, size);
    /* The first word of a command line has rules of its own. */
    wchar_t *line = memory((wcslen(text) + 3) * sizeof *line);
    wcscpy(line, L"x ");
    wcscat(line, text);
    for (wchar_t *c = line; *c; c++)
        if (*c == L'\n' || *c == L'\r') *c = L' ';
    int found;
    wchar_t **split = CommandLineToArgvW(line, &found);
    if (!split) fail("splitting");
    for (int i = 1; i < found; i++) add(split[i]);
}

static int is_option(const wchar_t *word, const wchar_t *name) {
    return (word[0] == L'/' || word[0] == L'-') && !wcscmp(word + 1, name);
}

/* The value joined to an option, or NULL. */
static const wchar_t *joined(const wchar_t *word, const wchar_t *name) {
    size_t length = wcslen(name);
    return (word[0] == L'/' || word[0] == L'-') && !wcsncmp(word + 1, name, length)
        ? word + 1 + length : NULL;
}

static int is_source(const wchar_t *word) {
    static const wchar_t *const suffixes[] = {L".c", L".cpp", L".cc", L".cxx"};
    const wchar_t *dot = wcsrchr(word, L'.');
    if (!dot || word[0] == L'-' || (word[0] == L'/' && !wcschr(word + 1, L'/'))) return 0;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (!_wcsicmp(dot, suffixes[i])) return 1;
    return 0;
}

static const wchar_t *base(const wchar_t *path) {
    const wchar_t *name = path;
    for (; *path; path++)
        if (*path == L'\\' || *path == L'/') name = path + 1;
    return name;
}

/* Appends a word as CommandLineToArgvW reads it back. */
static void quote(wchar_t *line, const wchar_t *word) {
    wchar_t *to = line + wcslen(line);
    *to++ = L' ';
    *to++ = L'"';
    for (size_t slashes = 0;; word++) {
        if (*word == L'\\') {
            slashes++;
            continue;
        }
        size_t written = *word == L'"' || !*word ? 2 * slashes : slashes;
        while (written--) *to++ = L'\\';
        slashes = 0;
        if (!*word) break;
        if (*word == L'"') *to++ = L'\\';
        *to++ = *word;
    }
    *to++ = L'"';
    *to = 0;
}

static wchar_t response[MAX_PATH];

/* The command line of the compiler behind; a long one goes into a file. */
static wchar_t *command_line(void) {
    const wchar_t *zig = _wgetenv(L"CL_STANDIN_ZIG");
    size_t room = MAX_PATH * 2;
    for (int i = 0; i < count; i++) room += 2 * wcslen(words[i]) + 4;
    wchar_t *rest = memory(room * sizeof *rest), *line = memory(room * sizeof *line);
    for (int i = 0; i < count; i++) quote(rest, words[i]);
    swprintf(line, room, L"\"%ls\" clang --driver-mode=cl -Qunused-arguments",
             zig ? zig : L"C:\\zig\\zig.exe");
    if (wcslen(rest) < MAX_LINE) return wcscat(line, rest);
    wchar_t directory[MAX_PATH];
    if (!GetTempPathW(MAX_PATH, directory) || !GetTempFileNameW(directory, L"cl", 0, response))
        fail("temporary file");
    FILE *file = _wfopen(response, L"wb");
    if (!file) fail("temporary file");
    fwrite(L"\xfeff", sizeof(wchar_t), 1, file);
    fwrite(rest, sizeof(wchar_t), wcslen(rest), file);
    fclose(file);
    wchar_t word[MAX_PATH + 1] = L"@";
    quote(line, wcscat(word, response));
    return line;
}

/* Runs it; its standard output is ours, or what comes out of it is returned in `output`. */
static DWORD run(wchar_t *line, char **output) {
    STARTUPINFOW start = {0};
    PROCESS_INFORMATION process;
    HANDLE reader = NULL, writer = NULL;
    DWORD code, got;
    start.cb = sizeof start;
    start.dwFlags = STARTF_USESTDHANDLES;
    start.hStdInput = GetStdHandle(STD_INPUT_HANDLE);
    start.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    start.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    if (output) {
        SECURITY_ATTRIBUTES inherited = {sizeof inherited, NULL, TRUE};
        if (!CreatePipe(&reader, &writer, &inherited, 0)) fail("pipe");
        SetHandleInformation(reader, HANDLE_FLAG_INHERIT, 0);
        start.hStdOutput = writer;
    }
    if (!CreateProcessW(NULL, line, NULL, NULL, TRUE, 0, NULL, NULL, &start, &process))
        fail("the compiler behind cannot be started");
    if (output) {
        size_t size = 0, room = 65536;
        char *data = memory(room);
        CloseHandle(writer);
        while (ReadFile(reader, data + size, (DWORD)(room - size - 1), &got, NULL) && got) {
            size += got;
            if (room - size < 4096 && !(data = realloc(data, room *= 2))) fail("memory");
        }
        data[size] = 0;
        *output = data;
    }
    WaitForSingleObject(process.hProcess, INFINITE);
    GetExitCodeProcess(process.hProcess, &code);
    if (*response) DeleteFileW(response);
    return code;
}

static const char *full(const char *path) {
    static char found[4096];
    if (!_fullpath(found, path, sizeof found)) fail("path");
    return found;
}

/* A path as cl.exe writes it into JSON: in full, in lower case. */
static void json_path(FILE *file, const char *path) {
    char text[4096];
    fputc('"', file);
    for (char *c = _strlwr(strcpy(text, full(path))); *c; c++) {
        if (*c == '\\' || *c == '"') fputc('\\', file);
        fputc(*c, file);
    }
    fputc('"', file);
}

/* Prints what came, with notes in full if they were asked for, and writes the document of
 * /sourceDependencies. */
static void tell(char *output, FILE *file, const wchar_t *source, int notes) {
    char narrow[4096];
    const char *before = "\n            ";
    if (file) {
        WideCharToMultiByte(CP_UTF8, 0, source, -1, narrow, sizeof narrow, NULL, NULL);
        fputs("{\n    \"Version\": \"1.1\",\n    \"Data\": {\n        \"Source\": ", file);
        json_path(file, narrow);
        fputs(",\n        \"ProvidedModule\": \"\",\n        \"Includes\": [", file);
    }
    for (char *line = strtok(output, "\r\n"); line; line = strtok(NULL, "\r\n")) {
        const char *path = NULL;
        if (!strncmp(line, NOTE, strlen(NOTE))) path = line + strlen(NOTE) + strspn(line + strlen(NOTE), " ");
        if (path && file) {
            fputs(before, file);
            json_path(file, path);
            before = ",\n            ";
        }
        if (!path) puts(line);
        else if (notes) printf("%.*s%s\n", (int)(path - line), line, full(path));
    }
    if (file) {
        fputs("\n        ],\n        \"ImportedModules\": [],\n        \"ImportedHeaderUnits\": []\n"
              "    }\n}", file);
        fclose(file);
    }
    fflush(stdout);
}

/* What begins at the current drive's root, with that drive: clang does not find it otherwise. */
static const wchar_t *with_drive(const wchar_t *path) {
    wchar_t here[MAX_PATH];
    if ((path[0] != L'/' && path[0] != L'\\') || path[1] == L'/' || path[1] == L'\\') return path;
    if (!GetCurrentDirectoryW(MAX_PATH, here) || here[1] != L':') return path;
    wchar_t *found = memory((wcslen(path) + 3) * sizeof *found);
    wcsncpy(found, here, 2);
    return wcscat(found, path);
}

static const wchar_t *search_option(const wchar_t *word) {
    static const wchar_t *const names[] = {L"external:I", L"FI", L"I"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (joined(word, names[i])) return names[i];
    return NULL;
}

static void write_database(const wchar_t *named) {
    wchar_t path[MAX_PATH] = L"vc140.pdb";
    if (named && *named) swprintf(path, MAX_PATH, L"%ls%ls", named, wcschr(base(named), L'.') ? L"" : L".pdb");
    FILE *file = _wfopen(path, L"ab");
    if (file) fclose(file);
}

int main(void) {
    int argc;
    wchar_t **argv = CommandLineToArgvW(GetCommandLineW(), &argc);
    const wchar_t *dependencies = NULL, *source = NULL, *database = NULL;
    int quiet = 0, notes = 0, edits = 0, kept = 0;
    if (!argv) fail("splitting");
    for (int i = 1; i < argc; i++) argv[i][0] == L'@' ? add_file(argv[i] + 1) : add(argv[i]);
    for (int i = 0; i < count; i++) {
        const wchar_t *word = words[i], *value = joined(word, L"sourceDependencies");
        if (word[0] == L'-' && word[1] == L'-') {
            fprintf(stderr, "cl : Command line warning D9002 : ignoring unknown option '%ls'\n", word);
            continue;
        }
        if (value && (*value || i + 1 < count)) {
            dependencies = *value ? value : words[++i];
            continue;
        }
        if (is_option(word, L"nologo")) quiet = 1;
        if (is_option(word, L"showIncludes")) notes = 1;
        if (is_option(word, L"Zi") || is_option(word, L"ZI")) edits = 1;
        if (is_option(word, L"Z7")) edits = 0;
        if (joined(word, L"Fd")) database = joined(word, L"Fd");
        if (joined(word, L"Tc") || joined(word, L"Tp")) source = word + 3;
        else if (is_source(word)) source = word;
        const wchar_t *name = search_option(word);
        words[kept++] = word;
        if (name && *joined(word, name)) {
            wchar_t *made = memory((wcslen(word) + 3) * sizeof *made);
            wcsncpy(made, word, 1 + wcslen(name));
            words[kept - 1] = wcscat(made, with_drive(joined(word, name)));
        } else if (name && i + 1 < count) {
            words[kept++] = with_drive(words[++i]);
        }
    }
    count = kept;
    if (!quiet)
        fprintf(stderr, "Microsoft (R) C/C++ Optimizing Compiler Version 19.29.30133 for x64\n"
                        "(a stand-in for it, with clang behind)\n\n");
    if (argc < 2) {
        fprintf(stderr, "usage: cl [ option... ] filename... [ /link linkoption... ]\n");
        return 0;
    }
    if (!source) {
        fprintf(stderr, "cl : Command line error D8003 : missing source filename\n");
        return 2;
    }
    for (int i = 0; i < count; i++)
        if (is_source(words[i])) wprintf(L"%ls\n", base(words[i]));
    fflush(stdout);
    if (dependencies || notes) {
        char *output;
        FILE *file = dependencies ? _wfopen(dependencies, L"wb") : NULL;
        if (dependencies && !file) fail("cannot write the dependencies");
        add(L"/showIncludes");
        DWORD code = run(command_line(), &output);
        tell(output, file, source, notes);
        return code ? 2 : 0;
    }
    if (edits && source) write_database(database);
    return run(command_line(), NULL) ? 2 : 0;
}
