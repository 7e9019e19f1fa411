"""Words of cl command lines: quoting, response files, variables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.command.cl.scan import decoded, split_file, split_windows, with_environment
from distbuild.command.model import Local, PathStyle
from distbuild.command.response import expand


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  \t\r\n", []),
        ("a b\tc\r\nd", ["a", "b", "c", "d"]),
        ('"a b" c', ["a b", "c"]),
        ('/Fo"build/" x', ["/Fobuild/", "x"]),
        (r"a\\b c\d", [r"a\\b", r"c\d"]),
        (r"a\"b", ['a"b']),
        (r'a\\"b c"', ["a\\b c"]),
        (r"a\\\"b", ['a\\"b']),
        (r'"C:\dir\\" x', ["C:\\dir\\", "x"]),
        ('"C:\\dir\\" x"', ['C:\\dir" x']),
        ('"a""b"', ['a"b']),
        ('""', [""]),
        ('x "" y', ["x", "", "y"]),
        ('a"b c"d', ["ab cd"]),
        ('"unclosed word', ["unclosed word"]),
        ("trailing\\", ["trailing\\"]),
    ],
)
def test_a_text_is_split_as_windows_does(text: str, words: list[str]) -> None:
    assert split_windows(text) == words


def quoted(word: str) -> str:
    """As programs on Windows quote a word (the inverse rule in the same document)."""
    out, backslashes = ['"'], 0
    for character in word:
        if character == "\\":
            backslashes += 1
            continue
        out.append("\\" * (backslashes * 2 + 1 if character == '"' else backslashes))
        out.append(character)
        backslashes = 0
    return "".join([*out, "\\" * backslashes * 2, '"'])


@given(st.lists(st.text('ab \\"\t/:', max_size=8)))
def test_what_is_quoted_comes_back(words: list[str]) -> None:
    assert split_windows(" ".join(map(quoted, words))) == words


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", "plain"),
        ("grö".encode(), "grö"),
        (b"\xef\xbb\xbfx", "x"),
        ("\ufeffgrö".encode("utf-16-le"), "grö"),
        ("\ufeffgrö".encode("utf-16-be"), "grö"),
        ("/DX grö".encode("utf-16-le"), "/DX grö"),
        ("/DX grö".encode("utf-16-be"), "/DX grö"),
        (b"gr\xf6", "grö"),
    ],
)
def test_a_response_file_is_decoded_by_what_it_is(data: bytes, text: str) -> None:
    assert decoded(data) == text


def test_response_files_nest_for_clang_only() -> None:
    files = {"/w/a": b"/DA @b", "/w/b": b"/DB"}

    def words(*, nested: bool) -> list[str] | Local:
        return expand(["@a", "x.c"], "/w", files.get, split_file, PathStyle.POSIX, nested=nested)

    assert words(nested=True) == ["/DA", "/DB", "x.c"]
    assert words(nested=False) == ["/DA", "@b", "x.c"]


def test_a_response_file_that_names_itself_is_refused() -> None:
    found = expand(["@a"], "/w", lambda _: b"@a", split_file, PathStyle.POSIX, nested=True)

    assert isinstance(found, Local)


def test_a_response_file_is_found_by_the_rules_of_windows() -> None:
    files = {"/D/w/r s/a.rsp": b"/DA"}

    assert expand(
        ["@r s\\a.rsp"], "/D/w", files.get, split_file, PathStyle.WINDOWS, nested=False
    ) == ["/DA"]


def test_the_variables_stand_around_the_command() -> None:
    env = {"CL": '/DA#1#2 "/I a b"', "_CL_": "/O2"}

    assert with_environment(["cl", "/c", "x.c"], env) == [
        "cl",
        "/DA=1#2",
        "/I a b",
        "/c",
        "x.c",
        "/O2",
    ]
