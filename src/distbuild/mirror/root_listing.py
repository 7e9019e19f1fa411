"""Adds, lists and relists the mirrored directories (roots); each is watched before it is read.

Called by ``Mirroring`` under its lock, which applies the batches of entries that the generators
here yield, one before it takes the next.
"""

import logging
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping

from distbuild.mirror import policy
from distbuild.mirror.file_systems import is_remote
from distbuild.mirror.manifest import DIRECTORY
from distbuild.mirror.roots import Kind, Pins, Root, inside, standing, trace
from distbuild.mirror.search_dirs import SearchDirs
from distbuild.mirror.symlinks import Batch, Place, Symlinks
from distbuild.mirror.watching import Pending
from distbuild.protocol.messages import Entry, FileEntry, SymlinkEntry
from distbuild.system import disk
from distbuild.system.paths import WINDOWS

log = logging.getLogger(__name__)

#: Of a tree with more entries only the top is mirrored (see ``Kind.SHALLOW``).
MAX_TREE_ENTRIES = 200_000
#: So many roots whose directory is gone are kept, each for one ``stat`` a job.
MAX_GONE_ROOTS = 16
#: So many absent directories that commands named are kept. Each costs a little memory.
MAX_ABSENT = 256


class Survey:
    """Reads the entries at and below paths from the disk, without changing the manifest.

    Paths in ``pins`` are mirrored in or outside any root.
    """

    def __init__(self, place: Place, pins: Pins) -> None:
        #: Roots of more entries than are mirrored, without a batch, to be mirrored in part.
        self.too_large: list[Root] = []
        self._place = place
        self._pins = pins
        self._pinned = pins.paths
        # The paths that ``shown`` found, and for which roots and pins.
        self._shown: list[bytes] = []
        self._shown_for: tuple[list[tuple[str, Kind]], int] | None = None

    def state(self, path: str) -> Batch:
        """The present entries at a changed path and below it; empty if it is not mirrored."""
        if WINDOWS and (spelled := self._as_on_disk(path)) != path:
            return {path: None, **self.state(spelled)}
        root = self._place.roots.holding(path)
        if root is None or self._in_home(path, root):
            return {path: self._place.scanner.entry(path)} if path in self._pinned else {}
        entry = self._place.scanner.entry(path)
        if root.kind is Kind.DEFERRED:
            return {**trace(posixpath.dirname(path)).entries, path: entry}
        if path == root.path:
            root.listed = standing(path)
        elif root.kind is Kind.SHALLOW or not self._place.scanner.enters(path):
            return {path: entry}
        return self.subtree(path, root) if entry == DIRECTORY else {path: entry}

    def _as_on_disk(self, path: str) -> str:
        """The path of an event in the disk's spelling, below its directory's mirrored spelling."""
        directory, _, name = path.rpartition("/")
        manifest = self._place.manifest
        return disk.as_on_disk(manifest.spelled(f"{manifest.spelled(directory)}/{name}"))

    def states(self, paths: Iterable[str]) -> Batch:
        """The present entries at the changed paths (sorted) and below; reads a directory once."""
        batch: Batch = {}
        listed: set[tuple[str, str]] = set()
        for path in paths:
            root = self._place.roots.holding(path)
            holder = root.path if root is not None else ""
            if any((above, holder) in listed for above in ancestors(path)):
                continue
            state = self.state(path)
            if root is not None and root.kind is Kind.DEEP and state.get(path) == DIRECTORY:
                listed.add((path, holder))
            batch.update(state)
        return batch

    def _in_home(self, path: str, root: Root) -> bool:
        """Whether a path is inside one of dist_build's own directories, such as a worker's
        sandbox, below its root."""
        homes = self._place.scanner.homes
        return any(h != path and inside(path, h) and inside(h, root.path) for h in homes)

    def subtree(self, directory: str, root: Root) -> Batch:
        """The entries at a directory and below it; None for a path that only the manifest has."""
        found: Batch = {directory: DIRECTORY}
        self._cover(directory, root)
        if root.kind is Kind.SHALLOW:
            self.watch(directory, root)
            found.update(self._place.scanner.children(directory))
        else:
            tree = self._place.scanner.tree(
                directory, lambda d: self.watch(d, root), MAX_TREE_ENTRIES
            )
            if tree.truncated:
                log.warning("%s: over %d entries; mirrored in part", root.path, MAX_TREE_ENTRIES)
                self.too_large.append(root)
                return {}
            found.update(tree.entries)
        apart = self._apart(directory, found if root.kind is Kind.DEEP else {})
        for path in self._place.manifest.below(directory):
            if path not in found and not any(inside(path, other) for other in apart):
                found[path] = self._place.scanner.entry(path) if path in self._pinned else None
        return found

    def _cover(self, directory: str, root: Root) -> None:
        if directory == root.path and root.kind is not Kind.SHALLOW:
            self._place.watcher.cover(directory)

    def _apart(self, directory: str, found: Mapping[str, Entry | None]) -> list[str]:
        """Existing roots below a directory that its own listing does not reach."""
        nested = [r for r in self._place.roots if r.path != directory and inside(r.path, directory)]
        return [
            root.path
            for root in nested
            if disk.isdir(root.path)
            and not (root.path in found and self._place.scanner.enters(root.path))
        ]

    def shown(self) -> list[bytes]:
        """The paths that shadow the worker's own files in a sandbox, sorted: whole directories, and
        single files and symlinks where a directory is mirrored in part (the worker's compiler is
        in ``/usr``)."""
        roots, manifest = self._place.roots, self._place.manifest
        kinds = [(root.path, root.kind) for root in roots]
        key = (kinds, self._pins.version)
        if self._shown_for != key:
            in_part = [child for top in roots.shallow() for child in manifest.children(top)]
            single = (*in_part, *self._pinned)
            files = (p for p in single if isinstance(manifest.get(p), FileEntry | SymlinkEntry))
            deep = [path for path, kind in kinds if kind is Kind.DEEP]
            self._shown = [os.fsencode(path) for path in sorted({*deep, *files})]
            self._shown_for = key
        return self._shown

    def has_changed(self, paths: Iterable[str]) -> None:
        """Entries at these paths have changed; single files are shown while they are there."""
        tops = frozenset(self._place.roots.shallow())
        if any(p in self._pinned or posixpath.dirname(p) in tops for p in paths):
            self._shown_for = None

    def visit(self, root: Root) -> None:
        """Watch and read all of a root only to cache its digests."""
        self._cover(root.path, root)
        self._place.scanner.tree(root.path, lambda d: self.watch(d, root), MAX_TREE_ENTRIES)

    def watch(self, directory: str, root: Root | None) -> None:
        """Watch one directory; if that fails, or if a file system is mounted there whose files
        other machines change, its root is listed again for each job."""
        is_foreign = directory in self._place.scanner.mounted and is_remote(directory)
        is_watched = self._place.watcher.add(directory) and not is_foreign
        if is_watched or root is None or root.polled:
            return
        if disk.isdir(directory):
            root.polled = True
            log.warning("%s: cannot be watched; listed again for each job", root.path)


