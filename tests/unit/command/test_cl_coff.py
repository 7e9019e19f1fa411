"""An object under another name is the object that the compiler writes there."""

import contextlib
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.command.cl.coff import renamed
from tests.support.tools import need_versioned

SOURCE = """
struct Base { virtual ~Base() {} virtual int f() { return 1; } };
struct Derived : Base { int f() override { return 2; } };
template <class T> T twice(T t) { return t + t; }
int use(Base *b) { Derived d; return twice(b->f()) + twice<long>(d.f()); }
"""
NAMES = ("x.obj", "xy.obj", "xyz.obj", "wxyz.obj", "a much longer name of an object.obj")


def compiled(directory: Path, name: str, *options: str) -> bytes:
    words = [need_versioned("clang-cl"), "/c", "/Z7", "/Brepro", *options, "x.cpp", f"/Fo{name}"]
    subprocess.run(words, cwd=directory, check=True, capture_output=True)
    return (directory / name).read_bytes()


@pytest.mark.compiler
@pytest.mark.parametrize(
    "options", [(), ("/O2", "/Gy"), ("-gcodeview-ghash", "-gcodeview")], ids=str
)
def test_a_renamed_object_is_what_is_compiled_there(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "x.cpp").write_text(SOURCE)
    made = {name: compiled(tmp_path, name, *options) for name in NAMES}

    for old in NAMES:
        for new in NAMES:
            moved = renamed(made[old], str(tmp_path / old).upper(), str(tmp_path / new))
            assert moved == made[new], f"{old} as {new}"


@pytest.mark.compiler
@pytest.mark.slow
def test_so_is_one_with_more_sections_than_16_bits_count(tmp_path: Path) -> None:
    lines = (f"int f{n}(void) {{ return {n}; }}" for n in range(70_000))
    (tmp_path / "x.cpp").write_text("\n".join(lines))
    old, new = (compiled(tmp_path, name, "/Gy", "/bigobj") for name in NAMES[:2])

    assert old.startswith(b"\0\0\xff\xff")
    assert renamed(old, str(tmp_path / NAMES[0]), str(tmp_path / NAMES[1])) == new


@pytest.mark.compiler
def test_an_object_without_that_name_stays(tmp_path: Path) -> None:
    (tmp_path / "x.cpp").write_text(SOURCE)
    made = compiled(tmp_path, "x.obj")

    assert renamed(made, str(tmp_path / "other.obj"), "new.obj") == made


@given(st.binary(max_size=200), st.integers(0, 3))
def test_a_damaged_object_is_refused_or_left_alone(data: bytes, kind: int) -> None:
    start = (b"", b"\x64\x86\x01\0", b"\0\0\xff\xff", b"\x64\x86\xff\xff")[kind]

    with contextlib.suppress(ValueError):
        assert renamed(start + data, "a", "b") == start + data


# --- an object made here: one section of records, a relocation and a symbol in it --------------


def made_object(path: bytes, *, big: bool = False) -> bytes:
    """A COFF object as clang writes it, with ``path`` in its first record; no compiler needed."""
    record = struct.pack("<HI", 0x1101, 0) + path + b"\0"
    record += bytes(-(len(record) + 2) % 4)
    record = struct.pack("<H", len(record)) + record
    other = struct.pack("<HH", 6, 0x1147) + bytes(4)
    symbols = record + other
    section = struct.pack("<III", 4, 0xF1, len(symbols)) + symbols
    section += struct.pack("<II", 0xF4, 4) + b"sums"
    width, header = (20, 56) if big else (18, 20)
    start = header + 40
    relocation = struct.pack("<IIH", len(section) - 4, 0, 11)  # at the last subsection's bytes
    table = start + len(section) + len(relocation)
    named = b".debug$S" + bytes(8) + struct.pack("<II", len(section), start)
    named += struct.pack("<IIHHI", start + len(section), 0, 1, 0, 0x42100040)
    checksum = ~zlib.crc32(section, 0xFFFFFFFF) & 0xFFFFFFFF
    number = struct.pack("<i" if big else "<h", 1)
    symbol = b".debug$S" + struct.pack("<I", 0) + number + struct.pack("<HBB", 0, 3, 1)
    auxiliary = struct.pack("<IHHI", len(section), 1, 0, checksum)
    if big:
        head = b"\0\0\xff\xff" + bytes(40) + struct.pack("<III", 1, table, 2)
    else:
        head = struct.pack("<HHIIIHH", 0x8664, 1, 0, table, 2, 0, 0)
    return (
        head
        + named
        + section
        + relocation
        + symbol.ljust(width, b"\0")
        + auxiliary.ljust(width, b"\0")
        + struct.pack("<I", 4)
    )


@pytest.mark.parametrize("big", [False, True])
def test_positions_lengths_and_the_checksum_follow_the_name(big: bool) -> None:
    for old in NAMES:
        for new in NAMES:
            before, after = (made_object(b"/p/" + name.encode(), big=big) for name in (old, new))
            assert renamed(before, f"/P/{old}", f"/p/{new}") == after
            assert renamed(before, "/p/other.obj", f"/p/{new}") == before
