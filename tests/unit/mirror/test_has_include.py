"""What __has_include asks for: names that stand there, and those that a macro gives."""

import pytest

from distbuild.mirror.includes import Asked, asked, names_in_definition, names_in_directives


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", Asked()),
        (b'#include "a/b.h"\n', Asked()),
        (b"#ifdef __has_include\n#if defined(__has_include)\n", Asked()),
        (b'#if __has_include("a/b.h") || __has_include(<c.h>)\n', Asked(("a/b.h", "c.h"))),
        (b'# if __has_include_next ( "a.h" )\n', Asked(("a.h",))),
        (b"#elif __has_embed(<d/e.bin>)\n", Asked(("d/e.bin",))),
        (b"#if __has_include(CONFIG)\n", Asked((), is_computed=True)),
        (b"#define HAS(x) __has_include(x)\n", Asked((), is_computed=True)),
        (b"#if __has_include(<a.h>) && __has_include( B )\n", Asked(("a.h",), is_computed=True)),
        (b'#if __has_include("\xff/x.h")\n', Asked(("\udcff/x.h",))),
    ],
)
def test_what_is_asked(text: bytes, expected: Asked) -> None:
    assert asked(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", ()),
        (b'#include "a.h"\nchar *s = "b/c";\n', ()),
        (b'#define A "x.h"\n  #  define B <y/z.h>\n', ("x.h", "y/z.h")),
        (b'#if HAS("../x.h")\n#elif HAS(<y.h>)\n', ("../x.h", "y.h")),
        (b"#define DIR ../cfg\n#define FILE /a/b.h\n", ("../cfg", "/a/b.h")),
        (b'#define A \\\n  "x.h"\n"no.h"\n', ("x.h",)),
        (b'%:define A "x.h"\n', ("x.h",)),
    ],
)
def test_names_in_directives(text: bytes, expected: tuple[str, ...]) -> None:
    assert names_in_directives(text) == expected


def test_names_in_a_definition() -> None:
    assert names_in_definition('CFG="/a b/c.h"') == ("/a b/c.h",)
    assert names_in_definition("CFG=<c/d.h>") == ("c/d.h",)
    assert names_in_definition("CFG=../c/d.h") == ("../c/d.h",)
    assert names_in_definition("N=1") == ()
