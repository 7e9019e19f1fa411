"""A channel's bytes, seen from the other end."""

import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from distbuild.http.client import Channel
from distbuild.http.transport import TlsPump, server_context

Other = Callable[[ssl.SSLSocket], object]


class Ends:
    """A listener with TLS, and channels to it."""

    def __init__(self, certs: Path) -> None:
        self.context = server_context(certs / "cert.pem", certs / "key.pem")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.pool = ThreadPoolExecutor(1)
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.client.check_hostname, self.client.verify_mode = False, ssl.CERT_NONE

    def other(self, do: Other) -> "Future[object]":
        """Have the other end accept and do this."""

        def run() -> object:
            bare = self.listener.accept()[0]
            with self.context.wrap_socket(bare, server_side=True) as connection:
                return do(connection)

        return self.pool.submit(run)

    def bare(self) -> socket.socket:
        made = socket.create_connection(self.listener.getsockname(), 5)
        made.settimeout(5)
        return made

    def channel(self) -> Channel:
        return Channel(self.bare(), self.client, "syncer.dist-build")


@pytest.fixture
def ends(certs_dir: Path) -> Iterator[Ends]:
    made = Ends(certs_dir / "dev")
    yield made
    made.listener.close()
    made.pool.shutdown()


def all_of(connection: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += connection.recv(65536)
    return data


def test_what_is_sent_arrives_and_what_comes_is_received(ends: Ends) -> None:
    sent, back = bytes(range(256)) * 2000, b"answer" * 20_000

    def echo(connection: ssl.SSLSocket) -> bytes:
        data = all_of(connection, len(sent))
        connection.sendall(back)
        return data

    done = ends.other(echo)
    channel = ends.channel()
    channel.send(sent)
    received = b""
    while len(received) < len(back):
        received += channel.receive()
    assert (done.result(5), received) == (sent, back)
    assert channel.receive() == b""
    channel.close()


@pytest.mark.parametrize(
    "end", [ssl.SSLSocket.unwrap, lambda connection: connection.shutdown(socket.SHUT_RDWR)]
)
def test_the_end_is_seen_with_and_without_a_farewell(ends: Ends, end: Other) -> None:
    done = ends.other(end)
    channel = ends.channel()
    assert channel.receive() == b""
    channel.close()
    assert done.exception(5) is None or isinstance(done.exception(), OSError)


def test_an_end_that_comes_with_the_last_bytes_is_pending(ends: Ends) -> None:
    """So that a connection that the server has ended is not used again."""

    def say_and_end() -> None:
        pump = TlsPump(ends.context)
        with ends.listener.accept()[0] as connection:
            while not pump.shake_hands():
                connection.sendall(pump.outgoing.read())
                pump.incoming.write(connection.recv(65536))
            pump.write(b"last")
            pump.end()
            connection.sendall(pump.outgoing.read())

    done = ends.pool.submit(say_and_end)
    channel = ends.channel()
    assert channel.receive() == b"last"
    assert channel.pending()
    assert channel.receive() == b""
    channel.close()
    done.result(5)


def test_who_says_nothing_is_waited_for_as_long_as_was_said(ends: Ends) -> None:
    done = ends.other(lambda connection: connection.recv(1))
    channel = ends.channel()
    channel.settimeout(0.05)
    with pytest.raises(TimeoutError):
        channel.receive()
    channel.close()
    assert done.result(5) == b""


def test_what_is_not_received_yet_is_pending(ends: Ends) -> None:
    done = ends.other(lambda connection: connection.sendall(bytes(40_000)))
    channel = ends.channel()
    assert not channel.pending()
    size = len(channel.receive())
    while size < 40_000:
        size += len(channel.receive())
    assert size == 40_000
    done.result(5)
    channel.close()


def test_a_peer_that_is_no_tls_is_an_error(ends: Ends) -> None:
    for words in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"):

        def speak(words: bytes = words) -> None:
            with ends.listener.accept()[0] as connection:
                connection.recv(100_000)
                connection.sendall(words)

        done = ends.pool.submit(speak)
        with ends.bare() as bare, pytest.raises(OSError, match=r"TLS|SSL"):
            Channel(bare, ends.client, "syncer.dist-build")
        done.result(5)
