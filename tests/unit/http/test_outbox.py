"""Clients that take their answers slowly, or not at all, and those that ask meanwhile."""

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distbuild.http import poller, transport
from distbuild.http.listen import listen_port, listen_unix
from distbuild.http.response import Response
from distbuild.http.site import ConnectionState, Front, Later
from distbuild.http.transport import Plain, Tls, server_context
from distbuild.one_shot import OneShot
from tests.unit.http.test_loop import (
    LATER,
    REQUEST,
    THREADS,
    Served,
    ServedTls,
    eventually,
    read_all,
    read_until,
)

#: More than the sockets of both ends hold.
LARGE = os.urandom(20_000_000)
STRANGER = b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"
MAX_SLOW = 2

Make = Callable[..., Served]


@pytest.fixture
def make(
    request: pytest.FixtureRequest, certs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    """Makes a server, over TLS or on the socket, whose one handler answers LARGE."""
    monkeypatch.setattr(transport, "SEND_TIMEOUT_S", 60.0)  # whoever waits for it waits too long
    context = server_context(certs_dir / "dev" / "cert.pem", certs_dir / "dev" / "key.pem")
    path = tmp_path / "s.sock"
    made: list[Served] = []

    def tls(**rest: object) -> Front:
        rest |= {"max_slow": MAX_SLOW}
        return Front(listen_port("127.0.0.1", 0), lambda bare: Tls(bare, context), **rest)  # type: ignore[arg-type]

    def make(kind: str = "tls", patience_s: float = 0.0) -> Served:
        if kind == "tls":
            made.append(ServedTls(tls, patience_s, sweep_s=0.05))
        else:
            made.append(
                Served(lambda **rest: Front(listen_unix(path), Plain, **rest), patience_s, path)
            )
        made[-1].later = large
        return made[-1]

    yield make
    for one in made:
        one.server.stop()


def large() -> Later:
    yield Response({}, LARGE)


def small() -> Later:
    yield Response({}, b"small")


def sending(served: Served) -> int:
    """How many clients' sockets have no room for their answers."""
    return sum(c.state is ConnectionState.BLOCKED for c in list(served.server._connections))


def body_of(connection: socket.socket) -> bytes:
    head = read_until(connection, b"\r\n\r\n")
    left = int(head.partition(b"Content-Length: ")[2].split()[0])
    parts = []
    while left:
        parts.append(connection.recv(min(left, 1_000_000)))
        left -= len(parts[-1])
    return b"".join(parts)


def is_answered(served: Served, request: bytes = LATER) -> bool:
    served.later = small
    with served.connect() as connection:
        connection.sendall(request.replace(b"1.1", b"1.0"))
        return read_all(connection).endswith((b"small", b"abcd"))


@pytest.mark.parametrize("kind", ["tls", "unix"])
def test_clients_that_take_nothing_hold_up_nobody(make: Make, kind: str) -> None:
    """More of them than there are threads; later they get what they asked for."""
    served = make(kind)
    slow = [served.connect() for _ in range(2 * THREADS)]
    for connection in slow:
        connection.sendall(LATER)
    assert eventually(lambda: sending(served) == len(slow))
    assert is_answered(served)
    assert [body_of(connection) for connection in slow] == [LARGE] * len(slow)
    for connection in slow:
        connection.close()
    assert eventually(lambda: served.leftover() == 0)


def test_what_was_asked_early_is_answered_in_order(make: Make) -> None:
    served = make()
    answers = iter([LARGE, b"a", LARGE, b"b"])

    def next_one() -> Later:
        yield Response({}, next(answers))

    served.later = next_one
    with served.connect() as connection:
        connection.sendall(LATER * 4)
        assert eventually(lambda: sending(served) == 1)
        assert [body_of(connection) for _ in range(4)] == [LARGE, b"a", LARGE, b"b"]


def test_a_known_client_may_be_slow_with_the_app_too(make: Make) -> None:
    served = make()
    served.parts = [LARGE[:10], LARGE[10:]]
    with served.connect() as connection:
        connection.sendall(REQUEST.replace(b"1.1", b"1.0"))
        assert eventually(lambda: len(served.seen) == 1)
        assert read_all(connection).partition(b"\r\n\r\n")[2] == LARGE


def test_a_client_that_breaks_off_is_finished(make: Make) -> None:
    """And nothing more of what it asked is looked at."""
    served = make()
    ended = []

    def ending() -> Later:
        try:
            yield Response({}, LARGE)
        finally:
            ended.append(1)

    served.later = ending
    with served.connect() as connection:
        connection.sendall(LATER * 10)
        assert eventually(lambda: sending(served) == 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert eventually(lambda: served.leftover() == 0)
    assert ended == [1]


def test_what_waits_after_a_large_answer_ends_with_the_connection(make: Make) -> None:
    served = make("unix")

    def holding() -> Later:
        try:
            yield Response({}, LARGE)
            yield OneShot()
        finally:
            served.closed.release()

    served.later = holding
    with served.connect() as connection:
        connection.sendall(LATER)
        assert eventually(lambda: sending(served) == 1)
        assert body_of(connection) == LARGE
        assert eventually(lambda: sending(served) == 0)
        assert not served.closed.acquire(blocking=False)
    assert served.closed.acquire(timeout=60)


def test_an_answer_under_way_is_finished_before_the_end(make: Make) -> None:
    served = make()
    with served.connect() as connection:
        connection.sendall(LATER)
        assert eventually(lambda: sending(served) == 1)
        stopping = threading.Thread(target=served.server.stop, args=(10.0,))
        stopping.start()
        assert body_of(connection) == LARGE
        stopping.join()


# --- strangers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [STRANGER, LATER.replace(b"me", b"you"), REQUEST[:5]])
def test_a_stranger_gets_one_answer_a_connection(make: Make, request_: bytes) -> None:
    served = make()
    served.later = small
    with served.connect() as connection:
        connection.sendall(request_ * 3 + b"\r\n\r\n")
        answered = read_all(connection)
    assert (answered.count(b"HTTP/1.1 "), answered.count(b"Connection: close")) == (1, 1)
    assert len(served.seen) + len(served.calls) == (request_ != REQUEST[:5])


def test_strangers_that_take_nothing_hold_up_nobody(make: Make) -> None:
    """More of them than the app has threads."""
    served = make()
    served.parts = [LARGE]
    slow = [served.connect() for _ in range(2 * MAX_SLOW)]
    for connection in slow:
        connection.sendall(STRANGER)
    assert eventually(lambda: sending(served) == len(slow))
    served.parts = [b"abcd"]
    assert is_answered(served, REQUEST)
    assert is_answered(served)
    for connection in slow:
        assert read_all(connection).partition(b"\r\n\r\n")[2] == LARGE
        connection.close()
    assert eventually(lambda: served.leftover() == 0)


def test_no_more_than_so_many_strangers_are_waited_for(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "MAX_STRANGERS", 1)
    served = make()
    served.parts = [LARGE]
    for _ in range(2):  # once more, when there is room again
        with served.connect() as first, served.connect() as second, served.connect() as known:
            first.sendall(STRANGER)
            assert eventually(lambda: sending(served) == 1)
            second.sendall(STRANGER)
            assert len(read_until_the_end(second)) < len(LARGE)
            known.sendall(LATER)
            assert body_of(known) == LARGE
            assert read_all(first).endswith(LARGE[-10:])
        assert eventually(lambda: served.leftover() == 0)


def read_until_the_end(connection: socket.socket) -> bytes:
    """However it ends."""
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except OSError:
        pass
    return data


def test_who_takes_nothing_is_given_up(make: Make) -> None:
    served = make(patience_s=0.3)
    served.parts = [LARGE]
    with served.connect() as stranger, served.connect() as known:
        stranger.sendall(STRANGER)
        known.sendall(LATER)
        assert eventually(lambda: len(served.seen) == len(served.calls) == 1)
        assert eventually(lambda: served.leftover() == 0)
