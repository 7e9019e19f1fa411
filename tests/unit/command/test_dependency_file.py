"""Diagnostics and dependency files back at their original paths."""

import pytest

from distbuild.command.dependency_file import (
    parse_dependency_file,
    unmap_dependency_file,
    unmap_text,
)
from distbuild.command.model import Family


def test_text_loses_the_prefix_before_absolute_paths_only():
    text = b"/t/c1/home/x.c:1: e\nfrom '/t/c1/usr/a.h', /t/c12/y, /t/c1\n"

    assert unmap_text(text, b"/t/c1") == b"/home/x.c:1: e\nfrom '/usr/a.h', /t/c12/y, /t/c1\n"


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"", []),
        (b"x.o:\n", []),
        (b"x.o: x.c", ["x.c"]),
        (b"x.o: x.c a\\ b.h \\\n  c.h\n\na\\ b.h:\nc.h:\n", ["x.c", "a b.h", "c.h"]),
        (b"a b\\:c: d$$.c \\#h.h e\\:f.h\n", ["d$.c", "#h.h", "e:f.h"]),
        (b"a \\\n  b: \\\n x.c\n", ["x.c"]),
        (b"x.o: back\\\\\\ slash.h one\\two.h\n", ["back\\ slash.h", "one\\two.h"]),
        (b"x.o: \xff.h \xc3\xa9.h\n", ["\udcff.h", "é.h"]),
        (b"x.o: /a:b/x.h\n", ["/a:b/x.h"]),
        (
            b"x.o m/a.gcm: a.cc\nx.o m/a.gcm: a:p.c++m b.c++m \\\n c.c++m\na.c++m: m/a.gcm\n"
            b".PHONY: a.c++m\nm/a.gcm:| x.o\nCXX_IMPORTS += a:p.c++m b.c++m\n",
            ["a.cc"],
        ),
        (
            b"a\\ b/x.o: a.cc b.gcm\na\\ b/x.o: b.c++-module\nCXX_IMPORTS += b.c++-module\n",
            ["a.cc", "b.gcm"],
        ),
    ],
)
def test_prerequisites_of_the_first_rule(data, names):
    assert parse_dependency_file(data, Family.GCC) == names


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"x.o: x.c a\\ b.h a\tb.h \\\n  c.h\n\na\\ b.h:\n", ["x.c", "a b.h", "a\tb.h", "c.h"]),
        (b"x.o: a$$b\\#:c.h a\\\\\\ b.h a\\:b.h\n", ["a$b#:c.h", "a\\ b.h", "a\\:b.h"]),
    ],
)
def test_clang_escapes_only_spaces_hashes_and_dollars(data, names):
    assert parse_dependency_file(data, Family.CLANG) == names


@pytest.mark.parametrize("family", list(Family))
def test_an_unmapped_file_is_rendered_anew(family):
    tree = "/very/long/sandbox/of/a worker/client"
    quoted = b"/very/long/sandbox/of/a\\ worker/client"
    data = b"x.o: x.c \\\n %s/usr/a.h \\\n %s/usr/b.h\n%s/usr/a.h:\nrel.h:\n" % (
        quoted,
        quoted,
        quoted,
    )

    unmapped = unmap_dependency_file(data, tree, family)

    assert unmapped == b"x.o: x.c /usr/a.h /usr/b.h\n/usr/a.h:\nrel.h:\n"


def test_what_is_no_rule_stays_as_it_is():
    assert unmap_dependency_file(b"no rule\n", "/t", Family.GCC) == b"no rule\n"
