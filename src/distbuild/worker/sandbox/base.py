"""What a sandbox is: something that turns a task into an execution, and its end into an answer.

Two exist: ``namespace`` shows the dev box's own paths, ``plain`` relocates the command.
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
    """A job with all that is needed to run it. ``directory``: empty, on the tree's file system,
    and the task's alone."""

    job: Job
    command: CompileCommand
    driver: InstalledDriver
    tree: Tree
    directory: bytes
    clock: Clock = msgspec.field(default_factory=Clock)
    #: Inline assembler is an error: then the assembler reads nothing.
    forbids_assembler: bool = False


class Written(msgspec.Struct, frozen=True):
    """A file that the compiler wrote: its dev box path, and its content in that box's terms."""

    path: bytes
    mode: int
    content: bytes


class CompilerResult(msgspec.Struct, frozen=True):
    """The compiler's verdict in dev box terms. ``dependencies``: what it read, as it spelled the
    paths; None when it wrote no dependency file. ``assembled``: files of the tree that the
    assembler read by itself, by their real paths."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    written: tuple[Written, ...] = ()
    dependencies: tuple[bytes, ...] | None = None
    assembled: tuple[bytes, ...] = ()


class Execution(Protocol):
    """One compiler run, prepared."""

    @property
    def argv(self) -> list[bytes]:
        """The words to execute."""
        ...

    @property
    def cwd(self) -> bytes:
        """Where to start, on this machine."""
        ...

    @property
    def env(self) -> Mapping[bytes, bytes]:
        """The whole environment."""
        ...

    @property
    def reach(self) -> Reach | None:
        """What of this machine the process may open; None: the words see to that."""
        ...

    def is_of_task(self, name: bytes) -> bool:
        """Whether a file that a compiler opens by this name is the task's: no loader reads it."""
        ...

    def answer(self, completed: Completed, opened: Sequence[bytes] = ()) -> CompilerResult:
        """What came out, after these files were opened, as the compiler named them.

        Raises InfrastructureError when that is no verdict of the compiler.
        """
        ...


class Sandbox(Protocol):
    """A way to run compilers."""

    @property
    def namespaces(self) -> bool:
        """Whether the original paths are shown, so that every command runs unchanged."""
        ...

    def prepare(self, task: SandboxTask) -> Execution:
        """Make everything ready; raises InfrastructureError for what this sandbox cannot do."""
        ...


def environment(task: SandboxTask, search_path: str) -> dict[str, str]:
    """The compiler's environment: what a job may set, and this worker's PATH.

    No home: without HOME, clang would read the configuration of the worker's user.
    """
    named = {name: os.fsdecode(value) for name, value in task.job.env.items()}
    pwd = os.fsdecode(task.job.cwd)
    return {"PWD": pwd, **allowed_environment(named), "PATH": search_path, "HOME": NO_HOME}


def resolved(task: SandboxTask, path: bytes) -> bytes:
    """The dev box path of an output, its directory's symlinks followed."""
    place = os.fsencode(task.command.absolute(os.fsdecode(path)))
    directory, _, name = place.rpartition(b"/")
    real = task.tree.resolve(os.fsdecode(directory)) or os.fsdecode(posixpath.normpath(directory))
    return os.fsencode(real.rstrip("/")) + b"/" + name
