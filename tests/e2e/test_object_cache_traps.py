"""Commands and texts whose meaning depends on more than the contents of plain includes: the object
cache must notice the change, or must not keep the result."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.cluster import Cluster
from tests.support.objects import kept, outcomes
from tests.support.tools import need

GCC = ("gcc", "-c", "src/x.c", "-Iearly", "-Iinc", "-Ilate", "-o", "x.o", "-MD")
CLANG = ("clang", *GCC[1:])
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


USES = {"src/x.c": '#include "x.h"\nint x = X;\n', "inc/x.h": "#define X 1\n"}
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
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_result_is_right_after_the_edit(caching: Cluster, tmp_path: Path, name: str) -> None:
    trap = TRAPS[name]
    need(trap.argv[0])
    for place in ("early", "inc", "late"):
        (tmp_path / place).mkdir()
    for path, text in trap.files.items():
        makes(path, text)(tmp_path)
        dates(path, 1)(tmp_path)
    for path, target in trap.links.items():
        (tmp_path / path).symlink_to(target)
    argv = [*trap.argv, *trap.more]
    for _ in range(2):
        local, ours = outcomes(caching, argv, tmp_path)
        assert ours == local
        kept(caching)
    trap.edit(tmp_path)
    after, ours = outcomes(caching, argv, tmp_path)
    assert after != local, "the edit changes nothing"
    assert ours == after, caching.logs()
