"""Keeps one worker's tree at the manifest's generation, and knows how that worker is.

One thread per configured host. Offers by digest, sends what is missing, and starts anew after any
failure: a blob that arrived stays. Knows no jobs.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import requests

from distbuild.protocol import messages
from distbuild.protocol.errors import InfrastructureError
from distbuild.syncer.blobs import BlobSource
from distbuild.syncer.mirroring import Mirroring

log = logging.getLogger(__name__)

#: How often an idle worker is asked for its status (seconds); a closed port shows at once.
STATUS_S = 1.0
CONNECT_TIMEOUT_S = 3.0
#: One request with a batch of some megabytes, or the removal of a large tree.
REQUEST_TIMEOUT_S = 120.0
MAX_BACKOFF_S = 5.0


class WorkerClient:
    """The routes of one worker's HTTP interface; every failure is an InfrastructureError."""

    def __init__(self, session: requests.Session, host: str) -> None:
        self._session = session
        self.host = host
        self._base = f"https://{host}"

    def status(self) -> dict[str, Any]:
        """The worker's own ``/status``."""
        body = self._request("GET", "/status", None)
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise InfrastructureError(f"{self.host}: /status is no JSON: {error}") from error

    def changes(self, changes: messages.Changes) -> messages.ChangesReply:
        """Offer or send changes of the mirror."""
        body = self._request("POST", "/api/v1/mirror/changes", changes)
        return messages.decode(body, messages.ChangesReply)

    def blobs(self, blobs: list[messages.Blob]) -> None:
        """Send contents."""
        self._request("POST", "/api/v1/mirror/blobs", messages.BlobBatch(blobs))

    def clean(self, client: str) -> None:
        """Have the client's sandbox removed."""
        self._request("POST", "/api/v1/clean", messages.CleanRequest(client))

    def _request(self, method: str, path: str, message: messages.Message | None) -> bytes:
        try:
            response = self._session.request(
                method,
                self._base + path,
                data=None if message is None else messages.encode(message),
                headers={"Content-Type": messages.CONTENT_TYPE},
                timeout=(CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S),
            )
        except requests.RequestException as error:
            raise InfrastructureError(f"{self.host}: {reason_of(error)}") from error
        if not response.ok:
            text = response.text.strip().splitlines()[:1]
            raise InfrastructureError(f"{self.host}: {response.status_code} {' '.join(text)}")
        return response.content


def reason_of(error: requests.RequestException) -> str:
    """The last cause in a chain of requests' and urllib3's exceptions, in a few words."""
    text = str(error)
    for known in ("Connection refused", "certificate verify failed", "timed out", "not known"):
        if known in text:
            return known.lower()
    return text.rpartition(": ")[2].strip("')\"") or type(error).__name__


class Pusher:
    """One worker, kept up to date from a thread of its own."""

    def __init__(
        self,
        client: WorkerClient,
        client_id: str,
        mirroring: Mirroring,
        source: BlobSource,
        lost: Callable[[str], None],
    ) -> None:
        self.host = client.host
        self._client = client
        self._client_id = client_id
        self._mirroring = mirroring
        self._source = source
        self._lost = lost
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._reached = threading.Condition()
        self.up = False
        self.error = "not reached yet"
        self.status: dict[str, Any] = {}
        self.generation = 0
        self.sent_blobs = 0
        self.sent_bytes = 0
        self.sent_entries = 0
        self._asleep = False
        self._epoch = ""
        self._thread = threading.Thread(target=self._run, name=f"push {self.host}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a request under way is not waited for longer than its time-out."""
        self._stopping.set()
        self._bell.set()
        self._thread.join(timeout=CONNECT_TIMEOUT_S)

    def ring(self) -> None:
        """The manifest has changed, or the worker is to be filled."""
        self._asleep = False
        self._bell.set()

    def wait_for(self, generation: int, timeout: float) -> bool:
        """Whether the worker has the generation, waiting up to ``timeout`` seconds for it."""
        with self._reached:
            return self._reached.wait_for(lambda: self.generation >= generation, timeout)

    def clean(self) -> None:
        """Remove our sandbox on the worker; pushes go on with the next change or ``install``.

        A job that comes before has the worker fetch what it needs.
        """
        self._asleep = True
        self._client.clean(self._client_id)
        self._forget()

    def _forget(self) -> None:
        self._epoch, self.generation = "", 0

    def _run(self) -> None:
        backoff = 0.1
        checked = 0.0
        while not self._stopping.is_set():
            self._bell.clear()
            try:
                if time.monotonic() - checked >= STATUS_S or not self.up:
                    self.status = self._client.status()
                    checked = time.monotonic()
                    self._set_up()
                self._push()
                backoff = 0.1
                self._bell.wait(STATUS_S)
            except InfrastructureError as error:
                self._set_down(str(error))
                self._bell.wait(backoff)
                backoff = min(backoff * 2, MAX_BACKOFF_S)
            except Exception as error:
                log.exception("%s: push failed", self.host)
                self._set_down(f"{type(error).__name__}: {error}")
                self._stopping.wait(MAX_BACKOFF_S)

    def _set_up(self) -> None:
        """It answered just now; an older status says nothing of what was pushed since."""
        if not self.up:
            log.info("%s is up", self.host)
        self.up, self.error = True, ""
        known = self.status.get("clients", {}).get(self._client_id)
        if known is None or known.get("epoch", self._epoch) != self._epoch:
            self._forget()

    def _set_down(self, error: str) -> None:
        if self.up:
            log.warning("%s is down: %s", self.host, error)
            self._lost(str(self.status.get("name", self.host)))
        self.up, self.error, self._epoch = False, error, ""

    def _push(self) -> None:
        """Bring the worker to the present generation; returns when there is nothing to send."""
        while self._mirroring.ready.is_set() and not (self._asleep or self._stopping.is_set()):
            self._bell.clear()
            if self._epoch == self._mirroring.epoch:
                if self.generation >= self._mirroring.manifest.generation:
                    return
                changes = self._mirroring.changes(self._client_id, self._epoch, self.generation)
            else:
                changes = self._mirroring.changes(self._client_id, "", 0, offer=True)
            self._send(changes)

    def _send(self, changes: messages.Changes) -> None:
        reply = self._client.changes(changes)
        self.sent_entries += len(changes.entries or ())
        if reply.state == "need_full":
            changes = self._mirroring.changes(self._client_id, "", 0)
            self.sent_entries += len(changes.entries or ())
            reply = self._client.changes(changes)
        if reply.state == "need_blobs":
            for batch in self._source.batches(reply.missing):
                self._client.blobs(batch)
                self.sent_blobs += len(batch)
                self.sent_bytes += sum(len(blob.data) for blob in batch)
            reply = self._client.changes(changes)
        if reply.state == "need_blobs":
            # A file changed between its hashing and its sending: another generation follows.
            self._mirroring.recheck(self._paths_of(reply.missing))
            return
        if reply.state != "applied":
            raise InfrastructureError(f"{self.host}: unexpected answer {reply.state!r} to changes")
        with self._reached:
            self._epoch, self.generation = changes.epoch, reply.generation
            self._reached.notify_all()

    def _paths_of(self, digests: list[messages.Digest]) -> list[str]:
        return [p for d in digests for p in self._mirroring.manifest.paths_of(d)]
