"""What the launcher alone costs: a socket that answers at once, and the least that a client can do.

The answering side runs in this process and is not counted.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from bench.common import Command, LoadGenerator, Options, compiled, median
from bench.report import Cell, Table
from tests.support.cluster import wrapper_command

_ANSWER = (
    b"HTTP/1.1 200 OK\r\nDist-Build: done\r\nDist-Build-Exit: 0\r\nDist-Build-Stdout: 0\r\n"
    b"Dist-Build-Worker: bench\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
MEASURED = (
    "CPU ms of one start, {count} starts one after another, median of {rounds} rounds, against a"
    " socket that answers at once"
)


class _Answering:
    """Answers every request with "done"; keeps the first one."""

    def __init__(self, path: Path) -> None:
        self.first = b""
        self._path = str(path)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self._path)
        path.chmod(0o600)
        self._server.listen(64)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            link, _ = self._server.accept()
            with link, contextlib.suppress(OSError):
                link.settimeout(5.0)
                request = _request(link)
                if request == b"stop":
                    return
                self.first = self.first or request
                link.sendall(_ANSWER)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self._path)
            last.sendall(b"stop")
        self._thread.join()
        self._server.close()


def _request(link: socket.socket) -> bytes:
    """One request: its head, and as much body as that says."""
    data = b""
    while True:
        head, end, body = data.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = sum(int(li.split(b":")[1]) for li in lines if li.startswith(b"content-length:"))
        if end and len(body) >= length:
            return data
        more = link.recv(65536)
        if not more or data + more == b"stop":
            return data + more
        data += more


@contextlib.contextmanager
def _answering(path: Path) -> Iterator[_Answering]:
    server = _Answering(path)
    try:
        yield server
    finally:
        server.close()


def table(options: Options) -> Table:
    """The launcher against a C program that connects, sends and exits."""
    home, project = options.work / "launcher", options.work / "launcher-project"
    home.mkdir()
    project.mkdir()
    (project / "x.c").write_text("int x;\n")
    env = {"DIST_BUILD_HOME": str(home), "DIST_BUILD_FALLBACK": "0"}
    compile_it = Command(project, [*wrapper_command(), "gcc", "-O2", "-c", "x.c", "-o", "x.o"])
    count = options.size(300, 50)
    measured = MEASURED.format(count=count, rounds=options.rounds)
    load = LoadGenerator(options.work)
    connect = compiled("connect", options.work / "connect")
    with _answering(home / "syncer.sock") as server:
        load.run([compile_it], 1, env)
        if not server.first:
            return Table("launcher alone", "no native launcher here: nothing measured", [""], [])
        request = home / "request"
        request.write_bytes(server.first)
        least = [str(connect), str(home / "syncer.sock"), str(request)]
        ways = {
            "C program: connect, send, exit": Command(project, least),
            "C program: connect, send, wait for the answer": Command(project, [*least, "wait"]),
            "launcher": compile_it,
        }
        costs: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, command in ways.items():
                cpu = load.run([command] * count, 1, env).cpu
                costs[name].append(1000 * cpu / count)
    least_ms = median(next(iter(costs.values())))
    rows: list[list[Cell]] = [[n, median(c), median(c) / least_ms] for n, c in costs.items()]
    return Table("launcher alone", measured, ["program", "CPU ms", "x least"], rows)
