"""Pushes the manifest to one worker whenever it changes, and monitors the worker's status.

One thread per configured host. Offers contents by digest, sends the missing ones, and starts over
after any failure: contents that arrived stay on the worker. Knows no jobs.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from distbuild.mirror.live import Mirroring
from distbuild.protocol import messages
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.names import client_label
from distbuild.push.bundles import BlobSource
from distbuild.push.worker_client import CONNECT_TIMEOUT_S, ContentSender, Progress, WorkerClient


class FirstSync:
    """Fills one empty worker's store during the first scan; runs in the worker's push thread.

    ``is_over`` returns whether to give up.
    """

    def __init__(
        self,
        client: WorkerClient,
        client_id: str,
        source: BlobSource,
        delivery: ContentSender,
        is_over: Callable[[], bool],
    ) -> None:
        self._client = client
        self._client_id = client_id
        self._source = source
        self._delivery = delivery
        self._is_over = is_over
        #: Whether the worker has a tree of this client: then there is nothing to do.
        self.has_tree = True
        #: Whether the worker is being filled.
        self.is_at_work = False
        # Number of scanned files offered so far; and the contents of these that the worker lacks
        # and that are held back until their groups are whole.
        self._offered = 0
        self._waiting: list[messages.Digest] = []

    def fill(self) -> None:
        """Send the contents found so far that the worker lacks, if they are enough for a message.
        Raises InfrastructureError."""
        while not (self.has_tree or self._is_over()):
            if not self.is_at_work:
                self.is_at_work = True
                self._source.begin()
            found = self._source.ahead.after(self._offered)
            if found:
                entries = [messages.Change(os.fsencode(path), entry) for path, entry in found]
                self._waiting += self._client.lacking(
                    messages.Changes(self._client_id, "", 0, 0, b"", entries)
                )
                self._offered += len(found)
            ripe, self._waiting = self._source.ripe(self._waiting)
            if not (found or ripe):
                return
            self._delivery.send(ripe)

    def end(self) -> None:
        """Stop filling: the worker has the tree now, or must not get it."""
        if self.is_at_work:
            self.is_at_work = False
            self._waiting = []
            self._source.end()


log = logging.getLogger(__name__)

#: A worker that has not applied changes after so many tries takes none for a while. Some are
#: needed where files change while they are sent.
MAX_TRIES = 5
#: Changed contents up to this many bytes (not compressed) are sent with their entries. Larger ones
#: are offered first, since the worker may have them already.
WITH_CHANGES_BYTES = 256 * 1024


class _NotTaken(InfrastructureError):
    """A push failed although the worker answers."""


class PushTiming(msgspec.Struct, frozen=True, kw_only=True):
    """Intervals in seconds."""

    #: Between probes of an idle worker's port, for one that vanishes silently. A process that dies
    #: closes its connections, which makes the syncer probe its port at once.
    probe_s: float = 10.0
    #: Between status requests without a call of ``refresh``.
    status_s: float = 60.0
    #: The longest pause after failures.
    backoff_s: float = 5.0


class WorkerListener(Protocol):
    """Learns which worker stopped answering, and which answers at its host (again)."""

    def lost(self, worker: str) -> None: ...

    def found(self, worker: str, host: str) -> None: ...


class Pusher:
    """Keeps one worker up to date from a thread of its own."""

    def __init__(
        self,
        client: WorkerClient,
        client_id: str,
        mirroring: Mirroring,
        source: BlobSource,
        listener: WorkerListener,
        timing: PushTiming | None = None,
    ) -> None:
        self._timing = timing or PushTiming()
        self.host = client.host
        self._client, self._client_id = client, client_id
        self._mirroring = mirroring
        self._source = source
        self._listener = listener
        self._bell = threading.Event()
        self._stopping = threading.Event()
        # Notified of each generation reached and each status received.
        self._news = threading.Condition()
        self._delivery = ContentSender(client, source, self._stopping.is_set)
        self.up = False
        self.error = "not reached yet"
        self.status: dict[str, Any] = {}
        self.worker = ""  # the name under which the worker that answered last requests jobs
        #: ``pushes``: number of requests with changes.
        self.generation = self.sent_entries = self.pushes = 0
        self._asleep, self._epoch = False, ""
        # Times (monotonic) of the last answer, of the last status, and of the first request for a
        # status that is still outstanding. 0: none.
        self._heard = self._told = self._asked = 0.0
        self._wanted = self._is_doubted = False
        self._filler = FirstSync(
            client,
            client_id,
            source,
            self._delivery,
            lambda: self._asleep or self._stopping.is_set(),
        )
        source.ahead.listen(self._bell)
        self._thread = threading.Thread(target=self._run, name=f"push {self.host}", daemon=True)

    @property
    def progress(self) -> Progress:
        """The contents sent so far and still to be sent."""
        return self._delivery.progress

    @property
    def address(self) -> tuple[str, int]:
        """The host and port to which it connects."""
        return self._client.address

    def move(self, address: tuple[str, int]) -> None:
        """The worker listens here now."""
        self._client.move(address)
        self.refresh(0)

    def start(self) -> None:
        self._thread.start()

    def give_up(self) -> None:
        """End the thread, and do not wait for it."""
        self._stopping.set()
        self._bell.set()

    def stop(self) -> None:
        """End the thread; waits at most ``CONNECT_TIMEOUT_S`` for a request in flight."""
        self.give_up()
        self._thread.join(timeout=CONNECT_TIMEOUT_S)

    def notify(self) -> None:
        """Wake the thread: the manifest has changed, or the worker must be filled. Ends the pause
        after ``clean``."""
        self._asleep = False
        self._bell.set()

    def refresh(self, max_age_s: float) -> None:
        """Request the worker's status from the push thread if the last one is older; returns at
        once. With 0 also detects a restarted worker, which is then sent the contents it lacks.
        """
        if not self._is_fresh(max_age_s):
            self._asked = self._asked or time.monotonic()
            self._wanted = True
            self._bell.set()

    def wait_fresh(self, max_age_s: float, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for a status that is no older, or for a failure.

        Returns at once while contents are sent to the worker: its status is requested afterwards.
        """
        with self._news:
            self._news.wait_for(lambda: self._may_be_shown(max_age_s), max(0.0, timeout))

    def doubt(self) -> None:
        """Probe the worker's port now."""
        self._is_doubted = True
        self._bell.set()

    def silent_s(self) -> float:
        """For how long (seconds) a status is outstanding; 0: none is, or contents are in flight."""
        is_filled = self._filler.is_at_work or self.progress.left_blobs > 0
        return 0.0 if is_filled or not self._asked else time.monotonic() - self._asked

    def answered_s(self) -> float | None:
        """Seconds since the worker's last answer; None: it never answered."""
        return time.monotonic() - self._heard if self._heard else None

    def _may_be_shown(self, max_age_s: float) -> bool:
        return self._filler.is_at_work or self.progress.left_blobs > 0 or self._is_fresh(max_age_s)

    def _is_fresh(self, max_age_s: float) -> bool:
        """A worker that is down counts as fresh: its status is requested repeatedly anyway."""
        return not self.up or time.monotonic() - self._told < max_age_s

    def wait_for(self, generation: int, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for a generation; whether the worker has it."""
        with self._news:
            return self._news.wait_for(lambda: self.generation >= generation, timeout)

    def clean(self) -> None:
        """Remove this client's sandbox on the worker; pushes resume with the next change or
        ``install``. For a job before that, the worker fetches the contents it needs."""
        self._asleep = True
        self._client.clean(self._client_id)
        self._forget()

    def _forget(self) -> None:
        self._epoch, self.generation = "", 0

    def _run(self) -> None:
        backoff = 0.1
        while not self._stopping.is_set():
            self._bell.clear()
            try:
                self._look()
                self._try_to_push()
                backoff = 0.1
                if not (self._wanted or self._is_doubted):
                    self._bell.wait(self._timing.probe_s)
            except InfrastructureError as error:
                note = self._set_behind if isinstance(error, _NotTaken) else self._set_down
                note(str(error))
                self._bell.wait(backoff)
                backoff = min(backoff * 2, self._timing.backoff_s)
            except Exception as error:
                log.exception("%s: push failed", self.host)
                self._set_down(f"{type(error).__name__}: {error}")
                self._stopping.wait(self._timing.backoff_s)
        self._filler.end()

    def _try_to_push(self) -> None:
        """Push; raises _NotTaken if the push fails although the worker answers."""
        try:
            self._push()
        except InfrastructureError as error:
            self.status = self._client.status()
            raise _NotTaken(str(error)) from error
        self.error = ""

    def _look(self) -> None:
        """Check that the worker lives: by a status request if one is due, else by a probe."""
        now = time.monotonic()
        if self._wanted or not self.up or now - self._told >= self._timing.status_s:
            self._wanted = False
            self.status = self._client.status()
            self._set_up()
        elif self._is_doubted or now - self._heard >= self._timing.probe_s:
            self._is_doubted = False
            self._client.probe()
            self._heard = time.monotonic()

    def _set_up(self) -> None:
        """Evaluate a status just received; an older one does not reflect later pushes."""
        reported = (self.status.get("worker"), self.status.get("name"))
        worker = str(next(filter(self._client.may_be, reported), self.host))
        if self.up and worker != self.worker:
            self._listener.lost(self.worker)
        if not self.up or worker != self.worker:
            self.error, self.worker = "", worker
            log.info("%s is up", self.host)
            self._listener.found(worker, self.host)
        known = self.status.get("clients", {}).get(client_label(self._client_id))
        if known is None or known.get("epoch", self._epoch) != self._epoch:
            self._forget()
        self._filler.has_tree = bool(known and known.get("files", 1))
        with self._news:
            self.up, self._asked = True, 0.0
            self._told = self._heard = time.monotonic()
            self._news.notify_all()

    def _set_down(self, error: str) -> None:
        self._filler.end()
        if self.up:
            log.warning("%s is down: %s", self.host, error)
            self._listener.lost(self.worker)
        with self._news:
            self.up, self.error, self._epoch, self._asked = False, error, "", 0.0
            self._news.notify_all()

    def _set_behind(self, error: str) -> None:
        """Record a failed push to a living worker: its disk is full, say, or the network between
        drops large requests. It still compiles, and requests with its jobs what it lacks."""
        self._filler.end()
        if not self.error:
            log.warning("%s takes no changes: %s", self.host, error)
        with self._news:
            self.error, self._epoch = error, ""
            self._news.notify_all()

    def _push(self) -> None:
        """Bring the worker to the present generation; returns when nothing is left to send."""
        is_ready = self._mirroring.ready.is_set()
        if is_ready:
            self._source.scanned()
        if self._asleep:
            self._filler.end()
        elif self._filler.is_at_work or not is_ready:
            self._filler.fill()
        tries = 0
        while self._mirroring.ready.is_set() and not (self._asleep or self._stopping.is_set()):
            self._bell.clear()
            if self._epoch == self._mirroring.epoch:
                if self.generation >= self._mirroring.manifest.generation:
                    self._filler.end()
                    return
                changes = self._mirroring.changes(self._client_id, self._epoch, self.generation)
            else:
                offer = not self._filler.is_at_work
                changes = self._mirroring.changes(self._client_id, "", 0, offer=offer)
            is_applied = self._send(changes)
            self._heard = time.monotonic()
            tries = 0 if is_applied else tries + 1
            if tries >= MAX_TRIES:
                raise InfrastructureError(f"{self.host}: asked for everything {tries} times")

    def _send(self, changes: messages.Changes) -> bool:
        """Send changes; whether the worker applied them. Raises InfrastructureError."""
        # Counted before the request: the worker may already use the entries before it answers.
        self.pushes += changes.entries is not None
        self.sent_entries += len(changes.entries or ())
        reply = self._client.changes(self._with_blobs(changes))
        if reply.state == "need_full":
            changes = self._mirroring.changes(self._client_id, "", 0)
            self.sent_entries += len(changes.entries or ())
            reply = self._client.changes(changes)
        if reply.state == "need_blobs":
            self._delivery.send(reply.missing)
            reply = self._client.changes(changes)
        if reply.state == "need_full":
            self._forget()  # its tree was removed meanwhile
            return False
        if reply.state == "need_blobs":
            # A file changed after it was hashed and before it was sent: a new generation follows.
            self._mirroring.recheck(self._paths_of(reply.missing))
            return False
        # It may be ahead, by what it pulled for a job, though not of the mirror.
        possible = changes.target <= reply.generation <= self._mirroring.manifest.generation
        if reply.state != "applied" or not possible:
            said = f"{reply.state[:20]!r} {reply.generation}"
            raise InfrastructureError(f"{self.host}: unexpected answer {said} to changes")
        with self._news:
            self._epoch, self.generation = changes.epoch, reply.generation
            self._news.notify_all()
        return True

    def _with_blobs(self, changes: messages.Changes) -> messages.Changes:
        """The changes with their contents if those are small: one round trip instead of three."""
        entries = [change.entry for change in changes.entries or ()] if changes.base else []
        files = {e.digest: e.size for e in entries if isinstance(e, messages.FileEntry)}
        if not 0 < sum(files.values()) <= WITH_CHANGES_BYTES:
            return changes
        return msgspec.structs.replace(changes, bundles=self._delivery.bring(files))

    def _paths_of(self, digests: list[messages.Digest]) -> list[str]:
        return [p for d in digests for p in self._mirroring.manifest.paths_of(d)]


def refresh_all(pushers: Iterable[Pusher], max_age_s: float, within_s: float) -> None:
    """Get a status of every worker that is no older than ``max_age_s``; waits at most ``within_s``
    seconds in all for workers that do not answer."""
    deadline = time.monotonic() + within_s
    asked = list(pushers)
    for pusher in asked:
        pusher.refresh(max_age_s)
    for pusher in asked:
        pusher.wait_fresh(max_age_s, deadline - time.monotonic())
