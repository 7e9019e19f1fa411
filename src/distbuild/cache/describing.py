"""Describes a finished compile: the files that it read and the names that it looked for, or the
reason why its result must not be kept.

Asks the mirror; reads each text once. For the cache's own thread, but for ``is_beyond_us``.
"""

import operator
import os
import posixpath
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence

from distbuild.cache.searched_names import (
    BESIDE,
    IMPORTS,
    LEAVES,
    MACROS,
    MAKES_ONCE,
    ONCE,
    PLACED,
    PRECOMPILED,
    NotKept,
    SearchedNames,
    TextRead,
    traits,
)
from distbuild.cache.variants import Candidates, SearchScope, Variant, places_of
from distbuild.command.model import Family
from distbuild.farm.executor import Task
from distbuild.mirror.includes import is_odd
from distbuild.mirror.live import Mirroring
from distbuild.mirror.policy import is_unusual
from distbuild.mirror.scan import Scanner
from distbuild.protocol.codec import unpack_inputs, unpack_marks
from distbuild.protocol.messages import FileEntry, ResultRequest
from distbuild.system import disk

#: A compile that does not list its system headers may have read this many at most.
MAX_SYSTEM_HEADERS = 5_000
_OWN = b"/.dist_build/"
#: clang takes the headers of a framework with this file for system headers.
_OF_SYSTEM = ".system_framework"
#: clang's own headers, beside which its other files are.
_RESOURCES = re.compile("/clang/[^/]+/include$")
#: gcc includes it by itself if a search finds it, also in the user's directories.
_OF_GCC = "stdc-predef.h"
_directory_of, _pair_of = operator.attrgetter("directory"), operator.attrgetter("pair")
_digest_of = operator.attrgetter("digest")


