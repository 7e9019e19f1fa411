"""A server whose events are handled one by one in the test's own thread, and peers of it.

Nothing here waits: after ``run`` the server has done all that it can do without a further event.
"""

import contextlib
import fcntl
import logging
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from distbuild.http.listen import listen_port, listen_unix
from distbuild.http.loop import Server
from distbuild.http.poller import awaited_events
from distbuild.http.request import BodyBudget, RequestReader
from distbuild.http.response import Response
from distbuild.http.site import PARKED, Call, Connection, ConnectionState, Front, Later, Site
from distbuild.http.transport import Plain, Tls
from distbuild.one_shot import OneShot

MAX_BODY = 200_000
#: Each side's socket holds less than LARGE, and at least TLS's handshake.
SOCKET_BYTES = 32 * 1024
LARGE = bytes(300_000)
#: The number of bytes that TCP has not sent yet (linux/sockios.h).
SIOCOUTQNSD = 0x894B
#: More steps than any sequence needs: the server would spin.
MAX_STEPS = 2000

Transition = tuple[ConnectionState, ConnectionState]


def raises(call: Call) -> Later:
    """A handler that fails before it has made a generator."""
    del call
    raise LookupError("as asked for")


def admits(headers: Any) -> bool:
    return bool(headers.get("authorization") == "me")


class _Queued:
    """Stands for the app's threads: what is submitted runs when the server is run."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def submit(self, *call: Any) -> None:
        self.calls.append(call)

    def shutdown(self, **_: bool) -> None:
        self.calls.clear()


class Errors(logging.Handler):
    """The exceptions that a server has logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[BaseException | None] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.exc_info[1] if record.exc_info else None)


