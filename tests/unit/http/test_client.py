"""Requests over kept connections: to a server that answers, and to those that do not."""

import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distbuild.credentials import Credentials, load_credentials
from distbuild.http.client import DEAD_S, Connections
from distbuild.http.transport import server_context
from distbuild.protocol.errors import InfrastructureError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Peer:
    """Accepts TLS connections and does to each what ``do`` says; keeps what was asked."""

    def __init__(self, role_dir: Path, do: "Callable[[Peer, ssl.SSLSocket], None]") -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.context = server_context(role_dir / "cert.pem", role_dir / "key.pem")
        self.do = do
        self.asked: list[bytes] = []
        self.connections = 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.listener.getsockname()[1]}"

    def run(self) -> None:
        while True:
            try:
                bare = self.listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            try:
                with self.context.wrap_socket(bare, server_side=True) as connection:
                    self.do(self, connection)
            except OSError:
                bare.close()

    def read(self, connection: ssl.SSLSocket) -> bool:
        """Take a request that ends with "end"; False at the connection's end."""
        data = b""
        while not data.endswith(b"end"):
            chunk = connection.recv(65536)
            if not chunk:
                return False
            data += chunk
        self.asked.append(data)
        return True

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


def answering(*parts: bytes) -> Callable[[Peer, ssl.SSLSocket], None]:
    """The same answer to each request, in these pieces."""

    def do(peer: Peer, connection: ssl.SSLSocket) -> None:
        while peer.read(connection):
            for part in parts:
                connection.sendall(part)

    return do


@pytest.fixture
def peer(certs_dir: Path) -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(do: Callable[[Peer, ssl.SSLSocket], None], role: str = "dev") -> Peer:
        made.append(Peer(certs_dir / role, do))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def credentials(certs_dir: Path) -> Credentials:
    return load_credentials(certs_dir, "worker")


@pytest.fixture
def reach(credentials: Credentials) -> Iterator[Callable[[Peer], Connections]]:
    made: list[Connections] = []

    def connect(peer: Peer) -> Connections:
        made.append(Connections(credentials, "syncer", peer.url))
        return made[-1]

    yield connect
    for one in made:
        one.close()


Reach = Callable[[Peer], Connections]
MakePeer = Callable[..., Peer]


def ask(connections: Connections, body: bytes = b"end") -> tuple[int, bytes]:
    return connections.post("/p", "text/x", body, 10.0)


def test_requests_share_a_connection(
    peer: MakePeer, reach: Reach, credentials: Credentials
) -> None:
    server = peer(answering(OK))
    connections = reach(server)
    assert [ask(connections) for _ in range(3)] == [(200, b"hi")] * 3
    assert server.connections == 1
    host = server.url.removeprefix("https://")
    assert server.asked[0].decode() == (
        f"POST /p HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {credentials.token}\r\n"
        "Content-Type: text/x\r\nContent-Length: 3\r\n\r\nend"
    )


def test_what_has_no_body_is_asked_for_with_get(
    peer: MakePeer, reach: Reach, credentials: Credentials
) -> None:
    def once(peer: Peer, connection: ssl.SSLSocket) -> None:
        peer.asked.append(connection.recv(65536))
        connection.sendall(OK)

    server = peer(once)
    assert reach(server).get("/status", 10.0, 2) == (200, b"hi")
    host = server.url.removeprefix("https://")
    assert server.asked[0].decode() == (
        f"GET /status HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {credentials.token}\r\n\r\n"
    )


def test_what_a_server_says_that_takes_no_more_of_a_body_is_heard(
    peer: MakePeer, reach: Reach
) -> None:
    def refuse(peer: Peer, connection: ssl.SSLSocket) -> None:
        connection.recv(10)
        connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
        connection.shutdown(socket.SHUT_RD)
        while connection.recv(65536):
            pass

    connections = reach(peer(refuse))
    assert ask(connections, bytes(20_000_000)) == (401, b"no")
    assert not connections._idle


def test_an_answer_may_come_in_pieces_and_be_large(peer: MakePeer, reach: Reach) -> None:
    body = bytes(range(256)) * 20_000
    head = b"HTTP/1.1 409 Conflict\r\nX: y\r\nCONTENT-LENGTH:  %d \r\n\r\n" % len(body)
    server = peer(answering(head[:9], head[9:30], head[30:] + body[:5], body[5:]))
    assert ask(reach(server), bytes(1_000_000) + b"end") == (409, body)


