"""The loop with real connections: whole requests, waiting ones, strangers, clients that vanish."""

import contextlib
import os
import socket
import ssl
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from distbuild.farm.queue import GONE_S, WORKER_S
from distbuild.http import loop
from distbuild.http.listen import listen_port, listen_unix
from distbuild.http.loop import SAME_USER, Server
from distbuild.http.response import Response
from distbuild.http.site import Call, ConnectionState, Front, Later, Site
from distbuild.http.transport import Plain, Tls, server_context
from distbuild.one_shot import OneShot
from distbuild.protocol.errors import ConfigError

HEAD = b"POST /x?q=1 HTTP/1.1\r\nHost: a\r\nX-Y: z\r\nAuthorization: me\r\n"
REQUEST = HEAD + b"Content-Length: 5\r\n\r\n12345"
LATER = b"POST /later HTTP/1.1\r\nHost: x\r\nAuthorization: me\r\nContent-Length: 5\r\n\r\n12345"
THREADS = 2
MAX_BODY = 10_000_000
LIMIT = 300


class Served:
    """A server whose handler tests replace; ``closed`` counts generators that were closed."""

    def __init__(
        self,
        front: Callable[..., Front],
        patience_s: float = 0.0,
        path: Path | None = None,
        sweep_s: float = 5.0,
    ) -> None:
        self.path = path
        self.seen: list[dict[str, Any]] = []
        self.calls: list[Call] = []
        self.gate = OneShot()
        self.closed = threading.Semaphore(0)
        self.started = threading.Semaphore(0)
        self.later: Callable[[], Later] = self.waiting
        self.parts: list[bytes] = [b"ab", b"cd"]
        self.headers: list[tuple[str, str]] = [("X-Answer", "yes")]
        self.front = front(
            threads=THREADS,
            admits=lambda headers: headers.get("authorization") == "me",
            max_body=MAX_BODY,
            max_connections=LIMIT,
            patience_s=patience_s,
            sweep_s=sweep_s,
        )
        self.server = Server(
            Site(self.app, {"/later": self.handle}, lambda: None, {"/stream": self.handle}),
            self.front,
            "test",
        )
        self.server.start()

    def app(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        body = environ["wsgi.input"].read()
        self.seen.append({**environ, "body": body})
        if environ["PATH_INFO"] == "/fail":
            raise ValueError("no")
        start_response("200 OK", self.headers)
        try:
            yield from self.parts
        finally:
            self.closed.release()

    def handle(self, call: Call) -> Later:
        self.calls.append(call)
        return self.later()

    def waiting(self) -> Later:
        try:
            self.started.release()
            yield self.gate
            yield Response({"Dist-Build": "done"}, b"body")
        finally:
            self.closed.release()

    def address(self) -> Any:
        return str(self.path) if self.path else self.front.listener.getsockname()

    def connect(self) -> socket.socket:
        connection = socket.socket(self.front.listener.family)
        connection.settimeout(10)
        if self.path is None:
            connection.connect(self.address())
            return connection
        # An address has 108 bytes, and the path of a temporary directory may have more.
        directory = os.open(self.path.parent, os.O_PATH)
        connection.connect(f"/proc/self/fd/{directory}/{self.path.name}")
        os.close(directory)
        return connection

    def ask(self, data: bytes = REQUEST) -> bytes:
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def leftover(self) -> int:
        return len(self.server._connections) + len(self.server._events.watched)


class ServedTls(Served):
    """The same over TLS, whose connections last."""

    def connect(self) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(self.connect_bare())

    def connect_bare(self) -> socket.socket:
        return super().connect()


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while chunk := connection.recv(65536):
        parts.append(chunk)
    return b"".join(parts)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        chunk = connection.recv(1)
        assert chunk, data
        data += chunk
    return data


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    path = tmp_path / "s.sock"
    made = Served(lambda **rest: Front(listen_unix(path), Plain, **rest), path=path)
    yield made
    made.server.stop()


@pytest.fixture
def make_tls(certs_dir: Path) -> Iterator[Callable[[float], ServedTls]]:
    context = server_context(certs_dir / "dev" / "cert.pem", certs_dir / "dev" / "key.pem")
    made: list[ServedTls] = []

    def make(patience_s: float) -> ServedTls:
        made.append(
            ServedTls(
                lambda **rest: Front(
                    listen_port("127.0.0.1", 0), lambda bare: Tls(bare, context), **rest
                ),
                patience_s,
                sweep_s=0.05,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.server.stop()


@pytest.fixture
def tls(make_tls: Callable[[float], ServedTls]) -> ServedTls:
    return make_tls(0.0)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


# --- requests -----------------------------------------------------------------------------------


def test_an_app_is_asked_as_wsgi_has_it(served: Served) -> None:
    answer = served.ask()
    assert answer == b"HTTP/1.1 200 OK\r\nX-Answer: yes\r\nConnection: close\r\n\r\nabcd"
    [environ] = served.seen
    told = {name: environ[name] for name in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING")}
    assert told == {"REQUEST_METHOD": "POST", "PATH_INFO": "/x", "QUERY_STRING": "q=1"}
    assert (environ["body"], environ["HTTP_X_Y"], environ[SAME_USER]) == (b"12345", "z", True)
    assert environ["wsgi.url_scheme"] == "http"
    assert eventually(lambda: served.leftover() == 0)


def test_a_handler_is_asked_without_the_app(served: Served) -> None:
    served.gate.set()
    expected = b"HTTP/1.1 200 OK\r\nDist-Build: done\r\nContent-Length: 4\r\nConnection: close"
    assert served.ask(LATER) == expected + b"\r\n\r\nbody"
    headers = {"host": "x", "authorization": "me"}
    assert served.calls == [Call("me", b"12345", is_same_user=True, headers=headers)]
    assert served.seen == []


def test_only_a_post_is_for_a_handler(served: Served) -> None:
    assert served.ask(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"abcd")
    assert served.calls == []


STREAM = b"GET /stream HTTP/1.1\r\nHost: x\r\nAuthorization: me\r\n\r\n"


@pytest.mark.parametrize("over_tls", [False, True])
def test_a_stream_is_sent_in_parts_and_ends_with_the_connection(
    served: Served, tls: ServedTls, over_tls: bool
) -> None:
    server: Served = tls if over_tls else served

    def streaming() -> Later:
        yield Response({}, b"first", is_stream=True)
        yield server.gate
        yield b" second"
        yield b" third"

    server.later = streaming
    with server.connect() as connection:
        connection.sendall(STREAM)
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirst"
        assert read_until(connection, b"first") == head
        server.gate.set()
        assert read_all(connection) == b" second third"
    assert eventually(lambda: server.leftover() == 0)


def test_a_client_that_leaves_ends_its_stream(served: Served) -> None:
    def streaming() -> Later:
        try:
            yield Response({}, b"first", is_stream=True)
            yield served.gate
        finally:
            served.closed.release()

    served.later = streaming
    with served.connect() as connection:
        connection.sendall(STREAM)
        read_until(connection, b"first")
    assert served.closed.acquire(timeout=60)


def test_a_client_that_takes_nothing_of_a_stream_holds_no_thread(served: Served) -> None:
    def streaming() -> Later:
        yield Response({}, b"first", is_stream=True)
        yield bytes(100_000)
        while not served.gate.is_set():
            yield bytes(100_000)
        served.closed.release()

    served.later = streaming
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(served.connect()) for _ in range(THREADS + 1)]
        for connection in slow:
            connection.sendall(STREAM)
            read_until(connection, b"first")
        assert served.ask().endswith(b"abcd")
        served.gate.set()
        for connection in slow:
            assert read_all(connection)
    for _ in slow:
        assert served.closed.acquire(timeout=60)


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
        (b"GET / HTTP/2.0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1e3\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999999999\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"401"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nAuthorization: you\r\n\r\n",
            b"401",
        ),
        (b"x" * 20000, b"431"),
    ],
)
def test_what_is_no_request_is_refused(served: Served, data: bytes, status: bytes) -> None:
    assert served.ask(data).startswith(b"HTTP/1.1 " + status)
    assert served.seen == []
    assert served.ask().endswith(b"abcd")


def test_a_large_body_is_taken_of_those_who_may(served: Served) -> None:
    body = os.urandom(3_000_000)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: me\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    assert served.ask(head + body).endswith(b"abcd")
    assert served.seen[0]["body"] == body


def test_a_body_that_breaks_off_gives_its_memory_back(served: Served) -> None:
    head = (
        b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: me\r\nContent-Length: %d\r\n\r\n" % MAX_BODY
    )
    taken = served.server._acceptor._body_budget._taken
    with served.connect() as connection:
        connection.sendall(head)
        assert eventually(lambda: len(taken) == 1)
    assert eventually(lambda: not taken)


def test_an_app_that_fails_ends_the_connection_and_nothing_else(served: Served) -> None:
    assert served.ask(b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n") == b""
    assert served.ask().endswith(b"abcd")
    assert eventually(lambda: served.leftover() == 0)


def test_a_handler_that_fails_ends_the_connection_and_nothing_else(served: Served) -> None:
    def failing() -> Later:
        yield served.gate
        raise OSError("no")

    served.gate.set()
    served.later = failing
    assert served.ask(LATER) == b""
    assert served.ask().endswith(b"abcd")
    assert eventually(lambda: served.leftover() == 0)


# --- what waits ---------------------------------------------------------------------------------


def test_what_waits_costs_no_thread(served: Served) -> None:
    """Ten times as many wait as there are threads, and others are answered meanwhile."""
    count = 10 * THREADS
    connections = [served.connect() for _ in range(count)]
    for connection in connections:
        connection.sendall(LATER)
    assert all(served.started.acquire(timeout=60) for _ in range(count))
    assert served.ask().endswith(b"abcd")
    served.gate.set()
    answers = [read_all(connection) for connection in connections]
    expected = b"HTTP/1.1 200 OK\r\nDist-Build: done\r\nContent-Length: 4\r\nConnection: close"
    assert answers == [expected + b"\r\n\r\nbody"] * count
    for connection in connections:
        connection.close()
    assert eventually(lambda: served.leftover() == 0)


def test_a_client_that_vanishes_closes_what_waits_for_it(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(LATER)
        assert served.started.acquire(timeout=60)
    assert served.closed.acquire(timeout=60)
    served.gate.set()  # too late, and harmless
    assert served.ask().endswith(b"abcd")


@pytest.mark.parametrize("kind", ["served", "tls"])
def test_clients_vanish_at_every_moment(kind: str, request: pytest.FixtureRequest) -> None:
    """Whatever the order, each generator ends exactly once."""
    served: Served = request.getfixturevalue(kind)
    ends = []

    def quick() -> Later:
        signal = OneShot()
        threading.Thread(target=signal.set).start()
        try:
            yield signal
            yield Response({}, b"x" * 10)
            yield OneShot()
        finally:
            ends.append(1)

    served.later = quick
    for _ in range(200):
        with served.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(LATER)
    eventually(lambda: len(ends) == len(served.calls) and served.leftover() == 0)
    assert (len(ends), served.leftover()) == (len(served.calls), 0)
    assert len(ends) <= 200


def test_after_an_answer_the_generator_lasts_as_long_as_the_connection(served: Served) -> None:
    def holding() -> Later:
        try:
            yield Response({}, b"go")
            yield OneShot()
        finally:
            served.closed.release()

    served.later = holding
    with served.connect() as connection:
        connection.sendall(LATER)
        assert connection.recv(1000).endswith(b"go")
        assert not served.closed.acquire(timeout=0.2)
    assert served.closed.acquire(timeout=60)


# --- connections that last ----------------------------------------------------------------------


def test_a_connection_carries_many_requests(tls: ServedTls) -> None:
    """The app's, in chunks, and a handler's in turn; what comes early waits its turn."""
    tls.gate.set()
    chunks = b"HTTP/1.1 200 OK\r\nX-Answer: yes\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks += b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"
    whole = b"HTTP/1.1 200 OK\r\nDist-Build: done\r\nContent-Length: 4\r\n\r\nbody"
    with tls.connect() as connection:
        for _ in range(3):
            connection.sendall(REQUEST)
            assert read_until(connection, b"0\r\n\r\n") == chunks
            connection.sendall(LATER)
            assert read_until(connection, b"body") == whole
        connection.sendall((LATER + REQUEST) * 2)
        assert read_until(connection, b"0\r\n\r\n") == whole + chunks
        assert read_until(connection, b"0\r\n\r\n") == whole + chunks
    assert {environ[SAME_USER] for environ in tls.seen} == {False}
    assert not any(call.is_same_user for call in tls.calls)
    assert eventually(lambda: tls.leftover() == 0)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /later HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST /later HTTP/1.0\r\n\r\n",
    ],
)
def test_a_connection_ends_when_the_client_wants_it(tls: ServedTls, head: bytes) -> None:
    tls.gate.set()
    assert tls.ask(head).endswith(b"Connection: close\r\n\r\nbody")


def test_an_answer_of_known_length_is_not_chunked(tls: ServedTls) -> None:
    tls.headers = [("content-length", "4")]
    with tls.connect() as connection:
        connection.sendall(REQUEST)
        assert read_until(connection, b"abcd").count(b"chunked") == 0
        connection.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        tls.parts = []
        assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_large_bodies_go_both_ways(tls: ServedTls) -> None:
    """Through many records, and through a socket that is full."""
    sent, back = os.urandom(5_000_000), os.urandom(20_000_000)
    tls.headers, tls.parts = [("Content-Length", str(len(back)))], [back]
    head = b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: me\r\nContent-Length: %d\r\n" % len(sent)
    with tls.connect() as connection:
        connection.sendall(head + b"Connection: close\r\n\r\n" + sent)
        time.sleep(0.3)
        assert read_all(connection).partition(b"\r\n\r\n")[2] == back
    assert tls.seen[0]["body"] == sent


def test_many_ask_at_once_and_again(tls: ServedTls) -> None:
    tls.gate.set()

    def ask_often(_: int) -> int:
        with tls.connect() as connection:
            for _ in range(20):
                connection.sendall(LATER)
                read_until(connection, b"body")
        return 20

    with ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(ask_often, range(10))) == len(tls.calls) == 200


