"""Parses HTTP/1.1 requests incrementally, bounds the memory of their bodies, and converts requests
to WSGI environments (PEP 3333). No I/O."""

import functools
import io
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import httptools
import msgspec

#: Memory for the bodies of a whole farm's results in flight. A single body may use all of it.
MAX_AWAITED_BYTES = 512 * 1024 * 1024


class BodyBudget:
    """A memory budget for large bodies in flight, shared by all connections. It has no lock, since
    each large body asks for it: concurrent callers may exceed it a little."""

    def __init__(self, most: int = MAX_AWAITED_BYTES) -> None:
        self._most = most
        self._taken: dict[object, int] = {}

    def take(self, who: object, size: int) -> bool:
        """Set the share of ``who`` to ``size`` bytes; False: the budget is exceeded, and nothing
        has changed."""
        others = sum(list(self._taken.values())) - self._taken.get(who, 0)
        if others + size > self._most:
            return False
        self._taken[who] = size
        return True

    def give_back(self, who: object) -> None:
        """Release the share of ``who``."""
        self._taken.pop(who, None)


MAX_HEAD_BYTES = 16 * 1024
#: A larger body is accepted only from clients that ``admits`` accepts.
FREE_BODY_BYTES = 64 * 1024
#: Memory that a body gets at first, whatever its declared length: most results fit, and need not be
#: copied. Larger ones grow as they arrive.
FIRST_BYTES = 5 * 1024 * 1024
#: More than one record of TLS (RFC 8446, 5.1).
SCRATCH_BYTES = 64 * 1024
#: Number of small pieces that are kept unjoined.
MAX_PIECES = 64

#: Header fields that may appear once only: two would be read differently by two readers.
_ONCE = frozenset(("authorization", "content-length", "host", "transfer-encoding"))

#: Whether the sender of these headers may send a large body.
Admits = Callable[[Mapping[str, str]], bool]


class Request(msgspec.Struct, frozen=True):
    """A request with its body. ``headers`` by their lower-case names."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | bytearray
    #: Keep-alive: the client accepts further responses on the same connection.
    keeps: bool = False
    #: The status line to refuse the request with; the bytes after it cannot be parsed.
    problem: str = ""


class _Head(msgspec.Struct, frozen=True):
    method: str
    target: str
    headers: Mapping[str, str]
    length: int
    keeps: bool


class _HeadScratch(threading.local):
    """A thread's read buffer for bytes that are part of no large body."""

    def __init__(self) -> None:
        self.room = memoryview(bytearray(SCRATCH_BYTES))


_scratch = _HeadScratch()


