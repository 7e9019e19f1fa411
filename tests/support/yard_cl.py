"""A project with one of everything for the cl family, which has no system headers here."""

from pathlib import Path

_MAIN = r"""#ifdef MISSING
#include "not/there.h"
#endif
#ifdef ANGLE_MISSING
#include <not_there.h>
#endif
#ifdef LIB
#include "lib.h"
#endif
#ifdef DEEP
#include "nested/one.h"
#endif
#ifdef SPACED
#include "sp aced.h"
#endif
#ifdef SYSTEM
#include <system.h>
#endif
#ifdef BUILTIN
#include <stddef.h>
#include <limits.h>
#include <stdint.h>
#include <xmmintrin.h>
#endif
#ifdef UNICODE_NAME
#include "größe.h"
#endif
#ifdef HASH_ERROR
#error this is   an error
#endif
#ifdef HASH_WARNING
#pragma message("this is a message")
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
static const char *const file = __FILE__;
static const char *const base = __BASE_FILE__;
int depth = __INCLUDE_LEVEL__;
int version = _MSC_VER;
#ifdef NAMED
int NAMED = 7;
#endif
const char *message(void) { return MESSAGE; }
const char *names(int which) { return which ? file : base; }
__declspec(noinline) int add(int a, int b) { return a + b + NAME; }
__declspec(dllexport) int exported(int a) { return add(a, 1); }
#ifdef BROKEN
int broken(void) { return undeclared + 1 }
int more(void) { return also_undeclared; }
#endif
#ifdef WARN
int warn(int unused) { int x; unsigned y = 1; if (unused < y) return "a" == "b"; return x; }
#endif
#ifdef BIG
int big(int n) { int a[4096]; a[n] = n; return a[n / 2]; }
#endif
#ifdef LOOP
void loop(float *a, const float *b, int n) { for (int i = 0; i < n; i++) a[i] += b[i] * 2; }
#endif
#ifdef SEH
int risky(int *p) { __try { return *p; } __except (1) { return 0; } }
#endif
"""

_CPP = r"""#ifdef LIB
#include "lib.h"
#endif
#ifdef DEEP
#include "nested/one.h"
#endif
template <class T> struct Box {
    T value;
    T get() const { return value; }
};
struct Base { virtual ~Base() {} virtual int f() { return 1; } };
struct Derived : Base { int f() override { return 2; } };
int use(Base *b) { Box<int> box{b->f()}; return box.get(); }
int dynamic(Base *b) { return dynamic_cast<Derived *>(b) != nullptr; }
#ifdef THROWS
int thrower(int n) { try { if (n) throw n; } catch (int e) { return e; } return 0; }
#endif
#ifdef STATIC
int make(); int once() { static int value = make(); return value; }
#endif
#ifdef BROKEN
int broken() { return Box<undeclared>().get(); }
template <class T> void f(T t) { t.nothing(); }
void g() { f(1); }
#endif
#ifdef WARN
int warn(int unused) { int x; return "a" == "b"; }
#endif
long cpp = __cplusplus;
const char *file = __FILE__;
const char *function() { return __FUNCSIG__; }
"""

_FILES = {
    "README": "text\n",
    "src/main.c": _MAIN,
    "src/main.cpp": _CPP,
    "src/main.cxx": _CPP,
    "src/main.cc": _CPP,
    "src/second.c": '#include "../include/lib.h"\nint second(void) { return lib(2); }\n',
    "src/third.c": "int third(void) { return 3; }\n",
    "src/warns.c": "int w(int p) { int q; return 1; }\n",
    "src/broken.c": "int b(void) { return nothing; }\n",
    "src/empty.c": "",
    "src/odd.name": "int odd;\n",
    "src/plain": "int plain;\n",
    "src/dotted.name.c": "int dotted;\n",
    "src/with space.c": "int with_space(void) { return 1; }\n",
    "src/größe.c": "int groesse;\n",
    "src/quote'd.c": "int quoted;\n",
    "src/per%cent.c": "int percent;\n",
    "src/objc.m": "int objc;\n",
    "src/asm.asm": "nothing\n",
    "src/asm.s": ".globl f\nf: ret\n",
    "src/date.c": "const char *when = __DATE__ __TIME__;\n",
    "src/stamp.c": "const char *stamp = __TIMESTAMP__ __FILE__;\n",
    "src/once.c": '#include "once.h"\n#include "once.h"\nint o = ONCE;\n',
    "src/text.c": '#include "data.inc"\n#include "part.c"\n',
    "src/part.c": "int part;\n",
    "src/data.inc": "int data[] = {1, 2};\n",
    "src/pragma.c": '#pragma comment(lib, "user32")\n#pragma pack(push, 1)\n'
    "struct s { char c; int i; } s;\n#pragma pack(pop)\n#pragma once\nint p = sizeof s;\n",
    "conftest.c": "int main(void) { return 0; }\n",
    "CMakeFiles/CMakeScratch/TryCompile-x/probe.c": "int main(void) { return 0; }\n",
    "forced.h": "static int forced = __LINE__;\n",
    "include/lib.h": '#pragma once\n#include "macros.h"\n'
    "static __inline int lib(int a) { return a + TEN; }\n"
    "static const char *const lib_file = __FILE__;\n",
    "include/once.h": "#ifndef O\n#define O\n#define ONCE 1\n#endif\n",
    "include/macros.h": "#ifndef MACROS_H\n#define MACROS_H\n#define TEN 10\n#endif\n",
    "include/forced_too.h": "static int forced_too;\n",
    "include/nested/one.h": '#include "two.h"\n#include "../macros.h"\n',
    "include/nested/two.h": '#include "three.h"\n',
    "include/nested/three.h": "static __inline int three(void)\n{\n    int unused_three;\n"
    '    return (int)(long long)"s";\n}\n',
    "in clude/sp aced.h": "int spaced;\n",
    "in clude/größe.h": "int groesse_h;\n",
    "sys/system.h": "static int system_never(int p) { int q; return 1; }\n",
    "opts.rsp": '/O2 /DMESSAGE=\\"text\\" /Iinclude\n/DNAME=5\n',
    "nested.rsp": "@opts.rsp /DLIB\n",
    "quoted.rsp": '"/DMESSAGE=\\"a b\\"" "/Iin clude" /DSPACED "/DA=\\\\\\"x"\n',
    "backslash.rsp": "/DNAMED=a\\\\b\n",
    "whole.rsp": "/c src/main.c /Fobuild/out.obj /Od",
    "source.rsp": "src/main.c",
    "empty.rsp": "",
    "doubled.rsp": '/DMESSAGE="\\"a""b\\""\n',
}


def lay_out(root: Path) -> Path:
    """Write the project at ``root``."""
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name, encoding in (("utf16le", "utf-16-le"), ("utf16be", "utf-16-be")):
        text = '\ufeff/Iinclude /DLIB "/DMESSAGE=\\"grö\\"" /O2\r\n'
        (root / f"{name}.rsp").write_bytes(text.encode(encoding))
    (root / "utf8bom.rsp").write_bytes(b"\xef\xbb\xbf/Iinclude /DLIB\r\n/O1\r\n")
    (root / "latin.rsp").write_bytes(b'"/DMESSAGE=\\"gr\xf6\\""\r\n')
    for directory in ("build/sub", "out put", "odd.dir", "include/empty"):
        (root / directory).mkdir(parents=True)
    (root / "build/old.obj").write_text("old\n")
    (root / "build/readonly.obj").write_text("old\n")
    (root / "build/readonly.obj").chmod(0o444)
    (root / "build/link.obj").symlink_to("linked.obj")
    return root
