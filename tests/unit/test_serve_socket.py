"""The socket's server with real connections: whole requests, waiting ones, clients that vanish."""

import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from distbuild import serve_socket
from distbuild.protocol.errors import ConfigError
from distbuild.serve_socket import LATER, SAME_USER, Answer, SocketServer
from distbuild.signals import Signal

REQUEST = b"POST /x?q=1 HTTP/1.1\r\nHost: a\r\nX-Y: z\r\nContent-Length: 5\r\n\r\n12345"


class Served:
    """A server over an app that tests replace; ``closed`` counts generators that were closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[dict[str, Any]] = []
        self.gate = Signal()
        self.closed = threading.Semaphore(0)
        self.started = threading.Semaphore(0)
        self.later: Callable[[], Generator[Signal | Answer, None, None]] | None = None
        self.server = SocketServer(path, self.app)
        self.server.start()

    def app(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read()
        self.seen.append({**environ, "body": body})
        if environ["PATH_INFO"] == "/fail":
            raise ValueError("no")
        if self.later is not None:
            environ[LATER](self.later())
            return []
        start_response("200 OK", [("X-Answer", "yes")])
        return [b"ab", b"cd"]

    def waiting(self) -> Generator[Signal | Answer, None, None]:
        try:
            self.started.release()
            yield self.gate
            yield Answer({"Dist-Build": "done"}, b"body")
        finally:
            self.closed.release()

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(str(self.path))
        return connection

    def ask(self, data: bytes = REQUEST) -> bytes:
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def leftover(self) -> int:
        return len(self.server._watched)


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while chunk := connection.recv(65536):
        parts.append(chunk)
    return b"".join(parts)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "s.sock")
    yield made
    made.server.stop()
    assert not made.path.exists()


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_an_app_is_asked_as_wsgi_has_it(served: Served) -> None:
    answer = served.ask()
    assert answer == b"HTTP/1.1 200 OK\r\nX-Answer: yes\r\nConnection: close\r\n\r\nabcd"
    [environ] = served.seen
    told = {name: environ[name] for name in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING")}
    assert told == {"REQUEST_METHOD": "POST", "PATH_INFO": "/x", "QUERY_STRING": "q=1"}
    assert (environ["body"], environ["HTTP_X_Y"], environ[SAME_USER]) == (b"12345", "z", True)
    assert eventually(lambda: served.leftover() == 0)


def test_a_request_may_come_in_pieces(served: Served) -> None:
    with served.connect() as connection:
        for at in range(len(REQUEST)):
            connection.sendall(REQUEST[at : at + 1])
        assert read_all(connection).endswith(b"abcd")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n", b"400"),
        (b"GET /\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nContent-Length: 9999999999999999\r\n\r\n", b"400"),
        (b"x" * 20000, b"431"),
    ],
)
def test_what_is_no_request_is_refused(served: Served, data: bytes, status: bytes) -> None:
    assert served.ask(data).startswith(b"HTTP/1.1 " + status)
    assert served.seen == []
    assert served.ask().endswith(b"abcd")


def test_an_app_that_fails_ends_the_connection_and_nothing_else(served: Served) -> None:
    assert served.ask(b"GET /fail HTTP/1.1\r\n\r\n") == b""
    assert served.ask().endswith(b"abcd")


def test_what_waits_costs_no_thread(served: Served) -> None:
    """Ten times as many wait as there are threads, and others are answered meanwhile."""
    served.later = served.waiting
    count = 10 * serve_socket.THREADS
    connections = [served.connect() for _ in range(count)]
    for connection in connections:
        connection.sendall(REQUEST)
    assert all(served.started.acquire(timeout=10) for _ in range(count))
    served.later = None
    assert served.ask().endswith(b"abcd")
    served.gate.set()
    answers = [read_all(connection) for connection in connections]
    expected = b"HTTP/1.1 200 OK\r\nDist-Build: done\r\nContent-Length: 4\r\nConnection: close"
    assert answers == [expected + b"\r\n\r\nbody"] * count
    for connection in connections:
        connection.close()
    assert eventually(lambda: served.leftover() == 0)


def test_a_client_that_vanishes_closes_what_waits_for_it(served: Served) -> None:
    served.later = served.waiting
    with served.connect() as connection:
        connection.sendall(REQUEST)
        assert served.started.acquire(timeout=10)
    assert served.closed.acquire(timeout=5)
    served.gate.set()  # too late, and harmless
    served.later = None
    assert served.ask().endswith(b"abcd")


def test_clients_vanish_at_every_moment(served: Served) -> None:
    """Whatever the order, each generator ends exactly once."""
    ends = []

    def quick() -> Generator[Signal | Answer, None, None]:
        signal = Signal()
        threading.Thread(target=signal.set).start()
        try:
            yield signal
            yield Answer({}, b"x" * 10)
            yield Signal()
        finally:
            ends.append(1)

    served.later = quick
    for _ in range(200):
        with served.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(REQUEST)
    eventually(lambda: len(ends) == len(served.seen) and served.leftover() == 0)
    assert (len(ends), served.leftover()) == (len(served.seen), 0)
    assert len(ends) <= 200


def test_after_an_answer_the_generator_lasts_as_long_as_the_connection(served: Served) -> None:
    def holding() -> Generator[Signal | Answer, None, None]:
        try:
            yield Answer({}, b"go")
            yield Signal()
        finally:
            served.closed.release()

    served.later = holding
    with served.connect() as connection:
        connection.sendall(REQUEST)
        assert connection.recv(1000).endswith(b"go")
        assert not served.closed.acquire(timeout=0.2)
    assert served.closed.acquire(timeout=5)


def test_only_the_owner_may_connect(served: Served) -> None:
    assert stat.S_IMODE(served.path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_is_not_taken_for_ours(served: Served) -> None:
    served.path.chmod(0o666)
    for directory in served.path.parents:
        if directory.stat().st_uid == 0 and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            served.ask()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert [environ[SAME_USER] for environ in served.seen] == [False]


def test_a_path_may_be_longer_than_an_address(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 150)
    directory.mkdir()
    made = Served(directory / "s.sock")
    assert made.path.is_socket()
    made.server.stop()


def test_a_socket_that_a_dead_syncer_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    made = Served(path)
    assert made.ask().endswith(b"abcd")
    made.server.stop()


def test_a_place_that_cannot_be_listened_at_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none"):
        SocketServer(tmp_path / "none" / "s.sock", lambda environ, start: [])


def test_stopping_closes_what_waits(tmp_path: Path) -> None:
    made = Served(tmp_path / "s.sock")
    made.later = made.waiting
    with made.connect() as connection:
        connection.sendall(REQUEST)
        assert made.started.acquire(timeout=5)
        made.server.stop()
        assert made.closed.acquire(timeout=5)
        assert read_all(connection) == b""
