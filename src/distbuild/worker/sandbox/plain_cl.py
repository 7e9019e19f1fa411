"""Prepares a cl.exe command relocated into the client's tree, and reads its result. Windows.

cl.exe lists its inputs (/sourceDependencies): the proof of what it read and, where the command
asks for it, an output. An object that contains the path where it was compiled is refused.
"""

import os
import posixpath
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distbuild.command.cl.coff import renamed
from distbuild.command.cl.relocate import Moved, Unmapper, move, move_environment, wanted_listing
from distbuild.command.model import Family
from distbuild.command.probe import CL_PATH_LISTS
from distbuild.protocol.errors import InfrastructureError, NamesItsPlace
from distbuild.system import disk
from distbuild.system.paths import from_system
from distbuild.system.windows.names import to_windows
from distbuild.worker.process.here import Completed
from distbuild.worker.sandbox.base import (
    CompilerResult,
    SandboxTask,
    Written,
    environment,
    resolved,
)
from distbuild.worker.tree.store import translated

#: CreateProcess accepts 32,767 characters.
_MAX_LINE = 30_000
_MODE = 0o644


def prepare(task: SandboxTask, tree: str, search_path: str) -> "ClExecution":
    """The command relocated into ``tree``, an internal path. Raises InfrastructureError."""
    if task.command.family is not Family.CL:
        raise InfrastructureError("clang-cl compiles only at the original paths")
    native = to_windows(tree)
    if deep := _too_deep(task):
        raise InfrastructureError(
            f"{deep} would have too long a path here: shorten that of the home"
        )
    try:
        moved = move(task.command, native, to_windows(os.fsdecode(task.directory)))
    except ValueError as error:
        raise InfrastructureError(f"no namespaces here: {error}") from error
    named = environment(task, search_path)
    env = move_environment(named, task.command.cwd, native)
    env.pop("PWD", None)
    argv = [task.driver.path, *_short_enough(moved.words, moved.listing)]
    return ClExecution(
        task,
        [os.fsencode(word) for word in argv],
        os.fsencode(moved.cwd),
        {os.fsencode(name): os.fsencode(value) for name, value in env.items()},
        moved,
        Unmapper(native),
    )


def _too_deep(task: SandboxTask) -> str:
    """A file that the compiler may read but whose path in the tree is too long; "" for none."""
    if task.tree.long_paths is None:
        return ""
    command = task.command
    listed = (os.fsdecode(task.job.env.get(name, b"")).split(";") for name in CL_PATH_LISTS)
    names = [*command.search_dirs, *(name for names in listed for name in names if name), "."]
    places = [posixpath.normpath(command.absolute(name)) for name in names]
    places.append(posixpath.dirname(command.absolute(command.source)))
    return task.tree.long_paths.below(places)


@dataclass(frozen=True)
class ClExecution:
    """A prepared cl.exe run: an ``Execution`` of ``sandbox.base``."""

    task: SandboxTask
    argv: list[bytes]
    cwd: bytes
    env: Mapping[bytes, bytes]
    moved: Moved
    unmapper: Unmapper
    reach: None = None

    def is_of_task(self, name: bytes) -> bool:
        """Not called: cl.exe's inline assembler reads no files."""
        return name != b""

    def answer(
        self,
        completed: Completed,
        opened: Sequence[bytes] = (),  # noqa: ARG002 - see is_of_task
    ) -> CompilerResult:
        """The result, with dev box paths."""
        if completed.status < 0:
            raise InfrastructureError(
                f"the compiler was killed by {completed.status + (1 << 32):#x}"
            )
        written: list[Written] = []
        dependencies = None
        if completed.status == 0:
            with translated():
                dependencies = self._inputs(written)
                self._take_object(written)
        return CompilerResult(
            completed.status,
            self.unmapper.text(completed.stdout),
            self.unmapper.text(completed.stderr),
            tuple(written),
            dependencies,
        )

    def _inputs(self, written: list[Written]) -> tuple[bytes, ...]:
        try:
            listing = _content(self.moved.listing)
        except FileNotFoundError:
            raise InfrastructureError(
                "the compiler lists no inputs: cl.exe does so from version 19.27 on"
            ) from None
        if wanted := wanted_listing(self.task.command):
            written.append(self._written(wanted, self.unmapper.json(listing)))
        try:
            return tuple(map(os.fsencode, self.unmapper.inputs(listing)))
        except ValueError as error:
            raise InfrastructureError(str(error)) from error

    def _take_object(self, written: list[Written]) -> None:
        native = posixpath.normpath(self.task.command.absolute(self.task.command.output))
        try:
            content = renamed(_content(self.moved.output), self.moved.output, to_windows(native))
        except ValueError as error:
            raise InfrastructureError(f"the compiler wrote {error}") from error
        if self.unmapper.is_in(content):
            raise NamesItsPlace("the object names the place where it was compiled")
        written.append(self._written(self.task.command.output, content))

    def _written(self, name: str, content: bytes) -> Written:
        place = resolved(self.task, os.fsencode(name))
        return Written(place, _MODE, content)


def _content(native: str) -> bytes:
    with disk.open_to_read(from_system(native)) as file:
        return file.read()


def _short_enough(words: list[str], beside: str) -> list[str]:
    """The words, or a response file that holds them if they exceed a command line's length."""
    line = subprocess.list2cmdline(words)
    if len(line) < _MAX_LINE:
        return words
    path = beside + ".rsp"
    with translated(), open(path, "w", encoding="utf-16", newline="") as file:
        file.write(line)
    return ["@" + path]
