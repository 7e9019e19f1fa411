"""Sends many contents to one worker: the next batch is compressed while the last is in flight."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import Bundle, Digest
from distbuild.push.bundles import BlobSource, Group

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
