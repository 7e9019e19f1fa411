"""A project with one of everything, in which the differential test runs its command lines."""

import os
import shutil
import subprocess
from pathlib import Path

_MAIN = r"""#include <assert.h>
#include <stdarg.h>
#include <stddef.h>
#ifdef BARE
typedef int bare;
#else
#include <stdio.h>
#include <string.h>
#endif
#ifdef MISSING
#include "not/there.h"
#endif
#ifdef IN_HEADER
#include "nested/warns.h"
#endif
#ifdef IN_SYSTEM
#include <warns_too.h>
#endif
#ifdef NEXT
#include <next.h>
#endif
#ifdef DEEP
#include "nested/one.h"
#endif
#ifdef BYPATH
#include "bypath.h"
#endif
#ifdef SPACED
#include "sp aced.h"
#endif
#ifdef HASH_ERROR
#error this is   an error
#endif
#ifdef HASH_WARNING
#warning this is   a warning
#endif
#if defined __has_include
#if __has_include("lib.h")
#include "lib.h"
#endif
#endif
#ifndef NAME
#define NAME 1
#endif
#ifndef MESSAGE
#define MESSAGE "message"
#endif
static const char *const file = __FILE__, *const base = __BASE_FILE__;
int depth = __INCLUDE_LEVEL__;
const char *message(void) { return MESSAGE; }
const char *names(int which) { return which ? file : base; }
#ifdef BROKEN
int broken(void) { return undeclared + 1 }
struct unfinished { int a;; };
int broken(double);
#endif
#ifdef WARN
struct shape { int x, y; };
static int warned(int unused, unsigned u)
{
    int x = "text" == file, uninitialised;
    struct shape s = { .x = 1, };
    if (x = u) return uninitialised;
    if (u < -1) return s.x;
    return 'ab' + 1 ? : 2;
}
int no_return(int a) { switch (a) { case 1: a++; case 2: a--; } }
#endif
#ifndef BARE
int printed(const char *f, ...)
{
    va_list list;
    va_start(list, f);
#ifdef WARN
    printf(f); printf("%d %s\n", "x", 1L);
#endif
    int n = vprintf(f, list);
    va_end(list);
    assert(n >= 0 && "it was printed");
    return n + NAME;
}
size_t len(const char *s) { char room[16]; return s ? strlen(s) : sizeof room; }
#endif
#ifndef NOFLOAT
double mean(const double *v, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += v[i] * v[i];
    return n ? sum / n : 0;
}
#endif
int main(void) { return NAME - 1; }
"""
_CPP = r"""#include <map>
#include <stdexcept>
#include <string>
#include <vector>
#ifdef LOCATION
#include <source_location>
std::string where(std::source_location l = std::source_location::current())
{ return l.file_name() + std::string(l.function_name()) + std::to_string(l.line()); }
std::string here() { return where(); }
#endif
#ifdef BYPATH
#include "bypath.h"
#endif
#if __has_include("lib.h")
#include "lib.h"
#endif
template <int N> struct Deep { static const int value = Deep<N - 1>::value + 1; };
template <> struct Deep<0> { static const int value = 0; };
#ifdef DEPTH
int deep = Deep<100>::value;
#endif
#ifdef CONCEPT
template <typename T> concept Small = sizeof(T) < 2 && requires(T t) { t.small(); };
template <Small T> int take(T) { return 1; }
int concepts = take(1.0);
#endif
#ifdef TEMPLATE_ERROR
std::map<std::string, std::vector<int>> wrong = std::map<std::string, std::vector<double>>();
void insert(std::vector<std::string> &v) { v.push_back(std::map<int, int>()); }
#endif
#ifdef BROKEN
class Unfinished { public: void f() const { g(); } int h( };
#endif
struct Shape { virtual ~Shape() {} virtual double area() const { return 0; } };
struct Square : Shape {
    explicit Square(double a) : a(a) {}
    double area() const override { return a * a; }
    double a;
};
double total(const std::vector<Shape *> &shapes)
{
#ifdef WARN
    int unused; for (int i = 0; i < shapes.size(); i++) ;
    Square *s = (Square *)shapes[0];
#endif
    double sum = 0;
    for (auto *shape : shapes) sum += shape->area();
    if (sum < 0) throw std::runtime_error(__FILE__);
    return sum;
}
static std::map<std::string, int> table;
int &entry(const std::string &name) { static int calls; ++calls; return table[name]; }
inline int inlined(int x) { return x * 2; }
int (*pointer)(int) = &inlined;
"""
_OLD = r"""#include <cstddef>
class Old { public: Old(); virtual ~Old(); virtual int f(int) { return 1; } int x; };
Old::Old() : x(NULL == 0) {}
Old::~Old() {}
template <class T> T largest(T a, T b) { return a < b ? b : a; }
int chosen = largest(1, 2);
"""
_ASM = """#include "macros.h"
#ifndef NAME
#define NAME 3
#endif
#ifdef BROKEN
        nonsense %rax
#endif
        .text
        .globl  answer
        .type   answer, @function
answer: movl    $(TEN + NAME), %eax
        ret
        .size   answer, .-answer
        .section .note.GNU-stack,"",@progbits
"""
_PLAIN_ASM = """        .text
        .globl  plain
plain:  movl    $7, %eax
        ret
        .section .note.GNU-stack,"",@progbits
"""
_OBJC = """@interface Thing { int x; } - (int)x; @end
@implementation Thing - (int)x { return x; } @end
"""
#: Sources whose names are more of a test than what is in them.
_ODD_NAMES = (
    "with space.c quo'te.c dou\"ble.c ünï.c 100%.c dol$lar.c ha#sh.c a+b,c.c a=b.c a@b.c two.dots.c"
).replace("with space", "with\0space")

_FILES = {
    "README": "text\n",
    "conftest.c": "int main(void) {\n#ifdef BROKEN\n x\n#endif\n return 0; }\n",
    "conftest.cpp": "#include <string>\nint main() { return 0; }\n",
    "CMakeFiles/CMakeScratch/TryCompile-x/probe.c": "int main(void) { return 0; }\n",
    "CMakeFiles/CMakeTmp/probe.c": "int main(void) { return 0; }\n",
    "CMakeFiles/CMakeTmp/CMakeFiles/cmTC_1.dir/keep": "",
    "forced.h": "static int forced __attribute__((unused)) = __LINE__;\n",
    "opts.rsp": "-O2 -g\n'-DMESSAGE=\"from a file\"' -Iinclude\n",
    "nested.rsp": "-DOUTER=1 @opts.rsp\n",
    "quoted.rsp": '-DA=\\"x\\" "-DB=b c" \'-DC=\\\'\' -D"D"=1\n',
    "empty.rsp": "",
    "whole.rsp": "-c src/main.c -o build/out.o -g",
    "sources.rsp": "src/main.c",
    "script.ld": "/* nothing */\n",
    "tool.sh": "#!/bin/sh\necho tool\n",
    "inert.modmap": "$root .\n",
    "mapping.modmap": "$root .\nlib lib.gcm\n",
    "include/lib.h": '#pragma once\n#include "macros.h"\n#include <stddef.h>\n'
    "static inline int lib(int a) { return a + TEN; }\n"
    "static const char *const lib_file __attribute__((unused)) = __FILE__;\n",
    "include/macros.h": "#ifndef MACROS_H\n#define MACROS_H\n#define TEN 10\n#endif\n",
    "include/bypath.h": "#define BY 1\nstatic int by __attribute__((unused)) = BY;\n",
    "include/nested/warns.h": "static int never_used(int p) { int q; return 1; }\n"
    '#include "one.h"\n',
    "include/nested/one.h": '#include "two.h"\n',
    "include/nested/two.h": '#include "three.h"\n',
    "include/nested/three.h": '#define BAD(x) ((x) + undefined_thing)\n#include "four.h"\n',
    "include/nested/four.h": "static inline int four(void)\n{\n    int unused_four;\n"
    '    return "s" == 0;\n}\nint nesting = __INCLUDE_LEVEL__;\n',
    "in clude/sp aced.h": "int spaced;\n",
    "sys/next.h": "#include_next <stdio.h>\nint in_next(int a) { int b; return 0; }\n",
    "sys/warns_too.h": 'static int system_never(int p) { int q; return "a" == "b"; }\n',
    "quoted/lib.h": "int from_quoted;\n",
    "after/late.h": "int late;\n",
    "src/main.c": _MAIN,
    "src/second.c": "int second(void) { return 2; }\n",
    "src/empty.c": "",
    "src/odd.name": "int odd;\n",
    "src/main.cpp": _CPP,
    "src/main.cxx": _OLD,
    "src/main.c++": _OLD,
    "src/main.cc": _OLD,
    "src/upper.C": _OLD,
    "src/old.cpp": _OLD,
    "src/asm.S": _ASM,
    "src/asm.s": _PLAIN_ASM,
    "src/broken.s": "        nonsense %rax\n",
    "src/macros_only.S": "#define UNUSED 1\n" + _PLAIN_ASM,
    "src/include_asm.s": '        .include "src/asm.s"\n',
    "src/include_near.s": '        .include "asm.s"\n',
    "src/incbin.S": '        .data\nblob:   .incbin "data.bin"\n',
    "src/incbin_macro.S": '#define FILE "data.bin"\n        .data\nblob:   .incbin FILE\n',
    "src/incbin_absent.S": '        .data\nblob:   .incbin "absent.bin"\n',
    "src/incbin.c": '__asm__(".data\\nblob: .incbin \\"data.bin\\"\\n.text");\n',
    "src/incbin_path.c": "#define STRING(x) #x\n#define S(x) STRING(x)\n"
    '__asm__(".data\\nblob: .incbin " S(DATA) "\\n.text");\n',
    "data.bin": "\x01\x02 binary \x7f\n",
    "src/pre.i": '# 1 "orig/pre.c"\n# 1 "/usr/include/x.h" 1 3\nint x(void);\n# 3 "orig/pre.c" 2\n'
    "int y(void) { return x(); }\n",
    "src/pre.ii": '# 1 "orig/pre.cc"\nint z() { return 1; }\n',
    "src/objc.m": _OBJC,
    "src/objcxx.mm": _OBJC + "template <class T> T id_of(T t) { return t; }\n",
    "src/blocks.c": "int (^block)(int) = ^(int x) { return x + 1; };\n",
    "src/date.c": "const char *when = __DATE__ __TIME__;\n",
    "src/stamp.c": "const char *stamp = __TIMESTAMP__ __FILE__;\n",
    "src/main.adb": "procedure Main is begin null; end Main;\n",
    "src/main.f90": "program main\nend program main\n",
    "src/main.go": "package main\nfunc main() {}\n",
    "src/main.d": "void main() {}\n",
    "src/dir.c/keep": "",
    "build/dir.o/keep": "",
    "build/out.d": "stale\n",
    "prof/keep": "",
    "deps/keep": "",
}


