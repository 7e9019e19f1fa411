"""Makes a command ready to be compiled elsewhere: what it reads is mirrored, its source packed.

Answers with a Task, or with Local and the reason. Reads the dev box's disk; knows no queue.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from distbuild.command import toolchain
from distbuild.command.model import CompileCommand, Family, Local, LocalReason
from distbuild.command.recall import Recall
from distbuild.mirror.known import FileRead, read_file
from distbuild.mirror.roots import trace
from distbuild.mirror.scan import MAX_MTIME_NS
from distbuild.mirror.text import assembler_reads_more
from distbuild.protocol.blobs import pack_quickly
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import FileEntry, JobFile, WithheldEntry
from distbuild.syncer.compilers import Compilers, Driver, find
from distbuild.syncer.executor import Task
from distbuild.syncer.mirroring import Mirroring
from distbuild.syncer.odd import cover_odd
from distbuild.syncer.zone import local_zone
from distbuild.toolchains import Identity

_PATH_LISTS = ("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH")
#: More response file than this is no command line.
MAX_RESPONSE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Submission:
    """A command as the wrapper gave it. ``env`` is the wrapper's, or a part of it."""

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    stderr_tty: bool = False


@dataclass(frozen=True, slots=True)
class Understood:
    """A command that can be distributed as far as its text and its compiler go."""

    command: CompileCommand
    driver: Driver
    identity: Identity


class Preparer:
    """Builds tasks."""

    def __init__(self, compilers: Compilers, mirroring: Mirroring) -> None:
        self._compilers = compilers
        self._mirroring = mirroring
        self._zone = local_zone()
        self._recall = Recall()

    def understand(self, submission: Submission) -> Understood | Local:
        """Parse a command and find out which compiler it calls."""
        obstacle = toolchain.environment_obstacle(dict(submission.env))
        if obstacle is not None:
            return obstacle
        name, cwd = submission.argv[0], submission.cwd
        first = self._recall.parse(submission.argv, cwd, _read_response)
        if isinstance(first, Local):
            return first
        driver = find(name, cwd, submission.env.get("PATH", os.defpath))
        if driver is None:
            return Local(LocalReason.NOT_A_COMPILER, f"{name}: not found")
        try:
            identity = self._compilers.identity(driver)
        except InfrastructureError as error:
            return Local(LocalReason.NOT_A_COMPILER, str(error))
        if identity.family is not first.family:
            again = self._recall.parse(submission.argv, cwd, _read_response, family=identity.family)
            if isinstance(again, Local):
                return again
            first = again
        obstacle = _output_obstacle(first)
        return obstacle or Understood(first, driver, identity)

    def prepare(self, submission: Submission, known: Understood) -> Task | Local:
        """Mirror what the command may read as it is now, and pack its source."""
        command = known.command
        try:
            own = self._compilers.search(known.driver, command)
        except InfrastructureError as error:
            return Local(LocalReason.NOT_A_COMPILER, str(error))
        env = {"TZ": self._zone, **toolchain.allowed_environment(submission.env)}
        search = tuple(dict.fromkeys([*_explicit_dirs(command), *_listed(env, command.cwd)]))
        source = os.path.join(command.cwd, command.source)
        around = [os.path.dirname(source), command.cwd, *map(os.path.dirname, _inputs(command))]
        read = _read_source(source, command)
        if isinstance(read, Local):
            return read
        for path in _inputs(command):
            if os.path.exists(path) and not os.path.isfile(path):
                return Local(LocalReason.SPECIAL_INPUT, path)
        searched = tuple(dict.fromkeys([*around, *search, *own.dirs]))
        self._mirroring.require(searched)
        odd = cover_odd(self._mirroring, read.data, os.path.dirname(source), searched)
        generation = self._mirroring.settle()
        for path in _inputs(command):
            if self._want_withheld(path):
                generation = self._mirroring.manifest.generation
        file = self._job_file(source, read, odd=odd)
        if file is None:
            return Local(LocalReason.SOURCE_MISSING, command.source)
        if self._may_take_precompiled(command, searched):
            command = replace(command, needs_original_paths=True)
        return Task(
            command=command,
            env=env,
            toolchain=known.identity.digest,
            generation=generation,
            files=(file,),
            search_dirs=searched,
            builtin_dirs=own.dirs,
            implicit_include=own.implicit_include,
            output_dirs=tuple(dict.fromkeys(d for d in command.output_dirs if os.path.isdir(d))),
            stderr_tty=submission.stderr_tty,
        )

    def _job_file(self, source: str, read: FileRead, *, odd: bool) -> JobFile | None:
        """The source as it was read, under its real path; None when it is gone by now."""
        real = trace(source).real
        if real is None:
            return None
        file = _packed(real, read)
        # Its text has been looked through: it is not read a second time for the proof.
        self._mirroring.learn(real, read, file.blob.digest, odd=odd)
        return file

    def _may_take_precompiled(self, command: CompileCommand, searched: tuple[str, ...]) -> bool:
        """Whether a precompiled header that is mirrored is where this command may search."""
        if command.family is not Family.GCC or command.needs_original_paths:
            return False
        manifest = self._mirroring.manifest
        held = [p for p in tuple(manifest.precompiled) if isinstance(manifest.get(p), FileEntry)]
        tops = tuple(os.path.realpath(d).rstrip("/") + "/" for d in searched) if held else ()
        return any(path.startswith(tops) for path in held)

    def _want_withheld(self, path: str) -> bool:
        real = trace(path).real
        if real is None:
            return False
        entry = self._mirroring.manifest.get(real)
        if entry is None or isinstance(entry, WithheldEntry):
            return self._mirroring.want(path)
        return False


