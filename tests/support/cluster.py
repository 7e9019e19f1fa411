"""A syncer and daemons on loopback: real processes with their own homes, ports, certificates."""

import contextlib
import functools
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from ssl import CERT_NONE, PROTOCOL_TLS_CLIENT, SSLContext
from typing import Any, Self

from tests.support import seed

SRC = Path(__file__).parents[2] / "src"
EXECUTABLE = SRC / "dist" / "dist_build.exe"
#: Compilers, each with a source, that together search all of the usual directories.
USUAL = {"gcc": "used.c", "g++": "used.cc", "clang": "used.c", "clang++": "used.cc"}
#: Limits for what hangs, not for what is slow: a machine that also does other things may take ten
#: times as long as an idle one.
START_S = 120.0
STOP_S = 60.0
STATUS_S = 30.0


#: The ports of this process's tests. Each process of a test run has a range of its own, below the
#: range that the system uses for outgoing connections: no other test takes a port between its
#: choice and the start of its server, and no connection does.
_RANGE = 1_000
_FIRST = 10_000 + _RANGE * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 22)
_ports = itertools.count(random.randrange(_RANGE))


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    found: list[int] = []
    while len(found) < count:
        port = _FIRST + next(_ports) % _RANGE
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


@functools.cache
def _trusting() -> SSLContext:
    """The context of ``curl -k``: made once, and without the system's CAs, whose loading takes
    longer than a compile."""
    context = SSLContext(PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, CERT_NONE
    return context


def get_status(port: int, address: str = "127.0.0.1") -> dict[str, Any]:
    """``/status`` as ``curl -k`` sees it."""
    with urllib.request.urlopen(
        f"https://{address}:{port}/status", context=_trusting(), timeout=STATUS_S
    ) as answer:
        return dict(json.load(answer))


def wait_until(
    condition: Callable[[], Any], what: str, timeout: float = START_S, pause: float = 0.02
) -> Any:
    """Poll until ``condition`` is true; AssertionError names what did not come about."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what}")
        time.sleep(pause)


def wrapper_command() -> list[str]:
    """The built executable where there is one, else the script behind it."""
    if EXECUTABLE.exists():
        return [str(EXECUTABLE)]
    return [sys.executable, str(SRC / "dist_build.py")]


@dataclass
class Process:
    """One syncer or daemon."""

    name: str
    home: Path
    port: int
    script: str
    #: Where it listens.
    address: str = "127.0.0.1"
    #: Words before the command, to run it in another view of the file system.
    prefix: list[str] = field(default_factory=list)
    #: An installed program, in place of the script.
    program: Path | None = None
    popen: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        environment = {n: v for n, v in os.environ.items() if not n.startswith("DIST_BUILD_")}
        with open(self.home / "output", "ab") as output:
            self.popen = subprocess.Popen(
                [*self.prefix, *self.command(), "--home", str(self.home)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=environment,
                start_new_session=True,
            )

    def command(self) -> list[str]:
        """The words that start it."""
        script = [sys.executable, str(SRC / self.script)]
        return script if self.program is None else [str(self.program)]

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        assert self.popen is not None
        self.popen.terminate()

    def stop(self) -> int:
        """SIGTERM, and wait; kills the whole group when that does not help."""
        if self.popen is None:
            return 0
        self.popen.terminate()
        return self.wait()

    def wait(self) -> int:
        """The exit code of a process that was told to end."""
        assert self.popen is not None
        try:
            return self.popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end\n{self.output()}") from None

    def kill(self) -> None:
        """SIGKILL for the process and its children."""
        if self.popen is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()

    def signal(self, number: int) -> None:
        """To the process and its children."""
        assert self.popen is not None
        os.killpg(self.popen.pid, number)

    def status(self) -> dict[str, Any]:
        return get_status(self.port, self.address)

    def answers(self) -> bool:
        assert self.popen is None or self.popen.poll() is None, self.output()
        try:
            return bool(self.status())
        except OSError:
            return False

    def output(self) -> str:
        parts = [(self.home / "output").read_text(errors="replace")]
        parts += [log.read_text(errors="replace")[-4000:] for log in self.home.glob("logs/*.log")]
        return f"--- {self.name}\n" + "\n".join(parts)


@dataclass
class Done:
    """What a command left: compare whole values."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    files: dict[str, bytes] = field(default_factory=dict)


class Cluster:
    """Started with ``start``; ``stop`` ends everything. ``root`` is the cluster's own directory.

    A worker's configuration may name its own ``bind`` and ``port``. ``cold``: its processes begin
    without what tests.support.seed keeps.
    """

    def __init__(
        self,
        root: Path,
        certs: Path,
        workers: Sequence[Mapping[str, Any]] = ({}, {}),
        dev: Mapping[str, Any] | None = None,
        *,
        cold: bool = False,
    ) -> None:
        self._seed = None if cold else seed.made(certs.parent, functools.partial(_use, certs))
        ports = free_ports(1 + len(workers))
        self.url = f"https://127.0.0.1:{ports[0]}"
        self.root = root
        self._certs = certs
        ports[1:] = [c.get("port", port) for c, port in zip(workers, ports[1:], strict=True)]
        names = [config.get("bind", "127.0.0.1") for config in workers]
        hosts = [f"{name}:{port}" for name, port in zip(names, ports[1:], strict=True)]
        self.syncer = self._home(
            # Without the object cache, so that workers compile what they are given.
            *("syncer", ports[0]),
            {"hosts": hosts, "syncer": self.url, "cache_bytes": 0, **(dev or {})},
        )
        self.daemons = [
            self._home(f"daemon{i}", port, {"syncer": self.url, "num_cores": 2, **config})
            for i, (port, config) in enumerate(zip(ports[1:], workers, strict=True))
        ]

    def _home(self, name: str, port: int, config: dict[str, Any]) -> Process:
        home = self.root / name
        role = "dev" if name == "syncer" else "worker"
        shutil.copytree(self._certs / role, home / "certs" / role)
        if self._seed is not None:
            seed.sow(self._seed, role, home)
        if role == "worker":
            # These workers serve only whoever starts them, as root where that is who runs this.
            allowed = {"allow_root": True, "allow_unconfined": True}
            config = {"port": port, "bind": "127.0.0.1", **allowed, **config}
        else:
            config = {"bind": "127.0.0.1", **config}
        (home / "config.json").write_text(json.dumps(config))
        script = "syncer.py" if name == "syncer" else "daemon.py"
        return Process(name, home, port, script, config["bind"])

    def start(self) -> Self:
        for process in self.processes():
            process.start()
        for process in self.processes():
            wait_until(process.answers, f"{process.name} answers")
        self.wait_for_workers()
        return self

    def wait_for_workers(self, count: int | None = None) -> None:
        """Until so many workers (all of them) are up in the syncer's eyes."""
        expected = len(self.daemons) if count is None else count

        def up() -> bool:
            workers = self.syncer.status()["workers"].values()
            # One that has only asked for work has not said yet what it is.
            described = [w for w in workers if w["state"] == "up" and "sandbox" in w]
            return len(described) == expected

        wait_until(up, f"{expected} workers are up\n{self.logs()}")

    def stop(self) -> None:
        for process in self.processes():
            process.stop()

    def kill(self) -> None:
        """Kill what is left, and remove the headers: pytest keeps the rest for three runs."""
        for process in self.processes():
            process.kill()
        for process, name in itertools.product(self.daemons, ("sandbox", "store")):
            shutil.rmtree(process.home / name, ignore_errors=True)

    def processes(self) -> list[Process]:
        return [self.syncer, *self.daemons]

    def logs(self) -> str:
        return "\n".join(process.output() for process in self.processes())

    # --- use ------------------------------------------------------------------------------------

    def environment(self, **extra: str) -> dict[str, str]:
        return {**os.environ, "DIST_BUILD_HOME": str(self.syncer.home), **extra}

    def popen(self, words: Sequence[str | os.PathLike[str]], cwd: Path, **extra: str) -> Any:
        """The wrapper with these words, running."""
        return subprocess.Popen(
            [*wrapper_command(), *words],
            cwd=cwd,
            env=self.environment(**extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, words: Sequence[str | os.PathLike[str]], cwd: Path, **extra: str) -> Done:
        """The wrapper with these words, to its end."""
        process = self.popen(words, cwd, **extra)
        stdout, stderr = process.communicate()
        return Done(process.returncode, stdout, stderr)

    def jobs(self) -> dict[str, Any]:
        return dict(self.syncer.status()["jobs"])


@contextlib.contextmanager
def running(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster between its start and its end."""
    try:
        yield cluster.start()
        cluster.stop()
    finally:
        cluster.kill()


def _use(certs: Path, directory: Path) -> dict[str, Path]:
    """The homes of a cluster that has compiled with this machine's compilers."""
    used = Cluster(directory / "farm", certs, [{}], cold=True)
    try:
        used.start()
        for compiler, source in USUAL.items():
            (directory / source).write_text("int used;\n")
            if shutil.which(compiler):
                used.run([compiler, "-c", source], directory)
        used.stop()
    finally:
        used.kill()
    return {"dev": used.syncer.home, "worker": used.daemons[0].home}


def run_here(words: Sequence[str | os.PathLike[str]], cwd: Path, **extra: str) -> Done:
    """The same words without the wrapper."""
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, **extra},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=600,
    )
    return Done(done.returncode, done.stdout, done.stderr)
