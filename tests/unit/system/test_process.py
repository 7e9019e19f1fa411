"""A lock is one process's, and ends with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from distbuild.system.process import hold

SRC = Path(__file__).parents[3] / "src"
HOLDER = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
from distbuild.system.process import hold
lock = hold(pathlib.Path(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


def test_another_process_is_refused_until_the_holder_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(SRC), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(OSError):  # noqa: PT011 - which one is the system's affair
            hold(path)
        holder.kill()
    hold(path).close()
    hold(path).close()
