"""Where a command may leave files that it does not name."""

import shlex

import pytest

from distbuild.command.cl.parse import parse as parse_cl
from distbuild.command.model import CompileCommand, Family
from distbuild.command.parse import parse
from distbuild.command.side_effects import Writable, by_products, object_of

LISTED = {"/w": ["x.c", "x.c.005t.original", "y.c.005t.original"], "/w/o": ["y.c.006t.gimple"]}


def _parsed(line: str) -> CompileCommand:
    words = shlex.split(line)
    if words[0] == "clang-cl":
        command = parse_cl(words, "/w", lambda _: None, Family.CLANG_CL)
    else:
        command = parse(words, "/w", lambda _: None)
    assert isinstance(command, CompileCommand)
    return command


def _found(line: str) -> set[str]:
    return set(by_products(_parsed(line), lambda directory: LISTED[directory]))


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("gcc -c x.c", set()),
        ("gcc -g -MD -c x.c -o o/y.o", set()),
        ("gcc -fmessage-length=80 -c x.c -o o/y.o", set()),
        ("gcc -gsplit-dwarf -c x.c", {"/w/x.dwo"}),
        ("clang -fstack-usage -c x.c -o o/y.z.o", {"/w/o/y.z.su"}),
        ("clang -save-temps -c s/x.c -o o/y.o", {"/w/x.i", "/w/x.s", "/w/x.bc"}),
        ("g++ --save-temps=obj -c s/x.cc -o o/y.o", {"/w/o/y.ii", "/w/o/y.s"}),
        ("gcc --coverage -c x.c -o o/y", {"/w/o/y.gcno"}),
        (
            "g++ -MD -fmodules-ts -fmodule-mapper=m -fdeps-format=p1689r5 -c x.cc -o o/y.cc.o",
            {"/w/o/y.cc.ddi"},
        ),
        ("gcc -fstack-usage -dumpdir o/p- -dumpbase q.c -c x.c -o x.o", {"/w/o/p-q.su"}),
        ("gcc -fdump-tree-all -c x.c -o o/y.o", {"/w/x.c.005t.original", "/w/o/y.c.006t.gimple"}),
    ],
)
def test_by_products_are_named_after_the_output_or_the_source(line: str, some: set[str]) -> None:
    found = _found(line)
    assert some <= found
    assert bool(some) == bool(found)


#: Measured: what gcc 12 and clang 14 leave below /w.
WRITTEN = [
    ("gcc -c x.c", "x.o"),
    ("gcc -MD -c x.c -o o/y.o", "o/y.o o/y.d"),
    ("gcc -c x.c -o o/y.o -MD -MF z.d", "o/y.o z.d"),
    ("gcc -c x.c -Wp,-MD,o/.y.d", "x.o o/.y.d"),
    ("gcc -S x.c", "x.s"),
    ("gcc -gsplit-dwarf -c x.c -o o/y.o", "o/y.o o/y.dwo"),
    ("gcc -save-temps -c x.c -o o/y.o", "o/y.i o/y.s"),
    ("gcc -save-temps=cwd -c x.c -o o/y.o", "y.i y.s"),
    ("clang -save-temps -c s/x.c -o o/y.o", "x.bc x.i x.s o/y.o"),
    ("clang -emit-llvm -save-temps -c x.c", "x.tmp.bc"),
    ("gcc -fstack-usage -fcallgraph-info --coverage -c x.c -o o/y.o", "o/y.su o/y.ci o/y.gcno"),
    ("gcc -fdump-tree-all -c x.c -o o/y.o", "o/y.c.005t.original o/y.c.015t.cfg"),
    ("gcc -fdump-tree-cfg-graph -c x.c -o o/y.o", "o/y.c.015t.cfg.dot"),
    ("gcc -da -c x.c -o o/y.o", "o/y.c.253r.expand"),
    ("gcc -dumpdir o/x- -fdump-tree-original -c x.c -o o/y.o", "o/x-y.c.005t.original"),
    ("gcc -dumpbase other -save-temps -c x.c -o o/y.o", "o/other.i o/other.s"),
    ("g++ -fdump-lang-class -c x.cpp -o o/y.o", "o/y.cpp.001l.class"),
    ("gcc -fdump-final-insns -c x.c -o o/y.o", "o/y.c.gkd"),
    ("gcc -fdump-ada-spec -c x.c -o o/y.o", "x_c.ads"),
    ("gcc -fanalyzer -fdump-analyzer -c x.c -o o/y.o", "o/y.c.analyzer.txt o/y.c.supergraph.dot"),
    ("gcc -fcompare-debug -save-temps -c x.c -o o/y.o", "o/y.c.gkd o/y.gk.c.gkd o/y.gk.i"),
    ("gcc -O2 -fsave-optimization-record -c x.c -o o/y.o", "o/y.c.opt-record.json.gz"),
    ("clang -O2 -fsave-optimization-record -c x.c -o o/y.o", "o/y.opt.yaml"),
    ("clang -save-stats=obj -c x.c -o o/y.o", "o/x.stats"),
    ("clang -ftime-trace -c x.c -o o/y.o", "o/y.json"),
    ("clang-cl -ftime-trace /c x.c /Foo/y.obj", "o/y.obj o/y.json"),
    ("clang-cl /clang:-ftime-trace /c x.c /Foo/y.obj", "o/y.json"),
    ("clang-cl /FA /c x.c", "x.obj x.asm"),
]
#: What none of them writes, though some have the stem of one that it does.
NOT_WRITTEN = """
    x.c x.h x.py x.sh x y.c .o .d x.o.exe x.obj.exe o/x.c o/x.py o/y.sh o/y.o/z p/y.o ../w/x.o
    ./x.o o/../x.o /x.o /etc/y.o x.c.sh o/y.c.sh . .. o/. o/.. y.o.d x.000t.sh/z x.c.1t.x""".split()


@pytest.mark.parametrize(("line", "files"), WRITTEN)
def test_a_command_may_write_what_it_writes_and_nothing_else(line: str, files: str) -> None:
    writable = Writable(_parsed(line), lambda real, named: real == named)

    def may(name: str) -> bool:
        return writable.has(name if name.startswith("/") else f"/w/{name}")

    assert [name for name in files.split() if not may(name)] == []
    assert [name for name in NOT_WRITTEN if may(name)] == []


@pytest.mark.parametrize(
    ("line", "made"),
    [
        ("gcc -c x.c", "x.o"),
        ("gcc -S x.c -o o/y", "o/y"),
        ("gcc -fsyntax-only x.c", ""),
        ("clang-cl /c x.c", "x.obj"),
        ("clang-cl -fsyntax-only /c x.c", ""),
    ],
)
def test_a_success_has_an_object_unless_none_was_asked_for(line: str, made: str) -> None:
    assert object_of(_parsed(line)) == made