def test_a_connection_that_the_server_closed_is_replaced(peer: MakePeer, reach: Reach) -> None:
    def once(peer: Peer, connection: ssl.SSLSocket) -> None:
        peer.read(connection)
        connection.sendall(OK)

    server = peer(once)
    connections = reach(server)
    for count in (1, 2, 3):
        assert ask(connections) == (200, b"hi")
        while not connections._idle[-1].pending() and not _is_readable(connections):
            pass
        assert server.connections == count


def _is_readable(connections: Connections) -> bool:
    from distbuild.http.client import _has_something

    return _has_something(connections._idle[-1])


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_request_is_repeated_if_a_kept_connection_ends_without_an_answer(
    peer: MakePeer, reach: Reach, is_reset: bool
) -> None:
    """The server closes it as idle just when it is used again."""

    def do(peer: Peer, connection: ssl.SSLSocket) -> None:
        if peer.connections > 1:
            answering(OK)(peer, connection)
        peer.read(connection)
        connection.sendall(OK)
        peer.read(connection)
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    server = peer(do)
    client = reach(server)
    for _ in range(3):
        assert client.post("/x", "a/b", b"end", 5) == (200, b"hi")
    assert (server.connections, len(server.asked)) == (2, 4)


def test_a_request_over_a_new_connection_is_not_repeated(peer: MakePeer, reach: Reach) -> None:
    server = peer(lambda peer, connection: (peer.read(connection), None)[1])
    with pytest.raises(InfrastructureError, match=r"closed before the answer|EOF"):
        reach(server).post("/x", "a/b", b"end", 5)
    assert server.connections == 1


def test_a_connection_that_dies_without_a_word_is_soon_given_up(
    peer: MakePeer, reach: Reach
) -> None:
    connections = reach(peer(answering(OK)))
    ask(connections)
    with socket.socket(fileno=os.dup(connections._idle[-1].fileno())) as bare:
        assert bare.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        told = [
            bare.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        ]
    assert told[0] + told[1] * told[2] == DEAD_S


@pytest.mark.parametrize("stuck_s", [0.0, 10.0])
def test_a_request_that_does_not_get_through_is_given_up_where_that_is_asked_for(
    peer: MakePeer, reach: Reach, stuck_s: float
) -> None:
    connections = reach(peer(answering(OK)))
    connections.stuck_s = stuck_s
    ask(connections)
    with socket.socket(fileno=os.dup(connections._idle[-1].fileno())) as bare:
        limit = bare.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert limit == 1000 * stuck_s


def test_a_server_that_will_close_is_not_asked_again(peer: MakePeer, reach: Reach) -> None:
    server = peer(answering(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))
    connections = reach(server)
    assert ask(connections) == (200, b"hi")
    assert not connections._idle


def test_each_get_has_its_own_bound(peer: MakePeer, reach: Reach) -> None:
    def once(peer: Peer, connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        connection.sendall(OK)

    with pytest.raises(InfrastructureError, match="an answer of 2 bytes"):
        reach(peer(once)).get("/status", 10.0, 1)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-x\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "no HTTP with a length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "no HTTP with a length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no HTTP with a length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "an answer of 99,999,999,999"),
        (OK + b"x", "more than the answer"),
        (b"x" * 20_000, "the head has no end"),
    ],
)
def test_what_is_no_answer_is_an_error(
    peer: MakePeer, reach: Reach, answer: bytes, why: str
) -> None:
    connections = reach(peer(answering(answer)))
    with pytest.raises(InfrastructureError, match=why):
        ask(connections)
    assert not connections._idle


def test_a_server_that_closes_in_the_middle_is_an_error(peer: MakePeer, reach: Reach) -> None:
    def half(peer: Peer, connection: ssl.SSLSocket) -> None:
        peer.read(connection)
        connection.sendall(OK[:-1])

    with pytest.raises(InfrastructureError, match=r"closed before the answer|EOF"):
        ask(reach(peer(half)))


def test_a_server_that_is_silent_is_given_up(peer: MakePeer, reach: Reach) -> None:
    def silent(peer: Peer, connection: ssl.SSLSocket) -> None:
        peer.read(connection)
        peer.read(connection)

    with pytest.raises(InfrastructureError, match="timed out"):
        reach(peer(silent)).post("/p", "text/x", b"end", 0.1)


def test_another_role_sees_no_token(peer: MakePeer, reach: Reach) -> None:
    server = peer(answering(OK), "worker")
    with pytest.raises(InfrastructureError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(reach(server))
    assert server.asked == []


def test_nobody_there_is_an_error(credentials: Credentials) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(InfrastructureError, match="Connection refused"):
        ask(Connections(credentials, "syncer", f"https://127.0.0.1:{port}"))