class RequestReader:
    """An incremental parser: bytes in, requests out. A body larger than ``max_body`` is refused
    before it is sent. ``body_budget`` is shared by all connections of a server.

    Bytes are written into the buffer ``room()`` and committed with ``filled``, by the same thread,
    or passed to ``feed``.
    """

    def __init__(self, max_body: int, admits: Admits, body_budget: BodyBudget) -> None:
        self._max_body = max_body
        self._admits = admits
        self._body_budget = body_budget
        # Received pieces that are not part of a request yet.
        self._received: list[bytes] = []
        self._size = 0
        self._head: _Head | None = None
        # The buffer of a large body in flight, its length, and the number of bytes received.
        self._body: bytearray | None = None
        self._length = 0
        self._filled = 0
        # The status line to refuse the body with.
        self._problem = ""
        # A large body was returned, and uses its budget until the next request is asked for.
        self._is_in_hand = False

    def room(self) -> memoryview:
        """The buffer for the next bytes; never empty."""
        if self._body is not None and self.missing() and self._has_room(self._body, 1):
            return memoryview(self._body)[self._filled :]
        return _scratch.room

    def filled(self, size: int) -> None:
        """Commit ``size`` bytes that were written into the buffer."""
        if self.missing():
            self._filled += size
        else:  # no body is in flight, or a whole one was not returned yet
            self.feed(bytes(_scratch.room[:size]))

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if self._body is not None:
            taken = data[: self.missing()]
            if self._has_room(self._body, len(taken)):
                self._body[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            data = data[len(taken) :]
        if data and not self._problem:
            self._received.append(data)
            self._size += len(data)
            if len(self._received) >= MAX_PIECES and self._size < FREE_BODY_BYTES:
                self._whole()  # pieces of one byte would use a multiple of their size

    def is_admitted(self) -> bool:
        """Whether a large body from an admitted client is being received."""
        return self._body is not None

    def missing(self) -> int:
        """The number of bytes of a large body still to be received; 0: none is in flight."""
        return 0 if self._body is None else self._length - self._filled

    def close(self) -> None:
        """Release the connection's share of the budget."""
        self._body_budget.give_back(self)

    def next(self) -> Request | None:
        """The next whole request, or None; one with a ``problem`` for bytes that are no request.

        To be called when the previous request has been answered.
        """
        if self._is_in_hand:
            self._is_in_hand = False
            self._body_budget.give_back(self)
        head = self._head
        body: bytes | bytearray | None = None
        if head is None:
            if not self._size:
                return None
            data = self._whole()
            end = data.find(b"\r\n\r\n")
            if end < 0:
                too_long = len(data) > MAX_HEAD_BYTES
                return _refusal("431 Request Header Fields Too Large") if too_long else None
            read = self._read_head(data[:end])
            if isinstance(read, str):
                return _refusal(read)
            self._head = head = read
            body = self._begin(data[end + 4 :], head.length)
        if self._problem:
            return _refusal(self._problem)
        if body is None:
            body = self._taken(head.length)
        if body is None:
            return None
        self._head = None
        return Request(head.method, head.target, head.headers, body, head.keeps)

    def _begin(self, rest: bytes, length: int) -> bytes | None:
        """Start on a body; ``rest``: the bytes received after the head, which mostly are the whole
        body. It is then returned."""
        self._received, self._size = [], 0
        if len(rest) == length:
            return rest
        if length > FREE_BODY_BYTES and length > len(rest):
            self._body, self._length, self._filled = bytearray(), length, 0
            self._has_room(self._body, min(length, FIRST_BYTES))
        self.feed(rest)
        return None

    def _has_room(self, body: bytearray, size: int) -> bool:
        """Make the body's buffer hold ``size`` more bytes; False: the budget for bodies in flight
        is exceeded, and the body is refused."""
        if self._filled + size <= len(body):
            return True
        wanted = min(max(self._filled + size, 2 * len(body)), self._length)
        if self._body_budget.take(self, wanted):
            # Not extended in place: the caller may still hold the last view of it.
            self._body = bytearray(wanted)
            memoryview(self._body)[: self._filled] = memoryview(body)[: self._filled]
            return True
        self._body_budget.give_back(self)
        self._body, self._problem = None, "503 Service Unavailable"
        return False

    def _taken(self, length: int) -> bytes | bytearray | None:
        """The body, once it is whole; removed from the received bytes."""
        if self._body is not None:
            if self._filled < length:
                return None
            body, self._body = self._body, None
            self._is_in_hand = True
            return body
        if self._size < length:
            return None
        data = self._whole() if self._size else b""
        rest = data[length:]
        self._received, self._size = [rest] if rest else [], len(rest)
        return data[:length]

    def _whole(self) -> bytes:
        """Join all pieces into one, and keep it."""
        if len(self._received) != 1:
            self._received = [b"".join(self._received)]
        return self._received[0]

    def _read_head(self, data: bytes) -> _Head | str:
        """The head, or the status to refuse it with."""
        # dist_build's clients send the length last: the lines before it repeat, and are cached.
        rest, _, length = data.rpartition(b"\r\nContent-Length: ")
        head = _parsed(rest) if rest and length.isdigit() and len(length) <= 12 else None
        if isinstance(head, _Head) and "content-length" not in head.headers:
            head = _Head(head.method, head.target, head.headers, int(length), head.keeps)
        else:
            head = _parsed(data)
        if isinstance(head, str):
            return head
        if head.length > self._max_body:
            return "413 Content Too Large"
        if head.length > FREE_BODY_BYTES and not self._admits(head.headers):
            return "401 Unauthorized"
        return head


class _HeadParser:
    """Collects what llhttp finds in one head, by httptools' callbacks."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: dict[str, str] = {}
        self.is_ambiguous = False

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        known = name.decode("latin-1").lower()
        self.is_ambiguous |= known in self.headers and known in _ONCE
        self.headers[known] = value.decode("latin-1").strip()


@functools.lru_cache(maxsize=100)
def _parsed(data: bytes) -> _Head | str:
    """A head, or the status to refuse it with."""
    found = _HeadParser()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(data + b"\r\n\r\n")
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return "400 Bad Request"
    headers, version = found.headers, parser.get_http_version()
    if found.is_ambiguous or version not in ("1.0", "1.1"):
        return "400 Bad Request"
    if version == "1.1" and "host" not in headers:  # RFC 9112, 3.2
        return "400 Bad Request"
    if "transfer-encoding" in headers:
        return "411 Length Required"
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or len(length) > 12:
        return "400 Bad Request"
    keeps = version == "1.1" and parser.should_keep_alive()
    method, target = parser.get_method().decode("latin-1"), found.target.decode("latin-1")
    return _Head(method, target, headers, int(length), keeps)


def _refusal(status: str) -> Request:
    return Request("", "", {}, b"", problem=status)


def environ_of(request: Request, scheme: str) -> dict[str, Any]:
    """The WSGI environment (PEP 3333) of a request."""
    target, _, query = request.target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": target,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "0",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "",
        "CONTENT_LENGTH": str(len(request.body)),
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ
