"""An HTTP client for the five routes of a worker that the syncer's push threads use.

Every failure, also an HTTP error status, is translated here into ``InfrastructureError``.
"""

import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec

from distbuild.config import parse_host
from distbuild.credentials import Credentials
from distbuild.http.client import Connections
from distbuild.protocol import messages
from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.names import one_line

CONNECT_TIMEOUT_S = 3.0
#: A worker whose process is frozen, or whose network was cut, accepts or keeps a connection without
#: answering. A worker under the heaviest load answers in far less.
STATUS_TIMEOUT_S = 10.0
#: One request with a batch of some megabytes, or the removal of a large tree.
REQUEST_TIMEOUT_S = 120.0
#: The longest answer lists the contents of a large tree that a new worker lacks: 34 bytes each.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_SAID_BYTES = 2000


class _StatusParts(msgspec.Struct):
    """The fields of a worker's status that the syncer reads, for validation."""

    clients: dict[str, dict[str, Any]] = {}
    name: str = ""


class WorkerClient:
    """One worker's routes for pushes; every failure raises InfrastructureError."""

    def __init__(self, credentials: Credentials, host: str) -> None:
        self.host = host
        self._address = parse_host(host)
        self._connections = Connections(
            credentials,
            "worker",
            f"https://{host}",
            connect_timeout_s=CONNECT_TIMEOUT_S,
            max_answer=MAX_ANSWER_BYTES,
        )

    def probe(self) -> None:
        """Check that the worker's port accepts connections, at a hundredth of the cost of a status
        request. Raises InfrastructureError if it does not."""
        try:
            socket.create_connection(self._address, CONNECT_TIMEOUT_S).close()
        except ConnectionRefusedError:
            raise InfrastructureError(f"{self.host}: connection refused") from None
        except OSError as error:
            raise InfrastructureError(f"{self.host}: {error.strerror or error}") from error

    def status(self) -> dict[str, Any]:
        """The worker's ``/status`` as decoded; fields of ``_StatusParts`` are valid or absent."""
        body = self._said(lambda: self._connections.get("/status", STATUS_TIMEOUT_S))
        try:
            found = msgspec.json.decode(body, type=dict[str, Any])
            msgspec.convert(found, _StatusParts)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InfrastructureError(f"{self.host}: /status makes no sense: {error}") from error
        return found

    def changes(self, changes: messages.Changes) -> messages.ChangesReply:
        """Offer or send changes of the mirror."""
        return self._replied(self._post("/api/v1/mirror/changes", changes))

    def lacking(self, changes: messages.Changes) -> list[messages.Digest]:
        """The contents of these entries that the worker lacks; does not change its tree."""
        return self._replied(self._post("/api/v1/mirror/lacking", changes)).missing

    def blobs(self, bundles: list[messages.Bundle]) -> None:
        self._post("/api/v1/mirror/blobs", messages.BlobBatch(bundles))

    def clean(self, client: str) -> None:
        """Remove the client's sandbox on the worker."""
        self._post("/api/v1/clean", messages.CleanRequest(client))

    def _post(self, path: str, message: messages.Message) -> bytes:
        kind, body = messages.CONTENT_TYPE, messages.encode(message)
        return self._said(lambda: self._connections.post(path, kind, body, REQUEST_TIMEOUT_S))

    def _replied(self, body: bytes) -> messages.ChangesReply:
        try:
            return messages.decode(body, messages.ChangesReply)
        except ProtocolError as error:
            raise InfrastructureError(f"{self.host}: {one_line(str(error))}") from error

    def _said(self, ask: Callable[[], tuple[int, bytes]]) -> bytes:
        """The body of the response; raises InfrastructureError unless its status is 200."""
        try:
            status, body = ask()
        except InfrastructureError as error:
            raise InfrastructureError(f"{self.host}: {reason_of(str(error))}") from error
        if status != HTTPStatus.OK:
            said = body[:_SAID_BYTES].decode(errors="replace").strip().partition("\n")[0]
            raise InfrastructureError(f"{self.host}: {status} {one_line(said)}")
        return body


def reason_of(text: str) -> str:
    """The short reason of a connection error, from its message ``text``."""
    for known in ("Connection refused", "certificate verify failed", "timed out", "not known"):
        if known in text:
            return known.lower()
    return one_line(text)
