"""Worker side: holds the leases of one agent and renews them at the syncer. Runs no job."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from distbuild.protocol.errors import DistBuildError
from distbuild.protocol.messages import RenewRequest
from distbuild.worker.client import SyncerLink
from distbuild.worker.process.here import Cancellation

#: Pause after a renewal that failed: far below any lease's TTL.
RETRY_S = 0.5

_log = logging.getLogger(__name__)


class AgentTiming(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    #: How long a syncer may hold a lease request open while it has no jobs (long poll).
    lease_wait_s: float = 20.0
    #: How long the syncer may hold a renewal open while no lease has ended (long poll).
    renew_wait_s: float = 5.0
    #: How often a worker that asks for no jobs tells the syncer that it is there; a third of the
    #: time after which the syncer takes it for gone (``farm.queue.WORKER_S``).
    heartbeat_s: float = 5.0
    #: How often a worker with a full disk checks its free space again.
    full_pause_s: float = 1.0


class Leases:
    """Held lease ids, each with its Cancellation. ``ended`` is called after some were cancelled."""

    def __init__(
        self, worker: str, syncer: SyncerLink, ended: Callable[[], None], timing: AgentTiming
    ) -> None:
        self._timing = timing
        self._worker = worker
        self._syncer = syncer
        self._ended = ended
        self._changed = threading.Condition()
        self._held: dict[str, Cancellation] = {}
        self._asks_later = False
        self._closed = threading.Event()

    def add(self, lease_id: str) -> Cancellation:
        """Hold a lease; returns the means to cancel its job."""
        with self._changed:
            cancellation = self._held[lease_id] = Cancellation()
            self._changed.notify_all()
            return cancellation

    def are_new(self, lease_ids: Sequence[str]) -> bool:
        """Whether these are all different and none of them is held."""
        with self._changed:
            return len({*lease_ids} - self._held.keys()) == len(lease_ids)

    def remove(self, lease_ids: Iterable[str]) -> None:
        """Drop these leases; raises KeyError for one that is not held."""
        with self._changed:
            for lease_id in lease_ids:
                self._held.pop(lease_id).close()
            self._changed.notify_all()

    def end(self, lease_ids: list[str]) -> None:
        """Cancel the jobs of these leases; unknown ones have ended already."""
        with self._changed:
            for lease_id in lease_ids:
                if lease_id in self._held:
                    self._held[lease_id].set()
        self._ended()

    @contextlib.contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Send renewals even while no lease is held: all slots have jobs of other syncers."""
        self._asks_later = True
        try:
            yield
        finally:
            self._asks_later = False

    def close(self) -> None:
        """Make ``keep`` return."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()

    def keep(self) -> None:
        """Renew the held leases until closed; blocking, for a thread of its own.

        While ``heartbeat`` is active it also renews when there is none.
        """
        while not self._closed.is_set():
            with self._changed:
                self._changed.wait_for(
                    lambda: self._held or self._closed.is_set(), self._timing.heartbeat_s
                )
                ids = list(self._held)
            if self._closed.is_set() or not (ids or self._asks_later):
                continue
            wait_s = self._timing.renew_wait_s if ids else 0.0
            try:
                reply = self._syncer.renew(RenewRequest(self._worker, ids, wait_s))
            except DistBuildError as error:
                _log.debug("renewal failed: %s", error)
                self._closed.wait(RETRY_S)
            else:
                if reply.ended:
                    self.end(reply.ended)
