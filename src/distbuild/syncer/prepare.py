"""Prepares a command for a remote compile: mirrors the directories it may read, packs its source.

Returns a Task, or Local with the reason. Reads the dev box's disk; knows no queue.
"""

import os
import posixpath
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from distbuild.command import probe
from distbuild.command.model import CompileCommand, Family, Local, LocalReason
from distbuild.command.original_paths import asks_terminfo, is_of_process
from distbuild.command.parse_cache import Recall
from distbuild.command.search_paths import listed_dirs, quoted_dirs
from distbuild.farm.executor import Task
from distbuild.mirror.digest_cache import FileRead, read_file
from distbuild.mirror.includes import asked
from distbuild.mirror.live import Mirroring
from distbuild.mirror.roots import trace
from distbuild.mirror.scan import MAX_MTIME_NS
from distbuild.protocol.codec import pack_quickly
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import Blob, FileEntry, JobFile, WithheldEntry
from distbuild.syncer.assembler_inputs import AssemblerFiles, assembler_files
from distbuild.syncer.compilers import Compilers, Search
from distbuild.syncer.environment import Zone, describe
from distbuild.syncer.include_lookup import cover_odd, is_absolute
from distbuild.syncer.module_files import CompiledModules, header_units, with_mapper
from distbuild.syncer.understand import Submission, Understood, parts, understand
from distbuild.system import disk
from distbuild.system.paths import WINDOWS

#: The size of all cached texts, plain and packed together.
MAX_BYTES = 64 * 1024 * 1024


