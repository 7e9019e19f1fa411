"""What a text makes a compile depend on besides the contents of the files that it reads."""

import pytest

from distbuild.cache.lookups import (
    is_for_pragmas,
    is_plain_word,
    literal_values,
    lookups,
    may_make,
    may_make_pragma,
)
from distbuild.mirror.policy import is_unusual


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
        (b"// __DATE__\r#include <y.h>\r", {"y.h"}),
    ],
)
def test_the_names_that_a_text_looks_for(text: bytes, names: set[str]) -> None:
    found = lookups(text, is_unusual)
    assert ({o.rpartition("/")[2] for o in found.operands}, found.is_opaque, found.is_dated) == (
        names,
        False,
        False,
    )


@pytest.mark.parametrize(
    "text",
    [
        b"#include NAME(y)\n",
        b"#include __FILE__\n",
        b'#if __has_include("../y.h")\n#endif\n',
        b'#pragma include_alias("x.h", "y.h")\n',
        b"#if __has_include__(<y.h>)\n#endif\n",
        b'PRAGMA(GCC dependency "y.h")\n',
        b'_Pragma("GCC dependency \\"y.h\\"")\n',
        b"#embed <data>\n",
        b"#if __has_include(/**/<y.h>) || __has_include NAME\n",
        b"#define HAS __has_include\n",
        b"??=include <y.h> ??/\n",
        b"char when[] = __TIMESTAMP__;\n",
        b"#pragma GCC/**/dependency <y.h>\n",
        b"#include <y.h>\0\n",
        b"#include <y??-.h>\n",
        b"#if __has_include(<y??(1??).h>)\n#endif\n",
    ],
)
def test_a_text_that_may_look_for_more_is_opaque(text: bytes) -> None:
    assert lookups(text, is_unusual).is_opaque


@pytest.mark.parametrize("text", [b"__DATE__", b"x = __TIME__", b"__DA\\\rTE__", b"//\r__DATE__"])
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
        (b'#define NAME "y??-.h"\n', None),
    ],
)
def test_the_values_of_an_included_macro(text: bytes, values: tuple[str, ...] | None) -> None:
    assert literal_values(text, "NAME", is_unusual) == values


@pytest.mark.parametrize(
    ("text", "is_made"),
    [
        (b"P(__TI,ME__)", True),
        (b"P(_, _DATE__)", True),
        (b"P(__,TIME,__)", True),
        (b"Q(__,TIME, STAMP, __)", True),
        (b"P(__has_, include)", True),
        (b"P(_Prag, ma)", True),
        (b"P(TI, ME)", False),
        (b"_ + _ + T + I + M + E", False),
        (b"__TIME__", False),
        (b"__has_include", False),
    ],
)
def test_names_that_may_be_made_of_parts(text: bytes, is_made: bool) -> None:
    assert may_make(lookups(text, is_unusual).parts) == is_made


def test_operands_that_leave_the_mirrored_directories() -> None:
    text = b'#include "../a/x.h"\n#include <../y.h>\n#include "/z.h"\n#include "../a/../w.h"\n'
    found = lookups(text, is_unusual)
    assert found.climbing == ("../a/x.h",)
    assert found.odd == ("y.h", "z.h", "w.h")
    assert not found.is_opaque


@pytest.mark.parametrize("text", [b'# 1 "y.c"\n', b"#line 3\n", b"%:  line N\n"])
def test_a_text_whose_lines_are_at_other_places(text: bytes) -> None:
    assert lookups(text, is_unusual).is_placed


def test_a_system_header_is_read_once_by_a_pragma_only() -> None:
    for text, is_once in ((b"/* once */ _Pragma(x)\n", False), (b"#pragma once\n", True)):
        found = lookups(text, is_unusual, of_system=True)
        assert found.is_once == is_once
        assert not found.makes_once
        assert lookups(text, is_unusual).is_once


@pytest.mark.parametrize(
    ("text", "is_computed"),
    [
        (b"_Pragma(#x)\n", True),
        (b"_Pragma(TEXT)\n", True),
        (b'_Pragma(L"once")\n', True),
        (b'_Pragma("GCC diagnostic push") _Pragma ( "omp x")\n', False),
        (b"#pragma GCC x\n", False),
    ],
)
def test_pragmas_whose_words_macros_give(text: bytes, is_computed: bool) -> None:
    assert lookups(text, is_unusual).computes_pragmas == is_computed
    assert not lookups(text, is_unusual, of_system=True).computes_pragmas


@pytest.mark.parametrize(
    ("text", "depends"),
    [
        (b"NEEDS(GCC dependency x)\n", True),
        (b"// a dependency\nint dependency_count;\n", False),
        (b"#warning /* a\nP(dependency)\n/**/", True),
    ],
)
def test_the_word_of_a_pragma_that_compares_times(text: bytes, depends: bool) -> None:
    assert lookups(text, is_unusual).depends == depends


@pytest.mark.parametrize(
    ("text", "is_made"),
    [(b"P(on,ce)", True), (b"P(depend, ency)", True), (b"o + n + c + e", False), (b"once", False)],
)
def test_words_of_pragmas_that_may_be_made_of_parts(text: bytes, is_made: bool) -> None:
    assert may_make_pragma(lookups(text, is_unusual).parts) == is_made


def test_words_of_a_command_line_that_mean_more() -> None:
    assert is_for_pragmas("-DX=GCC dependency")
    assert not is_for_pragmas("-Idependency/once")
    assert not is_plain_word('-DX=_Pragma("once")')
    assert is_plain_word("-DX=pragma")
