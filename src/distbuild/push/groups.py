"""Contents that are packed together. Knows no disk, no manifest and no worker."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from distbuild.protocol.codec import bundle
from distbuild.protocol.messages import Bundle, Digest

#: A group is closed once its contents, plain, are so many bytes; what is as large is a group of
#: its own. So none is larger than MAX_BUNDLE_BYTES but of a single content.
GROUP_BYTES = 1024 * 1024

Read = Callable[[Digest], bytes | None]


class Group:
    """Contents for one frame, which is made once, whoever asks first: the others wait for it.

    ``size`` is that of all contents in plain bytes. ``contents`` are those that were read already.
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
        """The frame, without the contents that ``read`` does not find: then it is made anew for
        whoever asks next, since a file may be away for a moment only."""
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
    """Contents with their sizes, gathered into groups as they come."""

    def __init__(self) -> None:
        self.contents: dict[Digest, bytes] = {}
        self._digests: list[Digest] = []
        self._size = 0

    def add(self, digest: Digest, size: int, content: bytes | None = None) -> Iterator[Group]:
        """One more; the groups that are closed with it."""
        if size >= GROUP_BYTES:
            yield Group([digest], size, {} if content is None else {digest: content})
            return
        self._digests.append(digest)
        self._size += size
        if content is not None:
            self.contents[digest] = content
        if self._size >= GROUP_BYTES:
            yield from self.close()

    def close(self) -> Iterator[Group]:
        """What has been gathered, if anything has."""
        if self._digests:
            group = Group(self._digests, self._size, self.contents)
            self._digests, self._size, self.contents = [], 0, {}
            yield group


class Groups:
    """Groups that others may want as well, oldest first: as read, and as packed. Not locked."""

    def __init__(self) -> None:
        self._group_of: dict[Digest, Group] = {}
        # Read, and not packed yet.
        self._raw: dict[Group, int] = {}
        self.raw_bytes = 0
        self._packed: dict[Group, int] = {}
        self.packed_bytes = 0

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._group_of

    def add(self, group: Group, *, is_read: bool) -> None:
        """Keep a group; ``is_read``: with its contents."""
        for digest in group.digests:
            self._group_of[digest] = group
        if is_read:
            self._raw[group] = group.size
            self.raw_bytes += group.size

    def oldest_raw(self) -> Group | None:
        """The first group that waits to be packed; whoever is given it packs it."""
        group = next(iter(self._raw), None)
        if group is not None:
            self._forget_raw(group)
        return group

    def was_packed(self, group: Group, size: int, keep_bytes: int) -> None:
        """A group takes ``size`` bytes now; the oldest go where all take more than is kept."""
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
        """Groups of which all is wanted, and what is wanted and in none of them."""
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
