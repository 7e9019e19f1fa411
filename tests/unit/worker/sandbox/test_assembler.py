"""What an assembler's list says, and which texts and commands may have assembler."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from distbuild.command.model import CompileCommand
from distbuild.command.parse import parse
from distbuild.mirror.manifest import DIRECTORY, WITHHELD
from distbuild.protocol.errors import UnseenInputs
from distbuild.protocol.messages import Entry, SymlinkEntry
from distbuild.worker.sandbox import assembler
from distbuild.worker.tree.tree import Tree


def command(line: str) -> CompileCommand:
    parsed = parse(line.split(), "/w", lambda _: None)
    assert isinstance(parsed, CompileCommand), parsed
    return parsed


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"x.o: x.c /tmp/cc.s\n", (b"x.c", b"/tmp/cc.s")),
        (b"a\\ b.o: a\\ b.c\n", (b"a b.c",)),
        (b"a:b.o: c:d.s\n", (b"c:d.s",)),
        (b"x.o: aaa \\\n bbb \\\n  ccc\n", (b"aaa", b"bbb", b"ccc")),
        (b"x.o: d$$e.bin back\\slash tab\\\tx\n", (b"d$e.bin", b"back\\slash", b"tab\tx")),
        (b"x.o: a\\\\\\ b\n", (b"a\\ b",)),
        (b"x.o:\n", ()),
    ],
)
def test_a_list_of_gnu_as_is_understood(
    tmp_path: Path, text: bytes, names: tuple[bytes, ...]
) -> None:
    (tmp_path / "list").write_bytes(text)
    assert assembler.listed(bytes(tmp_path / "list")) == names


@pytest.mark.parametrize("text", [b"", b"x.o: a", b"x.o", b"x.o: a\nb\n", b"\0", None])
def test_what_is_no_list_proves_nothing(tmp_path: Path, text: bytes | None) -> None:
    """A name with a newline is two to whoever reads the list."""
    if text is not None:
        (tmp_path / "list").write_bytes(text)
    with pytest.raises(UnseenInputs):
        assembler.listed(bytes(tmp_path / "list"))


@pytest.mark.parametrize("line", ["clang -c x.c", "clang++ -O2 -g -MD -c x.cc", "clang -S x.m"])
def test_most_clang_commands_can_forbid_assembler(line: str) -> None:
    assert assembler.can_forbid(command(line))


@pytest.mark.parametrize(
    "line",
    [
        "gcc -c x.c",
        "clang -c x.S",
        "clang -c x.s",
        "clang -x assembler-with-cpp -c x.c",
        "clang -fasm-blocks -c x.c",
        "clang -fms-extensions -c x.c",
        "clang -fms-compatibility-version=19 -c x.c",
        "clang --target=x86_64-pc-windows-msvc -c x.c",
        "clang -target x86_64-pc-windows-msvc -c x.c",
        "clang -fgnu-inline-asm -c x.c",
        "clang -g -grecord-command-line -c x.c",
        "clang -MJ x.json -c x.c",
    ],
)
def test_where_the_option_would_show_or_not_do_it_is_not_given(line: str) -> None:
    assert not assembler.can_forbid(command(line))


@pytest.mark.parametrize(
    ("text", "may"),
    [
        (b"#if __has_extension(gnu_asm)", True),
        (b"#if __has_extension(__gnu_asm__)", True),
        (b"__has_extension(gnu_\\\nasm)", True),
        (b"__has_extension(gnu_??/\nasm)", True),
        (b"H(gnu_, asm)", True),
        (b"H(gnu, _asm)", True),
        (b"H(gn, u_asm)", True),
        (b"H(gnu_a, sm)", True),
        (b"H(__gnu_, asm__)", True),
        (b"-DA=gnu_asm", True),
        (b"int g; // see www.gnu.org, e.g. __gnu_inline__", False),
        (b'__asm__("nop"); asm_t x_asm_y;', False),
        (b"", False),
    ],
)
def test_a_text_that_may_ask_whether_assembler_is_allowed(text: bytes, may: bool) -> None:
    assert assembler.may_ask(text) == may


def tree_of(entries: dict[str, Entry]) -> Tree:
    return cast("Tree", SimpleNamespace(lookup=entries.get))


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/d/link/x.bin", "/far/deep/x.bin"),
        ("/d/link/../x.bin", "/far/x.bin"),
        ("/d/up", "/usr/x.bin"),
        ("/d/missing/../x.bin", "/d/x.bin"),
        ("/d/file/x.bin", "/d/file/x.bin"),
        ("/d//./x.bin/", "/d/x.bin"),
        ("/..", "/"),
    ],
)
def test_a_name_is_followed_beyond_the_tree(path: str, place: str) -> None:
    tree = tree_of(
        {
            "/d": DIRECTORY,
            "/d/file": WITHHELD,
            "/d/link": SymlinkEntry(b"/far/deep"),
            "/d/up": SymlinkEntry(b"../../usr/x.bin"),
        }
    )
    assert assembler._led_to(path, tree) == place


def test_links_in_a_circle_lead_to_no_file() -> None:
    with pytest.raises(UnseenInputs, match="too many symlinks"):
        assembler._led_to("/a", tree_of({"/a": SymlinkEntry(b"a")}))
