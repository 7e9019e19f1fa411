"""Messages about the mirror: the manifest's entries, their changes, and file contents.

``messages`` exports them too; import them from there.
"""

from typing import Annotated

import msgspec

from distbuild.protocol.coding import Digest, Message

#: Digests in one request, at most; the response is limited by its size anyway.
MAX_DIGESTS = 10_000
MAX_EPOCH = 100


class FileEntry(Message, frozen=True, tag="f"):
    """A regular file. ``mtime_ns`` is mirrored: ``__TIMESTAMP__`` and ``#pragma once`` read it."""

    digest: Digest
    size: int
    mode: int
    mtime_ns: int


class SymlinkEntry(Message, frozen=True, tag="l"):
    """A symbolic link; its target is spelled as on the dev box, relative or absolute."""

    target: bytes
    #: Windows has a separate kind of link for directories; False on other systems.
    to_directory: bool = False


class DirectoryEntry(Message, frozen=True, tag="d"):
    """A directory; its existence matters even when it is empty."""


class WithheldEntry(Message, frozen=True, tag="w"):
    """A name that exists on the dev box; its content is sent once a compile asks for it."""


Entry = FileEntry | SymlinkEntry | DirectoryEntry | WithheldEntry


class Change(Message, frozen=True):
    """One path's new state; ``entry`` None: the path no longer exists."""

    path: bytes
    entry: Entry | None = None


class Changes(Message, frozen=True):
    """The changes that turn the tree of generation ``base`` into that of ``target``.

    ``base`` 0 means a complete listing: paths that it does not name must be removed. ``summary`` is
    the order-free digest of the whole manifest at ``target``; a tree that already has it only
    adopts the new epoch and generation, and ``entries`` may then be absent (an offer).
    """

    client: str
    epoch: str
    base: int
    target: int
    summary: Digest
    entries: list[Change] | None = None
    roots: list[bytes] = []
    #: Contents that a tree at ``base`` can hardly have, included to save two round trips.
    bundles: list["Bundle"] = []


class ChangesReply(Message, frozen=True):
    """``state``: ``applied``, ``need_blobs`` (send ``missing``, then the same changes again) or
    ``need_full`` (the base does not fit: send a complete listing)."""

    state: str
    generation: int = 0
    missing: list[Digest] = []


class Blob(Message, frozen=True):
    """One file's content, compressed with zstd; ``size`` and ``digest`` are of the plain bytes."""

    digest: Digest
    size: int
    data: bytes


class Bundle(Message, frozen=True):
    """Contents of several files, concatenated in one zstd frame: ``sizes`` and ``digests`` are of
    the plain bytes of each."""

    digests: list[Digest]
    sizes: list[int]
    data: bytes


class BlobBatch(Message, frozen=True):
    """Contents for a worker's store."""

    bundles: list[Bundle]


class BlobRequest(Message, frozen=True):
    """A worker's request to the syncer for the contents with these digests."""

    digests: Annotated[list[Digest], msgspec.Meta(max_length=MAX_DIGESTS)]


class PullRequest(Message, frozen=True):
    """A worker's request for the changes from generation ``have`` (of ``epoch``) until now."""

    epoch: Annotated[str, msgspec.Meta(max_length=MAX_EPOCH)]
    have: Annotated[int, msgspec.Meta(ge=0)]
    summary: Digest = b""


class CleanRequest(Message, frozen=True):
    """Remove this client's tree from the worker."""

    client: str
