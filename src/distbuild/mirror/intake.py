"""Takes directories into the mirror as roots, and lists those again that are not what they were.

Called under the mirror's lock.
"""

from collections.abc import Callable, Iterable

from distbuild.mirror import policy
from distbuild.mirror.file_systems import is_remote
from distbuild.mirror.manifest import DIRECTORY
from distbuild.mirror.pending import Pending
from distbuild.mirror.root_listing import Survey
from distbuild.mirror.roots import Kind, Root, standing, trace
from distbuild.mirror.search_dirs import Required
from distbuild.mirror.symlinks import Place, Symlinks
from distbuild.protocol.messages import Entry
from distbuild.system import disk


class Intake:
    """The roots of a ``place``. ``apply`` takes a batch of entries into the manifest."""

    def __init__(
        self,
        place: Place,
        ways: Symlinks,
        required: Required,
        pending: Pending,
        apply: Callable[[dict[str, Entry | None]], None],
    ) -> None:
        self._place = place
        self._ways = ways
        self._required = required
        self._pending = pending
        self._apply = apply
        self.survey = Survey(place, ways.pinned, self._narrow)

    def take_in(self, spelled: str, now: tuple[int, int] | None) -> None:
        """Mirror a directory that is ``now`` this (device, inode); None: it is not there."""
        # Recorded before the scan: a switch during it then shows at the next job.
        self._required.note(spelled, now)
        way = trace(spelled)
        missed = way.real is not None and self._place.manifest.get(way.real) != DIRECTORY
        self._ways.pinned.update(way.entries)
        self._apply(dict(way.entries))
        if now is None or way.real is None or not way.is_directory:
            self._ways.recheck_pinned()
            if way.real is not None and not way.is_directory:
                self._take_file(spelled, way.real)
            return
        if policy.is_pseudo_fs(way.real):
            return
        known = self._place.roots.holding(way.real)
        if known is not None and known.listed == standing(known.path) is not None:
            if known.kind is Kind.DEEP:
                # The root stands and is watched: what is new in it is told, or listed now.
                if missed:
                    self._pending.changed(way.real, is_directory=True)
                return
            if known.path == way.real and known.kind is Kind.SHALLOW and not known.for_a_file:
                return
        if known is None or known.kind is not Kind.DEEP:
            broad = policy.is_broad(way.real, self._place.home)
            known = Root(way.real, Kind.SHALLOW if broad else Kind.DEEP, is_remote(way.real))
            self._place.roots.add(known)
        self.renew([known])

    def surround(self, spelled: str) -> None:
        """Mirror what is directly in a directory, of which a file is mirrored by name: what that
        includes by quotes is looked for there first."""
        real = disk.realpath(spelled)
        if self._place.roots.holds_files_of(real) or not disk.isdir(real):
            return
        if policy.is_pseudo_fs(real) or self._place.is_secret(real):
            return
        root = Root(real, Kind.SHALLOW, is_remote(real), for_a_file=True)
        self._place.roots.add(root)
        self.renew([root])

    def _take_file(self, spelled: str, real: str) -> None:
        """Compilers warn of a file among their directories."""
        if policy.is_pseudo_fs(real):
            return
        self._ways.ask(spelled)  # no event would tell what becomes of it
        if self._place.manifest.get(real) is None:
            self._required.closed.add(spelled)

    def defer(self, real: str) -> None:
        """Watch a directory whose content the workers have already."""
        root = Root(real, Kind.DEFERRED)
        self._place.roots.add(root)
        self.survey.visit(root)

    def renew(self, roots: Iterable[Root]) -> None:
        """List roots as if for the first time: what is watched there may have been moved away."""
        renewed = {r.path: r for r in roots if r.kind is not Kind.DEFERRED}
        for path in list(renewed):
            self._place.watcher.forget(path)
            nested = map(self._place.roots.get, self._place.roots.nested(path))
            renewed.update((r.path, r) for r in nested if r is not None)
        for root in renewed.values():
            self.rescan(root)
        self._ways.watch_again(renewed.keys())

    def rescan(self, root: Root) -> None:
        """List a root again and take the differences."""
        if root.kind is Kind.DEFERRED:
            return
        if disk.is_respelled(root.path):
            self._respell(root)
        root.listed = standing(root.path)
        if root.listed is None:
            self._place.watcher.forget(root.path)
            pinned = root.path in self._ways.pinned  # a file may stand there now
            self._apply({root.path: self._place.scanner.entry(root.path) if pinned else None})
            return
        self._apply(self.survey.subtree(root.path, root))

    def _respell(self, root: Root) -> None:
        """Take a root under the spelling that its directory has now."""
        self._place.watcher.forget(root.path)
        self._place.roots.discard(root.path)
        self._apply({root.path: None})
        root.path = disk.realpath(root.path)
        self._place.roots.add(root)

    def _narrow(self, root: Root) -> dict[str, Entry | None]:
        """Mirror only the top of a root from now on; what jobs named in it becomes a root."""
        root.kind = Kind.SHALLOW
        self._place.watcher.forget(root.path)
        named = self._required.forget_below(root.path)
        self._apply(self.survey.subtree(root.path, root))
        nested = map(self._place.roots.get, self._place.roots.nested(root.path))
        self.renew([r for r in nested if r is not None])
        for spelled, now in self._required.moved(named, named=False):
            self.take_in(spelled, now)
        return {}