class Sources:
    """A thread-safe LRU cache of packed sources by path and language.

    Only for sources without odd includes or assembler files, which need look-ups in other files at
    each compile.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._lock = threading.Lock()
        # The one used last is at the end.
        self._known: dict[tuple[str, str], tuple[bytes, Blob]] = {}
        self._left = max_bytes

    def find(self, path: str, language: str, data: bytes) -> Blob | None:
        """The packed text, if ``data`` is the text cached under this path and language."""
        key = (path, language)
        with self._lock:
            known = self._known.get(key)
            if known is None or known[0] != data:
                return None
            self._known[key] = self._known.pop(key)
            return known[1]

    def remember(self, path: str, language: str, data: bytes, blob: Blob) -> None:
        """Cache a packed text and evict those unused for the longest, down to ``max_bytes``."""
        key = (path, language)
        with self._lock:
            self._drop(key)
            self._known[key] = (data, blob)
            self._left -= _size(data, blob)
            while self._left < 0:
                self._drop(next(iter(self._known)))

    def _drop(self, key: tuple[str, str]) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._left += _size(*known)


def _size(data: bytes, blob: Blob) -> int:
    return len(data) + len(blob.data)


class _Text(msgspec.Struct, frozen=True):
    """A source as read, the same packed, and the files that it plainly names for an assembler.

    ``command``: with its modules. ``mapper``: the command's module mapper, by its path.
    ``is_plain``: the source was found in ``Sources``, so that its includes need no look-ups.
    """

    command: CompileCommand
    read: FileRead
    blob: Blob
    more: AssemblerFiles
    mapper: Mapping[str, FileRead]
    is_plain: bool

    @property
    def beside(self) -> dict[str, FileRead]:
        """All files that are sent with the source."""
        return {**self.more.files, **self.mapper}


class Preparer:
    """Builds tasks from submissions."""

    def __init__(self, compilers: Compilers, mirroring: Mirroring) -> None:
        self._compilers = compilers
        self._mirroring = mirroring
        self._zone = Zone()
        self._sources = Sources()
        self._modules = CompiledModules()
        self._recall = Recall()

    def understand(self, submission: Submission) -> Understood | Local:
        """Parse a command and identify its compiler; see ``understand.understand``."""
        return understand(submission, self._compilers, self._recall)

    def parts(self, submission: Submission) -> list[Submission]:
        """Split a command with several sources; see ``understand.parts``."""
        return parts(submission, self._compilers)

    def prepare(self, submission: Submission, known: Understood) -> Task | Local:
        """Bring the mirror of all that the command may read up to date, and pack its source."""
        command = known.command
        try:
            own = self._compilers.search(known.driver, command)
        except InfrastructureError as error:
            return Local(LocalReason.NOT_A_COMPILER, str(error))
        if isinstance(env := self._environment(submission, known), Local):
            return env
        source = command.absolute(command.source)
        text = self._text(source, command)
        if isinstance(text, Local):
            return text
        command, beside = text.command, text.beside
        searched = _searched(command, env, (source, *beside), own)
        if obstacle := self._require(command, searched, own):
            return obstacle
        odd, asks_by_macro = self._odd(text, posixpath.dirname(source), searched)
        generation = self._settled(command)
        file = self._job_file(command, text, odd=bool(odd) or asks_by_macro)
        if file is None:  # deleted meanwhile
            return Local(LocalReason.SOURCE_MISSING, command.source)
        leads_out = text.more.is_tied or asks_by_macro or any(map(is_absolute, odd))
        if tied_by := self._tied_by(command, own, searched, leads_out=leads_out):
            command = msgspec.structs.replace(command, tied_by=tied_by)
        return Task(
            command=command,
            env=env,
            toolchain=known.identity.digest_for(command.language),
            generation=generation,
            files=(file, *_travelling(beside)),
            search_dirs=searched,
            builtin_dirs=own.dirs,
            implicit_include=own.implicit_include,
            output_dirs=tuple(dict.fromkeys(command.output_dirs)),
            processor=known.processor,
            terminal=submission.terminal,
            asks_by_macro=asks_by_macro,
            stopwatch=submission.stopwatch,
        )

    def _require(
        self, command: CompileCommand, searched: tuple[str, ...], own: Search
    ) -> Local | None:
        """Mirror the directories that the compiler searches; Local: one of them forbids it."""
        if units := header_units(command, searched):
            return Local(LocalReason.MODULES, units)
        self._mirroring.require((*searched, *_foreign_gcc(own.dirs)))
        closed = self._mirroring.closed(searched)
        return Local(LocalReason.INPUT_NOT_MIRRORED, closed) if closed else None

    def _odd(
        self, text: _Text, place: str, searched: Iterable[str]
    ) -> tuple[tuple[str, ...], bool]:
        """The include operands of a source in directory ``place`` that may lie outside the mirrored
        directories, and whether the operand of a ``__has_include`` is a macro."""
        if text.is_plain:
            return (), False
        data = text.read.data
        return cover_odd(self._mirroring, data, place, searched), asked(data).is_computed

    def _settled(self, command: CompileCommand) -> int:
        """The generation with all changes up to now and with the files that the command names."""
        generation = self._mirroring.settle()
        manifest = self._mirroring.manifest
        named = [*_inputs(command), *self._modules.imported(command, manifest.get)]
        self._want_withheld(named)
        # Another job may have mirrored them since ``settle``.
        if named and any(manifest.has_newer(path, generation) for path in named):
            return manifest.generation
        return generation

    def _environment(self, submission: Submission, known: Understood) -> dict[str, str] | Local:
        """The variables that the compiler gets on the worker; Local if it cannot run there so."""
        allowed = probe.environment_for(known.command.family, submission.env)
        env = {"TZ": self._zone.now(), **allowed}
        for path in filter(is_of_process, listed_dirs(known.command, env)):
            return Local(LocalReason.SPECIAL_INPUT, path)
        if submission.terminal and asks_terminfo(known.command, known.identity.version):
            terminal = describe(submission.env, os.path.expanduser("~"))
            if terminal is None:
                return Local(LocalReason.UNSUPPORTED_OPTION, f"TERM={env['TERM']}, unknown here")
            env |= terminal
        return (_abbreviated(known.command, env) if WINDOWS else None) or env

    def _text(self, source: str, command: CompileCommand) -> _Text | Local:
        """The source as it is now; Local if the local compiler has to handle it or report it."""
        try:
            if not stat.S_ISREG(disk.stat(source).st_mode):
                return Local(LocalReason.SPECIAL_INPUT, command.source)
            read = read_file(source)
        except OSError as error:
            return Local(LocalReason.SOURCE_MISSING, f"{command.source}: {error.strerror}")
        mapped = with_mapper(command, read.data)
        if isinstance(mapped, Local):
            return mapped
        command, mapper = mapped
        if special := _special_input(command):
            return special
        blob = self._sources.find(source, command.language, read.data)
        if blob is not None:
            return _Text(command, read, blob, AssemblerFiles(), mapper, is_plain=True)
        more = assembler_files(read.data, command)
        return _Text(command, read, pack_quickly(read.data), more, mapper, is_plain=False)

    def _job_file(self, command: CompileCommand, text: _Text, *, odd: bool) -> JobFile | None:
        """The source as it was read, under its real path; None if it was deleted meanwhile."""
        source = command.absolute(command.source)
        if not (text.is_plain or text.more.files or odd):
            self._sources.remember(source, command.language, text.read.data, text.blob)
        # The manifest knows the components' links. A source that is not mirrored is looked up.
        real = self._mirroring.manifest.resolve(source) or trace(source).real
        if real is None:
            return None
        self._mirroring.learn(real, text.read, text.blob.digest)
        return _job_file(real, text.read, text.blob)

    def _tied_by(
        self, command: CompileCommand, own: Search, searched: tuple[str, ...], *, leads_out: bool
    ) -> str:
        """The kind of file that it may find by its original paths, and would not find relocated.
        ``leads_out``: its source names files by absolute paths, perhaps by a macro."""
        if leads_out:
            return "an absolute path, or a macro, in an include"
        if self._hides(own.implicit_include, command):
            return f"another {own.implicit_include}"
        return "a precompiled header" if self._may_take_precompiled(command, searched) else ""

    def _may_take_precompiled(self, command: CompileCommand, searched: tuple[str, ...]) -> bool:
        """Whether a mirrored precompiled header is below a directory that this command searches."""
        manifest = self._mirroring.manifest
        if not manifest.precompiled:
            return False
        if command.family is not Family.GCC or command.needs_original_paths:
            return False
        held = [p for p in tuple(manifest.precompiled) if isinstance(manifest.get(p), FileEntry)]
        tops = tuple(disk.realpath(d).rstrip("/") + "/" for d in searched) if held else ()
        return any(path.startswith(tops) for path in held)

    def _hides(self, implicit: str | None, command: CompileCommand) -> bool:
        """Whether a file shadows the header that the compiler includes by itself: a relocated
        command includes that header by name, and would find the other file first."""
        if implicit is None:
            return False
        name = posixpath.basename(implicit)
        resolve = self._mirroring.manifest.resolve
        places = (command.cwd, *map(command.absolute, quoted_dirs(command)))
        return any(resolve(posixpath.join(place, name)) is not None for place in places)

    def _want_withheld(self, paths: Iterable[str]) -> None:
        """Mirror those of these files whose content is not mirrored yet."""
        for path in paths:
            real = trace(path).real
            entry = self._mirroring.manifest.get(real) if real is not None else None
            if real is not None and (entry is None or isinstance(entry, WithheldEntry)):
                self._mirroring.want(path)


def _abbreviated(command: CompileCommand, env: Mapping[str, str]) -> Local | None:
    """An obstacle if a path has one of Windows' short names (8.3): on a worker it names another
    file or none."""
    paths = (command.cwd, command.absolute(command.source), *_search_dirs(command, env))
    short = next(filter(disk.has_short_name, paths), None)
    return None if short is None else Local(LocalReason.INPUT_NOT_MIRRORED, short)


def _travelling(files: Mapping[str, FileRead]) -> Iterator[JobFile]:
    """The job's files under their real paths, each once."""
    packed = {}
    for path, read in files.items():
        real = trace(path).real
        if real is not None:
            packed[real] = _job_file(real, read, pack_quickly(read.data))
    yield from packed.values()


