"""Whether a finished job used the files that the dev box holds. Pure: facts come in as look-ups.

The manifest is kept fresh by events; this is the check afterwards, on the files that the compiler
really read, so that a missed event costs a second compile and never a wrong object.
"""

import os
import posixpath
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from distbuild.mirror.manifest import Manifest
from distbuild.protocol.codec import mark, unpack_inputs, unpack_marks
from distbuild.protocol.messages import (
    Digest,
    Entry,
    FileEntry,
    InputFile,
    JobFile,
    ResultRequest,
    WithheldEntry,
)
from distbuild.syncer.include_lookup import IncludeFacts, Texts


class Findings(msgspec.Struct):
    """What is wrong with a result; all empty: nothing."""

    #: The worker read other bytes than the dev box has, or a file that the dev box has not.
    stale: list[str] = msgspec.field(default_factory=list)
    #: Files whose content the mirror held back.
    withheld: list[str] = msgspec.field(default_factory=list)
    #: Files that exist on the dev box, may come first in the search, and are not mirrored.
    shadowing: list[str] = msgspec.field(default_factory=list)
    #: Files that ask for names outside the mirrored directories.
    odd: list[str] = msgspec.field(default_factory=list)
    #: One has ``__has_include`` of what a macro names.
    asks_by_macro: bool = False
    #: A precompiled header that the compiler would have used here.
    precompiled: str = ""
    #: Another name of a file that was read, which was read as well.
    twin: str = ""

    def in_doubt(self) -> bool:
        """Whether the job has to run again."""
        return bool(self.stale or self.withheld or self.shadowing)


def examine(
    inputs: Iterable[InputFile],
    lookup: Callable[[str], Entry | None],
    own_files: Mapping[str, FileEntry],
    about: Callable[[str, Digest], IncludeFacts | None],
) -> Findings:
    """Compare what was read with the manifest; ``own_files`` came with the job (its source).

    ``about`` tells what a text asks for; see ``Texts``.
    """
    findings = Findings()
    for item in inputs:
        path = os.fsdecode(item.path)
        if path.startswith("/.dist_build/"):
            continue
        entry = own_files.get(path) or lookup(path)
        if isinstance(entry, WithheldEntry):
            findings.withheld.append(path)
        elif not isinstance(entry, FileEntry) or entry.digest != item.digest:
            findings.stale.append(path)
        elif path not in own_files:
            _look_at(path, about(path, item.digest), findings)
    return findings


def _look_at(path: str, facts: IncludeFacts | None, findings: Findings) -> None:
    """What the text of an input adds to the findings; None: it is another one by now."""
    if facts is None:
        findings.stale.append(path)
        return
    findings.asks_by_macro |= facts.asked.is_computed
    if facts.odd:
        findings.odd.append(path)


def precompiled(
    inputs: Iterable[str],
    search_dirs: Iterable[str],
    headers: Iterable[str],
    resolve: Callable[[str], str | None],
) -> str:
    """A precompiled header that the compiler would have found for one of the inputs, or "".

    ``inputs`` and ``headers`` are real paths. Where the header itself stands beside its
    precompiled form, it was read if that was looked for; else a name may mean either.
    """
    known = list(headers)
    if not known:
        return ""
    read = set(inputs)
    for header in known:
        plain = header[:-4]
        beside = resolve(plain)
        if beside is not None:
            if beside in read:
                return header
            continue
        for directory in (*search_dirs, plain.rpartition("/")[0]):
            prefix = directory.rstrip("/") + "/"
            if plain.startswith(prefix):
                end = "/" + plain[len(prefix) :]
                if any(path.endswith(end) for path in read):
                    return header
    return ""


def twin(inputs: Iterable[str], inodes: Mapping[str, int]) -> str:
    """An input that is the same file as one before it, or ""; ``inodes`` of those that may be."""
    seen: set[int] = set()
    for path in inputs:
        inode = inodes.get(path)
        if inode is not None and inode in seen:
            return path
        if inode is not None:
            seen.add(inode)
    return ""


