"""HTTP/1.1 requests as they come in on a socket, and as WSGI (PEP 3333) wants them. Does no I/O."""

import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """A request with its body. ``headers`` by their names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    #: A status to refuse it with.
    problem: str = ""


def parse_request(received: bytearray) -> Request | None:
    """A request once it is there as a whole; one with a ``problem`` for what cannot be one."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        too_long = len(received) > MAX_HEAD_BYTES
        return _refusal("431 Request Header Fields Too Large") if too_long else None
    first, *lines = received[:end].decode("latin-1").split("\r\n")
    words = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length", "0")
    problem = _problem(words, headers, length)
    if problem:
        return _refusal(problem)
    if len(received) < end + 4 + int(length):
        return None
    body = bytes(received[end + 4 : end + 4 + int(length)])
    received.clear()
    return Request(words[0], words[1], headers, body)


def _problem(words: list[str], headers: Mapping[str, str], length: str) -> str:
    """The status to refuse a head with, or ""."""
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return "400 Bad Request"
    if "transfer-encoding" in headers:
        return "411 Length Required"
    if not (length.isascii() and length.isdigit()) or len(length) > 12:
        return "400 Bad Request"
    return "413 Content Too Large" if int(length) > MAX_BODY_BYTES else ""


def _refusal(status: str) -> Request:
    return Request("", "", {}, b"", status)


def environ_of(request: Request, path: Path) -> dict[str, Any]:
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
        "REMOTE_ADDR": str(path),
        "CONTENT_LENGTH": str(len(request.body)),
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ
