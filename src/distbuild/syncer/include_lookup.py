"""Mirrors included files that no mirrored directory brings: outside of them, or left out by name.

Used by the syncer before a job, for its source, and after it, for the texts that it read. An "odd"
operand is absolute, climbs by ``..``, or has a name that a mirrored directory leaves out.
"""

import contextlib
import hashlib
import os
import posixpath
import threading
from collections.abc import Collection, Iterable

import msgspec

from distbuild.command.model import HERE
from distbuild.farm.executor import Task
from distbuild.mirror.digest_cache import put_bounded
from distbuild.mirror.includes import (
    NOTHING,
    Asked,
    asked,
    is_odd,
    names_in_definition,
    names_in_directives,
    odd_operands,
)
from distbuild.mirror.live import Mirroring
from distbuild.mirror.policy import is_binary, is_unusual
from distbuild.protocol.messages import Digest, FileEntry, InputFile
from distbuild.system import disk

#: So many texts are known at the most; a large project has fewer headers.
MAX_TEXTS = 100_000


class IncludeFacts(msgspec.Struct, frozen=True):
    """Facts about one text. ``odd``: it has an odd include operand. ``asked``: the operands of
    ``__has_include``."""

    odd: bool = False
    asked: Asked = NOTHING

    @property
    def is_plain(self) -> bool:
        """Whether its includes need no further look-ups."""
        return not (self.odd or self.asked.is_computed)


class Texts:
    """A thread-safe cache of facts by the texts' digests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Digest, IncludeFacts] = {}
        self._named: dict[Digest, tuple[str, ...]] = {}

    def about(self, path: str, digest: Digest) -> IncludeFacts | None:
        """The facts of the text with this digest at ``path``; None: the file has changed."""
        known = self._known.get(digest)
        if known is not None:
            return known
        data = _read(path, digest)
        if data is None:
            return None
        facts = IncludeFacts()
        if not is_binary(data):  # as compiled modules are
            facts = IncludeFacts(bool(odd_operands(data, is_unusual)), asked(data))
        with self._lock:
            put_bounded(self._known, digest, facts, MAX_TEXTS)
        return facts

    def named(self, path: str, digest: Digest) -> tuple[str, ...]:
        """Possible file names in the directives of that text; none if the file has changed."""
        known = self._named.get(digest)
        if known is not None:
            return known
        names = names_in_directives(_read(path, digest) or b"")
        with self._lock:
            put_bounded(self._named, digest, names, MAX_TEXTS)
        return names


def _read(path: str, digest: Digest) -> bytes | None:
    """The content of ``path``; None if it does not have this digest."""
    try:
        with disk.open_to_read(path) as file:
            data = file.read()
    except OSError:
        return None
    return data if hashlib.sha256(data).digest() == digest else None


def cover_odd(
    mirroring: Mirroring, text: bytes, directory: str, search_dirs: Iterable[str]
) -> tuple[str, ...]:
    """Mirror every file that an odd include operand of ``text`` may name; returns the operands.

    ``directory``: of the file with this text.
    """
    operands = odd_operands(text, is_unusual)
    if operands:
        _cover(mirroring, operands, [directory, *search_dirs])
    return operands


def cover_odd_files(
    mirroring: Mirroring, task: Task, paths: Iterable[str], *, by_macro: bool = False
) -> bool:
    """The same for the texts at these paths; whether a file is newer than in the task's tree.

    ``by_macro``: also for the values that they and the command give to macros.
    """
    is_new = False
    for path in paths:
        with contextlib.suppress(OSError), disk.open_to_read(path) as file:
            text = file.read()
            names = list(odd_operands(text, is_unusual))
            if by_macro:
                values = (*names_in_directives(text), *_defined(task))
                names.extend(value for value in values if is_odd(value, is_unusual))
            places = [posixpath.dirname(path), *task.search_dirs] if names else []
            is_new |= _cover(mirroring, names, places, task.generation)
    return is_new


def cover_asked(
    mirroring: Mirroring,
    texts: Texts,
    task: Task,
    inputs: Iterable[InputFile],
    partly: Collection[str],
) -> bool:
    """Mirror the files that ``__has_include`` in a job's inputs may name; whether one is newer than
    in the task's tree.

    ``partly``: its search directories of which only the top is mirrored. There any name with a
    directory in it may be missing. If the operand is a macro, every value that the texts and the
    command give to macros is a candidate.
    """
    # A worker may list other paths too, which need not be files at all.
    known = {os.fsdecode(file.path) for file in task.files}
    read = [
        (path, item.digest)
        for item in inputs
        if (path := os.fsdecode(item.path)) in known
        or isinstance(mirroring.manifest.get(path), FileEntry)
    ]
    asking, is_new = [], False
    for path, digest in read:
        facts = texts.about(path, digest)
        if facts is None:
            continue
        directory = posixpath.dirname(path)
        if partly:
            names = [name for name in facts.asked.names if "/" in name]
            is_new |= _cover(mirroring, names, [directory, *partly], task.generation)
        if facts.asked.is_computed:
            asking.append(directory)
    if not asking:
        return is_new
    values = dict.fromkeys(name for path, digest in read for name in texts.named(path, digest))
    values.update(dict.fromkeys(_defined(task)))
    odd = [n for n in values if is_odd(n, is_unusual) or (partly and "/" in n)]
    return _cover(mirroring, odd, [*asking, *task.search_dirs], task.generation) or is_new


def _cover(
    mirroring: Mirroring, names: Iterable[str], places: Iterable[str], since: int = 0
) -> bool:
    """Mirror single files that exist; whether a tree of generation ``since`` lacked one.

    A file that does not exist is in no tree either. The directory of a file is not mirrored: it may
    be as large as ``/usr``.
    """
    manifest, is_new = mirroring.manifest, False
    around = tuple(dict.fromkeys(places))
    for path in dict.fromkeys(HERE.absolute(place, n) for n in names for place in around):
        if not disk.isfile(path):
            continue
        if not _holds(mirroring, path):
            mirroring.want(path)
        is_new |= manifest.has_newer(path, since)
    return is_new


def _holds(mirroring: Mirroring, path: str) -> bool:
    """Whether the mirror has a file's content under this path, and the files beside it."""
    manifest = mirroring.manifest
    if not manifest.leads_to_file(path):
        return False
    directory = manifest.resolve(posixpath.dirname(path))
    return directory is not None and mirroring.roots.holds_files_of(directory)


def _defined(task: Task) -> Iterable[str]:
    """Possible file names in the values of the command's ``-D`` macros."""
    for argument in task.command.arguments:
        if argument.meaning == "-D" and argument.value is not None:
            yield from names_in_definition(argument.value)


def is_absolute(operand: str) -> bool:
    """Whether an operand names the same path in every search directory."""
    return HERE.absolute("/C/1", operand) == HERE.absolute("/C/2", operand)
