"""Where a command may leave files that it does not name."""

import shlex

import pytest

from distbuild.command.by_products import by_products
from distbuild.command.model import CompileCommand
from distbuild.command.parse import parse

LISTED = {"/w": ["x.c", "x.c.005t.original", "y.c.005t.original"], "/w/o": ["y.c.006t.gimple"]}


def _found(line: str) -> set[str]:
    command = parse(shlex.split(line), "/w", lambda _: None)
    assert isinstance(command, CompileCommand)
    return set(by_products(command, lambda directory: LISTED[directory]))


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
        ("gcc -fstack-usage -dumpdir o/p- -dumpbase q.c -c x.c -o x.o", {"/w/o/p-q.su"}),
        ("gcc -fdump-tree-all -c x.c -o o/y.o", {"/w/x.c.005t.original", "/w/o/y.c.006t.gimple"}),
    ],
)
def test_by_products_are_named_after_the_output_or_the_source(line: str, some: set[str]) -> None:
    found = _found(line)
    assert some <= found
    assert bool(some) == bool(found)
