"""Sends many contents to one worker: the next is read and packed while the last is on its way."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import Blob, Digest
from distbuild.syncer.blobs import BlobSource

#: Batches under way to one worker: one is packed, one sent, one written to the worker's disk.
AT_ONCE = 3


class Receiver(Protocol):
    """What takes contents; see WorkerClient."""

    def blobs(self, blobs: list[Blob]) -> None:
        """Send contents; raises InfrastructureError."""


@dataclass
class Progress:
    """What one worker got, and what is still to come of the delivery under way."""

    sent_blobs: int = 0
    #: As they travelled: packed.
    sent_bytes: int = 0
    left_blobs: int = 0
    #: As they are on disk, not packed.
    left_bytes: int = 0

    def count(self, blobs: Sequence[Blob]) -> None:
        """These have arrived."""
        self.sent_blobs += len(blobs)
        self.sent_bytes += sum(len(blob.data) for blob in blobs)


class Delivery:
    """To one worker; ``is_over`` says when to give up."""

    def __init__(self, receiver: Receiver, source: BlobSource, is_over: Callable[[], bool]) -> None:
        self._receiver = receiver
        self._source = source
        self._is_over = is_over
        self.progress = Progress()

    def send(self, digests: Sequence[Digest]) -> None:
        """Send what can be had of ``digests``; raises InfrastructureError when that fails."""
        progress, source = self.progress, self._source
        groups = [(g, sum(map(source.size_of, g))) for g in source.groups(digests)]
        progress.left_blobs = len(digests)
        progress.left_bytes = sum(size for _, size in groups)
        try:
            with source.sending():
                self._send_groups(groups)
        finally:
            progress.left_blobs = progress.left_bytes = 0

    def bring(self, digests: Iterable[Digest]) -> list[Blob]:
        """What can be had of ``digests``, counted as sent, for another message to carry."""
        blobs = self._source.batch(digests)
        self.progress.count(blobs)
        return blobs

    def _send_groups(self, groups: list[tuple[list[Digest], int]]) -> None:
        if len(groups) <= 1:
            for group in groups:
                self._done(group, self._send_group(group[0]))
            return
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="send") as pool:
            sent = pool.map(self._send_group, [group for group, _ in groups])
            for group, blobs in zip(groups, sent, strict=True):
                self._done(group, blobs)

    def _done(self, group: tuple[list[Digest], int], blobs: Progress) -> None:
        self.progress.sent_blobs += blobs.sent_blobs
        self.progress.sent_bytes += blobs.sent_bytes
        self.progress.left_blobs -= len(group[0])
        self.progress.left_bytes -= group[1]

    def _send_group(self, group: list[Digest]) -> Progress:
        if self._is_over():
            raise InfrastructureError("the syncer ends")
        sent = Progress()
        if blobs := self._source.batch(group):
            self._receiver.blobs(blobs)
            sent.count(blobs)
        return sent