def _job_file(real: str, read: FileRead, blob: Blob) -> JobFile:
    """A file under its real path, as it was read."""
    executable = 0o111 if read.status.st_mode & 0o111 else 0
    mtime_ns = min(read.status.st_mtime_ns, MAX_MTIME_NS)
    return JobFile(
        os.fsencode(real), FileEntry(blob.digest, blob.size, 0o444 | executable, mtime_ns), blob
    )


def _search_dirs(command: CompileCommand, env: Mapping[str, str]) -> list[str]:
    """The search directories that the command and its environment name."""
    return [*map(command.absolute, command.search_dirs), *listed_dirs(command, env)]


def _foreign_gcc(builtin_dirs: Iterable[str]) -> list[str]:
    """Where clang found a gcc below --sysroot or --gcc-toolchain: its header paths lead through it.

    Not below /usr, which is the worker's own.
    """
    places = (path.partition("/../")[0] for path in builtin_dirs if "/../" in path)
    return list(dict.fromkeys(place for place in places if not place.startswith("/usr/")))


def _searched(
    command: CompileCommand, env: Mapping[str, str], read: Iterable[str], own: Search
) -> tuple[str, ...]:
    """All directories that the compiler searches: those of its input files, the working directory,
    those that the command names, and the compiler's own."""
    around = [*map(posixpath.dirname, (*read, *_inputs(command))), command.cwd]
    return tuple(dict.fromkeys([*around, *_search_dirs(command, env), *own.dirs]))


def _inputs(command: CompileCommand) -> list[str]:
    return list(map(command.absolute, command.input_files))


def _special_input(command: CompileCommand) -> Local | None:
    """An obstacle if an input is not a regular file; a missing input counts only if it is one of
    ``unlisted_files``, since only the local compiler can report that."""
    for name in command.input_files:
        path = command.absolute(name)
        there = disk.exists(path) or name in command.unlisted_files
        if there and not disk.isfile(path):
            return Local(LocalReason.SPECIAL_INPUT, path)
    return None
