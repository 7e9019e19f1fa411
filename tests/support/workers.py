"""A worker as the syncer's client sees it, kept in memory; records what it was asked."""

import threading
from typing import Any

from distbuild.mirror.manifest import Summary
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import Bundle, Change, Changes, ChangesReply, Digest, FileEntry
from distbuild.protocol.names import client_label


class FakeWorkerClient:
    """Same methods as ``WorkerClient``. ``asked`` has one word for each request, in order."""

    def __init__(self, host: str = "w1:8443") -> None:
        self.host = host
        self.address = ("w1", 8443)
        #: By which it asks for jobs.
        self.name = "w1"
        self.asked: list[str] = []
        self.down = False
        self.blobs_held: set[Digest] = set()
        self.tree: dict[bytes, Change] = {}
        self.epoch = ""
        self.generation = 0
        self.known = False
        self._lock = threading.Condition()

    def move(self, address: tuple[str, int]) -> None:
        self.address = address

    def may_be(self, worker: object) -> bool:
        return isinstance(worker, str)

    def restart_empty(self) -> None:
        """The worker lost its sandbox."""
        with self._lock:
            self.tree, self.epoch, self.generation, self.known = {}, "", 0, False
            self.blobs_held = set()

    def set_down(self, down: bool) -> None:
        """Whether the worker answers."""
        with self._lock:
            self.down = down

    def wait_until(self, holds: Any, timeout: float = 10.0) -> None:
        """Return once ``holds()``, which is looked at after each request."""
        with self._lock:
            assert self._lock.wait_for(holds, timeout), self.asked

    def _note(self, word: str) -> None:
        self.asked.append(word)
        self._lock.notify_all()
        if self.down:
            raise InfrastructureError(f"{self.host}: connection refused")

    def probe(self) -> None:
        with self._lock:
            self._note("probe")

    def status(self) -> dict[str, Any]:
        with self._lock:
            self._note("status")
            clients = {client_label("me"): {"epoch": self.epoch, "generation": self.generation}}
            clients = clients if self.known else {}
            return {"name": "w1", "worker": self.name, "num_cores": 2, "clients": clients}

    def changes(self, changes: Changes) -> ChangesReply:
        with self._lock:
            brought = {digest for bundle in changes.bundles for digest in bundle.digests}
            carried = f" with {len(brought)}" if brought else ""
            self._note("offer" if changes.entries is None else f"since {changes.base}{carried}")
            self.blobs_held |= brought
            if changes.entries is None:
                if changes.summary != self._summary():
                    return ChangesReply("need_full")
                return self._reached(changes)
            if changes.base and (changes.epoch, changes.base) != (self.epoch, self.generation):
                return ChangesReply("need_full")
            missing = self._missing(changes.entries)
            if missing:
                return ChangesReply("need_blobs", missing=missing)
            tree = dict(self.tree) if changes.base else {}
            for change in changes.entries:
                if change.entry is None:
                    tree.pop(change.path, None)
                else:
                    tree[change.path] = change
            self.tree = tree
            assert self._summary() == changes.summary
            return self._reached(changes)

    def lacking(self, changes: Changes) -> list[Digest]:
        with self._lock:
            assert changes.entries is not None
            self._note(f"lacking {len(changes.entries)}")
            return self._missing(changes.entries)

    def _reached(self, changes: Changes) -> ChangesReply:
        self.epoch, self.generation, self.known = changes.epoch, changes.target, True
        self._lock.notify_all()
        return ChangesReply("applied", self.generation)

    def _missing(self, entries: list[Change]) -> list[Digest]:
        needed = [c.entry.digest for c in entries if isinstance(c.entry, FileEntry)]
        return [d for d in dict.fromkeys(needed) if d not in self.blobs_held]

    def _summary(self) -> bytes:
        summary = Summary()
        for path, change in self.tree.items():
            assert change.entry is not None
            summary.add(path, change.entry)
        return summary.digest()

    def blobs(self, bundles: list[Bundle]) -> None:
        with self._lock:
            self._note(f"blobs {sum(len(bundle.digests) for bundle in bundles)}")
            self.blobs_held.update(digest for bundle in bundles for digest in bundle.digests)

    def clean(self, client: str) -> None:
        with self._lock:
            self._note(f"clean {client}")
        self.restart_empty()
