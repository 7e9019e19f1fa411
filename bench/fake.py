"""A compiler that only sleeps, and jobs for it; see ``programs/fake_compiler.c``."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.common import Command, Skipped, compiled


def fake_compiler(directory: Path) -> Path:
    """A directory whose ``gcc`` sleeps, to be put first on the PATH of everything.

    distcc asks for gcc by its full name, ``x86_64-linux-gnu-gcc``, so that is there as well.
    """
    real = shutil.which("gcc")
    if real is None:
        raise Skipped("there is no gcc")
    compiled("fake_compiler", directory / "gcc", f'-DREAL="{real}"')
    asked = subprocess.run([real, "-dumpmachine"], capture_output=True, text=True, check=True)
    # distccd gives up root's rights, and has to reach it from the benchmark's directory down.
    for path in (directory / "gcc", directory, directory.parent, directory.parent.parent):
        path.chmod(path.stat().st_mode | 0o011)
    (directory / f"{asked.stdout.strip()}-gcc").symlink_to("gcc")
    return directory


def sleeping_jobs(directory: Path, count: int, seconds: float) -> Sequence[Command]:
    """Sources of their own in one directory, and a compile of so many seconds for each."""
    directory.mkdir()
    options = ["-O2", f"-frandom-seed={seconds * 1000:.0f}ms"]
    commands = []
    for number in range(count):
        stem = f"j{number:05}"
        (directory / f"{stem}.c").write_text(f"int f{number}(void) {{ return {number}; }}\n")
        words = ["gcc", *options, "-MD", "-MF", f"{stem}.d", "-c", f"{stem}.c", "-o", f"{stem}.o"]
        commands.append(Command(directory, words))
    return commands
