"""Builds dist_build.exe with PyInstaller: what generate_dist_build_executable.cmd runs on Windows.

    python make_executable.py [--force] [--out DIRECTORY]

It is made as a folder (``src/dist``, with ``_internal``), since one file that unpacks itself costs
half a second of each compile. Builds only what is older than its sources.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
#: What only the servers import.
EXCLUDED = (
    "flask werkzeug jinja2 markupsafe itsdangerous click blinker httptools watchdog"
    " distbuild.syncer distbuild.worker distbuild.mirror distbuild.push distbuild.farm"
    " distbuild.http"
    " zstandard._cffi zstandard.backend_cffi"
    " tkinter unittest pydoc doctest pdb lib2to3 test xmlrpc curses sqlite3 asyncio multiprocessing"
    " setuptools pkg_resources pip pytest _pytest hypothesis psutil"
).split()
_SERVERS_ONLY = {
    SOURCE / "distbuild" / name for name in ("syncer", "worker", "mirror", "push", "farm", "http")
}


def is_up_to_date(executable: Path) -> bool:
    """Whether nothing of what it is made from is newer."""
    if not executable.exists():
        return False
    sources = [Path(__file__), SOURCE / "dist_build.py", *(SOURCE / "distbuild").rglob("*.py")]
    made = executable.stat().st_mtime
    return not any(
        source.stat().st_mtime > made
        for source in sources
        if not _SERVERS_ONLY.intersection(source.parents)
    )


def build(out: Path) -> None:
    """Make ``out``, in place of what is there. Ends the process when PyInstaller fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".dist_build-") as directory:
        work = Path(directory)
        words = [sys.executable, "-m", "PyInstaller", "--onedir", "--noconfirm", "--clean"]
        words += ["--console", "--log-level", "WARN", "--name", "dist_build"]
        words += ["--contents-directory", "_internal", "--paths", str(SOURCE)]
        words += ["--distpath", str(work / "dist"), "--workpath", str(work / "work")]
        words += ["--specpath", directory]
        for module in EXCLUDED:
            words += ["--exclude-module", module]
        done = subprocess.run(
            [*words, str(SOURCE / "dist_build.py")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode != 0:
            sys.stderr.buffer.write(done.stdout)
            sys.exit("make_executable.py: PyInstaller failed")
        shutil.rmtree(out, ignore_errors=True)
        shutil.move(work / "dist" / "dist_build", out)


def main(words: Sequence[str]) -> int:
    """Build what is not up to date; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="build in any case")
    parser.add_argument("--out", type=Path, default=SOURCE / "dist", help="default: src/dist")
    options = parser.parse_args(words)
    executable = options.out / "dist_build.exe"
    if options.force or not is_up_to_date(executable):
        print(f"building {executable}", flush=True)
        build(options.out.absolute())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