def test_a_client_that_vanishes_over_tls_closes_what_waits(tls: ServedTls) -> None:
    connection = tls.connect()
    connection.sendall(LATER)
    assert tls.started.acquire(timeout=60)
    connection.close()
    assert tls.closed.acquire(timeout=60)


# --- strangers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01", os.urandom(99)],
    ids=["nothing", "HTTP", "cut off", "noise"],
)
def test_what_is_no_tls_harms_nobody(tls: ServedTls, said: bytes) -> None:
    with tls.connect_bare() as connection:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        read_all(connection)
    assert eventually(lambda: tls.leftover() == 0)
    tls.gate.set()
    assert tls.ask(LATER.replace(b"1.1", b"1.0")).endswith(b"body")


def test_old_tls_is_refused(tls: ServedTls) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError), tls.connect_bare() as bare:
        context.wrap_socket(bare)


def test_more_connections_than_allowed_are_closed_at_once(tls: ServedTls) -> None:
    held = [tls.connect_bare() for _ in range(LIMIT)]
    assert eventually(lambda: len(tls.server._connections) == LIMIT)
    with tls.connect_bare() as one_more:
        assert one_more.recv(1) == b""
    for one in held:
        one.close()
    assert eventually(lambda: tls.leftover() == 0)
    tls.gate.set()
    assert tls.ask(LATER.replace(b"1.1", b"1.0")).endswith(b"body")


def test_a_connection_that_is_gone_when_it_is_accepted_holds_up_nobody(
    tls: ServedTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Tls.__init__
    failed: list[int] = []

    def once(self: Tls, connection: socket.socket, context: ssl.SSLContext) -> None:
        if not failed:
            failed.append(1)
            raise OSError("gone")
        real(self, connection, context)

    monkeypatch.setattr(Tls, "__init__", once)
    with tls.connect_bare() as first:
        assert first.recv(1) == b""
    tls.gate.set()
    assert tls.ask(LATER.replace(b"1.1", b"1.0")).endswith(b"body")


def test_the_silent_are_given_up_and_the_waiting_are_not(
    make_tls: Callable[[float], ServedTls],
) -> None:
    tls = make_tls(0.4)
    with tls.connect() as waiting, tls.connect() as silent, tls.connect_bare() as mute:
        waiting.sendall(LATER)
        silent.sendall(LATER[:20])
        assert silent.recv(1) == b""
        assert mute.recv(1) == b""
        tls.gate.set()
        assert read_until(waiting, b"body")
        assert waiting.recv(1) == b""  # nothing came any more


# --- the socket ---------------------------------------------------------------------------------


def test_only_the_owner_may_connect(served: Served) -> None:
    assert stat.S_IMODE(Path(served.address()).stat().st_mode) == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_is_not_taken_for_ours(served: Served) -> None:
    path = Path(served.address())
    path.chmod(0o666)
    for directory in path.parents:
        if directory.stat().st_uid == 0 and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    served.gate.set()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            served.ask()
            served.ask(LATER)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert [environ[SAME_USER] for environ in served.seen] == [False]
    assert [call.is_same_user for call in served.calls] == [False]


def test_a_path_may_be_longer_than_an_address(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 150)
    directory.mkdir()
    with listen_unix(directory / "s.sock"):
        assert (directory / "s.sock").is_socket()


def test_a_socket_that_a_dead_syncer_left_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.sock"
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path.name)
    made = Served(lambda **rest: Front(listen_unix(path), Plain, **rest), path=path)
    assert made.ask().endswith(b"abcd")
    made.server.stop()


def test_a_place_that_cannot_be_listened_at_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none"):
        listen_unix(tmp_path / "none" / "s.sock")


# --- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["served", "tls"])
def test_stopping_closes_what_waits(kind: str, request: pytest.FixtureRequest) -> None:
    served: Served = request.getfixturevalue(kind)
    with served.connect() as connection:
        connection.sendall(LATER)
        assert served.started.acquire(timeout=60)
        served.server.stop()
        assert served.closed.acquire(timeout=60)
        assert connection.recv(100) == b""


def test_what_is_asked_before_the_end_is_answered(tls: ServedTls) -> None:
    with tls.connect() as connection, tls.connect():
        connection.sendall(LATER)
        assert tls.started.acquire(timeout=60)
        threading.Timer(0.2, tls.gate.set).start()
        tls.server.stop(drain_s=10)
        assert read_until(connection, b"body")


def test_a_server_lends_what_goes_on_to_a_few_threads_of_others(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    served = Served(
        lambda **rest: Front(listen_unix(path), Plain, foreign_threads=1, **rest), path=path
    )
    clients = [served.connect() for _ in range(3)]
    try:
        for client in clients:
            client.sendall(LATER)
            assert served.started.acquire(timeout=60)
        assert eventually(
            lambda: (
                sum(c.state is ConnectionState.SUSPENDED for c in served.server._connections) == 3
            )
        )
        loop._own.next = None  # this is a thread of another server now
        served.gate.set()
        lent = loop._own.next
        assert lent is not None
        for _ in range(2):
            assert served.closed.acquire(timeout=60)
        assert not served.closed.acquire(blocking=False)
        loop._own.next = None
        lent()
        assert served.closed.acquire(timeout=60)
        assert all(read_all(client).endswith(b"body") for client in clients)
    finally:
        del loop._own.next
        for client in clients:
            client.close()
        served.server.stop()


def test_a_request_in_the_records_of_a_large_body_is_answered(tls: ServedTls) -> None:
    body = os.urandom(200_000)
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: me\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    with tls.connect() as connection:
        connection.sendall(head)
        assert eventually(lambda: any(c.reader.missing() for c in tls.server._connections))
        connection.sendall(body + REQUEST)
        for _ in range(2):
            read_until(connection, b"0\r\n\r\n")
    assert [bytes(environ["body"]) for environ in tls.seen] == [body, b"12345"]


def test_a_machine_that_is_gone_is_noticed_before_a_worker_counts_as_down(tls: ServedTls) -> None:
    with tls.connect() as connection:
        connection.sendall(REQUEST)
        read_until(connection, b"\r\n\r\n")
        [served] = tls.server._connections
        with socket.socket(fileno=os.dup(served.transport.fileno())) as bare:
            assert bare.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            idle_s, between_s, count = (
                bare.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
    assert idle_s + between_s * count + GONE_S < WORKER_S
