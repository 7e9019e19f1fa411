"""Syncer side: checks that a finished job has read the same files as the dev box holds.

The manifest is kept fresh by file events. This check afterwards, on the files that the compiler
really read, makes a missed event cost a second compile and never a wrong object. Pure but for
``Proved``: facts are passed as look-up functions.
"""

import os
import posixpath
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from distbuild.command.diagnostics import places, plain
from distbuild.command.model import CompileCommand, Family, Local, LocalReason
from distbuild.command.passthrough import EMIT_PCH
from distbuild.farm.executor import Task
from distbuild.mirror.manifest import PRECOMPILED_SUFFIXES, Manifest
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

#: A file in a message of clang, which are always in English.
_QUOTED = re.compile(rb"'(/[^'\n]+)'")


class Findings(msgspec.Struct):
    """The problems with a result; all empty: none."""

    #: Files whose bytes on the worker differ from the dev box's, or that the dev box has not.
    stale: list[str] = msgspec.field(default_factory=list)
    #: Files whose content the mirror withheld.
    withheld: list[str] = msgspec.field(default_factory=list)
    #: Files of the dev box that are not mirrored and may shadow an input in the search.
    shadowing: list[str] = msgspec.field(default_factory=list)
    #: Inputs with an include operand that may lie outside the mirrored directories.
    odd: list[str] = msgspec.field(default_factory=list)
    #: An input has a ``__has_include`` whose operand is a macro.
    asks_by_macro: bool = False
    #: A precompiled header that the compiler would have used on the dev box.
    precompiled: str = ""
    #: An input that is a hard link of another input.
    twin: str = ""

    def in_doubt(self) -> bool:
        """Whether the job has to run again."""
        return bool(self.stale or self.withheld or self.shadowing)

    def obstacle(self) -> Local | None:
        """The reason why only the local compiler can do it; None: none."""
        if self.twin:
            return Local(LocalReason.HARD_LINKS, self.twin)
        if self.precompiled:
            return Local(LocalReason.PRECOMPILED_HEADER, self.precompiled)
        return None


def examine(
    inputs: Iterable[InputFile],
    lookup: Callable[[str], Entry | None],
    own_files: Mapping[str, FileEntry],
    about: Callable[[str, Digest], IncludeFacts | None],
) -> Findings:
    """Compare the files read with the manifest; ``own_files`` were sent with the job (its source).

    ``about`` returns the facts about an input's includes; see ``Texts.about``.
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
    """Add the facts about an input's text to the findings; None: the text has changed by now."""
    if facts is None:
        findings.stale.append(path)
        return
    findings.asks_by_macro |= facts.asked.is_computed
    if facts.odd:
        findings.odd.append(path)


def precompiled_beside(header: str) -> list[str]:
    """The paths at which a compiler looks for the precompiled form of a header."""
    return [header + suffix for suffix in PRECOMPILED_SUFFIXES]


def unseen_precompiled(task: Task, manifest: Manifest) -> list[str]:
    """Precompiled headers that the compiler did not find as they are on the dev box.

    A gcc command finds all that are mirrored, one of clang only the one that it names.
    """
    if not manifest.precompiled:
        return []
    command = task.command
    named = {manifest.resolve(command.absolute(name)) for name in command.ast_files}
    made = _made_by(command, manifest)
    finds_all = command.family is Family.GCC and command.needs_original_paths
    return [
        path
        for path in sorted(manifest.precompiled - {made})
        if not ((finds_all or path in named) and isinstance(manifest.get(path), FileEntry))
        or manifest.is_newer(path, task.generation)
    ]


def _made_by(command: CompileCommand, manifest: Manifest) -> str | None:
    """The precompiled header that a command of clang replaces unread: only the driver looks beside
    headers, those of its own -include."""
    emits = any(a.meaning == "-Xclang" and a.value == EMIT_PCH for a in command.arguments)
    if not emits or any(a.meaning == "-include" for a in command.arguments):
        return None
    return manifest.resolve(command.absolute(command.output))


