"""Reads contents by digest from the dev box's disk and compresses them into bundles to be sent.

Workers that are filled at the same time need the same contents: each is compressed once for all of
them, and contents just read by the scan are not read again. Knows no worker.
"""

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from distbuild.mirror.manifest import Manifest
from distbuild.protocol.codec import bundle
from distbuild.protocol.messages import BATCH_BYTES, Bundle, Digest, FileEntry
from distbuild.push.found_files import FoundFiles
from distbuild.system import disk

Read = Callable[[Digest], bytes | None]


class BundleLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, of contents that are not compressed where nothing else is said."""

    #: A group is closed once its contents have this size. A content as large is a group of its own,
    #: so no group of several contents exceeds MAX_BUNDLE_BYTES.
    group_bytes: int = 1024 * 1024
    #: A request is closed once its groups have this size.
    request_bytes: int = BATCH_BYTES
    #: Compressed contents kept for the other workers. If a slower one needs an evicted group, that
    #: is compressed again.
    packed_bytes: int = 40 * 1024 * 1024
    #: Contents just hashed that wait for a sender to compress them. Beyond it the thread that
    #: hashes compresses the oldest group itself.
    raw_bytes: int = 16 * 1024 * 1024
    #: The contents hashed last are kept up to this size, except any that is larger than the next
    #: limit: a worker requests an offered content a moment later, when a busy file may have changed
    #: again.
    recent_bytes: int = 8 * 1024 * 1024
    largest_recent_bytes: int = 1024 * 1024
    #: Senders are woken after each this many files found by the first scan.
    found_files: int = 400


class Group:
    """Contents for one frame, which the first caller makes while the others wait for it.

    ``size`` is the contents' total in bytes, not compressed. ``contents`` are those already read.
    """

    def __init__(
        self, digests: Iterable[Digest], size: int, contents: Mapping[Digest, bytes] | None = None
    ) -> None:
        self.digests = tuple(digests)
        self.size = size
        self._contents = contents or {}
        self._lock = threading.Lock()
        self._bundle: Bundle | None = None

    def __repr__(self) -> str:
        return f"Group({len(self.digests)} contents, {self.size} bytes)"

    def bundle(self, read: Read) -> Bundle:
        """The frame without the contents that ``read`` does not find. An incomplete one is made
        again for the next caller, since a file may be missing only for a moment."""
        with self._lock:
            if self._bundle is not None:
                return self._bundle
            made = bundle(self._found(read))
            if len(made.digests) == len(self.digests):
                self._bundle, self._contents = made, {}
            return made

    def _found(self, read: Read) -> dict[Digest, bytes]:
        found = {}
        for digest in self.digests:
            content = self._contents.get(digest)
            content = read(digest) if content is None else content
            if content is not None:
                found[digest] = content
        return found


class Filling:
    """Collects contents, in the order of their arrival, into groups of about ``most`` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.contents: dict[Digest, bytes] = {}
        self._digests: list[Digest] = []
        self._size = 0

    def add(self, digest: Digest, size: int, content: bytes | None = None) -> Iterator[Group]:
        """Add a content; yields the groups that this closes."""
        if size >= self._most:
            yield Group([digest], size, {} if content is None else {digest: content})
            return
        self._digests.append(digest)
        self._size += size
        if content is not None:
            self.contents[digest] = content
        if self._size >= self._most:
            yield from self.close()

    def close(self) -> Iterator[Group]:
        """Yield the contents collected so far as a group, unless there are none."""
        if self._digests:
            group = Group(self._digests, self._size, self.contents)
            self._digests, self._size, self.contents = [], 0, {}
            yield group


