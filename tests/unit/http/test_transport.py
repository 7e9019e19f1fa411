"""A TLS connection's server side, held directly: what the kernel tells of, and when."""

import fcntl
import os
import select
import socket
import ssl
import sys
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distbuild.http import transport
from distbuild.http.transport import Tls, server_context
from tests.support.cluster import wait_until

HALF = 100_000


class Taken:
    """What has come, by way of a room of ``size`` bytes."""

    def __init__(self, size: int = 5000) -> None:
        self.data = b""
        self._room = memoryview(bytearray(size))

    def room(self) -> memoryview:
        return self._room

    def filled(self, size: int) -> None:
        self.data += bytes(self._room[:size])


class Pair:
    """Both ends of a connection after the handshake."""

    def __init__(self, certs: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
            bare = socket.create_connection(listener.getsockname())
            client = pool.submit(context.wrap_socket, bare)
            self.server = Tls(
                listener.accept()[0], server_context(certs / "cert.pem", certs / "key.pem")
            )
            # Until the client's last word of the handshake is taken as well.
            while not (client.done() and self.server._tls.is_open):
                if self.is_readable(10):
                    self.server.receive(Taken())
            self.client = client.result()

    def is_readable(self, ms: int = 5000) -> bool:
        """Whether the kernel says within this time that there is something to read."""
        poll = select.poll()
        poll.register(self.server.fileno(), select.POLLIN)
        return bool(poll.poll(ms))

    def has_come(self, size: int) -> bool:
        """Whether at least so many bytes are there to be read, sooner or later."""

        def there() -> bool:
            told = fcntl.ioctl(self.server.fileno(), termios.FIONREAD, bytes(4))
            return int.from_bytes(told, sys.byteorder) >= size

        return bool(wait_until(there, f"{size} bytes have come"))

    def receive_all(self, size: int) -> bytes:
        """So many bytes, taken as the loop takes a body."""
        taken = Taken()
        while len(taken.data) < size:
            self.server.expect(size - len(taken.data))
            assert self.is_readable()
            self.server.receive(taken)
        return taken.data


@pytest.fixture
def pair(certs_dir: Path) -> Iterator[Pair]:
    made = Pair(certs_dir / "dev")
    yield made
    made.server.close()
    made.client.close()


def test_of_a_large_body_the_kernel_tells_once_it_is_there(pair: Pair) -> None:
    body = os.urandom(2 * HALF)
    pair.server.expect(len(body))
    pair.client.sendall(body[:HALF])
    assert pair.has_come(HALF)
    assert not pair.is_readable(0)
    pair.client.sendall(body[HALF:])
    assert pair.receive_all(len(body)) == body


def test_what_was_taken_already_is_not_waited_for(pair: Pair) -> None:
    body = os.urandom(2 * HALF)
    pair.client.sendall(body[:HALF])
    first = pair.receive_all(HALF // 2)
    pair.server.expect(len(body) - len(first))
    pair.client.sendall(body[HALF:])
    assert first + pair.receive_all(len(body) - len(first)) == body


def test_the_end_is_told_though_a_body_is_not_whole(pair: Pair) -> None:
    pair.server.expect(HALF)
    pair.client.sendall(b"x")
    assert pair.has_come(1)
    assert not pair.is_readable(0)
    pair.client.close()
    assert pair.is_readable()


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_after_a_body_the_first_byte_is_told(pair: Pair, size: int) -> None:
    pair.server.expect(HALF)
    pair.server.expect(size)
    pair.client.sendall(b"x")
    assert pair.receive_all(1) == b"x"


def test_what_comes_may_be_larger_than_what_is_read_at_once(pair: Pair) -> None:
    body = os.urandom(3_000_000)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(pair.client.sendall, body)
        assert pair.receive_all(len(body)) == body
        sent.result()


def test_a_farewell_is_the_end(pair: Pair) -> None:
    pair.client.sendall(b"last words")
    assert pair.receive_all(10) == b"last words"
    with ThreadPoolExecutor(1) as pool:
        farewell = pool.submit(pair.client.unwrap)
        assert pair.is_readable()
        assert pair.server.receive(Taken()) is False
        pair.server.close()
        farewell.result()


@pytest.mark.parametrize("size", [1, 100, 16_384, 100_000])
def test_a_room_may_be_smaller_or_larger_than_a_record(pair: Pair, size: int) -> None:
    body = os.urandom(50_000)
    pair.client.sendall(body)
    assert pair.has_come(len(body))
    taken = Taken(size)
    assert pair.server.receive(taken) is True
    assert taken.data == body
    assert pair.server.receive(taken) is None


def test_what_finds_no_room_is_kept_and_nothing_passes_it(pair: Pair) -> None:
    parts = [os.urandom(10_000_000), os.urandom(3), os.urandom(HALF)]
    assert [pair.server.send_some(part) for part in parts] == [False] * 3
    assert not pair.server.push()
    received = b""
    while not pair.server.push() or len(received) < sum(map(len, parts)):
        received += pair.client.recv(1_000_000)
    assert received == b"".join(parts)
    assert pair.server.send_some(b"more")
    assert pair.client.recv(10) == b"more"


def test_to_send_waits_for_room(pair: Pair) -> None:
    data = os.urandom(10_000_000)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(pair.server.send, data)
        received = b""
        while len(received) < len(data):
            received += pair.client.recv(1_000_000)
        sent.result()
    assert received == data


def test_who_takes_nothing_is_not_waited_for_forever(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "SEND_TIMEOUT_S", 0.01)
    with pytest.raises(TimeoutError):
        pair.server.send(bytes(20_000_000))
