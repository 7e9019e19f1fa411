"""Response files, as libiberty's expandargv reads them."""

import pytest

from distbuild.command.model import Local, LocalReason
from distbuild.command.response import MAX_BYTES, expand, split_gnu


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n\t ", []),
        ("-c x.c\n-o\tx.o", ["-c", "x.c", "-o", "x.o"]),
        ("'a b' \"c d\"e f'g'", ["a b", "c de", "fg"]),
        (r"a\ b \"q\" '\'' \\", ["a b", '"q"', "'", "\\"]),
        ("'' \"\"", ["", ""]),
        ("-DX='\"v\"'", ['-DX="v"']),
        ("'open", ["open"]),
        ("a\\\nb", ["a\nb"]),
        ("end\\", ["end"]),
    ],
)
def test_words_of_a_response_file(text, words):
    assert split_gnu(text) == words


@pytest.mark.parametrize(
    ("argv", "files", "expanded"),
    [
        (["-c", "@a", "z"], {"/w/a": b"x.c -g"}, ["-c", "x.c", "-g", "z"]),
        (["@/abs/a"], {"/abs/a": b"@b"}, ["@b"]),
        (["@/abs/a"], {"/abs/a": b"1 @b 2", "/w/b": b"3"}, ["1", "3", "2"]),
        (["@none", "@", "a@b"], {}, ["@none", "@", "a@b"]),
        (["@a"], {"/w/a": b"\xff"}, ["\udcff"]),
        (["@a"], {"/w/a": b"@a"}, Local(LocalReason.RESPONSE_FILE, "@a")),
        (["@a"], {"/w/a": b"x\0y"}, Local(LocalReason.RESPONSE_FILE, "@a")),
        (["@a"], {"/w/a": b" " * (MAX_BYTES + 1)}, Local(LocalReason.RESPONSE_FILE, "@a")),
    ],
)
def test_expansion(argv, files, expanded):
    assert expand(argv, "/w", files.get) == expanded
