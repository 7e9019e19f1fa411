"""What a text refers to outside the mirrored directories."""

import pytest

from distbuild.mirror.includes import (
    AssemblerRead,
    assembler_reads,
    literal_values,
    lookups,
    odd_operands,
)
from distbuild.mirror.policy import is_unusual


@pytest.mark.parametrize(
    ("text", "operands"),
    [
        (b"int x;", ()),
        (b'#include "x.h"\n#include <a/b.h>\n', ()),
        (b'#include "../x.h"\n', ("../x.h",)),
        (b"# include <a/../b.h>\n", ("a/../b.h",)),
        (b'#  include_next "/abs/x.h"\n', ("/abs/x.h",)),
        (b'#import "../m.h"\n', ("../m.h",)),
        (b'#if __has_include("../x.h") || __has_include( <../y.h> )\n', ("../x.h", "../y.h")),
        (b'#if __has_include("x.o")\n', ("x.o",)),
        (b'#if __has_include("node_modules/x.h")\n', ("node_modules/x.h",)),
        (b'#if __has_include("Progress/x.h")\n', ("Progress/x.h",)),
        (b'#include "../caf\xe9.h"\n', ("../caf\udce9.h",)),
        (b'#include "..x/y..h"\n', ()),
        (b'#embed "../blob"\n', ("../blob",)),
        (b'#if __has_embed("/abs") && __has_include_next(<../y.h>)\n', ("../y.h", "/abs")),
        (b'#pragma GCC dependency "x.c" rest\n', ("x.c",)),
        (b"# pragma GCC dependency <a/x.y>\n", ("a/x.y",)),
        (b"int a_dependency;\n", ()),
        (b'my_include "../x.h"\n', ()),
        (b'x__has_include("../x.h")\n', ()),
        (b"// see </usr/include> and ../other\n", ()),
    ],
)
def test_odd_operands(text: bytes, operands: tuple[str, ...]) -> None:
    assert odd_operands(text, is_unusual, windows=False) == operands


@pytest.mark.parametrize(
    ("text", "operands"),
    [
        (b'#include "a\\x.h"\n#include <sys/types.h>\n', ()),
        (b'#include "..\\x.h"\n', ("..\\x.h",)),
        (b"#include <a\\..\\x.h>\n", ("a\\..\\x.h",)),
        (b'#include "C:\\x.h"\n#include "d:/y.h"\n', ("C:\\x.h", "d:/y.h")),
        (b'#include "\\x.h"\n#import "/y.h"\n', ("\\x.h", "/y.h")),
        (b'#if __has_include("node_modules\\x.h")\n', ("node_modules\\x.h",)),
    ],
)
def test_odd_operands_on_windows(text: bytes, operands: tuple[str, ...]) -> None:
    assert odd_operands(text, is_unusual, windows=True) == operands


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        (b"int x;", ()),
        (b'.incbin "a b.bin"\n', (AssemblerRead("a b.bin", as_text=False),)),
        (b'  .INCLUDE\t"m.s"\n', (AssemblerRead("m.s", as_text=True),)),
        (
            b'asm(".incbin \\"/d\\"\\n.incbin \\"e\\", 4");',
            tuple(AssemblerRead(name, as_text=False) for name in ("/d", "e")),
        ),
        (b'.incbin "twice"\n.incbin "twice"\n', (AssemblerRead("twice", as_text=False),)),
        (b".incbin FILE\n", None),
        (b"box.include(point);\nbox.include (point);", ()),
        (b'.incbin "a"\n.incbin FILE\n', None),
        (b'// an incbin in a comment\n.incbin "a"\n', None),
        (b'.macro m f\n.incbin "\\f"\n.endm\n', None),
        (b'asm(".incbin " NAME);', None),
        (b"asm(\".include 'm.s'\");", None),
    ],
)
def test_what_an_assembler_reads(text: bytes, reads: tuple[AssemblerRead, ...] | None) -> None:
    assert assembler_reads(text, of_c=False) == reads


def test_a_comment_of_c_makes_no_assembler_read() -> None:
    text = b'/* no .incbin FILE */ __asm__(".incbin \\"a\\"");\n'
    assert assembler_reads(text, of_c=True) == (AssemblerRead("a", as_text=False),)
    assert assembler_reads(text, of_c=False) is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b'#include "a/x.h"\n# include <y.h>\n', {"x.h", "y.h"}),
        (b"/* #include files */\n#include <y.h>\n", {"y.h"}),
        (b"#inc\\\nlude <y.h>\n", {"y.h"}),
        (b"#if defined(__has_include) && __has_include(<sub/z.h>)\n#endif\n", {"z.h"}),
        (b"#ifdef __has_include\n#endif\n", set()),
        (b"%:include <y.h>\n", {"y.h"}),
        (b"#include /**/ <y.h>\n", {"y.h"}),
        (b"#/**/include <y.h>\n", {"y.h"}),
    ],
)
def test_the_names_that_a_text_looks_for(text: bytes, names: set[str]) -> None:
    found = lookups(text, is_unusual)
    assert (set(found.names), found.is_opaque, found.is_dated) == (names, False, False)


@pytest.mark.parametrize(
    "text",
    [
        b"#include NAME(y)\n",
        b"#include __FILE__\n",
        b'#include "../y.h"\n',
        b"#include </abs/y.h>\n",
        b"#embed <data>\n",
        b"#if __has_include(/**/<y.h>) || __has_include NAME\n",
        b"#define HAS __has_include\n",
        b"??=include <y.h> ??/\n",
        b"char when[] = __TIMESTAMP__;\n",
        b"#pragma GCC/**/dependency <y.h>\n",
        b"#include <y.h>\0\n",
    ],
)
def test_a_text_that_may_look_for_more_is_opaque(text: bytes) -> None:
    assert lookups(text, is_unusual).is_opaque


@pytest.mark.parametrize("text", [b"__DATE__", b"x = __TIME__", b"P(__TI,ME__)", b"P(_, _DATE__)"])
def test_a_text_with_a_date(text: bytes) -> None:
    assert lookups(text, is_unusual).is_dated


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (b'#define NAME "a/x.h"\n#define NAME "y.h" // z\n', ("x.h", "y.h")),
        (b"int x;\n", ()),
        (b"#define NAME <y.h>\n", None),
        (b"#define NAME OTHER\n", None),
        (b"#define /**/ NAME OTHER\n", None),
        (b'#define NAME "../y.h"\n', None),
    ],
)
def test_the_values_of_an_included_macro(text: bytes, values: tuple[str, ...] | None) -> None:
    assert literal_values(text, "NAME", is_unusual) == values