def ancestors(path: str) -> Iterator[str]:
    """The directories above a path, nearest first."""
    while (above := posixpath.dirname(path)) != path:
        path = above
        yield path


def _holder(spelled: str) -> tuple[str, str]:
    """Who pins the way to a directory that is required; links pin theirs by their path."""
    return ("directory", spelled)


def _is_followed(root: Root) -> bool:
    return root.kind is not Kind.DEFERRED


class RootListing:
    """Adds roots to a ``place`` and lists them."""

    def __init__(
        self,
        place: Place,
        symlinks: Symlinks,
        required: SearchDirs,
        pending: Pending,
    ) -> None:
        self._place = place
        self._symlinks = symlinks
        self._required = required
        self._pending = pending
        self.survey = Survey(place, symlinks.pins)
        # Roots whose directory is gone, the one that went last at the end.
        self._gone: dict[str, Root] = {}

    def changed(self, paths: Iterable[str]) -> Iterator[Batch]:
        """Read what is now at the changed paths (sorted) and below."""
        yield self.survey.states(paths)
        yield from self._narrow_too_large()

    def take_in(self, spelled: str, now: tuple[int, int] | None) -> Iterator[Batch]:
        """Mirror a directory whose (device, inode) is ``now``; None: it does not exist."""
        # Recorded before the scan, so that the next job detects a replacement during it.
        self._required.note(spelled, now)
        way = trace(spelled)
        missed = way.real is not None and self._place.manifest.get(way.real) != DIRECTORY
        released = self._symlinks.pins.hold(_holder(spelled), way.entries)
        yield dict(way.entries)
        yield from self._symlinks.release(released)
        if now is None or way.real is None or not way.is_directory:
            yield from self._symlinks.recheck_pinned()
            if way.real is not None and not way.is_directory:
                yield from self._take_file(spelled, way.real)
            return
        if policy.is_pseudo_fs(way.real):
            return
        # Of a closed directory, the root above holds only the name.
        known = self._place.roots.holding(posixpath.join(way.real, "."))
        if known is not None and known.listed == standing(known.path) is not None:
            if known.kind is Kind.DEEP:
                # The root is intact and watched: changes in it are reported, or listed now.
                if missed:
                    self._pending.changed(way.real, is_directory=True)
                return
            if known.path == way.real and known.kind is Kind.SHALLOW and not known.for_a_file:
                return
        if known is None or known.kind is not Kind.DEEP:
            broad = policy.is_broad(way.real, self._place.home)
            known = Root(way.real, Kind.SHALLOW if broad else Kind.DEEP, is_remote(way.real))
            self._place.roots.add(known)
        yield from self.renew([known])

    def surround(self, spelled: str) -> Iterator[Batch]:
        """Mirror the files directly in a directory of which one file is mirrored by name: the
        compiler searches it first for that file's quoted includes."""
        real = disk.realpath(spelled)
        if self._place.roots.holds_files_of(real) or not disk.isdir(real):
            return
        if policy.is_pseudo_fs(real) or self._place.is_secret(real):
            return
        root = Root(real, Kind.SHALLOW, is_remote(real), for_a_file=True)
        self._place.roots.add(root)
        yield from self.renew([root])

    def _take_file(self, spelled: str, real: str) -> Iterator[Batch]:
        """Mirror a file that is named as a directory: compilers warn about it."""
        if policy.is_pseudo_fs(real):
            return
        self._symlinks.ask(spelled)  # no event would report its changes
        yield from self._symlinks.follow_queued()
        if self._place.manifest.get(real) is None:
            self._required.closed.add(spelled)

    def defer(self, real: str) -> None:
        """Watch a directory whose content the workers have already, without mirroring it yet."""
        root = Root(real, Kind.DEFERRED)
        self._place.roots.add(root)
        self.survey.visit(root)

    def renew(self, roots: Iterable[Root]) -> Iterator[Batch]:
        """Watch and list roots as if for the first time: the watches may be on directories that
        were moved away."""
        renewed = {r.path: r for r in roots if r.kind is not Kind.DEFERRED}
        for path in list(renewed):
            self._place.watcher.forget(path)
            nested = map(self._place.roots.get, self._place.roots.nested(path))
            renewed.update((r.path, r) for r in nested if r is not None)
        for root in renewed.values():
            yield from self.rescan(root)
        yield from self._symlinks.watch_again(renewed.keys())

    def rescan(self, root: Root) -> Iterator[Batch]:
        """List a root again."""
        if root.kind is Kind.DEFERRED:
            return
        if disk.is_respelled(root.path):
            yield from self._respell(root)
        root.listed = standing(root.path)
        if root.listed is None:
            self._place.watcher.forget(root.path)
            pinned = root.path in self._symlinks.pins.paths  # the path may be a file now
            yield {root.path: self._place.scanner.entry(root.path) if pinned else None}
            return
        yield self.survey.subtree(root.path, root)
        yield from self._narrow_too_large()

    def forget_gone(self) -> Iterator[Batch]:
        """Forget roots whose directory is gone, but for the last few: a build removes a directory
        and makes it anew. A job that names one of them later has it taken in again."""
        gone = {r.path: r for r in self._place.roots if r.listed is None and _is_followed(r)}
        if gone or self._gone:
            self._gone = {p: r for p, r in self._gone.items() if p in gone} | gone
        for path in list(self._gone)[: max(0, len(self._gone) - MAX_GONE_ROOTS)]:
            del self._gone[path]
            self._place.watcher.forget(path)
            self._place.roots.discard(path)
            yield from self._symlinks.forget_below(path)
            yield from self._unpin(self._required.forget_gone(path))
        yield from self._unpin(self._required.forget_absent(MAX_ABSENT))

    def _unpin(self, directories: Iterable[str]) -> Iterator[Batch]:
        for spelled in directories:
            yield from self._symlinks.release(self._symlinks.pins.release(_holder(spelled)))

    def _respell(self, root: Root) -> Iterator[Batch]:
        """Replace a root's path with the present spelling of its directory."""
        self._place.watcher.forget(root.path)
        self._place.roots.discard(root.path)
        yield {root.path: None}
        root.path = disk.realpath(root.path)
        self._place.roots.add(root)

    def _narrow_too_large(self) -> Iterator[Batch]:
        while self.survey.too_large:
            yield from self._narrow(self.survey.too_large.pop())

    def _narrow(self, root: Root) -> Iterator[Batch]:
        """Mirror only the top of a root from now on; directories in it that jobs named become
        roots."""
        root.kind = Kind.SHALLOW
        self._place.watcher.forget(root.path)
        named = self._required.forget_below(root.path)
        yield self.survey.subtree(root.path, root)
        nested = map(self._place.roots.get, self._place.roots.nested(root.path))
        yield from self.renew([r for r in nested if r is not None])
        for spelled, now in self._required.moved(named, named=False):
            yield from self.take_in(spelled, now)
