"""An independent answer to what a mirror of the disk has to hold, and a mirror to ask."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from distbuild.mirror.digest_cache import DigestCache
from distbuild.mirror.inotify import InotifyWatcher
from distbuild.mirror.live import Mirroring
from distbuild.mirror.manifest import DIRECTORY, WITHHELD
from distbuild.mirror.policy import Handling, handling, is_binary, is_closed
from distbuild.mirror.roots import Kind
from distbuild.mirror.scan import Scanner
from distbuild.mirror.watching import FileWatcher, NoWatcher
from distbuild.protocol.messages import Change, Entry, FileEntry, SymlinkEntry
from distbuild.protocol.names import HOME_MARKER

LARGE = 4096


def on_disk(path: str, wanted: Iterable[str] = ()) -> Entry | None:
    """What one path is, read anew."""
    if os.path.islink(path):
        if handling(os.path.basename(path)) is Handling.IGNORE and path not in wanted:
            return None
        return SymlinkEntry(os.fsencode(os.readlink(path)))
    if os.path.isdir(path):
        return DIRECTORY
    if not os.path.isfile(path):
        return None
    if path not in wanted:
        how = handling(os.path.basename(path))
        if how is Handling.IGNORE:
            return None
        if how is Handling.WITHHOLD or os.path.getsize(path) > LARGE:
            return WITHHELD
    data, status = Path(path).read_bytes(), os.stat(path)
    if is_binary(data) and path not in wanted:
        return WITHHELD
    mode = 0o444 | (0o111 if status.st_mode & 0o111 else 0)
    digest = hashlib.sha256(data).digest()
    return FileEntry(digest, len(data), mode, status.st_mtime_ns)


class Expected:
    """The entries that have to be there: below the roots, on the way to them, behind links."""

    def __init__(self, mirroring: Mirroring, spelled: Iterable[str], wanted: set[str]) -> None:
        self.entries: dict[str, Entry] = {}
        self._shallow = set(mirroring.roots.shallow())
        self._wanted = wanted
        self._seen: set[str] = set()
        for path in [*spelled, *wanted]:
            self._way(path)

    def _way(self, path: str) -> None:
        """Every link and directory of a path, and what it leads to, if it leads anywhere."""
        if not os.path.exists(path):
            return
        here = "/"
        for part in Path(path).parts[1:]:
            here = os.path.join(here, part)
            self._add(here)
            if os.path.islink(here):
                self._way(os.path.join(os.path.dirname(here), os.readlink(here)))
        here = os.path.realpath(path)
        if os.path.isdir(here):
            self._below(here)

    def _add(self, path: str) -> None:
        path = os.path.normpath(path)
        if os.path.realpath(os.path.dirname(path)) != os.path.dirname(path):
            return  # under another name it is the mirror's, or the way there is
        entry = on_disk(path, self._wanted)
        if entry is not None and path != "/":
            self.entries[path] = entry

    def _below(self, directory: str) -> None:
        if directory in self._seen:
            return
        self._seen.add(directory)
        names = os.listdir(directory)
        if HOME_MARKER in names:
            return
        for name in names:
            path = os.path.join(directory, name)
            self._add(path)
            if os.path.islink(path):
                names_only = directory in self._shallow and os.path.isdir(path)
                if path in self.entries and not names_only:
                    self._way(os.path.join(directory, os.readlink(path)))
            elif os.path.isdir(path) and not is_closed(path) and directory not in self._shallow:
                self._below(path)


class Mirror:
    """A Mirroring under test, and a copy of it that is fed by its deltas alone, as a worker's."""

    def __init__(self, base: Path, home: str, make: str) -> None:
        self.base = base
        self.scanner = Scanner(DigestCache(None), LARGE)
        self.rung = 0
        self.mirroring = Mirroring(self.scanner, self._maker(make), home, self._notify)
        self.required: list[str] = []
        self._have = 0
        self._copy: dict[str, Entry] = {}

    def _maker(
        self, make: str
    ) -> Callable[[Callable[[str, bool], None], Callable[[], None]], FileWatcher]:
        if make == "none":
            return lambda changed, overflowed: NoWatcher()
        return lambda changed, overflowed: InotifyWatcher(changed, overflowed)

    def _notify(self) -> None:
        self.rung += 1

    def job(self, *directories: str | Path) -> None:
        """What a job does that names these directories; those of earlier jobs are not named."""
        named = [str(d) for d in directories]
        self.required.extend(d for d in named if d not in self.required)
        self.mirroring.require(named)
        self.check(self.mirroring.settle())

    def check(self, generation: int) -> None:
        """The manifest is what the disk holds, and so is what its deltas make."""
        manifest = self.mirroring.manifest
        assert generation == manifest.generation
        expected = Expected(self.mirroring, self.required, self.scanner.wanted).entries
        held = {path: manifest.get(path) for path in manifest.below("/")}
        stale: dict[str, object] = {}
        for path, entry in held.items():
            root = self.mirroring.roots.holding(path)
            if root is not None and root.kind is Kind.DEFERRED:
                continue
            if root is None and path not in expected:
                continue  # on the way to what was mirrored once; nothing leads there now
            now = on_disk(path, self.scanner.wanted)
            if now != entry:
                stale[path] = (entry, now)
            home = os.path.join(os.path.dirname(path), HOME_MARKER)
            if os.path.exists(home) and path not in self.scanner.wanted:
                stale[path] = (entry, "in a home of ours")
        assert not stale, f"not what is on disk: {stale}"
        missing = {path: entry for path, entry in expected.items() if path not in held}
        assert not missing, f"missing: {missing}"
        delta = self.mirroring.changes("me", self.mirroring.epoch, self._have)
        self._have = delta.target
        for change in delta.entries or ():
            self._take(change)
        assert self._copy == held
        assert delta.summary == manifest.summary()

    def _take(self, change: Change) -> None:
        path = os.fsdecode(change.path)
        if change.entry is None:
            self._copy.pop(path, None)
        else:
            self._copy[path] = change.entry
