"""Checks paths and entries from the network, and maps them into a client's tree. Pure."""

import os
import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from distbuild.mirror.manifest import Fold
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import (
    DIGEST_BYTES,
    MAX_BLOB_BYTES,
    Changes,
    DirectoryEntry,
    Entry,
    FileEntry,
    Job,
    SymlinkEntry,
)
from distbuild.system.paths import WINDOWS
from distbuild.system.windows.names import is_nameable_path

#: Linux: NAME_MAX and PATH_MAX (limits.h).
MAX_NAME_BYTES = 255
#: Windows: 32,767 characters with the prefix for long paths; names have up to 255 characters.
MAX_PATH_BYTES = 32_000 if WINDOWS else 4096

#: Nested directories at most: creating and removing them recurses for each.
MAX_DEPTH = 400

_CLIENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\Z")


def check_client(client: str) -> str:
    """The client's id, if it can be a directory's name; else raises ProtocolError."""
    if not _CLIENT.match(client):
        raise ProtocolError(f"bad client id {client[:120]!r}")
    return client


def check_path(path: bytes, *, windows: bool = WINDOWS) -> bytes:
    """``path``, if it is absolute, without ``.``, ``..`` or empty components, and not ``/``.

    Raises ProtocolError for anything else, so that joined to a root it stays below the root.
    ``fits`` checks its length: a long path does not escape. On ``windows`` a name may not be that
    of a device or stream, nor one that opens a file of another name.
    """
    if not path.startswith(b"/") or b"\0" in path:
        raise ProtocolError(f"bad path {path[:200]!r}")
    if not {b"", b".", b".."}.isdisjoint(path[1:].split(b"/")):
        raise ProtocolError(f"bad component in path {path[:200]!r}")
    if windows and not _is_nameable(path):
        raise ProtocolError(f"no path on Windows: {path[:200]!r}")
    return path


