"""The other tools, started on loopback where they are installed."""

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.common import end_tree
from tests.support.cluster import free_ports, wait_until

_EVERYBODY_S = stat.S_IWOTH | stat.S_IXOTH


@dataclass(frozen=True)
class Way:
    """One way to compile: words before the compiler, environment, and what runs beside it.

    ``resident`` are processes of the dev box that outlive a compile and whose CPU counts.
    """

    name: str
    prefix: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    resident: Sequence[int] = ()


def missing(*programs: str) -> str:
    """Which of these are not installed or cannot run here, as a note; "" if all can."""
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        return f"left out, not installed: {', '.join(absent)}"
    return _shut_out() if "distccd" in programs else ""


def _shut_out() -> str:
    """Why a distccd, which gives up root's rights, cannot keep its files here; "" if it can."""
    directory = tempfile.gettempdir()
    if os.geteuid() != 0 or os.stat(directory).st_mode & _EVERYBODY_S == _EVERYBODY_S:
        return ""
    return (
        f"left out, started by root distccd cannot write to {directory}: set TMPDIR to a directory"
        " of mode 1777"
    )


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def distccd(jobs: int, env: Mapping[str, str] | None = None) -> Iterator[int]:
    """A distccd on loopback; yields its port. It stands for a build machine."""
    (port,) = free_ports(1)
    words = ["distccd", "--no-detach", "--daemon", f"--port={port}", "--allow=127.0.0.1"]
    more = [f"--jobs={jobs}", "--listen=127.0.0.1", "--log-stderr", "--log-level=critical"]
    daemon = subprocess.Popen(
        [*words, *more, "--enable-tcp-insecure"],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: _answers(port), "distccd answers")
        yield port
    finally:
        end_tree(daemon)


def distcc(work: Path, host: str, name: str = "distcc", **env: str) -> Way:
    """distcc that has one host, spelled as in DISTCC_HOSTS, and never compiles by itself."""
    directory = work / "distcc"
    directory.mkdir(exist_ok=True)
    settings = {"DISTCC_HOSTS": host, "DISTCC_FALLBACK": "0", "DISTCC_DIR": str(directory)}
    return Way(name, ["distcc"], {**settings, "DISTCC_BACKOFF_PERIOD": "0", **env})


@contextlib.contextmanager
def pump(work: Path, port: int) -> Iterator[Way | None]:
    """distcc's pump mode with its include server; None where that is missing or does not start."""
    program = shutil.which("distcc-pump") or shutil.which("pump")
    if program is None:
        yield None
        return
    way = distcc(work, f"127.0.0.1:{port},cpp,lzo", "distcc-pump")
    env = {**os.environ, **way.env}
    done = subprocess.run(
        [program, "--startup"], env=env, capture_output=True, text=True, check=False
    )
    server = dict(
        word.split("=", 1)
        for word in done.stdout.replace(";", " ").replace("'", "").split()
        if word.startswith("INCLUDE_SERVER_") and "=" in word
    )
    pid = server.get("INCLUDE_SERVER_PID", "")
    try:
        started = pid.isdigit() and Path(f"/proc/{pid}").exists()
        if started:
            yield Way("distcc-pump", way.prefix, {**way.env, **server}, [int(pid)])
        else:
            yield None
    finally:
        if server:
            subprocess.run([program, "--shutdown"], env={**env, **server}, capture_output=True)


def ccache(work: Path) -> Way:
    """ccache, which answers from its cache after a first round."""
    return Way("ccache, hit", ["ccache"], {"CCACHE_DIR": str(work / "ccache")})
