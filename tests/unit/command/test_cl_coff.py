"""An object under another name is the object that the compiler writes there."""

import contextlib
import subprocess
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