def _is_nameable(path: bytes) -> bool:
    try:
        return is_nameable_path(path.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return False


def fits(path: bytes, entry: Entry, root: bytes) -> bool:
    """Whether this system can have the entry at ``path`` below ``root``."""
    if len(root) + len(path) >= MAX_PATH_BYTES or path.count(b"/") > MAX_DEPTH:
        return False
    if len(path) > MAX_NAME_BYTES and any(len(part) > MAX_NAME_BYTES for part in path.split(b"/")):
        return False
    if isinstance(entry, SymlinkEntry):
        return len(rerooted_target(path, entry.target)) < MAX_PATH_BYTES
    return True


def check_job(job: Job) -> None:
    """Raise ProtocolError for a job with arguments or paths that no process could have.

    Its directories may contain ``..``, which compilers accept; they are checked where they are
    resolved.
    """
    files = (file.path for file in job.files)
    implicit = [job.implicit_include] if job.implicit_include else []
    paths = [job.cwd, *job.output_dirs, *job.builtin_dirs, *implicit, *files]
    for path in paths:
        if not path.startswith(b"/"):
            raise ProtocolError(f"no absolute path: {path[:200]!r}")
        if len(path) >= MAX_PATH_BYTES or path.count(b"/") > MAX_DEPTH:
            raise ProtocolError(f"too long or too deep a path: {path[:200]!r}")
    for word in (*paths, *job.argv, *job.env.values()):
        if b"\0" in word:
            raise ProtocolError(f"a NUL in {word[:200]!r}")


def check_entry(path: bytes, entry: Entry) -> None:
    """Raise ProtocolError for an entry that no file system could have."""
    if path == b"/":
        good = isinstance(entry, DirectoryEntry)
    elif isinstance(entry, FileEntry):
        good = len(entry.digest) == DIGEST_BYTES and 0 <= entry.size <= MAX_BLOB_BYTES
    elif isinstance(entry, SymlinkEntry):
        good = 0 < len(entry.target) <= MAX_PATH_BYTES and b"\0" not in entry.target
    else:
        good = True
    if not good:
        raise ProtocolError(f"bad entry for {path[:200]!r}")


def checked(changes: Changes) -> dict[bytes, Entry | None]:
    """The entries by path; raises ProtocolError for one that cannot be in a tree."""
    named = {change.path: change.entry for change in changes.entries or ()}
    for path, entry in named.items():
        if path != b"/":
            check_path(path)
        if entry is not None:
            check_entry(path, entry)
    return named


def parents(path: bytes) -> Iterator[bytes]:
    """Every directory above ``path`` except the root, nearest first."""
    while (path := path.rpartition(b"/")[0]) != b"":
        yield path


class Behind:
    """Whether a link or file is above a path: a file seen at the path is then another entry's.

    Caches each directory, of which a tree has few; valid while ``entries`` do not change.
    """

    def __init__(self, entries: Mapping[bytes, Entry]) -> None:
        self._entries = entries
        self._known: dict[bytes, bool] = {b"": False}

    def __call__(self, path: bytes) -> bool:
        """For an absolute path of any depth."""
        asked = []
        directory = path.rpartition(b"/")[0]
        while (known := self._known.get(directory)) is None:
            asked.append(directory)
            directory = directory.rpartition(b"/")[0]
        for directory in reversed(asked):
            entry = self._entries.get(directory)
            known = known or (entry is not None and not isinstance(entry, DirectoryEntry))
            self._known[directory] = known
        return known


class Above:
    """Whether ``entries`` without ``hidden`` has any below a path; valid while neither changes."""

    def __init__(self, entries: Mapping[bytes, Entry], hidden: Collection[bytes]) -> None:
        self._entries, self._hidden = entries, hidden
        self._sorted: list[bytes] | None = None

    def __call__(self, path: bytes) -> bool:
        """For an absolute path."""
        if self._sorted is None:  # most changes remove no directory
            self._sorted = sorted(p for p in self._entries if p not in self._hidden)
        below = path + b"/"
        at = bisect_left(self._sorted, below)
        return at < len(self._sorted) and self._sorted[at].startswith(below)


class Vacant:
    """Whether a path is absent because its directory is; valid while no directory is created.

    Caches each directory, as ``Behind`` does: thousands of files are in some hundreds of them.
    """

    def __init__(self, is_absent: Callable[[bytes], bool]) -> None:
        self._is_absent = is_absent
        self._known: dict[bytes, bool] = {}

    def __call__(self, path: bytes) -> bool:
        """For an absolute path."""
        directory = path.rpartition(b"/")[0]
        known = self._known.get(directory)
        if known is None:
            known = self._known[directory] = self._is_absent(directory)
        return known


def left_out(asked: Iterable[bytes], entries: Mapping[bytes, Entry], root: bytes) -> set[bytes]:
    """The paths in ``asked`` that are not put below ``root``: those that do not fit or are behind
    a link or a file; and ``/``, which exists anyway."""
    is_behind = Behind(entries)
    return {
        path
        for path in asked
        if path == b"/" or not fits(path, entries[path], root) or is_behind(path)
    }


def is_within(path: bytes, directory: bytes) -> bool:
    """Whether ``path`` is ``directory`` or below it."""
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")


def rerooted_target(path: bytes, target: bytes) -> bytes:
    """A symlink's target as stored in a tree: never absolute and never above the tree.

    ``/a/b`` at ``/x/y/link`` becomes ``../../a/b``, which means the same below a prefix and where
    the tree is the root. Steps up past the root are dropped, as the kernel does at ``/``.
    """
    depth = path.count(b"/") - 1
    if target.startswith(b"/"):
        steps = [b".."] * depth + _inside(target.split(b"/"), 0)
        return b"/".join(steps) or b"."
    return b"/".join(_inside(target.split(b"/"), depth)) or b"."


def _inside(parts: list[bytes], depth: int) -> list[bytes]:
    """``parts`` without each ``..`` that would leave a root ``depth`` directories above."""
    kept = []
    for part in parts:
        if part in (b"", b"."):
            continue
        if part == b"..":
            if depth == 0:
                continue
            depth -= 1
        else:
            depth += 1
        kept.append(part)
    return kept


#: The longest path that a Windows program opens by default: MAX_PATH without the NUL.
MAX_CHARACTERS = 259
#: Characters for the number that follows the root of a tree that is made anew.
_SPARE = 8


class LongPaths:
    """Files whose path below a root of ``root_length`` characters is too long for a program."""

    def __init__(self, root_length: int, fold: Fold) -> None:
        self._longest = MAX_CHARACTERS - _SPARE - root_length
        self._fold = fold
        self._paths: set[str] = set()

    def note(self, path: bytes, *, is_file: bool) -> None:
        """Record whether a file is now at a path of the tree."""
        name = self._fold(os.fsdecode(path))
        if is_file and len(name) > self._longest:
            self._paths.add(name)
        else:
            self._paths.discard(name)

    def below(self, directories: Iterable[str]) -> str:
        """A noted path below any of these directories, in any spelling; "" for none."""
        if not self._paths:
            return ""
        tops = tuple(self._fold(directory).rstrip("/") + "/" for directory in directories)
        return next((path for path in sorted(self._paths) if path.startswith(tops)), "")
