"""A Windows on this machine: wine with Windows' own Python, as ``make test-windows`` sets it up."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.cluster import SRC, Cluster, Done, Process

ROOT = SRC.parent
PYTHON = "C:\\Python311\\python.exe"
EXECUTABLE = "C:\\dist\\dist_build.exe"
#: Where a wine process is waited for, which has to start a server first.
TIMEOUT_S = 500
UCRT = "Program Files (x86)/Windows Kits/10/Include/10.0.19041.0/ucrt"


def set_up() -> ModuleType:
    """The script that makes it."""
    spec = importlib.util.spec_from_file_location("setup", ROOT / "tools" / "windows" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Wine:
    """Runs programs in the Windows at ``path``."""

    def __init__(self, made: Any) -> None:
        self.drive: Path = made.drive
        self._environ: dict[str, str] = made.environment()
        self.compiler = made.drive / set_up().COMPILER

    def environment(self, **extra: str) -> dict[str, str]:
        """With the compiler's directory on PATH."""
        environ = {n: v for n, v in self._environ.items() if not n.startswith("DIST_BUILD_")}
        return {**environ, "WINEPATH": windows_path(self.compiler.parent, self.drive), **extra}

    def popen(self, words: Sequence[str], cwd: Path, **extra: str) -> "subprocess.Popen[bytes]":
        """A program, running. Its output is a pipe: Python there takes no file."""
        return subprocess.Popen(
            ["wine", *words],
            cwd=cwd,
            env=self.environment(**extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, words: Sequence[str], cwd: Path, **extra: str) -> Done:
        """A program to its end."""
        with self.popen(words, cwd, **extra) as process:
            try:
                stdout, stderr = process.communicate(timeout=TIMEOUT_S)
            except BaseException:
                process.kill()
                raise
        return Done(process.returncode, stdout, stderr)

    def python(self, words: Sequence[str], cwd: Path, **extra: str) -> Done:
        """Python with these words."""
        return self.run([PYTHON, *words], cwd, **extra)

    def build_executable(self) -> None:
        """Make ``EXECUTABLE``, unless it is newer than its sources."""
        script = windows_path(ROOT / "tools" / "windows" / "make_executable.py", self.drive)
        done = self.python([script, "--out", EXECUTABLE.rpartition("\\")[0]], self.drive)
        assert done.exit_code == 0, (done.stdout + done.stderr).decode()

    def script(self, line: str, cwd: Path, **extra: str) -> Done:
        """A line of a batch file, which nobody takes apart and quotes again."""
        file = cwd / "line.cmd"
        file.write_bytes(f"@{line}\r\n".encode())
        return self.run(["cmd", "/c", windows_path(file, self.drive)], cwd, **extra)

    def kept_running(self) -> "contextlib.AbstractContextManager[None]":
        """The services of this Windows, which else end with the last process and start again."""
        return _kept_running(self._environ)


@contextlib.contextmanager
def _kept_running(environ: Mapping[str, str]) -> Iterator[None]:
    subprocess.run(["wineserver", "-p"], env=environ, check=False)
    keeper = subprocess.Popen(
        ["wine", PYTHON, "-c", "import sys; print(flush=True); sys.stdin.read()"],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert keeper.stdout is not None
        keeper.stdout.readline()
        yield
    finally:
        with keeper:
            keeper.kill()
        subprocess.run(["wineserver", "-k"], env=environ, check=False)


def windows_path(path: Path, drive: Path) -> str:
    """A path of this machine as that Windows sees it."""
    if path.is_relative_to(drive):
        return "C:\\" + str(path.relative_to(drive)).replace("/", "\\")
    return "Z:" + str(path).replace("/", "\\")


def find_wine() -> Wine:
    """The Windows that is set up; skips the test where there is none."""
    script = set_up()
    made = script.Windows(script.default_path())
    if not (made.path / "compiler.done").exists() or shutil.which("wine") is None:
        if os.environ.get("DIST_BUILD_REQUIRE_WINDOWS") == "1":
            pytest.fail(f"{made.path} is not set up, and DIST_BUILD_REQUIRE_WINDOWS=1")
        pytest.skip("no Windows is set up here: make test-windows")
    return Wine(made)


@dataclass
class WineProcess(Process):
    """A syncer or daemon in wine."""

    wine: Wine | None = None
    _said: bytearray = field(default_factory=bytearray)
    _reader: threading.Thread | None = None

    def start(self) -> None:
        wine = self.wine
        assert wine is not None
        script = windows_path(SRC / self.script, wine.drive)
        home = windows_path(self.home, wine.drive)
        self.popen = subprocess.Popen(
            ["wine", PYTHON, script, "--home", home],
            cwd=wine.drive,
            env=wine.environment(PYTHONDONTWRITEBYTECODE="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._listen, args=(self.popen,))
        self._reader.start()

    def stop(self) -> int:
        """Windows has no gentle way to end what has no window and no console."""
        self.kill()
        return 0

    def kill(self) -> None:
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()
        if self._reader is not None:
            self._reader.join()

    def output(self) -> str:
        logs = [log.read_text(errors="replace")[-4000:] for log in self.home.glob("logs/*.log")]
        return f"--- {self.name}\n" + "\n".join([self._said.decode(errors="replace"), *logs])

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with process.stdout as said:
            while chunk := said.read1(65536):  # type: ignore[attr-defined]
                self._said += chunk


class WineCluster(Cluster):
    """A syncer and daemons in wine; those that ``here`` names run on this system instead."""

    def __init__(
        self, wine: Wine, root: Path, certs: Path, *, here: Sequence[str] = (), **more: Any
    ):
        super().__init__(root, certs, cold=True, **more)
        self.wine = wine
        self.syncer = self._in_wine(self.syncer, here)
        self.daemons = [self._in_wine(daemon, here) for daemon in self.daemons]

    def _in_wine(self, process: Process, here: Sequence[str]) -> Process:
        if process.name in here:
            return process
        return WineProcess(process.name, process.home, process.port, process.script, wine=self.wine)

    def wrapper(self) -> dict[str, str]:
        """The environment of a wrapper in wine."""
        home = windows_path(self.syncer.home, self.wine.drive)
        return {"DIST_BUILD_HOME": home, "DIST_BUILD_VERBOSE": "1", "PYTHONDONTWRITEBYTECODE": "1"}


@contextlib.contextmanager
def running_cluster(wine: Wine, name: str, certs: Path, **more: Any) -> Iterator[WineCluster]:
    """A cluster from its start to its end. Its homes have short paths: the trees are in them."""
    root = wine.drive / "d" / name
    shutil.rmtree(root, ignore_errors=True)
    cluster = WineCluster(wine, root, certs, **more)
    try:
        yield cluster.start()
    finally:
        cluster.kill()
        shutil.rmtree(root, ignore_errors=True)
