"""Clients that wait are told that the server lives, and get descriptors with their answers."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest

from distbuild.http.listen import listen_unix
from distbuild.http.response import INTERIM, Response
from distbuild.http.site import Front, Later
from distbuild.http.transport import Plain
from distbuild.one_shot import OneShot
from tests.unit.http.test_loop import LATER, REQUEST, THREADS, Served, eventually, read_all


@pytest.fixture
def beats() -> list[None]:
    return []


def serve(path: Path, beat: Callable[[], None], beat_s: float = 2.5) -> Served:
    return Served(
        lambda **rest: Front(listen_unix(path), Plain, beat=beat, beat_s=beat_s, **rest), path=path
    )


@pytest.fixture
def served(tmp_path: Path, beats: list[None]) -> Iterator[Served]:
    made = serve(tmp_path / "s.sock", lambda: beats.append(None))
    yield made
    made.server.stop()


def test_who_waits_is_told_until_the_answer_comes(served: Served, beats: list[None]) -> None:
    with served.connect() as waiting, served.connect() as asks_nothing:
        waiting.sendall(LATER)
        assert served.started.acquire(timeout=60)
        assert eventually(lambda: served.leftover() == 4)  # both are accepted, and at rest
        for _ in range(3):
            served.server._beat(inf)
        assert len(beats) == 3
        served.gate.set()
        answer = read_all(waiting)
        assert answer.startswith(INTERIM * 3 + b"HTTP/1.1 200 OK\r\n")
        assert answer.count(b"HTTP/1.1") == 4
        served.server._beat(inf)
        asks_nothing.setblocking(False)
        assert asks_nothing.recv(1000) == INTERIM * 4


def test_who_has_just_come_is_not_told_yet(served: Served) -> None:
    with served.connect() as waiting:
        waiting.sendall(LATER)
        assert served.started.acquire(timeout=60)
        served.server._beat(-inf)
        served.gate.set()
        assert read_all(waiting).startswith(b"HTTP/1.1 200 OK\r\n")


def test_it_beats_by_itself(tmp_path: Path) -> None:
    made = serve(tmp_path / "s.sock", lambda: None, beat_s=0.01)
    try:
        with made.connect() as waiting:
            waiting.sendall(LATER)
            assert waiting.recv(len(INTERIM), socket.MSG_WAITALL) == INTERIM
    finally:
        made.server.stop()


def test_the_threads_may_all_be_busy(served: Served) -> None:
    """Those whose requests are worked on are told, and those that were not even accepted."""
    go_on = threading.Event()

    def busy() -> Later:
        served.started.release()
        go_on.wait(20)
        yield Response({}, b"at last")

    served.later = busy
    connections = [served.connect() for _ in range(THREADS)]
    for connection in connections:
        connection.sendall(LATER)
        assert served.started.acquire(timeout=60)
    late = [served.connect() for _ in range(5)]
    for connection in late:
        connection.sendall(LATER)
    served.server._beat(inf)
    for connection in [*connections, *late]:
        assert connection.recv(len(INTERIM), socket.MSG_WAITALL) == INTERIM
    go_on.set()
    for connection in [*connections, *late]:
        assert read_all(connection).endswith(b"at last")
        connection.close()
    assert eventually(lambda: served.leftover() == 0)


def test_nothing_comes_between_the_parts_of_an_answer(served: Served) -> None:
    """Neither of the app's nor of a large one, nor after one while the connection is held."""
    served.parts = [b"x" * 100_000] * 40
    large = os.urandom(5_000_000)

    def holding() -> Later:
        yield Response({}, large)
        yield OneShot()

    served.later = holding
    with served.connect() as of_app, served.connect() as of_handler:
        of_app.sendall(REQUEST)
        of_handler.sendall(LATER)
        for connection in (of_app, of_handler):
            assert connection.recv(1, socket.MSG_PEEK) == b"H"  # the answer has begun
        served.server._beat(inf)
        assert read_all(of_app).endswith(b"x" * 4_000_000)
        data = b""
        while not data.endswith(large[-100:]):
            data += of_handler.recv(1_000_000)
        served.server._beat(inf)
        assert INTERIM not in data
        of_handler.setblocking(False)
        with pytest.raises(BlockingIOError):
            of_handler.recv(1)


def test_clients_that_vanish_do_no_harm(served: Served) -> None:
    for _ in range(50):
        with served.connect() as connection:
            connection.sendall(LATER)
        served.server._beat(inf)
    assert eventually(lambda: served.leftover() == 0)


# --- descriptors ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_descriptors_go_with_an_answer(served: Served, tmp_path: Path, size: int) -> None:
    """Once, and until it is sent they stay open."""
    files = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in "ab"]

    def giving() -> Later:
        try:
            yield Response({}, b"x" * size, files=files)
        finally:
            for file in files:
                os.close(file)
            served.closed.release()

    served.later = giving
    with served.connect() as connection:
        connection.sendall(LATER)
        data, got, _, _ = socket.recv_fds(connection, 1000, 10)
        assert [os.fstat(fd).st_ino for fd in got] == [
            (tmp_path / name).stat().st_ino for name in "ab"
        ]
        for fd in got:
            os.close(fd)
        data += read_all(connection)
        assert data.endswith(b"\r\n\r\n" + b"x" * size)
    assert served.closed.acquire(timeout=60)


def test_descriptors_wait_for_room() -> None:
    ours, theirs = socket.socketpair()
    with theirs, open("/dev/null", "rb") as file:
        transport = Plain(ours)
        ours.setblocking(False)
        while True:
            try:
                filled = ours.send(b"x" * 4096)
            except BlockingIOError:
                break
            assert filled
        transport.hint(INTERIM)  # is not missed
        assert not transport.send_some(b"answer", [file.fileno()])
        assert not transport.push()
        data, got = b"", list[int]()
        while not got:
            more, got, _, _ = socket.recv_fds(theirs, 1_000_000, 10)
            data += more
            transport.push()
        assert transport.push()
        assert (data.strip(b"x"), len(got)) == (b"answer", 1)
        os.close(got[0])
        transport.close()
