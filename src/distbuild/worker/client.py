"""Worker side: sends the five requests to a syncer, and brings a tree to a generation by them.

Maps HTTP to messages and error classes. Runs no job.
"""

import time
from typing import Protocol, TypeVar

from distbuild.http.client import DEAD_S, Connections
from distbuild.protocol.errors import InfrastructureError, ProtocolError, Unauthorized
from distbuild.protocol.messages import (
    CONTENT_TYPE,
    BlobBatch,
    BlobRequest,
    Changes,
    Digest,
    Job,
    LeaseReply,
    LeaseRequest,
    Message,
    PullRequest,
    RenewReply,
    RenewRequest,
    ResultBatch,
    ResultsReply,
    decode,
    encode,
)
from distbuild.worker.tree.store import Store
from distbuild.worker.tree.tree import Tree

#: Timeout beyond the time that the request itself asks the syncer to wait.
ANSWER_TIMEOUT_S = 60.0
#: The same for a farewell: without an answer the syncer notices by itself.
FAREWELL_TIMEOUT_S = 5.0
#: A syncer reads what it is sent at once. After a network was cut for a while, results are sent
#: again after this time (seconds) rather than at the timeout above. It also decides when keep-alive
#: probes have failed (tcp(7)), so it is what they would take.
STUCK_S = float(DEAD_S)
_MAX_REASON = 300
_OK, _BAD_REQUEST, _UNAUTHORIZED, _CONFLICT = 200, 400, 401, 409

M = TypeVar("M", bound=Message)


class SyncerLink(Protocol):
    """The requests of an agent to a syncer. All raise InfrastructureError when there is no answer
    and ProtocolError when the syncer refuses."""

    @property
    def url(self) -> str:
        """The syncer's base URL, for messages."""
        ...

    def lease(self, request: LeaseRequest) -> LeaseReply:
        """Request jobs."""
        ...

    def renew(self, request: RenewRequest) -> RenewReply:
        """Renew the leases still in use; the reply lists those that have ended."""
        ...

    def results(self, batch: ResultBatch) -> ResultsReply:
        """Deliver results; the reply says which of them were still wanted."""
        ...

    def pull(self, request: PullRequest) -> Changes:
        """Request the changes of the mirror since a generation."""
        ...

    def blobs(self, request: BlobRequest) -> BlobBatch:
        """Request contents; the reply may hold fewer than were requested."""
        ...


class HttpSyncer:
    """The SyncerLink over HTTP to ``url`` (https://host:port)."""

    def __init__(self, url: str, connections: Connections) -> None:
        self.url = url
        self._connections = connections
        connections.stuck_s = STUCK_S

    def lease(self, request: LeaseRequest) -> LeaseReply:
        """POST /api/v1/lease."""
        timeout_s = ANSWER_TIMEOUT_S if request.toolchains else FAREWELL_TIMEOUT_S
        return self._post("lease", request, LeaseReply, request.wait_s + timeout_s)

    def renew(self, request: RenewRequest) -> RenewReply:
        """POST /api/v1/renew."""
        return self._post("renew", request, RenewReply, request.wait_s + ANSWER_TIMEOUT_S)

    def results(self, batch: ResultBatch) -> ResultsReply:
        """POST /api/v1/results."""
        return self._post("results", batch, ResultsReply)

    def pull(self, request: PullRequest) -> Changes:
        """POST /api/v1/mirror/pull."""
        return self._post("mirror/pull", request, Changes)

    def blobs(self, request: BlobRequest) -> BlobBatch:
        """POST /api/v1/mirror/blobs."""
        return self._post("mirror/blobs", request, BlobBatch)

    def _post(
        self, name: str, request: Message, kind: type[M], timeout_s: float = ANSWER_TIMEOUT_S
    ) -> M:
        return decode(self._send(name, request, timeout_s), kind)

    def _send(self, name: str, request: Message, timeout_s: float) -> bytes:
        try:
            status, body = self._connections.post(
                f"/api/v1/{name}", CONTENT_TYPE, encode(request), timeout_s
            )
        except InfrastructureError as error:
            raise InfrastructureError(f"syncer {self.url}: {error}") from error
        if status == _OK:
            return body
        said = body.decode(errors="replace").strip()[:_MAX_REASON]
        text = f"syncer {self.url} answers {status}: {said}"
        if status == _UNAUTHORIZED:
            raise Unauthorized(text)
        if status in (_BAD_REQUEST, _CONFLICT):
            raise ProtocolError(text)
        raise InfrastructureError(text)


#: Digests in one request; the syncer limits a reply by its size anyway.
MAX_DIGESTS = 1000
#: Rounds after which the worker gives up on a mirror that changes faster than it can be pulled.
MAX_ROUNDS = 8
#: First pause before another pull (seconds), doubled each time. A file event usually takes 0.3 ms;
#: a file that is being written may take longer.
GONE_PAUSE_S = 0.02


def follow(tree: Tree, changes: Changes, syncer: SyncerLink, store: Store) -> None:
    """Apply ``changes``, with the blobs or the full listing that they need.

    A file may change or be removed between its listing and its transfer: then the changes are
    pulled again, after a pause in which the syncer gets the file event. Raises InfrastructureError
    after MAX_ROUNDS.
    """
    trouble = f"cannot follow the mirror of {syncer.url}"
    pause = GONE_PAUSE_S
    for _ in range(MAX_ROUNDS):
        reply = tree.apply(changes)
        if reply.state == "applied":
            return
        if reply.state != "need_blobs":
            changes = syncer.pull(PullRequest(epoch="", have=0))
        elif not fetch(reply.missing, syncer, store):
            trouble = f"{syncer.url} does not send what it offered"
            time.sleep(pause)
            pause *= 2
            changes = syncer.pull(PullRequest(*tree.position()))
    raise InfrastructureError(trouble)


def fetch(missing: list[Digest], syncer: SyncerLink, store: Store) -> bool:
    """Fetch these blobs into the store; False when the syncer has none of those that are left."""
    while missing:
        batch = syncer.blobs(BlobRequest(missing[:MAX_DIGESTS]))
        store.put_all(batch.bundles)
        left = store.missing(missing)
        if len(left) == len(missing):
            return False
        missing = left
    return True


def reach(tree: Tree, epoch: str, job: Job, syncer: SyncerLink, store: Store) -> None:
    """Bring the tree at least to the job's generation of ``epoch``; raises InfrastructureError."""
    for _ in range(MAX_ROUNDS):
        have_epoch, have, summary = tree.position()
        if have_epoch == epoch and have >= job.generation:
            return
        follow(tree, syncer.pull(PullRequest(have_epoch, have, summary)), syncer, store)
    raise InfrastructureError(f"{syncer.url} has not got generation {job.generation} of {epoch}")
