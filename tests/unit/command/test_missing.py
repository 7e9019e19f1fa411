"""Missing includes out of diagnostics."""

import subprocess

import pytest

from distbuild.command.diagnostics import MissingInclude, missing_includes

LINES = {
    ("src/x.c", 1): b'#include "lost.h"',
    ("src/x.c", 2): b"  # include_next <deep/lost.h> // why",
    ("src/x.c", 3): b"#include LOST",
    ("src/x.c", 4): b"int not_an_include;",
    ("a: b.h", 7): b"#import <x.h>",
}


def _read(path: str, line: int) -> bytes | None:
    return LINES.get((path, line))


@pytest.mark.parametrize(
    ("stderr", "found"),
    [
        (b"", []),
        (b"src/x.c:1:10: fatal error: x", [MissingInclude("src/x.c", "lost.h", False)]),
        (b"src/x.c:2: Fehler: x", [MissingInclude("src/x.c", "deep/lost.h", True)]),
        (b"src/x.c:3:1: e: x\n", [MissingInclude("src/x.c", None, False)]),
        (b"src/x.c:4:1: e: x\nother.c:1:1: e: y\n", []),
        (b"a: b.h:7:1: e: x\n", [MissingInclude("a: b.h", "x.h", True)]),
        (b"In file included from src/x.c:1:\n", []),
        (
            b"\x1b[01m\x1b[Ksrc/x.c:1:10:\x1b[m\x1b[K \x1b[01;31m\x1b[Kerror: \x1b[m\x1b[Kl.h: n",
            [MissingInclude("src/x.c", "lost.h", False)],
        ),
        (
            b"src/x.c:1:1: e: a\nsrc/x.c:1:1: e: a\n",
            [MissingInclude("src/x.c", "lost.h", False)],
        ),
        (
            b"<command-line>: fatal error: d/no.h: No such file or directory\n",
            [MissingInclude("", "d/no.h", False)],
        ),
        (
            b"<built-in>:1:10: fatal error: 'no.h' file not found\n",
            [MissingInclude("", "no.h", False)],
        ),
        (b"cc1: all warnings being treated as errors\n", []),
    ],
)
def test_includes_named_by_diagnostics(stderr, found):
    assert missing_includes(stderr, _read) == found


@pytest.mark.compiler
@pytest.mark.parametrize("driver", ["gcc", "clang"])
def test_real_diagnostics(tmp_path, require_tool, driver):
    (tmp_path / "x.c").write_text('\n#include "a.h"\n')
    (tmp_path / "a.h").write_text("#include <no/such.h>\n")

    def read(path: str, line: int) -> bytes | None:
        text: bytes = (tmp_path / path).read_bytes()
        return text.splitlines()[line - 1]

    def failing(*more: str) -> list[MissingInclude]:
        result = subprocess.run(
            [require_tool(driver), "-c", "x.c", *more],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        return missing_includes(result.stderr, read)

    includer = "a.h" if driver == "gcc" else "./a.h"
    assert failing() == [MissingInclude(includer, "no/such.h", True)]
    assert failing("-include", "d/no.h") == [MissingInclude("", "d/no.h", False)]
    assert failing("-imacros", "no.h") == [MissingInclude("", "no.h", False)]
