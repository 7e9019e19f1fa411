"""Serves a WSGI app on a Unix socket, for processes of the same user on the same machine.

One thread watches all connections, a few run the app. What has to wait costs no thread: an app puts
a generator into ``environ[LATER]``'s hands that yields the ``Signal`` it waits for, and the
connection's end closes it. Knows nothing of what the app does.
"""

import contextlib
import logging
import os
import queue
import select
import socket
import struct
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distbuild.http_request import Request, environ_of, parse_request
from distbuild.protocol.errors import ConfigError
from distbuild.signals import Signal

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

#: In the environment of a request: takes the generator that will answer it in place of the app.
LATER = "distbuild.later"
#: In the environment of a request: the kernel says that it comes from this very user.
SAME_USER = "distbuild.same_user"

THREADS = 8
BACKLOG = 1024
#: A client that takes nothing of its answer for so long (seconds) is given up.
SEND_TIMEOUT_S = 10.0
_CREDENTIALS = struct.Struct("3i")
_READ_BYTES = 256 * 1024


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
    is_running: bool = False
    is_gone: bool = False


class SocketServer:
    """``app`` on the Unix socket at ``path``. Raises ConfigError if that cannot be made."""

    def __init__(self, path: Path, app: "WSGIApplication") -> None:
        self._app = app
        self._path = path
        self._listener = _listen(path)
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._wake_reader, select.EPOLLIN)
        self._connections: dict[int, _Connection] = {}
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._watch, name="socket", daemon=True)]
        self._threads += [
            threading.Thread(target=self._run, name=f"socket {n}", daemon=True)
            for n in range(THREADS)
        ]

    def start(self) -> None:
        """Begin to answer."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Close the socket and every connection."""
        os.write(self._wake_writer, b"x")
        for thread in self._threads:
            thread.join(SEND_TIMEOUT_S)
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._listener.close()
        self._poll.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    # --- the watching thread --------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            for fd, events in self._poll.poll():
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == self._wake_reader:
                    self._end()
                    return
                elif fd in self._connections:
                    self._happened(self._connections[fd], events)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return  # none left, or no descriptor: the listener stays readable
            connection = _Connection(accepted)
            self._connections[accepted.fileno()] = connection
            self._poll.register(accepted, select.EPOLLIN | select.EPOLLRDHUP)
            self._read(connection)

    def _happened(self, connection: _Connection, events: int) -> None:
        if events & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
            self._gone(connection)
        elif events & select.EPOLLIN:
            self._read(connection)

    def _read(self, connection: _Connection) -> None:
        """Take what is there; a whole request goes to a thread."""
        try:
            chunk = connection.socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._gone(connection)
            return
        connection.received += chunk
        request = parse_request(connection.received)
        if request is None:
            return
        # From here on only the end of the connection is of interest.
        self._poll.modify(connection.socket, select.EPOLLRDHUP)
        connection.is_running = True
        self._work.put(lambda: self._answer(connection, request))

    def _gone(self, connection: _Connection) -> None:
        """The client has ended: so does what it waits for."""
        self._poll.unregister(connection.socket)
        del self._connections[connection.socket.fileno()]
        with connection.lock:
            connection.is_gone = True
            if connection.is_running:
                return
            connection.is_running = True
        if connection.later is None:
            self._finish(connection)
        else:
            self._work.put(lambda: self._finish(connection))

    def _end(self) -> None:
        for connection in list(self._connections.values()):
            self._gone(connection)
        for _ in range(THREADS):
            self._work.put(None)

    # --- the threads that run the app -----------------------------------------------------------

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                log.exception("request on the socket failed")

    def _answer(self, connection: _Connection, request: Request) -> None:
        environ = environ_of(request, self._path)
        environ[SAME_USER] = _is_same_user(connection.socket)

        def later(generator: Later) -> None:
            connection.later = generator

        environ[LATER] = later
        try:
            if request.problem:
                _send(connection.socket, Answer({}, b"", request.problem))
            else:
                self._call(connection, environ)
        except OSError:
            log.debug("the client took no answer")
        except Exception:
            log.exception("request on the socket failed")
        if connection.later is None:
            self._hang_up(connection)
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
                _send_parts(connection.socket, head, parts)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()

    def _go_on(self, connection: _Connection) -> None:
        """Run the generator up to the next thing that it has to wait for."""
        while True:
            try:
                step = next(connection.later or iter(()))
            except StopIteration:
                connection.later = None
                self._hang_up(connection)
                return
            if isinstance(step, Answer):
                with contextlib.suppress(OSError):
                    _send(connection.socket, step)
            elif not step.is_set():
                break
        with connection.lock:
            connection.is_running = connection.is_gone
            waits = not connection.is_gone
        if waits:
            step.then(lambda: self._resume(connection))
        else:
            self._finish(connection)

    def _resume(self, connection: _Connection) -> None:
        """What was waited for has happened; called by whoever let it happen."""
        with connection.lock:
            if connection.is_running:
                return
            connection.is_running = True
        self._work.put(lambda: self._go_on(connection))

    def _hang_up(self, connection: _Connection) -> None:
        """Answered: end the connection. The watching thread notices and forgets it."""
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)
        with connection.lock:
            connection.is_running = connection.is_gone
            if not connection.is_gone:
                return
        self._finish(connection)

    def _finish(self, connection: _Connection) -> None:
        if connection.later is not None:
            connection.later.close()
        connection.socket.close()


def _is_same_user(connection: socket.socket) -> bool:
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(data)[1] == os.getuid())


def _send(connection: socket.socket, answer: Answer) -> None:
    lines = [answer.status, *(f"{name}: {value}" for name, value in answer.headers.items())]
    lines.append(f"Content-Length: {len(answer.body)}")
    _send_parts(connection, lines, [answer.body])


def _send_parts(connection: socket.socket, head: list[str], parts: Iterable[bytes]) -> None:
    """Send as it comes, without a length of our own: the connection's end is the answer's."""
    connection.settimeout(SEND_TIMEOUT_S)
    text = "\r\n".join(["HTTP/1.1 " + head[0], *head[1:], "Connection: close", "", ""])
    data = text.encode("latin-1", "replace")
    for part in parts:
        connection.sendall(data + part)
        data = b""
    if data:
        connection.sendall(data)


def _listen(path: Path) -> socket.socket:
    """A listening socket that only its owner may connect to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # By way of the directory's descriptor: an address has 108 bytes, a path may have more.
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            listener.bind(f"/proc/self/fd/{directory}/{path.name}")
            path.chmod(0o600)  # before anybody can connect: it does not listen yet
            listener.listen(BACKLOG)
        finally:
            os.close(directory)
    except OSError as error:
        listener.close()
        raise ConfigError(f"{path}: cannot listen: {error.strerror}") from error
    return listener
