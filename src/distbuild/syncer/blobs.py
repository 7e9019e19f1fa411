"""Turns digests of the manifest into blobs, ready to be sent. Reads the dev box's disk."""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator

from distbuild.mirror.manifest import Manifest
from distbuild.protocol.blobs import pack
from distbuild.protocol.messages import BATCH_BYTES, Blob, Digest, FileEntry

log = logging.getLogger(__name__)


class BlobSource:
    """The contents behind the manifest's digests."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self.sent = 0
        self.sent_bytes = 0

    def read(self, digest: Digest) -> bytes | None:
        """The content with this digest, or None when no mirrored file has it any more."""
        for path in self._manifest.paths_of(digest):
            entry = self._manifest.get(path)
            if not isinstance(entry, FileEntry) or entry.digest != digest:
                continue
            try:
                with open(path, "rb") as file:
                    data = file.read()
            except OSError as error:
                log.debug("%s: %s", path, error)
                continue
            if hashlib.sha256(data).digest() == digest:
                return data
        return None

    def batches(self, digests: Iterable[Digest]) -> Iterator[list[Blob]]:
        """The blobs that can be had, in batches of some megabytes; what cannot is left out.

        A file that changed since it was hashed is left out: its event is on the way, and with it
        another generation.
        """
        batch: list[Blob] = []
        size = 0
        for digest in digests:
            data = self.read(digest)
            if data is None:
                log.info(
                    "%s… is asked for, but its file has changed", os.fsdecode(digest.hex()[:12])
                )
                continue
            blob = pack(data, digest)
            batch.append(blob)
            size += len(blob.data)
            self.sent += 1
            self.sent_bytes += len(blob.data)
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch
