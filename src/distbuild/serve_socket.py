"""Serves a WSGI app on a Unix socket, for processes of the same user on the same machine.

A few threads do all of it. What has to wait costs none: an app puts a generator into
``environ[LATER]``'s hands that yields the ``Signal`` it waits for, and the connection's end closes
it. Knows nothing of what the app does.
"""

import contextlib
import errno
import logging
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distbuild.http_request import Request, environ_of, parse_request
from distbuild.signals import Signal
from distbuild.unix_socket import SEND_TIMEOUT_S, has_ended, is_same_user, listen, send_answer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

#: In the environment of a request: takes the generator that will answer it in place of the app.
LATER = "distbuild.later"
#: In the environment of a request: the kernel says that it comes from this very user.
SAME_USER = "distbuild.same_user"

#: Few: the kernel wakes them in turn, and each that was asleep for long starts with cold caches.
THREADS = 3
#: Pause (seconds) when no descriptor is left for another connection.
RETRY_S = 0.1
_READ_BYTES = 256 * 1024
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as a whole. The connection stays open until the client ends it, and with it the
    generator, if that yields once more."""

    headers: Mapping[str, str]
    body: bytes
    status: str = "200 OK"


#: Yields the signals it waits for, and once an Answer.
Later = Generator[Signal | Answer, None, None]


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket
    received: bytearray = field(default_factory=bytearray)
    lock: threading.Lock = field(default_factory=threading.Lock)
    later: Later | None = None
    #: A thread runs the app or the generator; the connection is closed when it is done.
    is_running: bool = True
    is_gone: bool = False
    is_watched: bool = False
    #: Its end is watched for, since its generator waits.
    is_waiting: bool = False


class SocketServer:
    """``app`` on the Unix socket at ``path``. Raises ConfigError if that cannot be made."""

    def __init__(self, path: Path, app: "WSGIApplication") -> None:
        self._app = app
        self._path = path
        self._listener = listen(path)
        self._poll = select.epoll()
        # Written when something is due; the other one stays set once all is to end.
        self._ready = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ending = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Edge-triggered, so that one thread is woken by one event, and not all of them.
        self._poll.register(self._listener, select.EPOLLIN | select.EPOLLET)
        self._poll.register(self._ready, select.EPOLLIN | select.EPOLLET)
        self._poll.register(self._ending, select.EPOLLIN)
        #: What a thread has to do next: a connection just accepted, or one whose wait is over.
        self._due: deque[_Connection] = deque()
        #: Those that wait: for the rest of a request, or with a generator.
        self._watched: dict[int, _Connection] = {}
        self._ending_soon = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, name=f"socket {n}", daemon=True)
            for n in range(THREADS)
        ]

    def start(self) -> None:
        """Begin to answer."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Close the socket and every connection."""
        self._ending_soon.set()
        os.eventfd_write(self._ending, 1)
        for thread in self._threads:
            thread.join(SEND_TIMEOUT_S)
        for connection in [*self._watched.values(), *self._due]:
            connection.is_running = connection.is_gone = True
            self._finish(connection)
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._listener.close()
        self._poll.close()
        os.close(self._ready)
        os.close(self._ending)

    def _serve(self) -> None:
        """One of the threads: each takes whatever comes next."""
        while True:
            for descriptor, _ in self._poll.poll(maxevents=1):
                if descriptor == self._ending:
                    return
                try:
                    self._happened(descriptor)
                except Exception:
                    log.exception("request on the socket failed")

    def _happened(self, descriptor: int) -> None:
        if descriptor == self._listener.fileno():
            self._accept()
        elif descriptor == self._ready:
            self._take_due()
        elif descriptor in self._watched:
            self._woken(self._watched[descriptor])

    def _woken(self, connection: _Connection) -> None:
        """Something came, or the end. The event may be of an earlier connection of this number."""
        if connection.later is not None:
            if has_ended(connection.socket):
                self._gone(connection)
            else:
                self._watch(connection, 0)
            return
        with connection.lock:
            if connection.is_running:
                return
            connection.is_running = True
        self._read(connection)

    # --- requests -------------------------------------------------------------------------------

    def _accept(self) -> None:
        """Accept all that wait, since no second event tells of them."""
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    self._due.append(_Connection(self._listener.accept()[0]))
                except ConnectionAbortedError:
                    continue
                except OSError as error:
                    if error.errno in _NO_DESCRIPTOR:
                        log.warning("a wrapper waits: %s", error.strerror)
                        self._ending_soon.wait(RETRY_S)
                        continue
                    raise
        self._take_due()

    def _take_due(self) -> None:
        """Do the oldest of what is due; another thread is woken for the rest."""
        try:
            connection = self._due.popleft()
        except IndexError:
            return
        if self._due:
            os.eventfd_write(self._ready, 1)
        if connection.later is None:
            self._read(connection)
        else:
            self._go_on(connection)

    def _read(self, connection: _Connection) -> None:
        """Take what is there; a whole request is answered."""
        try:
            chunk = connection.socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._wait_for_more(connection)
            return
        except OSError:
            chunk = b""
        connection.received += chunk
        request = parse_request(connection.received) if chunk else None
        if request is not None:
            self._answer(connection, request)
        elif chunk:
            self._wait_for_more(connection)
        else:
            self._finish(connection)

    def _wait_for_more(self, connection: _Connection) -> None:
        connection.is_running = False
        self._watch(connection, select.EPOLLIN)

    def _watch(self, connection: _Connection, events: int) -> None:
        """Have one thread told, once, of the next event."""
        descriptor = connection.socket.fileno()
        events |= select.EPOLLRDHUP | select.EPOLLONESHOT
        if connection.is_watched:
            self._poll.modify(descriptor, events)
            return
        connection.is_watched = True
        self._watched[descriptor] = connection
        self._poll.register(descriptor, events)

    def _answer(self, connection: _Connection, request: Request) -> None:
        environ = environ_of(request, self._path)
        environ[SAME_USER] = is_same_user(connection.socket)

        def later(generator: Later) -> None:
            connection.later = generator

        environ[LATER] = later
        try:
            if request.problem:
                self._send(connection, Answer({}, b"", request.problem))
            else:
                self._call(connection, environ)
        except OSError:
            log.debug("the client took no answer")
        except Exception:
            log.exception("request on the socket failed")
        if connection.later is None:
            self._finish(connection)
        else:
            self._go_on(connection)

    def _call(self, connection: _Connection, environ: dict[str, Any]) -> None:
        head: list[str] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
            head[:] = [status, *(f"{name}: {value}" for name, value in headers)]
            return None

        parts = self._app(environ, start_response)
        try:
            if connection.later is None:
                send_answer(connection.socket, head, parts)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()

    @staticmethod
    def _send(connection: _Connection, answer: Answer) -> None:
        lines = [answer.status, *(f"{name}: {value}" for name, value in answer.headers.items())]
        lines.append(f"Content-Length: {len(answer.body)}")
        send_answer(connection.socket, lines, [answer.body])

    # --- what waits -----------------------------------------------------------------------------

    def _go_on(self, connection: _Connection) -> None:
        """Run the generator up to the next thing that it has to wait for."""
        while True:
            try:
                step = next(connection.later or iter(()))
            except StopIteration:
                self._finish(connection)
                return
            if isinstance(step, Answer):
                with contextlib.suppress(OSError):
                    self._send(connection, step)
            elif not step.is_set():
                break
        with connection.lock:
            connection.is_running = ended = connection.is_gone
            if not ended and not connection.is_waiting:
                connection.is_waiting = True
                self._watch(connection, 0)
        if ended:
            self._finish(connection)
        else:
            step.then(lambda: self._resume(connection))

    def _resume(self, connection: _Connection) -> None:
        """What was waited for has happened; called by whoever let it happen."""
        with connection.lock:
            if connection.is_running:
                return
            connection.is_running = True
        self._due.append(connection)
        os.eventfd_write(self._ready, 1)

    def _gone(self, connection: _Connection) -> None:
        """The client has ended: so does what it waits for."""
        with connection.lock:
            connection.is_gone = True
            if connection.is_running:
                return
            connection.is_running = True
        self._finish(connection)

    def _finish(self, connection: _Connection) -> None:
        if connection.later is not None:
            connection.later.close()
        # Forgotten before its number is free for another connection.
        if connection.is_watched:
            self._watched.pop(connection.socket.fileno(), None)
        connection.socket.close()