class SteppedServer:
    """A server with a handler for each kind of response. ``context``: for TLS; without it on a Unix
    socket at ``path``."""

    def __init__(self, path: Path, context: ssl.SSLContext | None = None) -> None:
        self.gates: list[OneShot] = []
        self.open_handlers = 0
        self.is_tls = context is not None
        self._path = str(path)
        handlers = {
            "/now": self._handler(False, [Response({}, b"now")]),
            "/later": self._handler(True, [Response({}, b"later")]),
            "/large": self._handler(False, [Response({}, LARGE)]),
            "/held": self._handler(True, [Response({}, b"held")], is_held=True),
            "/large-held": self._handler(False, [Response({}, LARGE)], is_held=True),
            "/silent": self._handler(True, []),
            "/twice": self._handler(False, [Response({}, b"1"), Response({}, b"2")]),
            "/fail": self._handler(True, [], fails=True),
            "/raise": raises,
        }

        def transport(accepted: socket.socket) -> Plain:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
            return Plain(accepted) if context is None else Tls(accepted, context)

        self._listener = listen_unix(path) if context is None else listen_port("127.0.0.1", 0)
        front = Front(
            self._listener,
            transport,
            threads=0,
            admits=admits,
            max_body=MAX_BODY,
            max_connections=100,
            beat=lambda: None,
        )
        self.server = Server(Site(self._app, handlers, lambda: None), front, "stepped")
        self.server._app_pool._pool.shutdown()
        self._app_calls = _Queued()
        self.server._app_pool._pool = self._app_calls  # type: ignore[assignment]

    def _handler(
        self, waits: bool, responses: list[Response], *, is_held: bool = False, fails: bool = False
    ) -> Callable[[Call], Later]:
        def handle(call: Call) -> Later:
            del call
            self.open_handlers += 1
            try:
                if waits:
                    yield self._gate()
                if fails:
                    raise LookupError("as asked for")
                yield from responses
                if is_held:
                    while True:
                        yield self._gate()
            finally:
                self.open_handlers -= 1

        return handle

    def _gate(self) -> OneShot:
        self.gates.append(OneShot())
        return self.gates[-1]

    def _app(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/broken":
            raise LookupError("as asked for")
        start_response("200 OK", [])
        yield b"app"
        yield LARGE if environ["PATH_INFO"] == "/large" else b"!"

    def connect(self) -> socket.socket:
        made = socket.socket(self._listener.family)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
        if self.is_tls:  # a short segment is sent at once
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.connect(self._listener.getsockname() if self.is_tls else self._path)
        made.setblocking(False)
        return made

    # --- steps ----------------------------------------------------------------------------------

    def run(self) -> None:
        """Handle events until there are no more."""
        server = self.server
        for _ in range(MAX_STEPS):
            reported = server._events._poll.poll(0, 1)
            for descriptor, _ in reported:
                server._happened(descriptor)
            calls, self._app_calls.calls = self._app_calls.calls, []
            for function, *arguments in calls:
                function(*arguments)
            if not (reported or calls):
                return
        raise AssertionError("the server spins")

    def fire(self) -> None:
        """Fire all events that handlers wait for."""
        gates, self.gates = self.gates, []
        for gate in gates:
            gate.set()
        self.run()

    def sweep(self) -> None:
        """All clients have been silent for too long."""
        self.server._sweep(inf)

    def beat(self) -> None:
        self.server._beat(inf)
        self.run()

    def report_stale_events(self) -> None:
        """Events of earlier connections with the same descriptors."""
        for connection in list(self.server._events.watched.values()):
            self.server._woken(connection)
        self.run()

    def check(self) -> None:
        """Each connection is parked, and the kernel will report what its state awaits."""
        kernel = watched_by_kernel(self.server._events._poll.fileno())
        for connection in self.server._connections:
            assert connection.state in PARKED, connection.state.name
            events = kernel[connection.transport.fileno()]
            awaited = awaited_events()[connection.state]
            assert events & awaited == awaited, (connection.state.name, hex(events))

    def close(self) -> None:
        self.server._threads.clear()  # never started
        self.server.stop()

    def left(self) -> list[object]:
        """What should be empty without connections."""
        server = self.server
        return [
            *server._connections,
            *server._events.watched,
            *server._pending_sends._strangers,
            *server._acceptor._body_budget._taken,
            *range(self.open_handlers),
        ]


def watched_by_kernel(epoll: int) -> dict[int, int]:
    """The events that an epoll descriptor will report, by descriptor (proc(5))."""
    lines = Path(f"/proc/self/fdinfo/{epoll}").read_text().splitlines()
    found = [line.split() for line in lines if line.startswith("tfd:")]
    return {int(words[1]): int(words[3], 16) for words in found}


@contextlib.contextmanager
def logged_errors() -> Iterator[list[BaseException | None]]:
    """The exceptions that servers log meanwhile; they are not printed."""
    log = logging.getLogger("distbuild.http.loop")
    errors, before = Errors(), log.propagate
    log.addHandler(errors)
    log.propagate = False
    try:
        yield errors.seen
    finally:
        log.removeHandler(errors)
        log.propagate = before


def record_transitions(monkeypatch: pytest.MonkeyPatch) -> set[Transition]:
    """The changes of state of all connections from now on."""
    seen: set[Transition] = set()
    become, claim = Connection.become, Connection.claim_locked

    def recorded_become(self: Connection, state: ConnectionState) -> None:
        before = self.state
        become(self, state)
        seen.add((before, self.state))

    def recorded_claim(self: Connection, *of: Any) -> bool:
        before = self.state
        if not claim(self, *of):
            return False
        seen.add((before, self.state))
        return True

    monkeypatch.setattr(Connection, "become", recorded_become)
    monkeypatch.setattr(Connection, "claim_locked", recorded_claim)
    return seen


class Peer:
    """A client that does one thing at a time. ``received`` is decrypted; ``has_ended``: the server
    has closed the connection, or this side has."""

    def __init__(self, served: SteppedServer) -> None:
        self._served = served
        self._socket = served.connect()
        self.received = b""
        self.sent = b""
        self.has_ended = False
        self.is_closed = False
        #: The server closed it with bytes unread: TCP then drops what was not delivered yet.
        self.was_reset = False
        #: Has sent bytes that are no TLS, or has ended its sending side.
        self.is_broken = False
        self._tls: ssl.SSLObject | None = None
        if served.is_tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = context.wrap_bio(self._in, self._out)
        self._is_open = self._tls is None
        served.run()

    def send(self, data: bytes) -> None:
        """Send bytes of requests, after the handshake."""
        if self.is_closed or self.is_broken or self.has_ended or not self._shake_hands():
            return
        self.sent += data
        if self._tls is not None:
            self._tls.write(data)
            data = self._out.read()
        self._put(data)

    def send_bare(self, data: bytes) -> None:
        """Send bytes as they are, within TLS's stream or before its handshake."""
        if self._tls is None:
            self.send(data)
        elif not (self.is_closed or self.is_broken):
            self.is_broken = True
            self._put(data)

    def begin_handshake(self) -> None:
        """Send the first bytes of TLS, and not the rest."""
        if self._tls is not None and not self._is_open and not self.is_closed:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
            self.send_bare(self._out.read()[:100])

    def _shake_hands(self) -> bool:
        for _ in range(10):
            if self._is_open or self._tls is None:
                break
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
                self._is_open = True
            self._put(self._out.read())
            self._take_in()
        return self._is_open

    def _put(self, data: bytes) -> None:
        try:
            while data:
                data = data[self._socket.send(data) :]
                self._served.run()
        except BlockingIOError:
            self.close()  # as a client that gives up: the server takes nothing more
        except OSError:
            self.is_broken = True  # there may still be a response to read
        self._served.run()

    def _take_in(self) -> bytes:
        """All bytes that have come, as they are."""
        data = b""
        while not (self.is_closed or self.has_ended):
            try:
                chunk = self._socket.recv(1_000_000)
            except BlockingIOError:
                break
            except OSError:
                chunk, self.was_reset = b"", True
            if not chunk:
                self.has_ended = True
            data += chunk
            self._served.run()  # there is room again
        if self._tls is None:
            return data
        self._in.write(data)
        return b""

    def read(self) -> None:
        """Receive everything that the server can send."""
        self.received += self._take_in()
        if self._tls is None or not self._is_open:
            return
        with contextlib.suppress(ssl.SSLError):
            while chunk := self._tls.read(1_000_000):
                self.received += chunk

    def end_sending(self) -> None:
        """Close the sending side only."""
        if not self.is_closed:
            self.is_broken = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            self._served.run()

    def is_stuck(self) -> bool:
        """Whether TCP cannot deliver this side's end, behind bytes that the server does not read:
        a handler works on an earlier request."""
        if self._tls is None:
            return False
        unsent = fcntl.ioctl(self._socket, SIOCOUTQNSD, bytes(4))
        return int.from_bytes(unsent, sys.byteorder) > 0

    def reset(self) -> None:
        """Abort: the other end gets an error."""
        if not self.is_closed:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()

    def close(self) -> None:
        """Close, and abort where the kernel would have to do so after some time."""
        if not self.is_closed and self.is_stuck():
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.is_closed = True
        self._socket.close()
        self._served.run()


def expected_responses(sent: bytes, *, keeps_alive: bool) -> tuple[int, bool]:
    """How many responses these requests get, and whether the server then closes the connection."""
    reader = RequestReader(MAX_BODY, admits, BodyBudget())
    reader.feed(sent)
    count = 0
    while (request := reader.next()) is not None:
        path = request.target
        if request.problem:
            return count + 1, True
        is_post = request.method == "POST"
        if (path in ("/silent", "/fail", "/raise") and is_post) or path == "/broken":
            return count, True
        count += 1
        if "held" in path and is_post:
            return count, False
        if not (keeps_alive and request.keeps and admits(request.headers)):
            return count, True
    return count, False
