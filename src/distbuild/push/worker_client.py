"""An HTTP client for the five routes of a worker that the syncer's push threads use. Of many
contents, the next batch is compressed while the last is in flight.

Every failure, also an HTTP error status, is translated here into ``InfrastructureError``.
"""

import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import msgspec

from distbuild.config import parse_host
from distbuild.credentials import Credentials
from distbuild.http.client import Connections
from distbuild.protocol import messages
from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.messages import Bundle, Digest
from distbuild.protocol.names import identity_of, one_line
from distbuild.push.bundles import BlobSource, Group

CONNECT_TIMEOUT_S = 3.0
#: A worker whose process is frozen, or whose network was cut, accepts or keeps a connection without
#: answering. A worker under the heaviest load answers in far less.
STATUS_TIMEOUT_S = 10.0
#: One request with a batch of some megabytes, or the removal of a large tree.
REQUEST_TIMEOUT_S = 120.0
#: The longest answer lists the contents of a large tree that a new worker lacks: 34 bytes each.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
#: A status has some kilobytes, more with many compilers and clients. It is shown in the syncer's.
MAX_STATUS_BYTES = 1024 * 1024
_SAID_BYTES = 2000


class _StatusParts(msgspec.Struct):
    """The fields of a worker's status that the syncer reads, for validation."""

    clients: dict[str, dict[str, Any]] = {}
    name: str = ""


class WorkerClient:
    """One worker's routes for pushes; every failure raises InfrastructureError.

    ``host``: HOST:PORT of a configured worker, or the name of one that has joined, which has an
    ``identity`` and an ``address`` besides.
    """

    def __init__(
        self,
        credentials: Credentials,
        host: str,
        identity: str = "",
        address: tuple[str, int] | None = None,
    ) -> None:
        self.host = host
        self._credentials = credentials
        self._identity = identity
        self.move(address or parse_host(host))

    def move(self, address: tuple[str, int]) -> None:
        """From now on connect to this host and port."""
        self.address = address
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        self._connections = Connections(
            self._credentials,
            "worker",
            f"https://{host}:{address[1]}",
            connect_timeout_s=CONNECT_TIMEOUT_S,
            max_answer=MAX_ANSWER_BYTES,
            identity=self._identity,
        )

    def may_be(self, worker: object) -> bool:
        """Whether a worker that answers here may have this name."""
        if not messages.is_worker_name(worker):
            return False
        return self._identity in ("", identity_of(worker))

    def probe(self) -> None:
        """Check that the worker's port accepts connections, at a hundredth of the cost of a status
        request. Raises InfrastructureError if it does not."""
        try:
            socket.create_connection(self.address, CONNECT_TIMEOUT_S).close()
        except ConnectionRefusedError:
            raise InfrastructureError(f"{self.host}: connection refused") from None
        except OSError as error:
            raise InfrastructureError(f"{self.host}: {error.strerror or error}") from error

    def status(self) -> dict[str, Any]:
        """The worker's ``/status`` as decoded; fields of ``_StatusParts`` are valid or absent."""
        get = self._connections.get
        body = self._said(lambda: get("/status", STATUS_TIMEOUT_S, MAX_STATUS_BYTES))
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


#: Batches in flight to one worker: one is compressed, one sent, one written to the worker's disk.
AT_ONCE = 3


class Receiver(Protocol):
    """The interface of ``WorkerClient`` that ``ContentSender`` needs."""

    def blobs(self, bundles: list[Bundle]) -> None:
        """Send contents; raises InfrastructureError."""


@dataclass
class Progress:
    """Counters of the contents sent to one worker, and of those left in the present send."""

    sent_blobs: int = 0
    #: Compressed, as transferred.
    sent_bytes: int = 0
    left_blobs: int = 0
    #: Not compressed, as on disk.
    left_bytes: int = 0

    def count(self, bundles: Sequence[Bundle]) -> None:
        """Count bundles that have arrived."""
        self.sent_blobs += sum(len(bundle.digests) for bundle in bundles)
        self.sent_bytes += sum(len(bundle.data) for bundle in bundles)


class ContentSender:
    """Sends contents to one worker; ``is_over`` returns whether to give up."""

    def __init__(self, receiver: Receiver, source: BlobSource, is_over: Callable[[], bool]) -> None:
        self._receiver = receiver
        self._source = source
        self._is_over = is_over
        self.progress = Progress()

    def send(self, digests: Sequence[Digest]) -> None:
        """Send the available contents of ``digests``. Raises InfrastructureError."""
        progress = self.progress
        progress.left_blobs = len(digests)
        try:
            with self._source.sending():
                requests = list(self._source.requests(digests))
                progress.left_bytes = sum(group.size for groups in requests for group in groups)
                self._send_all(requests)
        finally:
            progress.left_blobs = progress.left_bytes = 0

    def bring(self, digests: Iterable[Digest]) -> list[Bundle]:
        """The available contents of ``digests`` for another message; they are counted as sent."""
        with self._source.sending():
            groups = [group for request in self._source.requests(digests) for group in request]
            bundles = self._source.bundles(groups)
        self.progress.count(bundles)
        return bundles

    def _send_all(self, requests: list[list[Group]]) -> None:
        if len(requests) <= 1:
            for groups in requests:
                self._done(groups, self._send(groups))
            return
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="send") as pool:
            for groups, sent in zip(requests, pool.map(self._send, requests), strict=True):
                self._done(groups, sent)

    def _done(self, groups: list[Group], sent: Progress) -> None:
        self.progress.sent_blobs += sent.sent_blobs
        self.progress.sent_bytes += sent.sent_bytes
        self.progress.left_blobs -= sum(len(group.digests) for group in groups)
        self.progress.left_bytes -= sum(group.size for group in groups)

    def _send(self, groups: list[Group]) -> Progress:
        if self._is_over():
            raise InfrastructureError("the syncer ends")
        sent = Progress()
        if bundles := self._source.bundles(groups):
            self._receiver.blobs(bundles)
            sent.count(bundles)
        return sent
