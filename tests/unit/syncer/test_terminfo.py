"""A terminal's description travels with the job."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from distbuild.syncer.environment import describe
from tests.support.screen import Screen

#: Colours, and a name that no clang knows.
ENTRY = "their-own|a terminal,\n\tcolors#8, setaf=\\E[3%p1%dm,\n"


@pytest.fixture
def database(tmp_path: Path, require_tool: Callable[[str], str]) -> Path:
    (tmp_path / "entry").write_text(ENTRY)
    made = tmp_path / "ti"
    command = [require_tool("tic"), "-o", str(made), str(tmp_path / "entry")]
    subprocess.run(command, check=True, capture_output=True)
    return made


@pytest.mark.compiler
@pytest.mark.parametrize("way", ["TERMINFO", "TERMINFO_DIRS", "home"])
def test_clang_colours_a_terminal_that_only_the_dev_box_knows(
    way: str, database: Path, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    env = {"TERM": "their-own", "PATH": os.environ["PATH"]}
    (tmp_path / "x.c").write_text("broken\n")
    argv = [require_tool("clang"), "-c", "x.c"]
    assert b"\x1b[" not in Screen().run(argv, tmp_path, env).stderr
    if b"\x1b[" not in Screen().run(argv, tmp_path, {**env, "TERMINFO": str(database)}).stderr:
        pytest.skip("this clang (19 or later) reads no description of a terminal")
    told = {} if way == "home" else {way: str(database)}
    if way == "home":
        database.rename(tmp_path / ".terminfo")
    described = describe({**env, **told}, str(tmp_path))
    assert described is not None
    assert b"\x1b[" in Screen().run(argv, tmp_path, {**env, **described}).stderr


@pytest.mark.parametrize(
    ("env", "described"),
    [
        ({}, {}),
        ({"TERM": ""}, {}),
        ({"TERM": "dumb"}, {}),
        ({"TERM": "x", "TERMINFO": "b64:AAAA"}, {}),
        ({"TERM": "no-such-terminal"}, None),
        ({"TERM": "../../etc/passwd"}, None),
        ({"TERM": "..", "TERMINFO": "/etc"}, None),
        ({"TERM": "x\0y"}, None),
    ],
)
def test_what_is_not_described(
    env: dict[str, str], described: dict[str, str] | None, tmp_path: Path
) -> None:
    assert describe(env, str(tmp_path)) == described
