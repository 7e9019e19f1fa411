"""Commands and texts whose meaning depends on more than the contents of plain includes: the object
cache must notice the change, or must not keep the result."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from distbuild.syncer.compilers import LOOK_S
from tests.support.caching_box import CachingBox, done_of, is_hit
from tests.support.cluster import Done
from tests.support.tools import absent, need

GCC = ("gcc", "-c", "src/x.c", "-Iearly", "-Iinc", "-Ilate", "-o", "x.o", "-MD")
CLANG = ("clang", *GCC[1:])
OUTPUTS = (".o", ".d", ".i", ".s")
#: System headers are in no list of inputs.
HIDES = (*GCC[:-1], "-MMD")
#: Makes one name of three parts.
PASTES = "#define Q(a, b, c) a##b##c\n#define P(a, b, c) Q(a, b, c)\n"
#: A name that is looked for, and may exist.
ASKS = "int y;\n#endif\nint x;\n"
TWICE = "#ifdef SEEN\nint again;\n#endif\n#define SEEN\n"
Edit = Callable[[Path], None]


class Trap(NamedTuple):
    """A project's files, and links by name; ``edit`` changes what the command gives."""

    files: dict[str, str]
    edit: Edit
    more: tuple[str, ...] = ()
    links: dict[str, str] = {}
    argv: tuple[str, ...] = GCC


