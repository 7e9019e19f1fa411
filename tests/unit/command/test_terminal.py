"""What commands do with a terminal."""

import pytest

from distbuild.command.model import CompileCommand
from distbuild.command.original_paths import asks_terminfo, on_terminal
from distbuild.command.parse import parse
from distbuild.command.probe import allowed_environment

CLANG_14, CLANG_10, CLANG_19 = ("clang 14.0.6 x86_64", "clang 10.0.1 x86_64", "clang 19.1.0 arm")


@pytest.mark.parametrize(
    ("line", "columns", "version", "tied"),
    [
        ("gcc", "80", "gcc 12.2.0", False),
        ("gcc -fmessage-length=0", "80", "gcc 12.2.0", False),
        ("gcc -fmessage-length=72", None, "gcc 12.2.0", True),
        ("clang", None, CLANG_14, False),
        ("clang", None, CLANG_10, True),
        ("clang", None, "clang of somebody", True),
        ("clang", "80", CLANG_14, True),
        ("clang", " +07", CLANG_14, True),
        ("clang", "0", CLANG_14, False),
        ("clang", "-1", CLANG_14, False),
        ("clang", "wide", CLANG_14, False),
        ("clang -fmessage-length=0", "80", CLANG_14, False),
        ("clang -fmessage-length=0", "80", CLANG_10, False),
        ("clang -fmessage-length=9", None, CLANG_14, True),
    ],
)
def test_whoever_wraps_at_a_width_needs_the_original_paths(line, columns, version, tied):
    command = parse([*line.split(), "-c", "x.c"], "/p", lambda _: None)
    assert isinstance(command, CompileCommand)
    env = {} if columns is None else {"COLUMNS": columns}
    assert on_terminal(command, env, version).needs_original_paths == tied


@pytest.mark.parametrize(
    ("line", "version", "asks"),
    [("gcc", "gcc 12", False), ("clang", CLANG_14, True), ("clang", CLANG_19, False)],
)
def test_who_asks_the_database_of_terminals(line, version, asks):
    command = parse([line, "-c", "x.c"], "/p", lambda _: None)
    assert isinstance(command, CompileCommand)
    assert asks_terminfo(command, version) == asks


def test_of_terminal_descriptions_only_the_inline_ones_reach_a_compiler():
    assert allowed_environment({"TERMINFO": "/usr/share/terminfo", "TERMINFO_DIRS": "b64:"}) == {}
    inline = {"TERMINFO": "b64:AAAA"}
    assert allowed_environment(inline) == inline