def _read_source(source: str, command: CompileCommand) -> FileRead | Local:
    """The source's text, unless the compiler itself has to answer for it."""
    try:
        if not stat.S_ISREG(os.stat(source).st_mode):
            return Local(LocalReason.SPECIAL_INPUT, command.source)
        read = read_file(source)
    except OSError as error:
        return Local(LocalReason.SOURCE_MISSING, f"{command.source}: {error.strerror}")
    if assembler_reads_more(read.data):
        return Local(LocalReason.ASSEMBLER_INPUT, command.source)
    return read


def _packed(real: str, read: FileRead) -> JobFile:
    """The source under its real path, as it was read."""
    blob = pack_quickly(read.data)
    executable = 0o111 if read.status.st_mode & 0o111 else 0
    mtime_ns = min(read.status.st_mtime_ns, MAX_MTIME_NS)
    return JobFile(
        os.fsencode(real), FileEntry(blob.digest, blob.size, 0o444 | executable, mtime_ns), blob
    )


def _explicit_dirs(command: CompileCommand) -> list[str]:
    return [os.path.join(command.cwd, directory) for directory in command.search_dirs]


def _inputs(command: CompileCommand) -> list[str]:
    return [os.path.join(command.cwd, file) for file in command.input_files]


def _listed(env: Mapping[str, str], cwd: str) -> Iterable[str]:
    """Directories in environment variables; an empty element is the working directory (cpp(1))."""
    for name in _PATH_LISTS:
        value = env.get(name)
        if value:
            yield from (os.path.join(cwd, element or ".") for element in value.split(os.pathsep))


def _output_obstacle(command: CompileCommand) -> Local | None:
    """Outputs that only the compiler can write as it would: special, read-only, impossible."""
    for directory in command.output_dirs:
        if not os.path.isdir(directory) or not os.access(directory, os.W_OK | os.X_OK):
            return Local(LocalReason.OUTPUT_SPECIAL, directory)
    names = [command.output]
    if command.dependencies is not None:
        names.append(command.dependencies.path)
    for name in names:
        path = os.path.join(command.cwd, name)
        try:
            status = os.lstat(path)
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode) or not os.access(path, os.W_OK):
            return Local(LocalReason.OUTPUT_SPECIAL, path)
    return None


def _read_response(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_RESPONSE_BYTES)
    except OSError:
        return None
