"""The interface of the worker's sandboxes, which prepare compiler runs and read their results;
and how they have a compiler list its inputs.

Two implement it: ``namespace`` shows the dev box's own paths, ``plain`` relocates the command.
A compiler lists its inputs by -MD, usually. Where a clang records its command line in the object,
-MD would show there: the variable CC_PRINT_HEADERS does the same. clang-cl writes its -cc1
arguments into the debug information, and that variable changes them: clang-cl runs a second time,
only to list its inputs.
"""

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from distbuild.command.cl import relocate as cl
from distbuild.command.dependency_file import parse_dependency_file
from distbuild.command.model import CompileCommand, Family
from distbuild.command.probe import allowed_environment
from distbuild.command.relocate import observed, records_itself
from distbuild.compiler.identity import NO_HOME
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import Job
from distbuild.worker.clock_check import Clock
from distbuild.worker.compilers import InstalledDriver
from distbuild.worker.process.here import Completed
from distbuild.worker.sandbox.landlock import Reach
from distbuild.worker.tree.tree import Tree


class SandboxTask(msgspec.Struct, frozen=True):
    """A job with everything needed to run it. ``directory`` is empty, on the tree's file system,
    and used by this task only."""

    job: Job
    command: CompileCommand
    driver: InstalledDriver
    tree: Tree
    directory: bytes
    clock: Clock = msgspec.field(default_factory=Clock)
    #: Inline assembler is an error, so the assembler reads no files.
    forbids_assembler: bool = False
    #: When the worker began with the job (monotonic seconds).
    began: float = 0.0


class Written(msgspec.Struct, frozen=True):
    """A file that the compiler wrote, with its dev box path; its content names dev box paths."""

    path: bytes
    mode: int
    content: bytes


class CompilerResult(msgspec.Struct, frozen=True):
    """The compiler's verdict, with dev box paths. ``dependencies``: the files it read, as it
    spelled them; None when it wrote no dependency file. ``assembled``: real paths of the tree's
    files that the assembler read by itself."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    written: tuple[Written, ...] = ()
    dependencies: tuple[bytes, ...] | None = None
    assembled: tuple[bytes, ...] = ()


class Execution(Protocol):
    """One prepared compiler run."""

    @property
    def argv(self) -> list[bytes]:
        """The program and its arguments."""
        ...

    @property
    def cwd(self) -> bytes:
        """The working directory, a path on this machine."""
        ...

    @property
    def env(self) -> Mapping[bytes, bytes]:
        """The complete environment."""
        ...

    @property
    def reach(self) -> Reach | None:
        """The files of this machine that the process may open (Landlock); None: no such limit."""
        ...

    def is_of_task(self, name: bytes) -> bool:
        """Whether a file that a compiler opens by this name is an input of the task, which no
        loader reads."""
        ...

    def answer(self, completed: Completed, opened: Sequence[bytes] = ()) -> CompilerResult:
        """The result of a run. ``opened``: the files that were opened, as the compiler named them.

        Raises InfrastructureError when the end is no verdict of the compiler.
        """
        ...


class Sandbox(Protocol):
    """Prepares compiler runs."""

    @property
    def namespaces(self) -> bool:
        """Whether compilers see the dev box's paths, so that every command runs unchanged."""
        ...

    def prepare(self, task: SandboxTask) -> Execution:
        """Make a task ready to run; raises InfrastructureError if this sandbox cannot run it."""
        ...


def environment(task: SandboxTask, search_path: str) -> dict[str, str]:
    """The compiler's environment: the variables that a job may set, and this worker's PATH.

    HOME is set, to no home: without HOME, clang would read the worker user's configuration.
    """
    named = {name: os.fsdecode(value) for name, value in task.job.env.items()}
    pwd = os.fsdecode(task.job.cwd)
    return {"PWD": pwd, **allowed_environment(named), "PATH": search_path, "HOME": NO_HOME}


def resolved(task: SandboxTask, path: bytes) -> bytes:
    """The dev box path of an output, with its directory's symlinks followed."""
    place = os.fsencode(task.command.absolute(os.fsdecode(path)))
    directory, _, name = place.rpartition(b"/")
    real = task.tree.resolve(os.fsdecode(directory)) or os.fsdecode(posixpath.normpath(directory))
    return os.fsencode(real.rstrip("/")) + b"/" + name


_GARBAGE = "the compiler's list of inputs is garbage"


class Observer(msgspec.Struct, frozen=True):
    """A command line, the variables that it needs, and how to read the list that it writes."""

    argv: list[str]
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    #: The command's source, where the list has only headers.
    source: str = ""
    family: Family = Family.GCC
    #: Arguments after the compiler's name that make a second run list the inputs; empty: one run.
    again: Sequence[str] = ()

    def read(self, path: bytes) -> tuple[bytes, ...] | None:
        """The inputs listed in the file at ``path``; None if the compiler wrote no list."""
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        if self.source:
            return _checked((os.fsencode(self.source), *data.splitlines()))
        return names(data, self.family)


def observe(command: CompileCommand, path: str) -> Observer:
    """Make ``command`` list its inputs in ``path``, unless it writes a dependency file itself."""
    if command.dependencies is not None:
        return Observer(command.argv(), family=command.family)
    if command.family is Family.CLANG_CL:
        words = command.argv()
        if cl.records_itself(command):
            return Observer(words, family=command.family, again=cl.listing_only(path))
        return Observer([words[0], *cl.listing(path), *words[1:]], family=command.family)
    if command.family is Family.CLANG and records_itself(command):
        env = {"CC_PRINT_HEADERS": "1", "CC_PRINT_HEADERS_FILE": path}
        return Observer(command.argv(), env, command.source)
    return Observer(observed(command, path), family=command.family)


def names(dependency_file: bytes, family: Family) -> tuple[bytes, ...]:
    """The prerequisites in a dependency file's text; InfrastructureError if it is malformed."""
    try:
        found = parse_dependency_file(dependency_file, family)
    except ValueError as error:
        raise InfrastructureError(f"{_GARBAGE}: {error}") from error
    return _checked(tuple(map(os.fsencode, found)))


def _checked(paths: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if any(b"\0" in path for path in paths):
        raise InfrastructureError(_GARBAGE)
    return paths