def shadowing(
    inputs: Iterable[str],
    search_dirs: Sequence[str],
    shallow: Iterable[str],
    lookup: Callable[[str], Entry | None],
    exists: Callable[[str], bool],
) -> list[str]:
    """Files below partly mirrored directories that the search might have found before an input.

    For an input ``S/r`` found by search directory ``S``, a file ``D/r`` in a directory ``D`` of
    which only the top is mirrored may come first. Whether ``D`` is searched earlier is not asked:
    to mirror one file too many is cheap.
    """
    found: dict[str, None] = {}
    tops = list(shallow)
    if not tops:
        return []
    for path in inputs:
        for directory in search_dirs:
            prefix = directory.rstrip("/") + "/"
            if not path.startswith(prefix) or "/" not in path[len(prefix) :]:
                continue
            for top in tops:
                other = f"{top.rstrip('/')}/{path[len(prefix) :]}"
                if other != path and lookup(other) is None and exists(other):
                    found[other] = None
    return list(found)


class Inputs:
    """What a job has read: by marks, and unpacked once somebody looks. False: nothing."""

    def __init__(self, result: ResultRequest) -> None:
        self._packed = result.packed_inputs
        self._items = list(result.inputs)
        self.marks = unpack_marks(result.marks) if not self._items else ()

    def __bool__(self) -> bool:
        return bool(self._items or self._packed)

    def items(self) -> list[InputFile]:
        """All of them. Raises ProtocolError."""
        if self._packed:
            self._items += unpack_inputs(self._packed)
            self._packed = b""
        return self._items

    def marked(self) -> list[tuple[int, InputFile]]:
        """All of them with their marks. Raises ProtocolError."""
        items = self.items()
        if len(self.marks) != len(items):
            self.marks = [mark(item.path, item.digest) for item in items]
        return list(zip(self.marks, items, strict=True))

    def paths(self) -> list[str]:
        """The paths of all of them. Raises ProtocolError."""
        return [os.fsdecode(item.path) for item in self.items()]


class Proved:
    """The marks of what a job of the present generation read, and that was right."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._lock = threading.Lock()
        self._generation = -1
        self._right: set[int] = set()

    def knows(self, inputs: Inputs, own: Sequence[JobFile], manifest: Manifest) -> bool:
        """Whether by its marks a job read nothing but what is right, and ``own``, which came with
        it: the first of these is its source."""
        marks = set(inputs.marks)
        came = [mark(file.path, file.entry.digest) for file in own]
        if not came or came[0] not in marks:
            return False
        with self._lock:
            self._renew(manifest)
            return marks.difference(came) <= self._right

    def rest(
        self,
        inputs: Inputs,
        own: Collection[bytes],
        manifest: Manifest,
        shallow: Collection[str] = (),
    ) -> list[InputFile]:
        """Those that have to be looked at; what came with the job, by path, and what is directly in
        one of the ``shallow`` directories always. Raises ProtocolError."""
        marked = inputs.marked()
        with self._lock:
            self._renew(manifest)
            right = self._right
            new = [(at, item) for at, item in marked if at not in right]
            rest = [i for at, i in marked if at not in right or i.path in own]
        plain = [
            at
            for at, item in new
            if self._is_plainly_right(at, item, manifest)
            and not (shallow and posixpath.dirname(os.fsdecode(item.path)) in shallow)
        ]
        with self._lock:
            right.update(plain)  # of the generation in which this began
        return rest

    def _renew(self, manifest: Manifest) -> None:
        # Before the look-ups: what they find may be newer, never older.
        if self._generation != manifest.generation:
            self._generation, self._right = manifest.generation, set()

    def _is_plainly_right(self, at: int, item: InputFile, manifest: Manifest) -> bool:
        path = os.fsdecode(item.path)
        entry = manifest.get(path)
        if not isinstance(entry, FileEntry) or entry.digest != item.digest:
            return False
        if at != mark(item.path, item.digest):
            return False
        facts = self._texts.about(path, item.digest)
        return facts is not None and facts.is_plain