def is_precompiled_refused(command: CompileCommand, stderr: bytes) -> bool:
    """Whether a failed compile's messages name its precompiled header or one of its modules."""
    return any(name.encode("utf-8", "surrogateescape") in stderr for name in command.ast_files)


def unproved_module(
    command: CompileCommand,
    result: ResultRequest,
    listed: Callable[[], Iterable[str]],
    real_path: Callable[[str], str],
) -> str:
    """The file for which a success with gcc's modules is not known to be the local compiler's; "":
    it is.

    That is a file from which messages may quote lines and that the compiler has not read: gcc
    quotes the sources of modules where it finds them. Or it is a compiled module that was not
    written. ``listed``: the real paths of the inputs.
    """
    if not command.module_root:
        return ""
    written = {os.fsdecode(file.path) for file in result.outputs}
    expected = map(command.absolute, command.by_products)
    if missing := next((path for path in expected if real_path(path) not in written), ""):
        return missing
    named = dict.fromkeys(path for path, _ in places(plain(result.stderr)))
    quoted = [command.absolute(path) for path in named if not path.startswith("<")]
    read = {*listed(), *(os.fsdecode(item.path) for item in result.assembled)} if quoted else ()
    return next((path for path in quoted if real_path(path) not in read), "")


def missed_precompiled(stderr: bytes) -> list[str]:
    """The files that clang names where it refuses a precompiled header: those that have another
    size or time than in it, or are missing."""
    found = dict.fromkeys(_QUOTED.findall(stderr))
    return [path.decode("utf-8", "surrogateescape") for path in found]


def precompiled(
    inputs: Iterable[str],
    search_dirs: Iterable[str],
    headers: Iterable[str],
    resolve: Callable[[str], str | None],
) -> str:
    """A precompiled header that the compiler would have found for one of the inputs, or "".

    ``inputs`` and ``headers`` are real paths. If the plain header exists beside its precompiled
    form, the compiler looked there only if it read the plain one. Else any input with that name
    below a search directory counts.
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
    """An input that is a hard link of one before it, or "". ``inodes``: of files that may be."""
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
    """Files below partly mirrored directories that may shadow an input in the search.

    For an input ``S/r`` found by search directory ``S``, a file ``D/r`` in a directory ``D`` of
    which only the top is mirrored may come first. Whether ``D`` is searched earlier is not checked:
    mirroring one file too many is cheap.
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
    """The inputs of a job: their marks, and the list, unpacked on first use. False: no inputs."""

    def __init__(self, result: ResultRequest) -> None:
        self._packed = result.packed_inputs
        self._items = list(result.inputs)
        self.marks = unpack_marks(result.marks) if not self._items else ()

    def __bool__(self) -> bool:
        return bool(self._items or self._packed)

    def items(self) -> list[InputFile]:
        """All inputs. Raises ProtocolError."""
        if self._packed:
            self._items += unpack_inputs(self._packed)
            self._packed = b""
        return self._items

    def marked(self) -> list[tuple[int, InputFile]]:
        """All inputs with their marks. Raises ProtocolError."""
        items = self.items()
        if len(self.marks) != len(items):
            self.marks = [mark(item.path, item.digest) for item in items]
        return list(zip(self.marks, items, strict=True))

    def paths(self) -> list[str]:
        """The paths of all inputs. Raises ProtocolError."""
        return [os.fsdecode(item.path) for item in self.items()]


class Proved:
    """A thread-safe cache of the marks of inputs that proved right in the present generation."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._lock = threading.Lock()
        self._generation = -1
        self._right: set[int] = set()

    def knows(self, inputs: Inputs, own: Sequence[JobFile], manifest: Manifest) -> bool:
        """Whether all of a job's marks are known to be right or are of ``own``, the files sent with
        it, of which the first is its source and must have been read."""
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
        """The inputs that have to be examined: always the files sent with the job (``own``, paths)
        and those directly in a ``shallow`` directory. Raises ProtocolError."""
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
            right.update(plain)  # the set of the generation in which this call began
        return rest

    def _renew(self, manifest: Manifest) -> None:
        # Before the look-ups: their results may be newer than this generation, never older.
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
