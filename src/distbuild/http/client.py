"""An HTTPS client for one server with keep-alive connections, used by the syncer and the worker.

Implements the minimum of HTTP/1.1 for servers that send a Content-Length. A worker sends as many
requests as it has jobs, and each change of a header is one request to each worker: the overhead of
a general client would take longer than the request itself. Knows no message.
"""

import contextlib
import re
import select
import socket
import ssl
from collections import deque
from urllib.parse import urlsplit

from distbuild.credentials import Credentials, Server, make_client_context, server_name
from distbuild.http.transport import TlsPump
from distbuild.protocol.errors import InfrastructureError

_READ_BYTES = 256 * 1024
#: Bytes encrypted and sent at a time: the other end processes them meanwhile.
_SEND_BYTES = 512 * 1024
#: More than the plaintext of a TLS 1.3 record (RFC 8446, 5.1): each is read as a whole.
_RECORD_BYTES = 17 * 1024


class _Received:
    """A sink of a pump (see there)."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._room = memoryview(bytearray(_RECORD_BYTES))

    def room(self) -> memoryview:
        return self._room

    def filled(self, size: int) -> None:
        self.data += self._room[:size]


class Channel:
    """A blocking TLS connection. Every method but ``close`` raises OSError."""

    def __init__(self, bare: socket.socket, context: ssl.SSLContext, name: str) -> None:
        """Do the TLS handshake; the channel owns ``bare`` from then on."""
        self._socket = bare
        self._tls = TlsPump(context, name)
        while not self._shake_hands():
            if not self._take_in():
                raise ConnectionResetError("the connection ended during TLS's handshake")

    def fileno(self) -> int:
        return self._socket.fileno()

    def settimeout(self, timeout_s: float) -> None:
        """Set the timeout (seconds) of each read and write of the socket."""
        self._socket.settimeout(timeout_s)

    def send(self, data: bytes) -> None:
        """Send all of ``data``; blocking."""
        left = memoryview(data)
        while left:
            self._tls.write(left[:_SEND_BYTES])
            left = left[_SEND_BYTES:]
            self._flush()

    def receive(self) -> bytearray:
        """The next bytes; blocking; empty at the end."""
        received = _Received()
        while self.pending() or self._take_in():
            came = self._tls.unpack(received)
            self._flush()
            if came is not None:
                break
        return received.data

    def pending(self) -> bool:
        """Whether ``receive`` will return at once: the other end has sent more, or its end."""
        return self._tls.has_ended or self._tls.pending()

    def close(self) -> None:
        """Close the connection, with TLS's close_notify if the socket accepts it."""
        self._tls.end()
        with contextlib.suppress(OSError):
            self._socket.setblocking(False)
            self._flush()
        self._socket.close()

    def _shake_hands(self) -> bool:
        try:
            return self._tls.shake_hands()
        finally:
            self._flush()  # also TLS's alert after an error

    def _take_in(self) -> bool:
        data = self._socket.recv(_READ_BYTES)
        self._tls.incoming.write(data)
        return bool(data)

    def _flush(self) -> None:
        if self._tls.outgoing.pending:
            self._socket.sendall(self._tls.outgoing.read())


CONNECT_TIMEOUT_S = 5.0
MAX_HEAD_BYTES = 16 * 1024
#: More than the largest message of the protocol.
MAX_BODY_BYTES = 1024 * 1024 * 1024
#: Keep-alive probes close a silently dead connection (an address changed, a NAT dropped it) after
#: this time (seconds), rather than at the response timeout: a lease lasts 15 s.
DEAD_S = 10
_KEEPALIVE = (
    ("TCP_KEEPIDLE", DEAD_S // 2),
    ("TCP_KEEPINTVL", 1),
    ("TCP_KEEPCNT", DEAD_S // 2),
)
#: Idle connections that are kept open.
MAX_IDLE = 8
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r)")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,12})[ \t]*\r\n", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)


class Connections:
    """A pool of connections to the ``expect`` server at ``url`` (https://HOST:PORT).

    ``identity``: that of a worker that has joined; its certificate names it.
    """

    #: A connection is closed if its peer acknowledges nothing of a request for so long (seconds),
    #: also if it is only slow to read; 0: at the response timeout. TCP sends no keep-alive probes
    #: while data is in flight.
    stuck_s = 0.0

    def __init__(
        self,
        credentials: Credentials,
        expect: Server,
        url: str,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        max_answer: int = MAX_BODY_BYTES,
        identity: str = "",
    ) -> None:
        parts = urlsplit(url)
        self._connect_timeout_s = connect_timeout_s
        self._max_answer = max_answer
        self._address = (parts.hostname or "", parts.port or 443)
        self._context = make_client_context(credentials)
        self._name = server_name(expect, identity)
        self._fields = f"Host: {parts.netloc}\r\nAuthorization: Bearer {credentials.token}\r\n"
        self._idle: deque[Channel] = deque()

    def post(self, path: str, kind: str, body: bytes, timeout_s: float) -> tuple[int, bytes]:
        """POST a body of the content type ``kind``; the status and the body of the response.

        ``timeout_s``: for the response's next bytes. Raises InfrastructureError when there is no
        response.
        """
        head = f"POST {path} HTTP/1.1\r\n{self._fields}Content-Type: {kind}\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
        return self._ask(request, timeout_s, self._max_answer)

    def get(self, path: str, timeout_s: float, most: int) -> tuple[int, bytes]:
        """GET a body of at most ``most`` bytes; otherwise as ``post``."""
        request = f"GET {path} HTTP/1.1\r\n{self._fields}\r\n".encode("latin-1")
        return self._ask(request, timeout_s, most)

    def _ask(self, request: bytes, timeout_s: float, most: int) -> tuple[int, bytes]:
        kept = self._take()
        if kept is not None:
            # The server may close an idle connection at the moment at which it is used again. It
            # has not acted on the request then, or the request may be repeated: every one may.
            with contextlib.suppress(_Unanswered):
                return self._ask_over(kept, request, timeout_s, most)
        return self._ask_over(None, request, timeout_s, most)

    def _ask_over(
        self, connection: Channel | None, request: bytes, timeout_s: float, most: int
    ) -> tuple[int, bytes]:
        try:
            connection = connection or self._connect()
            connection.settimeout(timeout_s)
            status, data, keeps = _answered(connection, request, most)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, OSError):
                raise InfrastructureError(str(error) or type(error).__name__) from error
            raise
        if keeps and len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()
        return status, data

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Channel | None:
        """The most recently used idle connection that the server has not closed; None: none."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if not _has_something(connection):
                return connection
            connection.close()
        return None

    def _connect(self) -> Channel:
        bare = socket.create_connection(self._address, self._connect_timeout_s)
        try:
            _set_up(bare, self.stuck_s)
            return Channel(bare, self._context, self._name)
        except BaseException:
            bare.close()
            raise


def _set_up(bare: socket.socket, stuck_s: float) -> None:
    bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):  # systems differ
            bare.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if stuck_s and hasattr(socket, "TCP_USER_TIMEOUT"):
        bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * stuck_s))


def _has_something(connection: Channel) -> bool:
    """Whether an idle connection is readable, which means that the server has closed it."""
    if connection.pending():
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([connection], [], [], 0)[0])
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _answered(connection: Channel, request: bytes, most: int) -> tuple[int, bytes, bool]:
    """Send a request; status, body, and whether the connection can be used again."""
    try:
        connection.send(request)
    except (BrokenPipeError, ConnectionResetError) as error:
        # A server may refuse a body before it has read all of it: its response says more.
        with contextlib.suppress(OSError, InfrastructureError):
            status, data, _ = _read_answer(connection, most)
            return status, data, False
        raise _Unanswered(str(error)) from error
    return _read_answer(connection, most)


def _read_answer(connection: Channel, most: int) -> tuple[int, bytes, bool]:
    """Status, body of no more than ``most`` bytes, and whether the connection can be used again."""
    received = bytearray()
    while (end := received.find(b"\r\n\r\n")) < 0:
        if len(received) > MAX_HEAD_BYTES:
            raise InfrastructureError("no HTTP: the head has no end")
        _read_more(connection, received)
    head = bytes(received[: end + 2])
    status, length = _STATUS.match(head), _LENGTH.search(head)
    if status is None or length is None:
        raise InfrastructureError(f"no HTTP with a length: {head[:60]!r}")
    if int(length[1]) > most:
        raise InfrastructureError(f"an answer of {int(length[1]):,} bytes")
    del received[: end + 4]
    while len(received) < int(length[1]):
        _read_more(connection, received)
    if len(received) > int(length[1]):
        raise InfrastructureError("more than the answer came")
    return int(status[1]), bytes(received), _CLOSES.search(head) is None


class _Unanswered(InfrastructureError):
    """The connection was closed before the first byte of an answer."""


def _read_more(connection: Channel, into: bytearray) -> None:
    closed = InfrastructureError if into else _Unanswered
    try:
        chunk = connection.receive()
    except (ConnectionError, ssl.SSLEOFError) as error:
        raise closed(str(error) or type(error).__name__) from error
    if not chunk:
        raise closed("the connection was closed before the answer")
    into += chunk