class Describer:
    """Makes variants of results."""

    def __init__(self, mirroring: Mirroring, scanner: Scanner, candidates: Candidates) -> None:
        self._mirroring = mirroring
        self._scanner = scanner
        self._candidates = candidates
        self._searched = SearchedNames()

    def real(self, task: Task) -> tuple[str, ...]:
        """The real paths of the search directories: by the mirror, else by the disk."""
        resolve = self._mirroring.manifest.resolve
        return tuple(resolve(d) or disk.realpath(d) for d in task.search_dirs)

    def described(self, task: Task, result: ResultRequest) -> Variant:
        """What the compile read and looked for. Raises NotKept, ProtocolError."""
        sources, texts = self._read(task, result)
        directories = self.real(task)
        if _hides_system_headers(task):
            texts = self._with_system_headers(task, sources, texts, directories)
        every = [*sources, *texts]
        names = self._searched.of(every, task)
        names.update(_named(task))
        if _has_frameworks(task):
            names.update(_frameworks_of(every))
        around = set(map(_directory_of, texts))
        search = SearchScope(directories, places_of({*directories, *around}), tuple(names))
        variant = Variant(0, tuple(map(_pair_of, texts)), search, self._candidates.sum(search))
        if traits(every) & PLACED and (result.stderr or _shows_lines(task)):
            raise NotKept("a message may show lines of another file")
        if not self._is_wholly_mirrored(search, texts):
            raise NotKept("not wholly mirrored")
        self._check_odd(every, search, whole=not _hides_system_headers(task))
        if self._has_copies(sources, every, search, around):
            raise NotKept("a copy of a header that is read once")
        if self.is_beyond_us(task, variant):
            raise NotKept("a precompiled header, a hard link, or a partly mirrored directory")
        return variant

    def _read(self, task: Task, result: ResultRequest) -> tuple[list[TextRead], list[TextRead]]:
        """The files that were sent with the job, and those that the compile read besides."""
        if result.assembled:
            raise NotKept("an assembler read files")
        own = [self._searched.read(file.path, file.entry.digest) for file in task.files]
        # A worker that sends other marks than its list has could as well leave inputs out.
        marks = () if result.inputs else unpack_marks(result.marks)
        read = self._searched.known(marks) if marks else None
        if read is None:
            more = unpack_inputs(result.packed_inputs) if result.packed_inputs else []
            read = [
                self._searched.read(item.path, item.digest)
                for item in (*result.inputs, *more)
                if not item.path.startswith(_OWN)
            ]
        sent = {text.path for text in own}
        texts = {text.path: text for text in read if text.path not in sent}
        written = {os.fsdecode(file.path) for file in result.outputs}
        if not written.isdisjoint(texts) or not written.isdisjoint(sent):
            raise NotKept("an output was read")
        if traits(read) & PRECOMPILED:
            raise NotKept("a precompiled header")
        return own, list(texts.values())

    def _with_system_headers(
        self,
        task: Task,
        sources: Sequence[TextRead],
        texts: Sequence[TextRead],
        directories: Sequence[str],
    ) -> list[TextRead]:
        """The texts, with all mirrored files that the command, includes in the texts, and in those,
        may lead to."""
        if _reads_system_list(task):
            raise NotKept("a sanitizer's own list, without a list of all inputs")
        if _has_frameworks(task):
            raise NotKept("a framework, without a list of all headers")
        around = {text.directory for text in texts}
        search = SearchScope(tuple(directories), places_of({*directories, *around}), ())
        found = {text.path: text for text in texts}
        own = {text.path for text in sources}
        new, operands, seen = [*sources, *texts], set(self._searched_for(task, found)), set[str]()
        while new or operands:
            operands = operands.union(*map(_operands_of, new)) - seen
            seen |= operands
            led = self._led_to(search, operands)
            new = [text for text in led if text.path not in found and text.path not in own]
            found.update((text.path, text) for text in new)
            operands = set()
            if len(found) > MAX_SYSTEM_HEADERS:
                raise NotKept("too many system headers")
        return list(found.values())

    def _searched_for(self, task: Task, listed: Collection[str]) -> Iterator[str]:
        """What the command has the compiler search for as includes do, and may be listed nowhere.

        An absolute name is not searched for. The working directory comes first.
        """
        for name in task.command.input_files:
            real = self._mirroring.manifest.resolve(task.command.absolute(name))
            if not name.startswith("/") and real not in listed:
                yield posixpath.normpath(name)
        yield from _implicit(task)

    def _led_to(self, search: SearchScope, operands: Iterable[str]) -> Iterator[TextRead]:
        """The mirrored files that includes of these operands may lead to. Raises NotKept."""
        paths = {path for name in operands for path in self._candidates.matching(search, name)}
        for path in sorted(paths):
            entry = self._mirroring.manifest.get(path)
            if not isinstance(entry, FileEntry):
                raise NotKept("a header whose content is not mirrored")
            yield self._searched.read(os.fsencode(path), entry.digest)

    # --- what makes a result unfit --------------------------------------------------------------

    def _is_wholly_mirrored(self, search: SearchScope, texts: Iterable[TextRead]) -> bool:
        """Whether every directory in which a file was looked for is. Of a directory to whose files
        symlinks lead one by one, only these are: no text of it may look beside itself."""
        roots = self._mirroring.roots
        around = {text.directory for text in texts if text.traits & BESIDE}
        linked = [path for path in self._candidates.linked(search) if path.endswith("/")]
        return all(map(roots.holds_files_of, around)) and all(
            roots.holds_all_of(top.rstrip("/") or "/") for top in linked
        )

    def _check_odd(self, texts: Sequence[TextRead], search: SearchScope, *, whole: bool) -> None:
        """Raise NotKept if an include that leaves the mirrored directories may have been followed.

        A quoted include that climbs is looked for beside its text first: if it leads to an input,
        nothing can come before that. Else it was not followed if no input has its name. ``whole``:
        all inputs are known.
        """
        leaving = [text for text in texts if text.traits & LEAVES]
        if not leaving:
            return
        read = {text.path for text in texts}
        linked = self._candidates.linked(search)
        for text in leaving:
            doubtful = list(text.looks.odd)
            for operand in text.looks.climbing:
                target = posixpath.normpath(posixpath.join(text.directory, operand))
                if target not in read or text.path in linked:
                    doubtful.append(posixpath.basename(operand))
            if doubtful and not (whole and not any(self._may_be_of(n, read) for n in doubtful)):
                raise NotKept("an include that leaves the mirrored directories")

    def _may_be_of(self, name: str, read: Collection[str]) -> bool:
        """Whether a path with this last component leads to one of the files read."""
        manifest = self._mirroring.manifest
        return any(manifest.resolve(path) in read for path in manifest.index.paths(name))

    def _has_copies(
        self,
        sources: Sequence[TextRead],
        texts: Sequence[TextRead],
        search: SearchScope,
        around: Collection[str],
    ) -> bool:
        """Whether gcc may have skipped a file with the content of another that is read once, by
        its time."""
        manifest, shown = self._mirroring.manifest, traits(texts)
        if not shown & (ONCE | IMPORTS):
            return False
        # The content of a source is mostly not in the manifest: one copy there is enough.
        copied = manifest.copied.intersection(map(_digest_of, texts))
        copied.update(text.digest for text in sources)
        copies = [
            copy
            for text in texts
            if text.digest in copied and (shown & MAKES_ONCE or text.traits & ONCE)
            for copy in manifest.paths_of(text.digest) - {text.path}
        ]
        if not copies:
            return False
        places, linked = {*search.directories, *around}, self._candidates.linked(search)
        operands = {*search.names, *(o for text in texts for o in text.looks.operands)}
        leaving = {name for text in texts for name in _leaving(text)}
        return any(
            c.startswith(linked)
            or posixpath.basename(c) in leaving
            or _is_found(c, operands, places)
            for c in copies
        )

    def is_beyond_us(self, task: Task, variant: Variant) -> bool:
        """Whether a compile now may depend on more than the variant knows."""
        return (
            self._is_partly_mirrored(task, variant)
            or self._has_twins(task, variant)
            or self._may_be_precompiled(variant)
        )

    def _may_be_precompiled(self, variant: Variant) -> bool:
        """Whether a compiler may read a precompiled header instead of one of the names."""
        search = variant.search
        return any(
            posixpath.basename(path)[:-4] in search.names
            and self._candidates.may_find(search, path)
            for path in tuple(self._mirroring.manifest.precompiled)
        )

    def _is_partly_mirrored(self, task: Task, variant: Variant) -> bool:
        """Whether the mirror lacks files below a directory in which the compile looks."""
        shallow = self._mirroring.roots.shallow()
        if not shallow:
            return False
        around = {posixpath.dirname(path) for path, _ in variant.inputs}
        around.update(variant.search.directories, self.real(task))
        return not around.isdisjoint(shallow)

    def _has_twins(self, task: Task, variant: Variant) -> bool:
        """Whether an input may be a hard link of another: clang takes both for one file."""
        if not task.command.family.is_clang:
            return False
        twins = self._scanner.twins()
        return any(path in twins for path, _ in variant.inputs)


def surroundings(task: Task) -> tuple[int | str, ...] | None:
    """What decides a compile's output and is in no mirror; None: not all of it is known.

    For each search directory its file type, or minus the number of the error that ``stat`` gives,
    and the place of the first that is the same: compilers warn of some types, gcc fails for some
    errors, and both search a directory once, whatever its path. For clang's sanitizers the lists
    that it has: it uses each that exists.
    """
    kinds, first = list[int](), dict[tuple[int, int], int]()
    for at, directory in enumerate(task.search_dirs):
        try:
            status = disk.stat(directory)
        except OSError as error:
            kinds += -(error.errno or 0), at
        else:
            same = first.setdefault((status.st_dev, status.st_ino), at)
            kinds += stat.S_IFMT(status.st_mode), same
    lists = _own_lists(task) if _reads_system_list(task) else ()
    return None if lists is None else (*kinds, *lists)


def _own_lists(task: Task) -> Sequence[str] | None:
    """The names of the sanitizers' lists in clang's own directory; None: that is not known."""
    words = (a.value for a in task.command.arguments if a.meaning.startswith("-resource-dir"))
    named = [task.command.absolute(word) for word in words if word]
    found = [posixpath.dirname(d) for d in task.builtin_dirs if _RESOURCES.search(d)]
    for directory in (named or found)[-1:]:
        try:
            return sorted(disk.listdir(posixpath.join(directory, "share")))
        except OSError:
            return ()
    return None


def _hides_system_headers(task: Task) -> bool:
    dependencies = task.command.dependencies
    return dependencies is not None and not dependencies.system


def _leaving(text: TextRead) -> Iterator[str]:
    """The last components of its operands that may leave the mirrored directories."""
    yield from text.looks.odd
    yield from map(posixpath.basename, text.looks.climbing)


def _has_frameworks(task: Task) -> bool:
    """Whether an include may lead to a path that does not end with its operand."""
    return any(a.meaning in ("-F", "-iframework") for a in task.command.arguments)


def _frameworks_of(texts: Sequence[TextRead]) -> Iterator[str]:
    """The directories in which clang looks for includes of frameworks: of the first that exists it
    takes the headers or none. Raises NotKept."""
    if traits(texts) & MACROS:
        raise NotKept("an include that is not a plain name, with frameworks")
    for text in texts:
        for operand in text.looks.operands:
            name, _, rest = operand.partition("/")
            if rest:
                yield f"{name}.framework"


def _shows_lines(task: Task) -> bool:
    """Whether an output, and not only a message, shows lines of the source."""
    options = (argument.option for argument in task.command.arguments)
    return any(o.startswith(("-fverbose-asm", "-fdiagnostics-format")) for o in options)


def _operands_of(text: TextRead) -> Sequence[str]:
    if text.looks.macros or text.looks.is_opaque:
        raise NotKept("an include that is not a plain name, without a list of all headers")
    return text.looks.operands


def _reads_system_list(task: Task) -> bool:
    """Whether clang reads a list of its own, which is listed only with the system headers."""
    arguments = task.command.arguments
    return task.command.family.is_clang and any(
        "-fsanitize" in word for argument in arguments for word in argument.tokens()
    )


def _named(task: Task) -> Iterator[str]:
    """The last components of the files that the command names, or that are looked for by their
    directories alone. Raises NotKept."""
    for name in task.command.input_files:
        if is_odd(name, is_unusual) and not name.startswith("/"):
            raise NotKept("an option names a file by an unusual path")
        yield posixpath.basename(name)
    yield from _implicit(task)
    if _has_frameworks(task):
        yield _OF_SYSTEM


def _implicit(task: Task) -> Iterator[str]:
    """The names of the headers that the compiler may include by itself."""
    if task.implicit_include:
        yield posixpath.basename(task.implicit_include)
    if task.command.family is Family.GCC:
        yield _OF_GCC


def _is_found(path: str, operands: Iterable[str], places: Collection[str]) -> bool:
    """Whether a search for one of the operands in one of the places finds a path."""
    return any(
        path.endswith("/" + operand) and (path[: -len(operand) - 1] or "/") in places
        for operand in operands
    )
