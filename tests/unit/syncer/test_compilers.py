"""The dev box's compilers are identified anew when any part of them has changed."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from distbuild.command.model import CompileCommand, Family
from distbuild.command.parse import parse
from distbuild.compiler.identity import Identifier, Identity, state_of
from distbuild.mirror.digest_cache import DigestCache
from distbuild.syncer import compilers as module
from distbuild.syncer.compilers import LOOK_S, Compilers, Driver, find


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def identity_of(driver: str, cc1: Path) -> Identity:
    states = (state_of(str(cc1)),)
    return Identity(cc1.read_text(), Family.GCC, "gcc 1", driver, (), (), (str(cc1),), states)


def test_a_part_that_is_replaced_while_it_is_looked_at_is_noticed(tmp_path: Path) -> None:
    cc1 = tmp_path / "cc1"
    cc1.write_text("1")

    class Identifier:
        def identify(self, driver: str, around: object) -> Identity:
            found = identity_of(driver, cc1)
            cc1.write_text("22")
            return found

    clock = Clock()
    compilers = Compilers(Identifier(), clock)  # type: ignore[arg-type]
    gcc = Driver("/usr/bin/gcc", (1, 1, 1, 1))
    assert compilers.identity(gcc).digest == "1"
    clock.now = LOOK_S
    assert compilers.identity(gcc).digest == "22"


def test_a_part_that_is_replaced_makes_another_identity(tmp_path: Path) -> None:
    cc1 = tmp_path / "cc1"
    cc1.write_text("1")
    asked = []

    class Identifier:
        def identify(self, driver: str, around: object) -> Identity:
            asked.append(driver)
            return identity_of(driver, cc1)

    clock = Clock()
    compilers = Compilers(Identifier(), clock)  # type: ignore[arg-type]
    gcc = Driver("/usr/bin/gcc", (1, 1, 1, 1))
    assert [compilers.identity(gcc).digest for _ in range(2)] == ["1", "1"]
    cc1.write_text("22")
    clock.now = LOOK_S / 2
    assert compilers.identity(gcc).digest == "1"
    clock.now = LOOK_S
    assert compilers.identity(gcc).digest == "22"
    clock.now = 3 * LOOK_S
    assert compilers.identity(gcc).digest == "22"
    assert len(asked) == 2


def test_a_search_directory_that_is_made_later_is_searched(
    tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    """As /usr/local/include/MACHINE is by the first package that installs headers there."""
    clock = Clock()
    require_tool("gcc")
    gcc = find("gcc", "/", {"PATH": os.environ["PATH"]})
    command = parse(["gcc", f"--sysroot={tmp_path}", "-c", "x.c"], str(tmp_path), lambda _: None)
    assert gcc is not None
    assert isinstance(command, CompileCommand)
    compilers = Compilers(Identifier(DigestCache(tmp_path / "memory")), clock)
    compilers.identity(gcc)
    assert not any(d.startswith(str(tmp_path)) for d in compilers.search(gcc, command).dirs)
    (tmp_path / "usr/include").mkdir(parents=True)
    clock.now = LOOK_S
    compilers.identity(gcc)
    assert f"{tmp_path}/usr/include" in compilers.search(gcc, command).dirs


@pytest.mark.parametrize(
    ("word", "is_relative"),
    [
        ("--sysroot=/x", False),
        ("--sysroot=x", True),
        ("--gcc-toolchain=/opt/gcc", False),
        ("--gcc-toolchain=../gcc", True),
        ("-isysroot /x", False),
        ("-isysroot x", True),
        ("-resource-dir=", True),
        ("-iprefix ../x", True),
        ("-m32", False),
    ],
)
def test_a_compiler_is_asked_in_each_directory_only_for_relative_names(
    monkeypatch: pytest.MonkeyPatch, word: str, is_relative: bool
) -> None:
    asked = []

    def ask(_: Driver, words: Iterable[str], cwd: str = "/") -> CompletedProcess[str]:
        asked.append(cwd)
        return CompletedProcess([*words], 0, "", "")

    monkeypatch.setattr(module, "_ask", ask)
    compilers = Compilers(Identifier(DigestCache()))
    clang = Driver("/usr/bin/clang", (1, 1, 1, 1))
    for cwd in ("/a", "/b"):
        command = parse(["clang", *word.split(), "-c", "x.c"], cwd, lambda _: None)
        assert isinstance(command, CompileCommand)
        compilers.search(clang, command)
    assert asked == (["/a", "/b"] if is_relative else ["/"])