class Groups:
    """A cache of groups that other workers may need too, oldest first, raw and compressed.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._group_of: dict[Digest, Group] = {}
        # Read, but not compressed yet.
        self._raw: dict[Group, int] = {}
        self.raw_bytes = 0
        self._packed: dict[Group, int] = {}
        self.packed_bytes = 0

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._group_of

    def add(self, group: Group, *, is_read: bool) -> None:
        """Add a group; ``is_read``: it has its contents."""
        for digest in group.digests:
            self._group_of[digest] = group
        if is_read:
            self._raw[group] = group.size
            self.raw_bytes += group.size

    def oldest_raw(self) -> Group | None:
        """Remove and return the oldest group to be compressed, which the caller must do."""
        group = next(iter(self._raw), None)
        if group is not None:
            self._forget_raw(group)
        return group

    def was_packed(self, group: Group, size: int, keep_bytes: int) -> None:
        """Record a group's compressed size, and evict the oldest groups beyond ``keep_bytes``."""
        self._forget_raw(group)
        if group in self._packed or self._group_of.get(group.digests[0]) is not group:
            return
        self._packed[group] = size
        self.packed_bytes += size
        while self.packed_bytes > keep_bytes:
            oldest = next(iter(self._packed))
            self.packed_bytes -= self._packed.pop(oldest)
            for digest in oldest.digests:
                if self._group_of.get(digest) is oldest:
                    del self._group_of[digest]

    def within(self, wanted: Mapping[Digest, object]) -> tuple[list[Group], list[Digest]]:
        """The groups of which every content is wanted, and the wanted digests in none of them."""
        whole: dict[Group, bool] = {}
        rest = []
        for digest in wanted:
            group = self._group_of.get(digest)
            if group is not None and group not in whole:
                whole[group] = all(
                    d in wanted and self._group_of.get(d) is group for d in group.digests
                )
            if group is None or not whole[group]:
                rest.append(digest)
        return [group for group, is_whole in whole.items() if is_whole], rest

    def _forget_raw(self, group: Group) -> None:
        self.raw_bytes -= self._raw.pop(group, 0)


log = logging.getLogger(__name__)


