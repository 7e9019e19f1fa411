"""Indexes mirrored paths by their last component, with the generation of each name's last change.

A compiler that looks for ``x.h`` can find another file only if a path of that name appeared or went
away, or if a symlink changed. Pure: knows no disk.
"""

from distbuild.protocol.messages import Entry, SymlinkEntry


class NameIndex:
    """Paths by name. A change of a file's content is none here: only its appearance, its removal
    and a change of its kind."""

    def __init__(self) -> None:
        #: The generation in which any name last changed.
        self.changed = 0
        #: The generation in which a symlink last appeared, went away or changed.
        self.links_changed = 0
        #: The paths of all symlinks.
        self.links: set[str] = set()
        self._changed: dict[str, int] = {}
        # Most names have one path, and a set takes 200 bytes.
        self._paths: dict[str, str | set[str]] = {}

    def note(
        self, path: str, name: str, before: Entry | None, entry: Entry | None, generation: int
    ) -> None:
        """Record that the entry at ``path``, whose last component is ``name``, was replaced."""
        is_link = isinstance(entry, SymlinkEntry)
        if is_link or isinstance(before, SymlinkEntry):
            self.links_changed = generation
            (self.links.add if is_link else self.links.discard)(path)
        elif type(before) is type(entry):
            return
        self.changed = self._changed[name] = generation
        if before is None:
            self._add(path, name)
        elif entry is None:
            self._remove(path, name)

    def changed_at(self, name: str) -> int:
        """The generation in which a path of this name last appeared, went away or changed its kind;
        0: never."""
        return self._changed.get(name, 0)

    def paths(self, name: str) -> tuple[str, ...]:
        """All paths with this last component."""
        known = self._paths.get(name, ())
        return (known,) if isinstance(known, str) else tuple(known)

    def _add(self, path: str, name: str) -> None:
        known = self._paths.setdefault(name, path)
        if isinstance(known, set):
            known.add(path)
        elif known != path:
            self._paths[name] = {known, path}

    def _remove(self, path: str, name: str) -> None:
        known = self._paths.get(name)
        if isinstance(known, set):
            known.discard(path)
            if len(known) == 1:
                self._paths[name] = known.pop()
        elif known == path:
            del self._paths[name]
