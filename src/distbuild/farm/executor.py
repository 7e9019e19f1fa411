"""The interface by which the syncer has compile tasks executed; ``Farm`` implements it."""

from collections.abc import Generator
from typing import Protocol

import msgspec

from distbuild.command.model import CompileCommand, Local
from distbuild.one_shot import OneShot
from distbuild.protocol.messages import JobFile, ResultRequest, Terminal


class Task(msgspec.Struct, frozen=True):
    """A translation unit that is ready to be compiled remotely.

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
    #: The processor that ``-march=native`` finds on the dev box; see ``command.native``.
    processor: tuple[str, ...]
    terminal: Terminal | None
    #: The source has a ``__has_include`` whose operand is a macro.
    asks_by_macro: bool = False
    #: The only worker that may lease it; "": any.
    worker: str = ""


#: A generator that yields each event it waits for and is resumed once that has fired. Closing it
#: cancels the task. Returns the outcome.
Execution = Generator[OneShot, None, ResultRequest | Local]


class Executor(Protocol):
    """Compiles tasks somewhere."""

    def obstacle(self, command: CompileCommand, toolchain: str) -> Local | None:
        """The reason why a task like this cannot be executed now; None: it can."""

    def execute(self, task: Task) -> Execution:
        """Compile, as a generator.

        Returns the worker's result, not yet compared with the mirror, or the reason for a local
        compile.
        """
