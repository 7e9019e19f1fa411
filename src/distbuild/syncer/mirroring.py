"""Keeps the manifest equal to the dev box's disk: roots, events, the barrier.

Every public method may be called from any thread. Knows nothing of workers and jobs; tells
``on_change`` when the generation has risen.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterable

from distbuild.mirror import policy
from distbuild.mirror.manifest import DIRECTORY, Manifest
from distbuild.mirror.roots import Kind, Root, Roots, identity, inside, trace
from distbuild.mirror.scan import Scanner
from distbuild.mirror.watch import Watcher, is_remote
from distbuild.protocol.messages import Changes, Entry, SymlinkEntry

log = logging.getLogger(__name__)

#: A tree with more entries than this is mirrored without what is below its own directories.
MAX_TREE_ENTRIES = 200_000
#: Changes that no job waits for are gathered this long, so that a burst is one push.
GATHER_S = 0.02


class Mirroring:
    """The live manifest of one dev box.

    ``home`` is the user's home directory, which is never taken as a whole. ``make_watcher`` gets
    the callbacks ``changed(path, is_directory)`` and ``overflowed()``.
    """

    def __init__(
        self,
        scanner: Scanner,
        make_watcher: Callable[[Callable[[str, bool], None], Callable[[], None]], Watcher],
        home: str,
        on_change: Callable[[], None],
    ) -> None:
        self.manifest = Manifest()
        #: Set once what the last run mirrored is mirrored again; until then the manifest is a part
        #: of the truth, and a worker that was told of it would throw the rest away.
        self.ready = threading.Event()
        self.roots = Roots()
        self.epoch = os.urandom(8).hex()
        self.rescans = 0
        self._scanner = scanner
        self._home = home
        self._on_change = on_change
        self._lock = threading.RLock()
        # Spelled directory -> (device, inode) when it was last taken in, None when it was absent.
        self._required: dict[str, tuple[int, int] | None] = {}
        # Components on the way to roots, targets of links, files asked for by name.
        self._pinned: set[str] = set()
        self._dirty_lock = threading.Lock()
        self._dirty: dict[str, bool] = {}
        self._overflow = False
        self._something = threading.Event()
        self._stopping = threading.Event()
        self._watcher = make_watcher(self._changed, self._overflowed)
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the threads and the watching."""
        self._stopping.set()
        self._something.set()
        self._thread.join()
        self._watcher.stop()

    # --- what jobs need -------------------------------------------------------------------------

    def require(self, directories: Iterable[str]) -> None:
        """Mirror these directories (absolute, as spelled), if they exist, from now on.

        One ``stat`` each when they are mirrored already: it sees an ancestor that was moved or a
        link that was switched, of which a watch on the directory itself says nothing.
        """
        for spelled in directories:
            now = identity(spelled)
            if now is not None and self._required.get(spelled) == now:
                continue
            if now is None and self._required.get(spelled, 0) is None:
                continue
            with self._lock:
                self._take_in(spelled, now)

    def defer(self, directory: str) -> None:
        """Watch a directory whose content the workers have already; see ``copied_already``."""
        with self._lock:
            way = trace(directory)
            if way.real is None or not way.is_directory or self.roots.holding(way.real):
                return
            root = Root(way.real, Kind.DEFERRED)
            self.roots.add(root)
            self._scanner.tree(way.real, lambda d: self._watch(d, root), MAX_TREE_ENTRIES)

    def settle(self) -> int:
        """The generation that has every change made before the call."""
        if not self._watcher.barrier():
            self._overflowed()
        with self._lock:
            self._drain()
            for root in self.roots:
                if root.polled:
                    self._rescan(root)
            return self.manifest.generation

    def want(self, path: str) -> bool:
        """Mirror one file whatever its name and size. False: it is there already, or cannot be."""
        with self._lock:
            way = trace(path)
            if way.real is None or way.is_directory:
                return False
            before = self.manifest.get(way.real)
            self._scanner.wanted.add(way.real)
            self._pin(way.entries)
            self._pinned.add(way.real)
            self._watch(os.path.dirname(way.real), None)
            entry = self._scanner.entry(way.real)
            self._apply({**way.entries, way.real: entry})
            return entry is not None and entry != before

    def recheck(self, paths: Iterable[str]) -> None:
        """Read these paths again, whatever the events said."""
        with self._dirty_lock:
            self._dirty.update(dict.fromkeys(paths, False))
        with self._lock:
            self._drain()

    def changes(self, client: str, epoch: str, have: int, *, offer: bool = False) -> Changes:
        """What a tree at generation ``have`` of ``epoch`` lacks.

        With ``offer``, or no word of the entries: only the summary, for a tree that may be equal.
        """
        with self._lock:
            base = have if epoch == self.epoch and 0 < have <= self.manifest.generation else 0
            return Changes(
                client,
                self.epoch,
                base,
                self.manifest.generation,
                self.manifest.summary(),
                None if offer else self.manifest.since(base),
                [os.fsencode(r.path) for r in self.roots if r.kind is not Kind.DEFERRED],
            )

    def wanted(self) -> list[str]:
        """Files that are mirrored because a compile asked for them by name."""
        return sorted(self._scanner.wanted)

    def effort(self) -> dict[str, int]:
        """What keeping up has cost so far, for status."""
        return {
            "rescans": self.rescans,
            "listed_directories": self._scanner.listed,
            "hashed_bytes": self._scanner.hashed_bytes,
        }

    def required(self) -> list[str]:
        """The directories, as spelled, that exist and that a job or the configuration named."""
        return [spelled for spelled, now in list(self._required.items()) if now is not None]

    def shallow_roots(self) -> list[str]:
        """Roots of which only the top is mirrored."""
        return [root.path for root in self.roots if root.kind is Kind.SHALLOW]

    # --- roots ----------------------------------------------------------------------------------

    def _take_in(self, spelled: str, now: tuple[int, int] | None) -> None:
        before = self._required.get(spelled)
        # Recorded before the scan: a switch during it then shows at the next job.
        self._required[spelled] = now
        way = trace(spelled)
        self._pin(way.entries)
        self._apply(dict(way.entries))
        if now is None or way.real is None or not way.is_directory:
            self._recheck_pinned()
            return
        known = self.roots.holding(way.real)
        if known is None or known.kind is not Kind.DEEP:
            broad = policy.is_broad(way.real, self._home)
            known = Root(way.real, Kind.SHALLOW if broad else Kind.DEEP, is_remote(way.real))
            self.roots.add(known)
        elif before is not None:
            # Another directory stands at this path now; the watches are on the one that left.
            self._watcher.forget(known.path)
        elif not self._lost(way.real):
            return
        self._rescan(known)

    def _lost(self, directory: str) -> bool:
        return self.manifest.get(directory) != DIRECTORY

    def _rescan(self, root: Root) -> None:
        """List a root again and take the differences."""
        if root.kind is Kind.DEFERRED:
            return
        if not os.path.isdir(root.path):
            self._apply({root.path: None})
            return
        self._apply(self._subtree(root.path, root))

    def _subtree(self, directory: str, root: Root) -> dict[str, Entry | None]:
        """What is at a directory and below it; None for what only the manifest still has."""
        found: dict[str, Entry | None] = {directory: DIRECTORY}
        if root.kind is Kind.SHALLOW:
            self._watch(directory, root)
            found.update(self._scanner.children(directory))
        else:
            tree = self._scanner.tree(directory, lambda d: self._watch(d, root), MAX_TREE_ENTRIES)
            if tree.truncated and directory == root.path:
                log.warning(
                    "%s: more than %d entries; mirrored in part", directory, MAX_TREE_ENTRIES
                )
                root.kind = Kind.SHALLOW
                self._watcher.forget(directory)
                return self._subtree(directory, root)
            found.update(tree.entries)
        nested = self.roots.nested(directory)
        for path in self.manifest.below(directory):
            if path in found or any(inside(path, other) for other in nested):
                continue
            found[path] = self._scanner.entry(path) if path in self._pinned else None
        return found

    def _watch(self, directory: str, root: Root | None) -> None:
        if self._watcher.add(directory) or root is None or root.polled:
            return
        if os.path.isdir(directory):
            root.polled = True
            log.warning("%s: cannot be watched; listed again for each job", root.path)

    def _pin(self, entries: dict[str, Entry]) -> None:
        self._pinned.update(entries)

    def _recheck_pinned(self) -> None:
        self._apply({p: self._scanner.entry(p) for p in self._pinned if self.manifest.get(p)})

    # --- events ---------------------------------------------------------------------------------

    def _changed(self, path: str, is_directory: bool) -> None:
        ignored = policy.handling(os.path.basename(path)) is policy.Handling.IGNORE
        if ignored and not is_directory and path not in self._scanner.wanted:
            return
        with self._dirty_lock:
            self._dirty[path] = self._dirty.get(path, False) or is_directory
        self._something.set()

    def _overflowed(self) -> None:
        with self._dirty_lock:
            self._overflow = True
        self._something.set()

    def _follow(self) -> None:
        """Take changes in also when no job asks: they are on the workers before one does."""
        while not self._stopping.is_set():
            self._something.wait()
            self._stopping.wait(GATHER_S)
            with self._lock:
                self._something.clear()
                try:
                    self._drain()
                except Exception:
                    log.exception("the mirror could not be brought up to date")

    def _drain(self) -> None:
        with self._dirty_lock:
            dirty, self._dirty = self._dirty, {}
            overflow, self._overflow = self._overflow, False
        if overflow:
            self._rescan_all()
            return
        batch: dict[str, Entry | None] = {}
        for path in sorted(dirty):
            batch.update(self._state(path))
        self._apply(batch)

    def _rescan_all(self) -> None:
        self.rescans += 1
        log.warning("change events were lost; every root is listed again")
        for root in self.roots:
            self._rescan(root)
        self._recheck_pinned()

    def _state(self, path: str) -> dict[str, Entry | None]:
        """What is now at a changed path and below it; empty when the path is none of ours."""
        root = self.roots.holding(path)
        if root is None and path not in self._pinned:
            return {}
        entry = self._scanner.entry(path)
        if root is None or entry != DIRECTORY:
            if root is not None and root.kind is Kind.DEFERRED:
                return {**trace(os.path.dirname(path)).entries, path: entry}
            return {path: entry}
        if root.kind is Kind.DEEP and self._scanner.enters(path):
            return self._subtree(path, root)
        return {path: DIRECTORY}

    def _apply(self, batch: dict[str, Entry | None]) -> None:
        """Apply a batch, and take in what its symlinks point to."""
        raised = self.manifest.apply(batch)
        pending = [p for p, e in batch.items() if isinstance(e, SymlinkEntry)]
        seen: set[str] = set()
        while pending:
            link = pending.pop()
            if link in seen or self.manifest.resolve(link) is not None:
                continue
            seen.add(link)
            raised = self._take_in_target(link) or raised
        if raised:
            self._on_change()

    def _take_in_target(self, link: str) -> bool:
        way = trace(link)
        if way.real is None:
            return False
        self._pin(way.entries)
        raised = self.manifest.apply(dict(way.entries))
        if not way.is_directory:
            return self.want_target(way.real) or raised
        if not policy.is_broad(way.real, self._home):
            self.require([way.real])
        return raised

    def want_target(self, path: str) -> bool:
        """Mirror the file that a link outside every root points to."""
        if self.roots.holding(path) is not None:
            return False
        self._pinned.add(path)
        self._watch(os.path.dirname(path), None)
        return self.manifest.apply({path: self._scanner.entry(path)})