def lay_out(root: Path) -> Path:
    """Write the project below ``root``, which is new."""
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name in _ODD_NAMES.split(" "):
        (root / "src" / name.replace("\0", " ")).write_text(_MAIN, encoding="utf-8")
    (root / "tool.sh").chmod(0o755)
    # The time of the sources shows in __TIMESTAMP__.
    os.utime(root / "src/stamp.c", (1_000_000_000, 1_000_000_000))
    (root / "build/target.o").write_text("old\n")
    (root / "build/link.o").symlink_to("target.o")
    (root / "build/dangling.o").symlink_to("absent.o")
    (root / "bin").mkdir()
    for name in ("gfortran", "gccgo", "gnatmake", "gdc", "x86_64-w64-mingw32-gfortran-12"):
        (root / "bin" / name).write_text('#!/bin/sh\necho "${0##*/}" "$@"\n')
        (root / "bin" / name).chmod(0o755)
    for link, tool in (("mygcc", "gcc"), ("myclang", "clang"), ("bin/g++", "g++")):
        if (found := shutil.which(tool)) is not None:
            (root / link).symlink_to(found)
    return root


def precompile(root: Path, compiler: str, suffix: str) -> None:
    """A precompiled form of ``pch/all.h`` beside it, made by ``compiler``."""
    (root / "pch").mkdir(exist_ok=True)
    (root / "pch/all.h").write_text("#include <stdio.h>\nint precompiled;\n")
    subprocess.run(
        [compiler, "-x", "c-header", "pch/all.h", "-o", f"pch/all.h{suffix}"], cwd=root, check=True
    )
