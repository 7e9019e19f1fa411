"""Plans the bubblewrap mounts that compose the file system a compiler sees. Runs nothing.

The plan is a tree of mount points over directories of this machine. A directory that lacks a mount
point is rebuilt: an empty one, with the original's entries bound in.
"""

import os

import msgspec

from distbuild.protocol.messages import SymlinkEntry
from distbuild.system.paths import follow_links

#: A rebuilt directory with more names than this gets symlinks to its files: bubblewrap's time
#: grows with the square of the number of mounts.
MANY_NAMES = 64
#: Target directory of those symlinks. Subdirectories stay mounts, for "..".
_HIDDEN = b"/.dist_build.under"


class _Node(msgspec.Struct):
    """A directory or file of the plan. ``source`` None: an empty directory made for it."""

    source: bytes | None = None
    #: The parent's mount shows it already, so it needs no mount of its own.
    inherited: bool = False
    writable: bool = False
    #: It may be gone when bubblewrap mounts it: it is then left out.
    may_vanish: bool = False
    symlink: bytes | None = None
    #: "proc", "tmpfs", "devices" or "dir" in place of a bind.
    special: str = ""
    children: dict[bytes, "_Node"] = msgspec.field(default_factory=dict)


class MountPlan:
    """A sandbox's mounts. Paths are absolute; ``source`` paths are on this machine."""

    def __init__(self) -> None:
        self._root = _Node()

    def bind(self, path: bytes, source: bytes, *, writable: bool = False) -> None:
        """Show ``source`` at ``path``, replacing everything planned below it."""
        self._put(path, _Node(source=source, writable=writable))

    def show(self, path: bytes, source: bytes) -> None:
        """Show ``source`` at ``path``: a directory, a file, or a symlink as such."""
        self._put(path, _node_of(source))

    def special(self, path: bytes, kind: str) -> None:
        """Mount ``proc`` or ``tmpfs`` at ``path``, or make a directory with some ``devices``, or an
        empty one (``dir``)."""
        self._put(path, _Node(special=kind, writable=True))

    def bind_children(self, path: bytes, source: bytes) -> None:
        """Show the entries of the directory ``source`` in ``path``, beside those planned there.

        One that vanishes before the sandbox is made is not shown, as after it was removed.
        """
        for name in _names(source):
            node = _node_of(_join(source, name))
            node.may_vanish = True
            self._put(_join(path, name), node)

    def has(self, path: bytes) -> bool:
        """Whether ``path`` exists, symlinks followed."""
        node: _Node | None = self._root
        for part in self._resolved(path):
            node = self._child(node, part) if node is not None else None
        return node is not None

    def is_shown(self, path: bytes, source: bytes) -> bool:
        """Whether ``path`` shows exactly this file, directory or symlink of this machine."""
        node, wanted = self._walk(self._resolved(path)), _node_of(source)
        there = None if node is None else (node.source, node.symlink)
        return there == (wanted.source, wanted.symlink)

    def entries(self, path: bytes) -> list[tuple[bytes, bool, bytes | None]]:
        """The planned entries of a directory without a source: name, whether a directory, and the
        target of a symlink."""
        node = self._walk(self._resolved(path))
        return [
            (name, child.source is None or os.path.isdir(child.source), child.symlink)
            for name, child in sorted(node.children.items() if node else ())
        ]

    def arguments(self) -> list[bytes]:
        """The plan as bubblewrap options, outer mounts first."""
        words: list[bytes] = []
        made: list[bytes] = []
        self._emit(b"", self._root, words, made)
        for path in [*reversed(made), b"/"]:
            words += [b"--remount-ro", path]
        return words

    def places(self) -> list[bytes]:
        """This machine's files that the mounts show, and those over which they are mounted.

        If another file takes the place of one of them, mounts made before show what was there."""
        found: list[bytes] = []
        _collect(self._root, found)
        return found

    def _put(self, path: bytes, node: _Node) -> None:
        parts = self._resolved(path)
        here = self._root
        for part in parts[:-1]:
            child = self._child(here, part)
            if child is None:
                self._open_up(here)
                child = here.children[part] = _Node()
            here = child
        there = self._child(here, parts[-1])
        # A mount covers an existing entry; a symlink needs a name that is free.
        if there is None or (node.symlink is not None and here.source is not None):
            self._open_up(here)
        here.children[parts[-1]] = node

    def _child(self, node: _Node, name: bytes) -> _Node | None:
        """The node's child, read from the node's source where the plan has none yet."""
        child = node.children.get(name)
        if child is None and node.source is not None:
            source = _join(node.source, name)
            if os.path.lexists(source):
                child = node.children[name] = _node_of(source)
                child.inherited = True
                child.writable = node.writable
        return child

    def _open_up(self, node: _Node) -> None:
        """Rebuild the node's directory, so that it can get a child that its source lacks."""
        if node.source is None or node.writable:
            if node.source is not None:
                raise ValueError(f"no mount point in {node.source!r}")
            return
        names = _names(node.source)
        hidden = self._hide(node.source) if len(names) > MANY_NAMES else None
        for name in names:
            child = node.children.get(name)
            if child is None:
                child = _node_of(_join(node.source, name))
                if hidden is not None and child.source and os.path.isfile(child.source):
                    child = _Node(symlink=_join(hidden, name))
                node.children[name] = child
            child.inherited = False
        node.source, node.inherited = None, False

    def _hide(self, source: bytes) -> bytes:
        """Show ``source`` under a hidden name in the root directory; returns its path."""
        path = b"%s%d" % (_HIDDEN, len(self._root.children))
        self._root.children[path[1:]] = _Node(source=source)
        return path

    def _resolved(self, path: bytes) -> list[bytes]:
        """The components of ``path`` after following the plan's symlinks in all but the last."""
        directory, _, name = path.rstrip(b"/").rpartition(b"/")
        real = follow_links(os.fsdecode(directory), self._entry, SymlinkEntry)
        if real is None:
            raise ValueError(f"too many symlinks in {path!r}")
        return [part for part in (*os.fsencode(real).split(b"/"), name) if part]

    def _entry(self, path: str) -> SymlinkEntry | None:
        node = self._walk(os.fsencode(path).split(b"/")[1:])
        return None if node is None or node.symlink is None else SymlinkEntry(node.symlink)

    def _walk(self, parts: list[bytes]) -> _Node | None:
        node: _Node | None = self._root
        for part in parts:
            node = self._child(node, part) if node is not None else None
        return node

    def _emit(self, path: bytes, node: _Node, words: list[bytes], made: list[bytes]) -> None:
        here = path or b"/"
        if node.symlink is not None:
            words += [] if node.inherited else [b"--symlink", node.symlink, here]
            return
        if node.special == "devices":
            words += [b"--tmpfs", here, *_devices(here)]
            made.append(here)
        elif node.special:
            words += [b"--" + node.special.encode(), here]
        elif node.source is None and path:
            words += [b"--tmpfs", here]
            made.append(here)
        elif node.source is not None and not node.inherited:
            option = b"--bind" if node.writable else b"--ro-bind"
            words += [option + b"-try" * node.may_vanish, node.source, here]
        for name in sorted(node.children):
            self._emit(path + b"/" + name, node.children[name], words, made)


def _devices(directory: bytes) -> list[bytes]:
    """Options that show the devices that a compiler may open. It gets a terminal, if any, as its
    standard error or input."""
    words: list[bytes] = []
    for name in (b"null", b"zero", b"full", b"random", b"urandom", b"tty"):
        words += [b"--dev-bind-try", b"/dev/" + name, directory + b"/" + name]
    links = {b"fd": b"", b"stdin": b"/0", b"stdout": b"/1", b"stderr": b"/2"}
    for name, number in links.items():
        words += [b"--symlink", b"/proc/self/fd" + number, directory + b"/" + name]
    return words


def _collect(node: _Node, found: list[bytes]) -> None:
    for name, child in node.children.items():
        if not child.inherited:
            found += [] if child.source is None else [child.source]
            found += [] if node.source is None else [_join(node.source, name)]
        _collect(child, found)


def _node_of(source: bytes) -> _Node:
    if os.path.islink(source):
        return _Node(symlink=os.readlink(source))
    return _Node(source=source)


def _names(directory: bytes) -> list[bytes]:
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


def _join(directory: bytes, name: bytes) -> bytes:
    return directory.rstrip(b"/") + b"/" + name
