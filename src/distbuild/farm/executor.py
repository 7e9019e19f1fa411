"""What executes a job, as the rest of the syncer sees it. The farm is one; there can be others."""

from collections.abc import Generator
from typing import Protocol

import msgspec

from distbuild.command.model import CompileCommand, Local
from distbuild.one_shot import OneShot
from distbuild.protocol.messages import JobFile, ResultRequest, Terminal


class Task(msgspec.Struct, frozen=True):
    """A translation unit that is ready to be compiled elsewhere.

    Paths in ``search_dirs``, ``builtin_dirs`` and ``output_dirs`` are absolute.
    """

    command: CompileCommand
    env: dict[str, str]
    toolchain: str
    generation: int
    files: tuple[JobFile, ...]
    search_dirs: tuple[str, ...]
    builtin_dirs: tuple[str, ...]
    implicit_include: str | None
    output_dirs: tuple[str, ...]
    #: What ``-march=native`` means here; see ``command.native``.
    processor: tuple[str, ...]
    terminal: Terminal | None
    #: The source has ``__has_include`` of what a macro names.
    asks_by_macro: bool = False
    #: The only worker that may take it; "": any.
    worker: str = ""


#: Yields what it waits for and goes on once that has happened; closing it cancels. Returns the
#: outcome.
Execution = Generator[OneShot, None, ResultRequest | Local]


class Executor(Protocol):
    """Compiles tasks somewhere."""

    def obstacle(self, command: CompileCommand, toolchain: str) -> Local | None:
        """Why a task like this could not be executed now; None: it could."""

    def execute(self, task: Task) -> Execution:
        """Compile, as a generator.

        Returns what a worker delivered, not yet held against the mirror, or why it has to be
        compiled locally.
        """
