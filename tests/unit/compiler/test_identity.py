import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from distbuild.command.model import Family
from distbuild.compiler.find import SKIP
from distbuild.compiler.identity import Identifier, are_as_identified, query
from distbuild.mirror.digest_cache import DigestCache
from distbuild.protocol.errors import CompilerScript, InfrastructureError
from tests.support.stand_in import make_stand_in

pytestmark = pytest.mark.compiler

RequireTool = Callable[[str], str]


@pytest.fixture
def identifier(tmp_path: Path) -> Identifier:
    return Identifier(DigestCache(tmp_path / "digests"))


def test_a_compiler_is_the_same_under_all_its_names(
    identifier: Identifier, require_tool: RequireTool, tmp_path: Path
) -> None:
    gcc = require_tool("gcc")
    (tmp_path / "other-gcc").symlink_to(gcc)
    first, second = identifier.identify(gcc), identifier.identify(str(tmp_path / "other-gcc"))
    assert first == second
    assert first.family is Family.GCC
    assert first.version.startswith("gcc ")
    assert "/usr/include" in first.c_dirs
    assert first.real_path in first.needs


@pytest.mark.parametrize("name", ["clang", "clang++"])
def test_a_clang_is_the_same_by_its_full_path(
    name: str, identifier: Identifier, require_tool: RequireTool
) -> None:
    """It spells its directories relative to the path that it is called by."""
    link = Path(require_tool(name))
    target = link.resolve().with_name(name)
    if link == target or not target.exists():
        pytest.skip(f"{link} is no link to another directory")
    first, second = identifier.identify(str(link)), identifier.identify(str(target))
    assert first.digest == second.digest


def test_c_and_cxx_drivers_are_different(identifier: Identifier, require_tool: RequireTool) -> None:
    pairs = [("gcc", "g++"), ("clang", "clang++"), ("gcc", "clang")]
    for one, other in pairs:
        paths = require_tool(one), require_tool(other)
        first, second = (identifier.identify(path).digest for path in paths)
        assert first != second


def test_a_clang_is_known_by_what_it_says_and_not_by_its_name(
    identifier: Identifier, require_tool: RequireTool, tmp_path: Path
) -> None:
    (tmp_path / "cc").symlink_to(require_tool("clang"))
    identity = identifier.identify(str(tmp_path / "cc"))
    assert identity.family is Family.CLANG
    assert identity.version.startswith("clang ")


def test_other_bytes_are_another_compiler(
    identifier: Identifier, require_tool: RequireTool, tmp_path: Path
) -> None:
    gcc = require_tool("gcc")
    copy = tmp_path / "gcc"
    shutil.copy(Path(gcc).resolve(), copy)
    with copy.open("ab") as file:
        file.write(b"patched")
    assert identifier.identify(str(copy)).digest != identifier.identify(gcc).digest


def test_what_is_replaced_while_it_is_identified_is_noticed(
    require_tool: RequireTool, tmp_path: Path
) -> None:
    copy = tmp_path / "gcc"
    shutil.copy(Path(require_tool("gcc")).resolve(), copy)

    class Patching(DigestCache):
        def of(self, path: str | bytes, status: os.stat_result | None = None) -> bytes:
            digest = super().of(path, status)
            if path == str(copy):
                with copy.open("ab") as opened:
                    opened.write(b"patched")
            return digest

    meanwhile = Identifier(Patching(tmp_path / "digests")).identify(str(copy))
    assert not are_as_identified([meanwhile])
    afterwards = Identifier(DigestCache(tmp_path / "digests")).identify(str(copy))
    assert are_as_identified([afterwards])
    assert afterwards.digest != meanwhile.digest


def test_a_script_is_no_compiler_that_workers_have(
    identifier: Identifier, require_tool: RequireTool, tmp_path: Path
) -> None:
    """It may run any, with any options, as variables and other files say."""
    script = tmp_path / "gcc"
    script.write_text(f'#!/bin/sh\nexec {require_tool("gcc")} $MORE "$@"\n')
    script.chmod(0o755)
    with pytest.raises(CompilerScript):
        identifier.identify(str(script))


def test_the_clang_behind_another_program_counts(
    identifier: Identifier, require_tool: RequireTool, tmp_path: Path
) -> None:
    real = os.path.realpath(require_tool("clang"))
    make_stand_in(tmp_path / "clang", real)
    assert real in identifier.identify(str(tmp_path / "clang")).needs


def test_a_program_that_is_asked_what_it_is_knows_that_it_was_passed() -> None:
    """So that dist_build.exe, if the program calls it, does not ask the syncer that asks."""
    assert f"{SKIP}=/usr/bin/env" in query("/usr/bin/env", []).stdout.splitlines()


@pytest.mark.parametrize("program", ["/bin/true", "/no/such/gcc", "/bin/ls"])
def test_what_is_no_compiler_is_refused(program: str, identifier: Identifier) -> None:
    with pytest.raises(InfrastructureError):
        identifier.identify(program)
