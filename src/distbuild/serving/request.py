"""HTTP/1.1 requests as they come in on a connection, and as WSGI (PEP 3333) has them. No I/O."""

import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_HEAD_BYTES = 16 * 1024
#: A body beyond this is only taken of those who may send it.
FREE_BODY_BYTES = 64 * 1024

#: Whether the sender of these headers may send a large body.
Admits = Callable[[Mapping[str, str]], bool]


@dataclass(frozen=True, slots=True)
class Request:
    """A request with its body. ``headers`` by their names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    #: The client takes further answers on the same connection.
    keeps: bool = False
    #: A status to refuse it with; nothing of what follows it can be understood.
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Head:
    method: str
    target: str
    headers: Mapping[str, str]
    length: int
    keeps: bool


class RequestReader:
    """Takes bytes, gives requests. ``max_body``: what is larger is refused before it is sent."""

    def __init__(self, max_body: int, admits: Admits) -> None:
        self._max_body = max_body
        self._admits = admits
        self._received = bytearray()
        self._head: _Head | None = None

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        self._received += data

    def is_admitted(self) -> bool:
        """Whether what comes is a large body of somebody who may send it."""
        return self._head is not None and self._head.length > FREE_BODY_BYTES

    def next(self) -> Request | None:
        """A request once it is there as a whole; one with a ``problem`` for what cannot be one."""
        if self._head is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                too_long = len(self._received) > MAX_HEAD_BYTES
                return _refusal("431 Request Header Fields Too Large") if too_long else None
            head = self._read_head(self._received[:end].decode("latin-1"))
            if isinstance(head, str):
                return _refusal(head)
            del self._received[: end + 4]
            self._head = head
        head = self._head
        if len(self._received) < head.length:
            return None
        self._head = None
        if len(self._received) == head.length:
            body = bytes(self._received)
            self._received.clear()
        else:
            body = bytes(self._received[: head.length])
            del self._received[: head.length]
        return Request(head.method, head.target, head.headers, body, head.keeps)

    def _read_head(self, text: str) -> _Head | str:
        """The head, or the status to refuse it with."""
        first, *lines = text.split("\r\n")
        words = first.split(" ")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
            return "400 Bad Request"
        if "transfer-encoding" in headers:
            return "411 Length Required"
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 12:
            return "400 Bad Request"
        size = int(length)
        if size > self._max_body:
            return "413 Content Too Large"
        if size > FREE_BODY_BYTES and not self._admits(headers):
            return "401 Unauthorized"
        keeps = words[2] == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        return _Head(words[0], words[1], headers, size, keeps)


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
