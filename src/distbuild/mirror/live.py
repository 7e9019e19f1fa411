"""The mirror of the dev box: keeps the manifest equal to the disk by scans and file events.

The entry point of this package for the syncer. Every public method is thread-safe. Knows nothing
of workers and jobs; calls ``on_change`` when the generation has risen.
"""

import itertools
import logging
import os
import posixpath
import threading
from collections.abc import Callable, Iterable

from distbuild.mirror import policy
from distbuild.mirror.digest_cache import FileRead
from distbuild.mirror.file_systems import MountWatch
from distbuild.mirror.manifest import Fold, Manifest
from distbuild.mirror.root_listing import RootListing
from distbuild.mirror.roots import (
    Kind,
    Roots,
    inside,
    is_everybodys,
    standing,
    trace,
)
from distbuild.mirror.scan import Scanner
from distbuild.mirror.search_dirs import SearchDirs
from distbuild.mirror.symlinks import Batch, Place, Symlinks
from distbuild.mirror.watching import FileWatcher, Pending
from distbuild.one_shot import OneShot
from distbuild.protocol.messages import Changes, DirectoryEntry, SymlinkEntry
from distbuild.protocol.names import HOME_MARKER
from distbuild.system import disk
from distbuild.system.paths import FOLD, WINDOWS

log = logging.getLogger(__name__)

#: With one of these a link goes: itself, or those below a directory.
_HOLDS_LINKS = (DirectoryEntry, SymlinkEntry)

#: Changes that no job waits for are coalesced for this long (seconds): a burst is one push.
GATHER_S = 0.02
#: After a failure to process changes everything is listed again, at most this often (seconds).
RETRY_S = 5.0


class Mirroring:
    """The live manifest of one dev box; the user's ``home`` is never mirrored as a whole.

    ``make_watcher`` gets the callbacks ``changed(path, is_directory)`` and ``overflowed()``;
    ``fold``: see Manifest.
    """

    def __init__(
        self,
        scanner: Scanner,
        make_watcher: Callable[[Callable[[str, bool], None], Callable[[], None]], FileWatcher],
        home: str,
        on_change: Callable[[], None],
        fold: Fold | None = FOLD,
    ) -> None:
        self.manifest = Manifest(fold)
        #: Set once the directories of the last run are mirrored again. Until then the manifest is
        #: incomplete: a worker that received it would delete the rest of its tree.
        self.ready = OneShot()
        self.roots = Roots()
        self.epoch = os.urandom(8).hex()
        self.home = home
        self.rescans = 0
        self._scanner = scanner
        self._on_change = on_change
        self._lock = threading.RLock()
        self._required = SearchDirs(self.manifest)
        self._pending = Pending()
        self._mounts = MountWatch()
        scanner.mounted = self._mounts.points()
        scanner.home = home
        # A logical clock, and its time at which the last listing of polled roots began.
        self._moments = itertools.count(1)
        self._polled_at = 0
        self._stopping = threading.Event()
        self._watcher = make_watcher(self._changed, self._pending.overflowed)
        place = Place(self.manifest, self.roots, scanner, self._watcher, home)
        self._place = place
        self._symlinks = Symlinks(place)
        self._root_listing = RootListing(place, self._symlinks, self._required, self._pending)
        self._thread = threading.Thread(target=self._keep_up, name="mirror", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and the watcher."""
        self._stopping.set()
        self._pending.wake()
        self._thread.join()
        self._watcher.stop()
        self._mounts.close()

    # --- what jobs need -------------------------------------------------------------------------

    def require(self, directories: Iterable[str], *, named: bool = True) -> None:
        """Mirror these directories (absolute, as spelled), if they exist, from now on.

        ``named``: by a job or the configuration, not remembered from an earlier run. Costs one
        ``stat`` each if they are mirrored already: it detects a moved ancestor or a retargeted
        symlink, for which a watch on the directory itself gets no event.
        """
        for spelled, now in self._required.moved(directories, named=named):
            with self._lock:
                self._carry_out(self._root_listing.take_in(spelled, now))

    def closed(self, directories: Iterable[str]) -> str | None:
        """The first of these required directories that this process may not read though another
        user's compiler may, or that is a header map; None if there is none."""
        required = self._required
        if not (self._scanner.closed or required.closed or required.files):
            return None
        for spelled in directories:
            real = disk.realpath(spelled)
            if real in self._scanner.closed and disk.access(real, os.R_OK | os.X_OK):
                self.recheck([real])
            if required.is_closed(spelled) or real in self._scanner.closed:
                return spelled
        return None

    def defer(self, directory: str) -> None:
        """Watch a directory that the workers have already (``copied_already`` in the
        configuration); its files are mirrored when a job names it or something in it changes."""
        with self._lock:
            way = trace(directory)
            if way.real is None or not way.is_directory or self.roots.holding(way.real):
                return
            self._root_listing.defer(way.real)

    def settle(self) -> int:
        """A generation that contains every change made before the call."""
        asked = next(self._moments)
        if not self._watcher.barrier():
            self._pending.overflowed()
        with self._lock:
            self._look_at_other_names()
            for point in self._mounts.changed():
                self._look_behind(point)
            self._drain()
            if self._scanner.has_new_names():  # a file may have been written through one since then
                self._look_at_other_names()
                self._drain()
            self._list_polled(asked)
            self._look_for_moves()
            self._carry_out(self._root_listing.forget_gone())
            return self.manifest.generation

    def _look_behind(self, point: str) -> None:
        """List and watch everything at a mount point again: something was mounted or unmounted
        there, so the watches may be on directories that are no longer at their paths."""
        self._scanner.mounted = self._mounts.points()
        self._watcher.forget(point)
        self._pending.changed(point, is_directory=True)
        # ``forget`` has also dropped the watches of a root that was listed a moment ago.
        below = [r for r in self.roots if r.path != point and inside(r.path, point)]
        self._carry_out(self._root_listing.renew(below))
        self._carry_out(self._symlinks.watch_again([point]))

    def _look_at_other_names(self) -> None:
        for path in self._scanner.written_elsewhere():
            self._pending.changed(path, is_directory=False)

    def _list_polled(self, asked: int) -> None:
        """List the roots without events, once for all jobs that asked before the listing began."""
        if self._polled_at > asked:
            return
        self._polled_at = next(self._moments)
        for root in self.roots:
            if root.polled:
                self._carry_out(self._root_listing.rescan(root))

    def want(self, path: str) -> bool:
        """Mirror one file regardless of its name and size, and the files beside it. Returns False
        if its entry is unchanged or it cannot be mirrored."""
        with self._lock:
            way = trace(path)
            if way.real is None or way.is_directory or self._is_private(way.real):
                return False
            before = self.manifest.get(way.real)
            self._scanner.wanted.add(way.real)
            self._symlinks.ask(path)
            self._carry_out(self._symlinks.follow_queued())
            self._carry_out(self._root_listing.surround(posixpath.dirname(path)))
            entry = self.manifest.get(way.real)
            return entry is not None and entry != before

    def _is_private(self, real: str) -> bool:
        """Whether a file must not be mirrored even if a source text names it."""
        if self.is_secret(real):
            return True
        return self.roots.holding(real) is None and not is_everybodys(real)

    def is_secret(self, real: str) -> bool:
        return self._place.is_secret(real)

    def learn(self, path: str, read: FileRead, digest: bytes) -> None:
        """Cache the digest of a file that the caller has read, so that it is not read again."""
        self._scanner.learn(path, read, digest)

    def recheck(self, paths: Iterable[str]) -> None:
        """Read these paths again regardless of events and of cached digests."""
        known = list(paths)
        self._scanner.forget(known)
        for path in known:
            self._pending.changed(path, is_directory=False)
        with self._lock:
            self._drain()

    def changes(self, client: str, epoch: str, have: int, *, offer: bool = False) -> Changes:
        """The changes since generation ``have`` of ``epoch``; all entries if that is unknown.

        With ``offer``: only the summary without entries, for a tree that may be equal.
        """
        with self._lock:
            is_known = epoch == self.epoch and 0 < have <= self.manifest.generation
            base = have if is_known and self.manifest.can_tell_since(have) else 0
            return Changes(
                client,
                self.epoch,
                base,
                self.manifest.generation,
                self.manifest.summary(),
                None if offer else self.manifest.since(base),
                self._root_listing.survey.shown(),
            )

    def wanted(self) -> list[str]:
        """Files that are mirrored because a compile named them, sorted."""
        return sorted(self._scanner.wanted)

    def effort(self) -> dict[str, int]:
        """Counters of the work done so far, for the status."""
        return {
            "rescans": self.rescans,
            "listed_directories": self._scanner.listed,
            "hashed_bytes": self._scanner.hashed_bytes,
        }

    def required(self) -> list[str]:
        """The existing directories, as spelled, that a job or the configuration named."""
        return self._required.named()

    # --- events ---------------------------------------------------------------------------------

    def _changed(self, path: str, is_directory: bool) -> None:
        name = path.rpartition("/")[2]
        if name == HOME_MARKER:
            path, is_directory = posixpath.dirname(path), True
        ignored = policy.handling(name) is policy.Handling.IGNORE
        if is_directory or not ignored or path in self._scanner.wanted or self._is_link(path):
            self._pending.changed(path, is_directory)

    def _is_link(self, path: str) -> bool:
        """Whether an ignored name is, or was, a symlink: it may lead to a directory of headers."""
        if isinstance(self.manifest.get(path), SymlinkEntry):
            return True
        try:
            return disk.is_link(disk.lstat(path))
        except OSError:
            return False

    def _keep_up(self) -> None:
        """Process changes also between jobs, so that the workers have them before the next one."""
        while not self._stopping.is_set():
            self._pending.wait()
            self._stopping.wait(GATHER_S)
            try:
                with self._lock:
                    self._drain()
            except Exception:
                log.exception("the mirror could not be brought up to date")
                self._pending.overflowed()
                self._stopping.wait(RETRY_S)

    def _drain(self) -> None:
        paths, lost = self._pending.take()
        if lost:
            self._rescan_all()
        elif paths:
            self._carry_out(self._symlinks.heed(paths))
            self._carry_out(self._root_listing.changed(paths))

    def _rescan_all(self) -> None:
        self.rescans += 1
        log.warning("change events were lost; every root is listed again")
        self._carry_out(self._root_listing.renew(self.roots))
        self._symlinks.follow_all()
        self._carry_out(self._symlinks.recheck_pinned())

    def _carry_out(self, batches: Iterable[Batch]) -> None:
        """Apply batches; then follow the symlinks in them, and mirror the directories to which
        they lead, until there is nothing left to follow."""
        self._apply_each(batches)
        while self._symlinks.has_work():
            self._apply_each(self._symlinks.follow_queued())
            found = self._symlinks.take_found()
            for spelled, now in self._required.moved(found, named=False):
                self._apply_each(self._root_listing.take_in(spelled, now))

    def _apply_each(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            self._apply(batch)

    def _apply(self, batch: Batch) -> None:
        """Apply a batch to the manifest, and queue those of its symlinks that leave their roots."""
        if not batch:
            return
        batch = {p: e for p, e in batch.items() if p != "/" and _may_hold(p)}
        links = {p: e for p, e in batch.items() if isinstance(e, SymlinkEntry)}
        fresh = {p for p, e in links.items() if self.manifest.get(p) != e}
        ended = [p for p, e in batch.items() if e is None]
        has_removed = any(isinstance(self.manifest.get(p), _HOLDS_LINKS) for p in ended)
        if self.manifest.apply(batch):
            self._on_change()
        self._root_listing.survey.has_changed(batch)
        self._symlinks.part(batch)
        if has_removed:
            self._apply_each(self._symlinks.prune())
        for link, entry in links.items():
            self._symlinks.consider(link, entry, fresh=link in fresh)

    def _look_for_moves(self) -> None:
        """Detect changes without events: moved ancestors, new targets, unwatched directories."""
        held = [r for r in self.roots if r.kind is not Kind.DEFERRED]
        moved = [r for r in held if r.listed != standing(r.path)]
        if WINDOWS:
            moved = [r for r in held if r in moved or disk.is_respelled(r.path)]
        if moved:
            self._carry_out(self._root_listing.renew(moved))
            self._carry_out(self._symlinks.recheck_pinned())
        self._carry_out(self._symlinks.look())


def _may_hold(path: str) -> bool:
    """Whether the manifest may have an entry at a path. Without /dev no path below /dev/shm could
    be resolved."""
    return path == "/dev" or not policy.is_pseudo_fs(path)
