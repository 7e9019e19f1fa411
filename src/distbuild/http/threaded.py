"""Serves a site over TLS with a thread for each connection, until a signal to stop.

Runs on every system; used on those that have neither epoll nor fork. Knows nothing of what the
site's handlers do.
"""

import contextlib
import logging
import select
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from distbuild.http.listen import listen_port
from distbuild.http.request import Admits, BodyBudget, Request, RequestReader, environ_of
from distbuild.http.response import Response, call
from distbuild.http.site import Call, Later, Site
from distbuild.http.transport import server_context
from distbuild.one_shot import OneShot

if TYPE_CHECKING:
    from types import FrameType

log = logging.getLogger(__name__)

#: A connection on which nothing arrives, or that reads nothing, is closed after this (seconds).
PATIENCE_S = 60.0
#: Interval (seconds) of the checks for a disconnected client of a waiting request, and for the end.
LOOK_S = 0.25
#: How long (seconds) pending requests may take after the signal to stop.
DRAIN_S = 10.0
#: Each connection has a thread.
MAX_CONNECTIONS = 1024
_READ_BYTES = 256 * 1024
#: Ctrl-C, and the signals that end a process without a terminal.
_ENDS = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")


class Port(msgspec.Struct, frozen=True):
    """An address to listen on, the server's certificate, and the limits of requests."""

    bind: str
    port: int
    cert: Path
    key: Path
    admits: Admits
    max_body: int


def serve(make_site: Callable[[threading.Event], Site], port: Port) -> None:
    """Serve until a signal to stop; returns after an orderly shutdown. For the main thread.

    ``make_site`` gets an event that is set at the start of the shutdown, so that long polls return.
    Raises ConfigError.
    """
    stop = threading.Event()

    def end(number: int, frame: "FrameType | None") -> None:
        del number, frame
        stop.set()

    context = server_context(port.cert, port.key)
    listener = listen_port(port.bind, port.port)
    for name in _ENDS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
    site = make_site(stop)
    server = ThreadedServer(site, listener, context, port)
    server.start()
    # On Windows, Ctrl-C interrupts no untimed wait of Python.
    while not stop.wait(LOOK_S):
        pass
    server.stop(DRAIN_S)
    site.end()


class ThreadedServer:
    """Serves a ``site`` on ``listener``, which it closes at the end."""

    def __init__(
        self,
        site: Site,
        listener: socket.socket,
        context: ssl.SSLContext,
        port: Port,
        look_s: float = LOOK_S,
    ) -> None:
        self._look_s = look_s
        self._site = site
        self._listener = listener
        self._context = context
        self._port = port
        self._body_budget = BodyBudget()
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._busy = 0
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, name="accept", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, drain_s: float = 0.0) -> None:
        """Stop accepting, wait at most ``drain_s`` seconds for pending responses, and close every
        connection."""
        self._ending.set()
        self._thread.join()
        self._listener.close()
        deadline = time.monotonic() + drain_s
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.01)
        with self._lock:
            left = list(self._connections)
        for connection in left:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # its thread closes it

    def _accept(self) -> None:
        while not self._ending.is_set():
            if not select.select([self._listener], [], [], self._look_s)[0]:
                continue
            try:
                accepted = self._listener.accept()[0]
            except OSError as error:  # gone already
                log.debug("a client vanished: %s", error)
                continue
            if len(self._connections) >= MAX_CONNECTIONS:
                log.warning("more than %d connections", MAX_CONNECTIONS)
                accepted.close()
                continue
            threading.Thread(
                target=self._serve, args=(accepted,), name="connection", daemon=True
            ).start()

    def _serve(self, accepted: socket.socket) -> None:
        """Serve one connection until its end; runs in the connection's thread."""
        accepted.settimeout(PATIENCE_S)
        with self._lock:
            self._connections.add(accepted)
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            with (
                self._context.wrap_socket(accepted, server_side=True) as connection,
                contextlib.closing(self._reader()) as reader,
            ):
                with self._lock:
                    self._connections.remove(accepted)
                    accepted = connection
                    self._connections.add(connection)
                talk = _Conversation(connection, self._site, reader, self._doing, self._look_s)
                talk.go_on(self._port.admits)
        except OSError as error:  # TLS's errors too
            log.debug("a client vanished: %s", error)
        except Exception:
            log.exception("a request failed")
        finally:
            with self._lock:
                self._connections.discard(accepted)
            accepted.close()

    def _reader(self) -> RequestReader:
        return RequestReader(self._port.max_body, self._port.admits, self._body_budget)

    def _doing(self, change: int) -> bool:
        """Count a request that begins (1) or ends (-1); whether another may follow on its
        connection."""
        with self._lock:
            self._busy += change
        return not self._ending.is_set()


class _Conversation:
    """The requests and responses on one connection."""

    def __init__(
        self,
        connection: ssl.SSLSocket,
        site: Site,
        reader: RequestReader,
        doing: Callable[[int], bool],
        look_s: float,
    ) -> None:
        self._look_s = look_s
        self._connection = connection
        self._site = site
        self._reader = reader
        self._doing = doing

    def go_on(self, admits: Admits) -> None:
        """Answer requests until client or server ends; clients without a known token get one
        response."""
        while (request := self._next()) is not None:
            goes_on = self._doing(1)
            keeps = request.keeps and goes_on and admits(request.headers)
            try:
                self._answer(request, keeps=keeps)
            finally:
                goes_on = self._doing(-1)
            if not (keeps and goes_on):
                return

    def _next(self) -> Request | None:
        while (request := self._reader.next()) is None:
            chunk = self._connection.recv(_READ_BYTES)
            if not chunk:
                return None
            self._reader.feed(chunk)
        return request

    def _answer(self, request: Request, *, keeps: bool) -> None:
        if request.problem:
            self._connection.sendall(Response({}, b"", request.problem).encode(keeps=False))
            return
        handler = self._site.handlers.get(request.target) if request.method == "POST" else None
        if handler is None:
            call(self._site.app, environ_of(request, "https"), self._send, keeps=keeps)
            return
        peer = str(self._connection.getpeername()[0])
        later = handler(Call(request.headers.get("authorization"), request.body, peer=peer))
        try:
            self._drive(later, keeps=keeps)
        finally:
            later.close()

    def _drive(self, later: Later, *, keeps: bool) -> None:
        for step in later:
            if isinstance(step, Response):
                self._send(step.encode(keeps=keeps))
            elif isinstance(step, bytes):
                self._send(step)
            elif not self._happens(step):
                return

    def _happens(self, awaited: OneShot) -> bool:
        """Block until the event fires; False: the client disconnected first."""
        while not awaited.wait(self._look_s):
            if self._has_ended():
                return False
        return True

    def _send(self, data: bytes) -> None:
        # The first send to a disconnected client is lost without an error.
        if self._has_ended():
            raise ConnectionResetError("the client is gone")
        self._connection.sendall(data)

    def _has_ended(self) -> bool:
        """Whether the client has disconnected; data that it sent early is kept."""
        if not select.select([self._connection], [], [], 0)[0]:
            return False
        self._connection.setblocking(False)
        try:
            chunk = self._connection.recv(_READ_BYTES)
        except ssl.SSLWantReadError:
            return False
        except OSError:
            return True
        finally:
            self._connection.settimeout(PATIENCE_S)
        self._reader.feed(chunk)
        return not chunk
