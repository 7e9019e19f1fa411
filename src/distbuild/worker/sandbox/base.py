"""The interface of the worker's sandboxes, which prepare compiler runs and read their results.

Two implement it: ``namespace`` shows the dev box's own paths, ``plain`` relocates the command.
"""

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from distbuild.command.model import CompileCommand
from distbuild.command.probe import allowed_environment
from distbuild.compiler.identity import NO_HOME
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
