"""Inputs of results, and which of them were held against the mirror before.

The headers of a project are read by each of its files: hundreds of look-ups a job, and as many
paths to unpack, unless an earlier job has read the same.
"""

import os
import posixpath
import threading
from collections.abc import Collection, Sequence

from distbuild.mirror.manifest import Manifest
from distbuild.protocol.codec import unpack_inputs
from distbuild.protocol.marks import mark, unpack_marks
from distbuild.protocol.messages import FileEntry, InputFile, JobFile, ResultRequest
from distbuild.syncer.include_facts import Texts


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
