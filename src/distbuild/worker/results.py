"""Worker side: sends results to one syncer; those that are ready together share a request.

A result is sent at once while no request is in flight; those that become ready meanwhile coalesce
into the next request. Knows no job and no HTTP.
"""

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from distbuild.protocol.errors import DistBuildError, InfrastructureError
from distbuild.protocol.messages import BATCH_BYTES, ResultBatch, ResultRequest
from distbuild.worker.client import SyncerLink
from distbuild.worker.slots import Pace

#: Requests in flight at most: a large object must not hold up the small ones.
SENDERS = 3
#: From this many ready bytes on, a further request is sent beside one that is in flight.
LARGE_BYTES = 1024 * 1024
TRIES = 5
#: After ``close`` a failed request is repeated for so long (seconds), also if the syncer does not
#: answer: it gives the jobs to other workers anyway.
CLOSING_S = 10.0
#: Estimated size of a path and a digest on the wire.
_INPUT_BYTES = 120

_log = logging.getLogger(__name__)


class ResultSender:
    """Sends results to ``syncer``; calls ``gone`` with each batch that was sent or given up.

    ``pause_s``: after the first failure; twice as long after each further one.
    """

    def __init__(
        self,
        syncer: SyncerLink,
        gone: Callable[[Sequence[ResultRequest]], None],
        pace: Pace,
        pause_s: float = 0.2,
    ) -> None:
        self._pause_s = pause_s
        self._syncer = syncer
        self._gone = gone
        self._changed = threading.Condition()
        self._ready: deque[tuple[ResultRequest, int]] = deque()
        self._ready_bytes = 0
        self._under_way = 0
        self._closed = False
        self._ends_at = math.inf
        self._pace = pace
        self._paused = threading.Event()  # never set: only its timeout is used
        self._senders = [
            threading.Thread(target=self._send, name=f"results {syncer.url}", daemon=True)
            for _ in range(SENDERS)
        ]

    def start(self) -> None:
        for sender in self._senders:
            sender.start()

    def put(self, result: ResultRequest) -> None:
        """Queue a result for sending; does not block."""
        size = _size(result)
        with self._changed:
            self._ready.append((result, size))
            self._ready_bytes += size
            if self._may_send():
                self._changed.notify()

    def close(self) -> None:
        """Send the queued results, or give up after all tries, and end the threads."""
        with self._changed:
            self._ends_at = time.monotonic() + CLOSING_S
            self._closed = True
            self._changed.notify_all()
        for sender in self._senders:
            sender.join()

    def _send(self) -> None:
        while batch := self._next_batch():
            try:
                self._deliver(batch)
            finally:
                with self._changed:
                    self._under_way -= 1
                    self._changed.notify()
                self._gone(batch)

    def _next_batch(self) -> list[ResultRequest]:
        """The results for one request; blocks until there are some; empty once closed."""
        with self._changed:
            while True:
                self._changed.wait_for(
                    lambda: self._may_send() or (self._closed and not self._ready)
                )
                self._let_more_come()
                # Another sender may have emptied the queue meanwhile.
                if self._ready or self._closed:
                    break
            batch: list[ResultRequest] = []
            total = 0
            while self._ready and (not batch or total + self._ready[0][1] <= BATCH_BYTES):
                result, size = self._ready.popleft()
                self._ready_bytes -= size
                total += size
                batch.append(result)
            self._under_way += bool(batch)
            if not batch or self._may_send():
                self._changed.notify()
            return batch

    def _let_more_come(self) -> None:
        """After many recent requests, wait for more results to share the next one."""
        if not self._ready:
            return
        self._under_way += 1
        deadline = time.monotonic() + self._pace.delay()
        while not self._closed and (left := deadline - time.monotonic()) > 0.0:
            self._changed.wait(left)
        self._under_way -= 1

    def _may_send(self) -> bool:
        return bool(self._ready) and (self._under_way == 0 or self._ready_bytes >= LARGE_BYTES)

    def _deliver(self, batch: Sequence[ResultRequest]) -> None:
        """Send with retries; after the last, report the failure so that the jobs go elsewhere."""
        pause, why = self._pause_s, ""
        for _ in range(TRIES):
            try:
                self._syncer.results(ResultBatch(list(batch)))
                return
            except InfrastructureError as error:
                _log.info("%d results not delivered: %s", len(batch), error)
                why = str(error)
                if time.monotonic() > self._ends_at:
                    return
                self._paused.wait(pause)
                pause *= 2
            except DistBuildError as error:
                self._refused(batch, error)
                return
        _log.warning("gave up delivering %d results to %s", len(batch), self._syncer.url)
        self._give_back(batch, why)

    def _give_back(self, batch: Sequence[ResultRequest], why: str) -> None:
        """Send errors only, which may pass where a large request fails. Else the leases expire."""
        error = f"its result does not get through: {why}"
        given = [ResultRequest(result.lease_id, result.worker, error=error) for result in batch]
        with contextlib.suppress(DistBuildError):
            self._syncer.results(ResultBatch(given))

    def _refused(self, batch: Sequence[ResultRequest], error: DistBuildError) -> None:
        """Send the results one by one, so that a bad one does not fail the others."""
        if len(batch) == 1:
            _log.warning("result refused: %s", error)
            return
        for result in batch:
            self._deliver([result])


def _size(result: ResultRequest) -> int:
    """Estimated size on the wire (bytes)."""
    said = len(result.stdout) + len(result.stderr) + len(result.error)
    packed = sum(len(output.blob.data) for output in result.outputs)
    return said + packed + _INPUT_BYTES * (1 + len(result.inputs) + len(result.outputs))
