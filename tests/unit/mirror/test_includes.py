"""What a text refers to outside the mirrored directories."""

import pytest

from distbuild.mirror.includes import (
    AssemblerRead,
    assembler_reads,
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
        (b'#embed "logo.o"\n#include <x.h>\n', ("logo.o",)),
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