class BlobSource:
    """The contents of the manifest's digests, read or compressed; thread-safe."""

    def __init__(self, manifest: Manifest, limits: BundleLimits | None = None) -> None:
        self._manifest = manifest
        self._limits = limits or BundleLimits()
        self._lock = threading.Lock()
        self.ahead = FoundFiles(self._limits.found_files)
        self._users = 0
        # Empty while there are no senders.
        self._groups = Groups()
        # The contents hashed last, which do not fill a group yet.
        self._hashed = Filling(self._limits.group_bytes)
        self._recent: dict[Digest, bytes] = {}
        self._recent_bytes = 0
        self.sent = 0
        self.sent_bytes = 0

    def read(self, digest: Digest) -> bytes | None:
        """The content with this digest; None if no mirrored file has it now or had it a moment
        ago."""
        for path, _ in self._files_of(digest):
            try:
                with disk.open_to_read(path) as file:
                    data = file.read()
            except OSError as error:
                log.debug("%s: %s", path, error)
                continue
            if hashlib.sha256(data).digest() == digest:
                return data
        return self._recent.get(digest)

    def _files_of(self, digest: Digest) -> Iterator[tuple[str, FileEntry]]:
        for path in self._manifest.paths_of(digest):
            entry = self._manifest.get(path)
            if isinstance(entry, FileEntry) and entry.digest == digest:
                yield path, entry
        found = self.ahead.get(digest)
        if found is not None:
            yield found

    def size_of(self, digest: Digest) -> int:
        """The size of a content, not compressed; 0 if no file has it any more."""
        recent = len(self._recent.get(digest, b""))
        return next((entry.size for _, entry in self._files_of(digest)), recent)

    def requests(self, digests: Iterable[Digest]) -> Iterator[list[Group]]:
        """The digests in groups for ``bundles``; each list has some megabytes, not compressed.

        Reuses every cached group of which all contents are wanted.
        """
        request: list[Group] = []
        size = 0
        for group in self._grouped(digests):
            request.append(group)
            size += group.size
            if size >= self._limits.request_bytes:
                yield request
                request, size = [], 0
        if request:
            yield request

    def _grouped(self, digests: Iterable[Digest]) -> list[Group]:
        with self._lock:
            groups, rest = self._groups.within(dict.fromkeys(digests))
        filling = Filling(self._limits.group_bytes)
        new: list[Group] = []
        for digest in rest:
            new += filling.add(digest, self.size_of(digest))
        new += filling.close()
        with self._lock:
            if self._users:
                for group in new:
                    self._groups.add(group, is_read=False)
        return groups + new

    def batches(self, digests: Iterable[Digest]) -> Iterator[list[Bundle]]:
        """The available contents in batches of some megabytes; omits those not available."""
        with self.sending():
            for request in self.requests(digests):
                if bundles := self.bundles(request):
                    yield bundles

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """A context in which groups are cached for other senders."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def begin(self) -> None:
        """Register a sender, now or soon active, until ``end``."""
        with self._lock:
            self._users += 1

    def end(self) -> None:
        """Remove a sender; the last one empties the cache."""
        with self._lock:
            self._users -= 1
            self._tidy()

    def scanned(self) -> None:
        """Record that the first scan is over."""
        with self._lock:
            self._close_hashed()
            self.ahead.close()
            self._tidy()

    def _tidy(self) -> None:
        if self._users == 0:
            self._groups, self._hashed = Groups(), Filling(self._limits.group_bytes)
            if self.ahead.is_closed:
                self.ahead.forget()

    def hashed(self, digest: Digest, content: bytes) -> None:
        """Keep a content that was just read: its file may change soon, and active senders need not
        read it again.

        Rejected: a reader thread beside the scan. It takes Python's lock from the scan at each of
        a dozen calls, and both are slower than one thread that does all.
        """
        with self._lock:
            self._keep_recent(digest, content)
            groups = self._groups
            is_full = groups.packed_bytes + groups.raw_bytes >= self._limits.packed_bytes
            if not self._users or is_full or digest in groups or digest in self._hashed.contents:
                return
            for group in self._hashed.add(digest, len(content), content):
                groups.add(group, is_read=True)
            late = groups.oldest_raw() if groups.raw_bytes > self._limits.raw_bytes else None
        if late is not None:
            self._bundle_of(late)

    def _keep_recent(self, digest: Digest, content: bytes) -> None:
        if len(content) > self._limits.largest_recent_bytes or digest in self._recent:
            return
        self._recent[digest] = content
        self._recent_bytes += len(content)
        while self._recent_bytes > self._limits.recent_bytes:
            self._recent_bytes -= len(self._recent.pop(next(iter(self._recent))))

    def _close_hashed(self) -> None:
        for group in self._hashed.close():
            self._groups.add(group, is_read=True)

    def ripe(self, digests: Sequence[Digest]) -> tuple[list[Digest], list[Digest]]:
        """Splits digests into those to send now, and those whose groups may still become whole.

        While the scan goes on, its next files may fill up a group, and the worker may turn out to
        lack the rest of one.
        """
        with self._lock:
            if self.ahead.is_closed or not self._users:
                return list(digests), []
            _, rest = self._groups.within(dict.fromkeys(digests))
            waiting = [d for d in rest if d in self._groups or d in self._hashed.contents]
        late = set(waiting)
        return [d for d in digests if d not in late], waiting

    def bundles(self, groups: Iterable[Group]) -> list[Bundle]:
        """The available contents of ``groups``, compressed.

        A content is omitted if its file changed since it was hashed and the content is not kept:
        an event follows, and with it a new generation.
        """
        bundles = [bundle for group in groups if (bundle := self._bundle_of(group)).digests]
        with self._lock:
            self.sent += sum(len(bundle.digests) for bundle in bundles)
            self.sent_bytes += sum(len(bundle.data) for bundle in bundles)
        return bundles

    def _bundle_of(self, group: Group) -> Bundle:
        bundle = group.bundle(self._content)
        with self._lock:
            self._groups.was_packed(group, len(bundle.data), self._limits.packed_bytes)
        return bundle

    def _content(self, digest: Digest) -> bytes | None:
        content = self.read(digest)
        if content is None:
            log.info("%s… is asked for, but its file has changed", digest.hex()[:12])
        return content
