"""Encodes HTTP/1.1 responses, whole ones or those of a WSGI app. Knows no connection's state."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_FORBIDDEN = re.compile(r"[\r\n]")


class Response(msgspec.Struct, frozen=True):
    """A whole response."""

    headers: Mapping[str, str]
    body: bytes
    status: str = "200 OK"
    #: Descriptors to pass with it, on a Unix socket. They stay open until it is sent.
    files: Sequence[int] = ()
    #: Parts of the body follow; it ends with the connection.
    is_stream: bool = False

    def encode(self, *, keeps: bool) -> bytes:
        """The bytes to send; ``keeps``: keep-alive, another response may follow."""
        lines = [f"{name}: {value}" for name, value in self.headers.items()]
        if not self.is_stream:
            lines.append(f"Content-Length: {len(self.body)}")
        return _head([self.status, *lines], keeps=keeps) + self.body


#: Announces a later response; a client skips any number of them (RFC 9110, 15.2).
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"


def call(
    app: "WSGIApplication",
    environ: dict[str, Any],
    send: Callable[[bytes], object],
    *,
    keeps: bool,
) -> None:
    """Run a WSGI app and send its response; ``keeps``: keep-alive. A body without a length is sent
    in chunks on a connection that is kept, and else ends with the connection."""
    head: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
        head[:] = [status, *(f"{name}: {value}" for name, value in headers)]
        return None

    parts = app(environ, start_response)
    try:
        is_head = environ["REQUEST_METHOD"] == "HEAD"
        _send(send, head, parts, keeps=keeps, is_head=is_head)
    finally:
        close = getattr(parts, "close", None)
        if close is not None:
            close()


def _send(
    send: Callable[[bytes], object],
    lines: Sequence[str],
    parts: Iterable[bytes],
    *,
    keeps: bool,
    is_head: bool,
) -> None:
    chunked = False
    data: bytes | None = None
    # An app may call start_response as late as with the first part.
    for part in filter(None, parts):
        if data is None:
            chunked, data = _begin(lines, keeps=keeps, is_head=is_head)
        send(data + (b"%x\r\n%b\r\n" % (len(part), part) if chunked else part))
        data = b""
    if data is None:
        chunked, data = _begin(lines, keeps=keeps, is_head=is_head)
    data += b"0\r\n\r\n" if chunked else b""
    if data:
        send(data)


def _begin(lines: Sequence[str], *, keeps: bool, is_head: bool) -> tuple[bool, bytes]:
    """Whether the response is sent in chunks, and its head."""
    has_length = is_head or any(line[:15].lower() == "content-length:" for line in lines)
    if has_length or not keeps:
        return False, _head(lines, keeps=keeps)
    return True, _head([*lines, "Transfer-Encoding: chunked"], keeps=keeps)


def _head(lines: Sequence[str], *, keeps: bool) -> bytes:
    """The bytes of a head. Raises ValueError for a line with a line break, by which the author of
    one value could inject further header lines or a body."""
    together = "\0".join(lines)
    if _FORBIDDEN.search(together) or together.count("\0") != len(lines) - 1:
        raise ValueError("a header with a line's end in it")
    last = ("", "") if keeps else ("Connection: close", "", "")
    return "\r\n".join(["HTTP/1.1 " + lines[0], *lines[1:], *last]).encode("latin-1", "replace")
