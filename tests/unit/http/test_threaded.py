"""The server for systems without epoll and fork: a thread for each connection."""

import contextlib
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from distbuild.credentials import load_credentials
from distbuild.http.listen import listen_port
from distbuild.http.response import Response
from distbuild.http.site import Call, Later, Site
from distbuild.http.threaded import Port, ThreadedServer
from distbuild.http.transport import server_context
from distbuild.one_shot import OneShot
from distbuild.wrapper.syncer_client import make_session
from tests.support.cluster import SRC, free_ports, get_status, wait_until

MAX_BODY = 10_000_000
WAIT_S = 60.0


class Served:
    """A server with an app that echoes, and a handler that waits for ``gate``."""

    def __init__(self, certs: Path) -> None:
        self.gate = OneShot()
        self.started = threading.Semaphore(0)
        self.closed = threading.Semaphore(0)
        self.calls: list[Call] = []
        self.credentials = load_credentials(certs, "dev")
        listener = listen_port("127.0.0.1", 0)
        self.port = int(listener.getsockname()[1])
        cert, key = self.credentials.cert, self.credentials.key
        port = Port("127.0.0.1", self.port, cert, key, self.admits, MAX_BODY)
        site = Site(self.app, {"/later": self.handle}, lambda: None)
        self.server = ThreadedServer(site, listener, server_context(cert, key), port, 0.01)
        self.server.start()

    def admits(self, headers: Any) -> bool:
        return bool(headers.get("authorization") == f"Bearer {self.credentials.token}")

    def app(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/fail":
            raise ValueError("no")
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("X-Path", environ["PATH_INFO"])])
        yield body or b"nothing"

    def handle(self, call: Call) -> Later:
        self.calls.append(call)
        self.started.release()
        try:
            yield self.gate
            yield Response({}, b"done")
        finally:
            self.closed.release()

    def session(self) -> requests.Session:
        return make_session(self.credentials, "syncer")

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    def connect(self) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), WAIT_S))


@pytest.fixture
def served(certs_dir: Path) -> Iterator[Served]:
    served = Served(certs_dir)
    yield served
    served.server.stop()


def test_one_connection_carries_the_app_and_the_handler(served: Served) -> None:
    served.gate.set()
    with served.session() as session:
        for n in range(20):
            body = b"x" * n * 1000
            answer = session.post(served.url("/echo"), data=body, timeout=WAIT_S)
            assert answer.content == (body or b"nothing")
            assert session.post(served.url("/later"), timeout=WAIT_S).content == b"done"
        assert len(served.server._connections) == 1
    assert not any(call.is_same_user for call in served.calls)


def test_only_a_post_is_for_a_handler(served: Served) -> None:
    with served.session() as session:
        answer = session.get(served.url("/later"), timeout=WAIT_S)
    assert answer.headers["X-Path"] == "/later"


def test_a_large_body_is_taken_of_those_who_may(served: Served) -> None:
    data = b"x" * 3_000_000
    with served.session() as session:
        assert session.post(served.url("/echo"), data=data, timeout=WAIT_S).content == data
        session.headers["Authorization"] = "Bearer nobody"
        with pytest.raises(requests.RequestException):
            # Refused while it is sent: the answer may be lost with the connection.
            session.post(served.url("/echo"), data=data, timeout=WAIT_S).raise_for_status()


def test_a_stranger_gets_one_answer_a_connection(served: Served) -> None:
    served.gate.set()
    with served.connect() as connection:
        connection.sendall(b"POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" * 3)
        answered = b""
        with contextlib.suppress(ConnectionResetError):  # the rest is not read
            while chunk := connection.recv(1000):
                answered += chunk
    assert answered.count(b"HTTP/1.1 200 OK") == 1
    assert len(served.calls) == 1


def test_an_app_that_fails_ends_its_connection_and_nothing_else(served: Served) -> None:
    with served.session() as session:
        with pytest.raises(requests.ConnectionError):
            session.get(served.url("/fail"), timeout=WAIT_S)
        assert session.get(served.url("/"), timeout=WAIT_S).content == b"nothing"


@pytest.mark.parametrize("says_farewell", [False, True])
def test_a_client_that_vanishes_closes_what_waits(served: Served, says_farewell: bool) -> None:
    connection = served.connect()
    connection.sendall(b"POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert served.started.acquire(timeout=WAIT_S)
    if says_farewell:
        connection.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            connection.unwrap()
    connection.close()
    assert served.closed.acquire(timeout=WAIT_S)


def test_who_says_nothing_or_no_tls_holds_up_nobody(served: Served) -> None:
    silent = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(5)]
    silent[0].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with served.session() as session:
        assert session.get(served.url("/"), timeout=WAIT_S).ok
    for one in silent:
        one.close()


def test_what_is_asked_before_the_end_is_answered(served: Served) -> None:
    said: list[bytes] = []

    def ask() -> None:
        with served.session() as session:
            said.append(session.post(served.url("/later"), timeout=WAIT_S).content)

    asking = threading.Thread(target=ask)
    asking.start()
    assert served.started.acquire(timeout=WAIT_S)
    stopping = threading.Thread(target=served.server.stop, args=(WAIT_S,))
    stopping.start()
    served.gate.set()
    for thread in (asking, stopping):
        thread.join(WAIT_S)
    assert said == [b"done"]
    with pytest.raises(OSError):  # noqa: PT011 - refused, or reset
        served.connect()


SCRIPT = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for "make test &"
sys.path.insert(0, sys.argv[1])
from distbuild.http.site import Site
from distbuild.http.threaded import Port, serve

def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"{}"]

def make_site(stop):
    return Site(app, {}, lambda: print("ended", stop.is_set(), flush=True))

certs = Path(sys.argv[2])
port = Port("127.0.0.1", int(sys.argv[3]), certs / "cert.pem", certs / "key.pem", lambda _: True, 1)
serve(make_site, port)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(certs_dir: Path, number: signal.Signals) -> None:
    port = free_ports(1)[0]
    words = [sys.executable, "-c", SCRIPT, str(SRC), str(certs_dir / "dev"), str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        wait_until(lambda: answers(port, process.poll), "it answers")
        process.send_signal(number)
        out, _ = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out) == (0, b"ended True\n")


def answers(port: int, ended: Callable[[], int | None]) -> bool:
    assert ended() is None
    try:
        return get_status(port) == {}
    except OSError:
        return False
