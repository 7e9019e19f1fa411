"""Unknown options with a value: which of them may name a file."""

import pytest

from distbuild.command.model import CompileCommand, Local, LocalReason
from distbuild.command.parse import parse
from distbuild.command.side_effects import names, unknown_file

THERE = {"/w/list", "/w/dir", "/abs/dir", "/abs/dir/file", "/w/c++17", "/w/native"}


def found(*words: str) -> Local | None:
    command = parse(["gcc", *words, "-c", "x.c"], "/w", lambda _: None)
    assert isinstance(command, CompileCommand)
    return unknown_file(command, THERE.__contains__)


@pytest.mark.parametrize(
    "word",
    [
        *("-fno-such=list", "-mno-such=list", "-gno-such=list", "-Wno-such=list", "-Ox=list"),
        *("-fno-such=a,list", "-fno-such=x:list", "-fno-such=key=list", "-fno-such=dir"),
        *("-fno-such=/abs/dir/file", "-fno-such=/abs/dir/new", "-fno-such=dir/new"),
        *("-fno-such/abs/dir/file", "-fno-such=new.json", "--warn-no-such=list"),
    ],
)
def test_a_value_that_may_name_a_file(word: str) -> None:
    assert found(word) == Local(LocalReason.NAMES_A_FILE, word)


@pytest.mark.parametrize(
    "word",
    [
        *("-fno-such=word", "-fno-such=1.5", "-mno-such=none/there", "-fno-such", "-Wno-such=2"),
        # Options of the table: their values are known to be no names, whatever lies there.
        *("-std=c++17", "-march=list", "-fvisibility=list", "-Werror=list", "-DX=list", "-O2"),
    ],
)
def test_a_value_that_does_not(word: str) -> None:
    assert found(word) is None


def test_the_names_in_a_word() -> None:
    assert list(names("-fa=b=c,d")) == ["b=c,d", "b", "c", "d"]
    assert list(names("-fa/b:c")) == ["/b:c", "/b", "c"]
    assert list(names("-fa=")) == []