def makes(name: str, text: str = "") -> Edit:
    def edit(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    return edit


def waits(_: Path) -> None:
    """Wait until the syncer looks again whether the compiler has changed."""
    time.sleep(LOOK_S * 1.2)


def removes(name: str) -> Edit:
    return lambda root: (root / name).unlink()


def dates(name: str, at: float) -> Edit:
    return lambda root: os.utime(root / name, (at, at))


def directory(name: str) -> Edit:
    return lambda root: (root / name).mkdir()


def replaced_by_file(root: Path) -> None:
    (root / "early").rmdir()
    (root / "early").write_text("")


def linked(root: Path) -> None:
    (root / "outside").mkdir()
    (root / "outside/y.h").write_text("int y = 2;\n")
    (root / "early/conf.d").symlink_to(root / "outside")


def both(*edits: Edit) -> Edit:
    def edit(root: Path) -> None:
        for one in edits:
            one(root)

    return edit


def link(name: str, target: str) -> Edit:
    return lambda root: (root / name).symlink_to(target)


def hard_linked(name: str, other: str) -> Edit:
    def edit(root: Path) -> None:
        (root / name).unlink()
        os.link(root / other, root / name)

    return edit


def precompiled(root: Path) -> None:
    (root / "late/x.h.gch").mkdir()
    argv = ["gcc", "-x", "c-header", "other.h", "-o", "late/x.h.gch/1"]
    subprocess.run(argv, cwd=root, check=True)


def passes(_: Path) -> None:
    """Wait until the time of day is another."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.01)


USES = {"src/x.c": '#include "x.h"\nint x = X;\n', "inc/x.h": "#define X 1\n"}
ONCE = {"inc/x.h": "#pragma once\n" + TWICE, "inc/copy.h": "#pragma once\n" + TWICE}
COPIES = {"inc/x.h": TWICE, "inc/copy.h": TWICE}
TRAPS = {
    "a dangling link's target appears": Trap(
        USES, makes("late/missing.h", "#define X 2\n"), links={"early/x.h": "../late/missing.h"}
    ),
    "a dangling directory link's target appears": Trap(
        {"src/x.c": "#include <sub/x.h>\nint x = X;\n", "late/sub/x.h": "#define X 1\n"},
        makes("outside/v1/x.h", "#define X 2\n"),
        links={"early/sub": "../outside/v1"},
    ),
    "a link's target goes": Trap(
        {"src/x.c": '#if __has_include("w.h")\n' + ASKS, "other/real.h": ""},
        removes("other/real.h"),
        links={"early/w.h": "../other/real.h"},
    ),
    "a link of an ignored name": Trap(
        {"src/x.c": "#include <conf.d/y.h>\n", "late/conf.d/y.h": "int y = 1;\n"}, linked
    ),
    "a time on the command line": Trap(
        {"src/x.c": "char when[] = WHEN;\n"}, dates("src/x.c", 2), ("-DWHEN=__TIMESTAMP__",)
    ),
    "a comment in a test": Trap(
        {"src/x.c": "#if __has_include(/* */<foo.h>)\n" + ASKS}, makes("early/foo.h")
    ),
    "a parenthesis from a macro": Trap(
        {"src/x.c": "#define LP (\n#if __has_include LP <foo.h>)\n" + ASKS}, makes("early/foo.h")
    ),
    "a test on the command line": Trap(
        {"src/x.c": "#if HAVE\n" + ASKS}, makes("early/foo.h"), ("-DHAVE=__has_include(<foo.h>)",)
    ),
    "a test for the preprocessor": Trap(
        {"src/x.c": "#if HAVE\n" + ASKS},
        makes("early/foo.h"),
        ("-Wp,-DHAVE=__has_include(<foo.h>)",),
    ),
    "an apostrophe between digits": Trap(
        {
            "src/x.c": "// __TIMESTAMP__\n#define Q 1'0/*'\n"
            "#if __has_include(<foo.h>)\n/**/\n" + ASKS
        },
        makes("early/foo.h"),
    ),
    "a missing directory is warned of": Trap(
        USES, directory("new"), ("-Wmissing-include-dirs", "-Inew")
    ),
    "a search directory becomes a file": Trap(USES, replaced_by_file),
    "an import compares times": Trap(
        {**COPIES, "src/x.c": '#import "x.h"\n#include "copy.h"\nint x;\n'}, dates("inc/copy.h", 2)
    ),
    "the source itself is included": Trap(
        {"src/x.c": "#ifndef A\n#define A\n#include __FILE__\n#else\nint x;\n#endif\n"},
        makes("early/src/x.c", "int y;\n"),
        ("-I.",),
    ),
    "a name that only the preprocessor gets": Trap(
        {"src/x.c": "#include NAME\nint w = W;\n", "late/real_w.h": "#define W 1\n"},
        makes("early/w.h", "#define W 2\n"),
        ("-Wp,-DNAME=<w.h>",),
        {"late/w.h": "real_w.h"},
    ),
    "a pragma compares times": Trap(
        {"src/x.c": '_Pragma("GCC dependency \\"y.h\\"")\nint x;\n', "late/y.h": ""},
        dates("late/y.h", 4e9),
    ),
    "a pragma with a comment compares times": Trap(
        {"src/x.c": '#pragma GCC/**/dependency "y.h"\nint x;\n', "late/y.h": ""},
        dates("late/y.h", 4e9),
    ),
    "clang asks too": Trap(
        {"src/x.c": "#if __has_include(/* */<foo.h>)\n" + ASKS},
        makes("early/foo.h"),
        argv=CLANG,
    ),
    "a message shows lines of a named file": Trap(
        {"src/x.c": '#line 1 "gram.y"\nint f(void) { int u; }\n', "gram.y": "first\n"},
        makes("gram.y", "second\n"),
        ("-Wall",),
    ),
    "an assembler text shows lines of a named file": Trap(
        {"src/x.c": '#line 1 "gram.y"\nint f(void) { return 3; }\n', "gram.y": "first\n"},
        makes("gram.y", "second\n"),
        ("-save-temps", "-fverbose-asm"),
    ),
    "the time of the source, made of parts": Trap(
        {"src/x.c": PASTES + "char when[] = P(__TIME,STAMP__,);\n"}, dates("src/x.c", 2)
    ),
    "an include that climbs finds a copy": Trap(
        {
            "src/x.c": '#include "x.h"\n#include "../more/copy.h"\nint x;\n',
            "inc/x.h": ONCE["inc/x.h"],
            "more/copy.h": ONCE["inc/x.h"],
        },
        dates("more/copy.h", 2),
    ),
    "a time, made of three parts": Trap(
        {"src/x.c": PASTES + "char when[] = P(__,TIME,__);\n"}, passes
    ),
    "a time, made of parts in two texts": Trap(
        {
            "src/x.c": '#include "p.h"\n#include "q.h"\nchar when[] = P(__TI,END,);\n',
            "inc/p.h": PASTES,
            "inc/q.h": "#define END ME__\n",
        },
        passes,
    ),
    "a time, made of parts on the command line": Trap(
        {"src/x.c": PASTES + "char when[] = P(__TI,END,);\n"}, passes, ("-DEND=ME__",)
    ),
    "a test, made of parts": Trap(
        {"src/x.c": PASTES + "#if P(__has_,include,)(<foo.h>)\n" + ASKS}, makes("early/foo.h")
    ),
    "read once by a macro": Trap(
        {
            "src/x.c": '#define S "once"\n#include "x.h"\n#include "copy.h"\nint x;\n',
            "inc/x.h": "_Pragma(S)\n" + TWICE,
            "inc/copy.h": "_Pragma(S)\n" + TWICE,
        },
        dates("inc/copy.h", 2),
    ),
    "read once by a pragma of two lines": Trap(
        {
            "src/x.c": '#include "x.h"\n#include "copy.h"\nint x;\n',
            "inc/x.h": "#pragma /*\n*/ once\n" + TWICE,
            "inc/copy.h": "#pragma /*\n*/ once\n" + TWICE,
        },
        dates("inc/copy.h", 2),
    ),
    "a pragma of a macro compares times": Trap(
        {
            "src/x.c": '#include "p.h"\nPRAGMA(GCC dependency "y.h")\nint x;\n',
            "inc/p.h": "#define PRAGMA(x) _Pragma(#x)\n",
            "late/y.h": "",
        },
        dates("late/y.h", 4e9),
    ),
    "a pragma with a comment of two lines compares times": Trap(
        {"src/x.c": '#pragma GCC dependency /*\n*/ "y.h"\nint x;\n', "late/y.h": ""},
        dates("late/y.h", 4e9),
    ),
    "a pragma with a form feed compares times": Trap(
        {"src/x.c": '#pragma GCC dependency \f"y.h"\nint x;\n', "late/y.h": ""},
        dates("late/y.h", 4e9),
    ),
    "a pragma of a macro's operand compares times": Trap(
        {
            "src/x.c": "#define PRAGMA(x) _Pragma(#x)\n#define NEEDS(f) PRAGMA(GCC dependency f)\n"
            'NEEDS("y.h")\nint x;\n',
            "late/y.h": "",
        },
        dates("late/y.h", 4e9),
    ),
    "a pragma of a macro's word compares times": Trap(
        {
            "src/x.c": "#define PRAGMA(x) _Pragma(#x)\n#define DO(x) PRAGMA(x)\n"
            'DO(GCC WORD "y.h")\nint x;\n',
            "late/y.h": "",
        },
        dates("late/y.h", 4e9),
        ("-DWORD=dependency",),
    ),
    "a pragma of two parts compares times": Trap(
        {
            "src/x.c": PASTES + "#define PRAGMA(x) _Pragma(#x)\n#define DO(x) PRAGMA(x)\n"
            'DO(GCC P(depend,ency,) "y.h")\nint x;\n',
            "late/y.h": "",
        },
        dates("late/y.h", 4e9),
    ),
    "a pragma on the command line compares times": Trap(
        {"src/x.c": "NEEDS\nint x;\n", "late/y.h": ""},
        dates("late/y.h", 4e9),
        ('-DNEEDS=_Pragma("GCC dependency \\"y.h\\"")',),
    ),
    "read once by a pragma of two parts": Trap(
        {
            "src/x.c": PASTES + "#define PRAGMA(x) _Pragma(#x)\n#define DO(x) PRAGMA(x)\n"
            '#include "x.h"\n#include "copy.h"\nint x;\n',
            "inc/x.h": "DO(P(on,ce,))\n" + TWICE,
            "inc/copy.h": "DO(P(on,ce,))\n" + TWICE,
        },
        dates("inc/copy.h", 2),
    ),
    "read once by a pragma on the command line": Trap(
        {
            "src/x.c": '#include "x.h"\n#include "copy.h"\nint x;\n',
            "inc/x.h": "ONLY\n" + TWICE,
            "inc/copy.h": "ONLY\n" + TWICE,
        },
        dates("inc/copy.h", 2),
        ('-DONLY=_Pragma("once")',),
    ),
    "two slashes in a test": Trap(
        {
            "src/x.c": "// __DATE__\n#if __has_include(<a//foo.h>)\n" + ASKS,
            "early/a/none": "",
        },
        makes("early/a/foo.h"),
    ),
    "what looks like a comment in a test": Trap(
        {
            "src/x.c": "// __DATE__\n#if __has_include(<a/*b.h>)\n#endif\n"
            "#if __has_include(<foo.h>)\n/**/\n" + ASKS
        },
        makes("early/foo.h"),
    ),
    "what looks like a comment in a message": Trap(
        {
            "src/x.c": "// __DATE__\n#warning a /* b\n#if __has_include(<foo.h>)\n"
            "int y;\n#endif\nint x = 3\n*/**/2;\n"
        },
        makes("early/foo.h"),
        argv=CLANG,
    ),
    "what looks like a comment in a mark": Trap(
        {
            "src/x.c": "// __DATE__\n#pragma mark a /* b\n#if __has_include(<foo.h>)\n"
            "int y;\n#endif\nint x = 3\n*/**/2;\n"
        },
        makes("early/foo.h"),
        argv=CLANG,
    ),
    "a framework becomes one of the system": Trap(
        {
            "src/x.c": "#include <F/x.h>\n",
            "fw/F.framework/Headers/x.h": "int f(void) { int u; return 0; }\n",
        },
        makes("fw/F.framework/.system_framework"),
        ("-Ffw", "-Wall"),
        argv=CLANG,
    ),
    "an earlier framework of the same name has no such header": Trap(
        {
            "src/x.c": "#include <F/x.h>\nint x = X;\n",
            "late/F.framework/Headers/x.h": "#define X 1\n",
        },
        directory("early/F.framework"),
        ("-Fearly", "-Flate"),
        argv=CLANG,
    ),
    "a closed directory is searched": Trap(
        {"src/x.c": '#if __has_include("foo.h")\n' + ASKS, "early/.cache/none": ""},
        makes("early/.cache/foo.h"),
        ("-Iearly/.cache",),
    ),
    "a link to an ignored name": Trap(
        USES, both(makes("early/x.tmp", "#define X 2\n"), link("early/x.h", "x.tmp"))
    ),
    "a dangling link to an ignored name": Trap(
        USES, makes("early/x.tmp", "#define X 2\n"), links={"early/x.h": "x.tmp"}
    ),
    "a link to a link of an ignored name": Trap(
        {**USES, "real/r.h": "#define X 2\n"},
        link("early/l.tmp", "../real/r.h"),
        links={"early/x.h": "l.tmp"},
    ),
    "lines that end with a carriage return": Trap(
        {"src/x.c": "// __DATE__\r#if __has_include(<foo.h>)\rint y;\r#endif\rint x;\r"},
        makes("early/foo.h"),
    ),
    "lines that end with a carriage return, for clang": Trap(
        {
            "src/x.c": '#include "x.h"\nint x;\n',
            "inc/x.h": "// __TIMESTAMP__\r#if __has_include(<foo.h>)\nint y;\n#endif\n",
        },
        makes("early/foo.h"),
        argv=CLANG,
    ),
    "a trigraph in a test": Trap(
        {"src/x.c": "#if __has_include(<v??(1??).h>)\n" + ASKS},
        makes("early/v[1].h"),
        ("-trigraphs",),
    ),
    "a trigraph in a system header, not listed": Trap(
        {
            "src/x.c": "#include <x.h>\nint x = X;\n",
            "sys/x.h": "#include <z??-.h>\n",
            "sys/z~.h": "#define X 1\n",
        },
        makes("sys/z~.h", "#define X 2\n"),
        ("-isystem", "sys", "-trigraphs"),
        argv=HIDES,
    ),
    "a missing directory is below a file": Trap(USES, makes("nope"), ("-Inope/inc",)),
    "the header that gcc includes by itself appears": Trap(
        {"src/x.c": "int x = X;\n", "root/usr/include/none": ""},
        makes("early/stdc-predef.h", "#undef X\n#define X 2\n"),
        ("--sysroot=root", "-DX=1"),
    ),
    "the header that gcc includes by itself, no system's": Trap(
        {
            "src/x.c": "int x = X;\n",
            "root/usr/include/none": "",
            "sys/stdc-predef.h": "#define X 1\n",
        },
        makes("sys/stdc-predef.h", "#define X 2\n"),
        ("--sysroot=root", "-isystem", "sys"),
        argv=HIDES,
    ),
    "a sanitizer's own list appears": Trap(
        {
            "src/x.c": "int f(int *p) { return *p + 1; }\n",
            "res/include/none": "",
            "res/share/none": "",
        },
        makes("res/share/ubsan_ignorelist.txt", "fun:f\n"),
        ("-resource-dir=res", "-fsanitize=undefined"),
        argv=CLANG,
    ),
    "gcc's own headers are searched for with another prefix": Trap(
        {"src/x.c": "#include <foo>\nint x = X;\n", "late/foo": "#define X 1\n"},
        makes("../other/include/foo", "#define X 2\n"),
        ("-iprefix", "../other/", "-idirafter", "late"),
        argv=("gcc", "-c", "src/x.c", "-o", "x.o", "-MD"),
    ),
    "a newer gcc appears, from which clang takes headers": Trap(
        {
            "src/x.c": "#include <foo>\nint x = X;\n",
            "gcc/lib/gcc/x86_64-linux-gnu/12/crtbegin.o": "1",
            "gcc/include/c++/12/foo": "#define X 12\n",
            "gcc/include/c++/13/foo": "#define X 13\n",
        },
        both(makes("gcc/lib/gcc/x86_64-linux-gnu/13/crtbegin.o", "1"), waits),
        ("--gcc-toolchain=gcc", "-x", "c++", "src/x.c"),
        argv=("clang", "-c", "-o", "x.o", "-MD"),
    ),
    "a hard link": Trap(
        {"src/x.c": '#include "x.h"\n#include "copy.h"\nint x;\n', **ONCE},
        hard_linked("inc/copy.h", "inc/x.h"),
        argv=CLANG,
    ),
    "a response file": Trap(
        {"src/x.c": "int x = X;\n", "words": "-DX=1"}, makes("words", "-DX=2"), ("@words",)
    ),
    "a file that an option names": Trap(
        {"src/x.c": "int f(int *p) { return *p; }\n", "list.txt": "fun:f\n"},
        makes("list.txt", "fun:g\n"),
        ("-fsanitize=address", "-fsanitize-ignorelist=list.txt"),
        argv=CLANG,
    ),
    "a directory of precompiled headers": Trap(
        {
            "src/x.c": '#include "x.h"\nint x = X;\n',
            "late/x.h": "#define X 1\n",
            "other.h": "#define X 2\n",
        },
        precompiled,
    ),
    "an include that climbs ends elsewhere": Trap(
        {"src/x.c": '#include "../inc/../late/x.h"\nint x = X;\n', "late/x.h": "#define X 1\n"},
        makes("late/x.h", "#define X 2\n"),
    ),
    "an include that climbs finds an earlier file": Trap(
        {
            "src/x.c": '#include "../more/x.h"\nint x = X;\n',
            "inc/sub/y.h": "",
            "inc/more/x.h": "#define X 1\n",
        },
        makes("more/x.h", "#define X 2\n"),
        ("-Iinc/sub",),
    ),
    "an include that climbs from a link": Trap(
        {
            "src/x.c": '#include "a/b.h"\nint x = X;\n',
            "inc/a/none": "",
            "real/d/c.h": '#include "../x.h"\n',
            "real/x.h": "#define X 1\n",
        },
        makes("inc/x.h", "#define X 2\n"),
        ("-Ireal/d",),
        {"inc/a/b.h": "../../real/d/c.h"},
    ),
    "a system header, not listed": Trap(
        {
            "src/x.c": "#include <x.h>\nint x = X;\n",
            "sys/x.h": "#include <z.h>\n",
            "sys/z.h": "#define X 1\n",
        },
        makes("sys/z.h", "#define X 2\n"),
        ("-isystem", "sys"),
        argv=HIDES,
    ),
    "an earlier system header, not listed": Trap(
        {
            "src/x.c": "#include <x.h>\nint x = X;\n",
            "sys/x.h": "#include <a/z.h>\n",
            "sys/a/z.h": "#define X 1\n",
        },
        makes("late/a/z.h", "#define X 2\n"),
        ("-isystem", "sys"),
        argv=HIDES,
    ),
    "a system header that the command names, not listed": Trap(
        {"src/x.c": "int x = X;\n", "sys/x.h": "#define X 1\n"},
        makes("sys/x.h", "#define X 2\n"),
        ("-isystem", "sys", "-include", "x.h"),
        argv=HIDES,
    ),
    "a header of a framework, not listed": Trap(
        {
            "src/x.c": "#include <F/x.h>\nint x = X;\n",
            "fw/F.framework/Headers/x.h": "#define X 1\n",
        },
        makes("fw/F.framework/Headers/x.h", "#define X 2\n"),
        ("-iframework", "fw"),
        argv=("clang", *HIDES[1:]),
    ),
    "macros that the command names, not listed": Trap(
        {"src/x.c": "int x = X;\n", "sys/a/x.h": "#define X 1\n"},
        makes("sys/a/x.h", "#define X 2\n"),
        ("-isystem", "sys", "-imacros", "a/x.h"),
        argv=HIDES,
    ),
    "a system header of one that the command names, not listed": Trap(
        {"src/x.c": "int x = X;\n", "sys/x.h": "#include <z.h>\n", "sys/z.h": "#define X 1\n"},
        makes("sys/z.h", "#define X 2\n"),
        ("-isystem", "sys", "-Xclang", "-include", "-Xclang", "x.h"),
        argv=("clang", *HIDES[1:]),
    ),
    "the header that gcc includes by itself, not listed": Trap(
        {"src/x.c": "int x = X;\n", "sys/stdc-predef.h": "#define X 1\n"},
        makes("sys/stdc-predef.h", "#define X 2\n"),
        ("-isystem", "sys"),
        argv=HIDES,
    ),
    "a header behind a link, not listed": Trap(
        {
            "src/x.c": "#include <a/x.h>\nint x = X;\n",
            "real/x.h": '#include "z.h"\n',
            "real/z.h": "#define X 1\n",
            "sys/y.h": "",
        },
        makes("real/z.h", "#define X 2\n"),
        ("-isystem", "sys"),
        {"sys/a": "../real"},
        argv=HIDES,
    ),
}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CachingBox]:
    started = CachingBox(tmp_path_factory.mktemp("box"))
    yield started
    started.stop()


def compiled_here(argv: list[str], root: Path) -> Done:
    """What the local compiler gives."""
    (root / "x.o").unlink(missing_ok=True)
    run = subprocess.run(argv, cwd=root, capture_output=True, check=False)
    done = Done(run.returncode, run.stdout, run.stderr)
    done.files = {str(path): path.read_bytes() for path in root.iterdir() if path.suffix in OUTPUTS}
    return done


@pytest.mark.in_turn("name")
@pytest.mark.parametrize("name", TRAPS)
def test_a_result_is_right_after_the_edit(box: CachingBox, tmp_path: Path, name: str) -> None:
    (tmp_path / "root").mkdir()
    fall_into(TRAPS[name], box, tmp_path / "root")


@pytest.mark.parametrize("name", ["a link's target goes", "a system header, not listed"])
def test_a_project_may_be_below_dev(box: CachingBox, shared_memory: Path, name: str) -> None:
    fall_into(TRAPS[name], box, shared_memory)


@pytest.fixture
def shared_memory() -> Iterator[Path]:
    place = "/dev/shm"
    if not os.access(place, os.W_OK):
        absent(f"{place} cannot be written")
    with tempfile.TemporaryDirectory(dir=place, prefix="dist_build test ") as made:
        yield Path(made)


def fall_into(trap: Trap, box: CachingBox, root: Path) -> None:
    need(trap.argv[0])
    for place in ("early", "inc", "late"):
        (root / place).mkdir()
    for path, text in trap.files.items():
        makes(path, text)(root)
        dates(path, 1)(root)
    for path, target in trap.links.items():
        (root / path).symlink_to(target)
    argv = [*trap.argv, *trap.more]
    for _ in range(2):
        before = compiled_here(argv, root)
        reply = box.compile(argv, root, {})
        # A second may pass between the two.
        assert trap.edit is passes or reply.outcome == "local" or done_of(reply) == before
        box.settle()
    trap.edit(root)
    reply = box.compile(argv, root, {})
    if trap.edit is passes:
        assert not is_hit(reply)
        return
    after = compiled_here(argv, root)
    assert after != before, "the edit changes nothing"
    assert reply.outcome == "local" or done_of(reply) == after
