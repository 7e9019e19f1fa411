"""A worker as the syncer sees it: five requests. The edge at which HTTP's errors become ours."""

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
#: A worker whose process is frozen, or whose network was cut, accepts or keeps a connection and
#: says nothing. One under the heaviest load answers in far less.
STATUS_TIMEOUT_S = 10.0
#: One request with a batch of some megabytes, or the removal of a large tree.
REQUEST_TIMEOUT_S = 120.0
#: The longest answer says which contents of a large tree a new worker lacks: 34 bytes each.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_SAID_BYTES = 2000


class _StatusParts(msgspec.Struct):
    """What the syncer itself reads of a worker's status."""

    clients: dict[str, dict[str, Any]] = {}
    name: str = ""


class WorkerClient:
    """The routes of one worker's HTTP interface; every failure is an InfrastructureError."""

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
        """Whether something listens at the worker's port: a hundredth of what asking it costs."""
        try:
            socket.create_connection(self._address, CONNECT_TIMEOUT_S).close()
        except ConnectionRefusedError:
            raise InfrastructureError(f"{self.host}: connection refused") from None
        except OSError as error:
            raise InfrastructureError(f"{self.host}: {error.strerror or error}") from error

    def status(self) -> dict[str, Any]:
        """The worker's own ``/status``, with ``_StatusParts`` or without."""
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
        """Which contents of these entries would have to be sent; the tree stays as it is."""
        return self._replied(self._post("/api/v1/mirror/lacking", changes)).missing

    def blobs(self, bundles: list[messages.Bundle]) -> None:
        """Send contents."""
        self._post("/api/v1/mirror/blobs", messages.BlobBatch(bundles))

    def clean(self, client: str) -> None:
        """Have the client's sandbox removed."""
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
        """The body of an answer that is none of an error."""
        try:
            status, body = ask()
        except InfrastructureError as error:
            raise InfrastructureError(f"{self.host}: {reason_of(str(error))}") from error
        if status != HTTPStatus.OK:
            said = body[:_SAID_BYTES].decode(errors="replace").strip().partition("\n")[0]
            raise InfrastructureError(f"{self.host}: {status} {one_line(said)}")
        return body


def reason_of(text: str) -> str:
    """What the system says of a connection, in a few words."""
    for known in ("Connection refused", "certificate verify failed", "timed out", "not known"):
        if known in text:
            return known.lower()
    return one_line(text)
