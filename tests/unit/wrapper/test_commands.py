"""The table of subcommands, and the texts made from it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from distbuild.wrapper.commands import NAMES, SUBCOMMANDS, completion, manual, usage
from distbuild.wrapper.subcommands import by_name
from tests.support.tools import need

LAUNCHER = Path(__file__).parents[3] / "src" / "launcher" / "dist_build.c"
SHELLS = ["bash", "zsh", "fish"]


def test_each_subcommand_is_in_the_usage_with_its_sentence() -> None:
    for each in SUBCOMMANDS:
        line = f"dist_build.exe {each.name} {each.arguments}".rstrip()
        assert re.search(rf"^ +{re.escape(line)} +{re.escape(each.about)}$", usage(), re.MULTILINE)
    assert max(map(len, usage().splitlines())) <= 100


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("version", "help")])
def test_each_subcommand_has_a_function(name: str) -> None:
    assert callable(by_name(name))


def test_the_launcher_leaves_each_to_the_client() -> None:
    text = LAUNCHER.read_text()
    known = re.search(r"known\[\] = \{(.*?)\};", text, re.DOTALL)
    assert known is not None
    words = set(re.findall(r'"([^"]+)"', known[1]))
    assert words == {*NAMES, "-h", "--help", "--version"}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_accepts_its_completion(shell: str) -> None:
    script = completion(shell)
    assert all(name in script for name in NAMES)
    subprocess.run([need(shell), "-n"], input=script, text=True, check=True)


def test_bash_completes_subcommands_and_their_words() -> None:
    need("bash")

    def completed(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        script = (
            f"{completion('bash')}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n"
            '_dist_build; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert "workers" in completed("dist_build.exe", "worke")
    assert completed("dist_build.exe", "setup", "--inv") == ["--invite"]
    assert completed("dist_build.exe", "builds", "c") == ["compare"]


def test_the_manual_names_each_subcommand() -> None:
    page = manual()
    for each in SUBCOMMANDS:
        assert f"\n.B {each.name}" in page
    if shutil.which("man") and shutil.which("groff"):
        done = subprocess.run(
            ["groff", "-man", "-ww", "-Tutf8"], input=page, text=True, capture_output=True
        )
        assert (done.returncode, done.stderr) == (0, "")
