"""The last step of the ladder: this process becomes the real compiler."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distbuild.wrapper import local as local_module
from distbuild.wrapper.local import clean_environment
from tests.support.launcher import program


@pytest.mark.parametrize(
    ("frozen", "env", "expected"),
    [
        (
            False,
            {"A": "1", "_PYI_X": "1", "LD_LIBRARY_PATH": "/l"},
            {"A": "1", "LD_LIBRARY_PATH": "/l"},
        ),
        (True, {"A": "1", "LD_LIBRARY_PATH": "/tmp/_MEI1"}, {"A": "1"}),
        (
            True,
            {"LD_LIBRARY_PATH": "/tmp/_MEI1", "LD_LIBRARY_PATH_ORIG": "/l"},
            {"LD_LIBRARY_PATH": "/l"},
        ),
    ],
)
def test_the_environment_is_the_builds_again(
    monkeypatch: pytest.MonkeyPatch, frozen: bool, env: dict[str, str], expected: dict[str, str]
) -> None:
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    assert clean_environment(env) == expected


def run_locally(
    tmp_path: Path, *argv: str, path: str, **env: str
) -> "subprocess.CompletedProcess[str]":
    source = Path(local_module.__file__).parents[2]
    code = "import os, sys; from distbuild.wrapper.local import run_locally;"
    code += " run_locally(sys.argv[1:], {**os.environ, '_PYI_X': '1', 'A': 'b'})"
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        cwd=tmp_path,
        env={"PATH": path, "PYTHONPATH": str(source), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_real_compiler_takes_the_process_over(tmp_path: Path) -> None:
    program(tmp_path / "bin/mycc", '#!/bin/sh\necho "$0 $* $A$_PYI_X"\nexit 4\n')
    done = run_locally(tmp_path, "mycc", "-c", path=f"{tmp_path}/bin:/bin")
    assert (done.returncode, done.stdout) == (4, f"{tmp_path}/bin/mycc -c b\n")


def test_links_to_the_wrapper_are_passed_over(tmp_path: Path) -> None:
    wrapper = program(tmp_path / "dist/dist_build.exe", "#!/bin/sh\nexit 99\n")
    (tmp_path / "first").mkdir()
    (tmp_path / "first/mycc").symlink_to(wrapper)
    program(tmp_path / "second/mycc", "#!/bin/sh\nexit 4\n")
    done = run_locally(tmp_path, "mycc", path=f"{tmp_path}/first:{tmp_path}/second:/bin")
    assert done.returncode == 4


def test_a_compiler_is_told_that_it_was_passed(tmp_path: Path) -> None:
    program(tmp_path / "first/mycc", "#!/bin/sh\necho no\n")
    real = program(tmp_path / "second/mycc", '#!/bin/sh\necho "$DIST_BUILD_SKIP"\n')
    path, before = f"{tmp_path}/first:{tmp_path}/second:/bin", f"/x/ccache:{tmp_path}/first/mycc"
    done = run_locally(tmp_path, "mycc", path=path, DIST_BUILD_SKIP=before)
    assert done.stdout == f"{before}:{real}\n"
    before += f":{real}"
    done = run_locally(tmp_path, "mycc", path=path, DIST_BUILD_SKIP=before)
    said = f"dist_build: mycc: no compiler behind the wrappers on PATH (tried {before})\n"
    assert (done.returncode, done.stdout, done.stderr) == (127, "", said)


def test_what_is_no_compiler_is_not_told(tmp_path: Path) -> None:
    program(tmp_path / "tool", '#!/bin/sh\necho "$DIST_BUILD_SKIP"\n')
    assert run_locally(tmp_path, "./tool", path="/bin").stdout == "\n"


def test_a_wrapper_that_is_asked_for_is_run(tmp_path: Path) -> None:
    program(tmp_path / "bin/ccache", '#!/bin/sh\necho "$*"\n')
    done = run_locally(tmp_path, "ccache", "gcc", "-c", path=f"{tmp_path}/bin:/bin")
    assert (done.returncode, done.stdout) == (0, "gcc -c\n")


def test_the_first_word_leads_to_the_real_compiler(tmp_path: Path) -> None:
    """gcc looks for its own parts beside the file that this word means."""
    (tmp_path / "real").mkdir()
    shutil.copy("/bin/sh", tmp_path / "real/mycc")
    words = ("mycc", "-c", "echo $0")
    assert run_locally(tmp_path, *words, path=f"{tmp_path}/real").stdout == "mycc\n"
    (tmp_path / "first").mkdir()
    (tmp_path / "first/mycc").symlink_to(program(tmp_path / "dist_build.exe", ""))
    done = run_locally(tmp_path, *words, path=f"{tmp_path}/first:{tmp_path}/real")
    assert done.stdout == f"{tmp_path}/real/mycc\n"


@pytest.mark.parametrize("name", ["mycc", "bin/mycc"])
def test_a_script_that_names_no_shell_is_run_by_one(tmp_path: Path, name: str) -> None:
    script = program(tmp_path / "bin/mycc", 'echo "$0 $* $A$_PYI_X"\nexit 4\n')
    done = run_locally(tmp_path, name, "-c", "a b", path=f"{tmp_path}/bin:/bin")
    called = name if "/" in name else os.path.realpath(script)
    assert (done.returncode, done.stdout, done.stderr) == (4, f"{called} -c a b b\n", "")


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("nocc", 127, "dist_build: nocc: command not found\n"),
        ("./broken", 126, "dist_build: {tmp}/./broken: No such file or directory\n"),
    ],
)
def test_what_cannot_be_run_is_said(tmp_path: Path, name: str, code: int, said: str) -> None:
    program(tmp_path / "broken", "#!/no/such/shell\n")
    done = run_locally(tmp_path, name, path="/bin")
    assert (done.returncode, done.stderr) == (code, said.format(tmp=os.path.realpath(tmp_path)))


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("statsu", "status"),
        ("stat", "status"),
        ("Doctor", "doctor"),
        ("docter", "doctor"),
        ("instal", "install"),
        ("explane", "explain"),
        ("versoin", "version"),
    ],
)
def test_a_mistyped_subcommand_is_said(tmp_path: Path, word: str, meant: str) -> None:
    done = run_locally(tmp_path, word, "x", path="/no/such/directory")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"dist_build: {word}: no such program or subcommand; did you mean {meant}?"
        " Subcommands: setup, workers, status, install, clean, doctor, explain, cache, builds,"
        " trace, top, dashboard, completion, version, help\n"
    )


@pytest.mark.parametrize(
    "word",
    [
        "clan",
        "clang",
        "gcc-99",
        "x86_64-linux-gnu-gcc",
        "nosuch",
        "./status",
        "/bin/statsu",
        "\xe9",
        "s" * 5000,
    ],
)
def test_a_compiler_that_is_not_there_is_no_subcommand(tmp_path: Path, word: str) -> None:
    done = run_locally(tmp_path, word, "-c", "x.c", path="/no/such/directory")
    assert (done.returncode, done.stderr) == (127, f"dist_build: {word}: command not found\n")


def test_a_program_is_run_though_its_name_is_like_a_subcommand(tmp_path: Path) -> None:
    program(tmp_path / "bin/stats", "#!/bin/sh\nexit 4\n")
    assert run_locally(tmp_path, "stats", path=f"{tmp_path}/bin:/bin").returncode == 4
