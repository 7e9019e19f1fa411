"""Runs a command relocated into the client's tree, as a plain process with limits.

For workers without namespaces. Refuses what is only exact at the original paths. The command opens
nothing but the tree, its private directory and the compiler's installation (Landlock): an
assembler's directives take in any file that they name.
"""

import functools
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from distbuild.command.decide import climbs_out
from distbuild.command.dependency_file import unmap_dependency_file, unmap_text
from distbuild.command.diagnostics import is_assemblers, places, plain
from distbuild.command.relocate import Relocated, relocate, relocate_env
from distbuild.protocol.errors import InfrastructureError
from distbuild.system import disk
from distbuild.worker.compilers import search_path_for
from distbuild.worker.process.here import Completed
from distbuild.worker.sandbox import assembler, plain_cl, worker_files
from distbuild.worker.sandbox.base import (
    CompilerResult,
    Execution,
    SandboxTask,
    Written,
    environment,
    resolved,
)
from distbuild.worker.sandbox.inputs import names
from distbuild.worker.sandbox.landlock import Reach
from distbuild.worker.tree.paths import MAX_PATH_BYTES, is_within
from distbuild.worker.tree.store import translated

#: A shell that cannot execute what it is to execute says so with these.
_NOT_EXECUTED = (126, 127)
_NULL = b"/dev/null"
#: In diagnostics; also the quotation marks of UTF-8.
_BETWEEN_NAMES = re.compile(rb"[\s'\"`:;,<>()\[\]]+|\xe2\x80[\x98\x99\x9c\x9d]")
_MAX_SEARCHED = 1024 * 1024
_RANDOM = (b"/dev/urandom", b"/dev/random", b"/dev/zero")


class PlainSandbox:
    """Compilers see this machine's paths; ``search_path`` is their PATH.

    ``confined`` False: they also open whatever this process may.
    """

    namespaces = False

    def __init__(self, search_path: str, *, confined: bool = True) -> None:
        self._search_path = search_path
        self._confined = confined
        # A tree's root without symlinks, which does not change while the worker runs.
        self._canonical: Callable[[bytes], bytes] = functools.cache(disk.realpath)

    def prepare(self, task: SandboxTask) -> Execution:
        """The relocated command and a directory for what it writes."""
        tree = self._canonical(task.tree.ground.root)
        if task.command.family.speaks_cl:
            return plain_cl.prepare(task, os.fsdecode(tree), self._search_path)
        job = task.job
        try:
            moved = relocate(
                task.command,
                os.fsdecode(tree),
                os.fsdecode(task.directory),
                [os.fsdecode(directory) for directory in job.builtin_dirs],
                os.fsdecode(job.implicit_include) or None,
            )
        except ValueError as error:
            raise InfrastructureError(f"no namespaces here: {error}") from error
        specs, listing = _beside(moved) if assembler.is_asked(task.command) else ("", "")
        if specs:
            with translated(), open(specs, "wb") as file:
                file.write(assembler.specs(os.fsencode(listing)))
        asking = map(os.fsdecode, assembler.options(task, os.fsencode(specs)))
        argv = [task.driver.path, *asking, *moved.argv[1:]]
        named = environment(task, search_path_for(task.driver.path, self._search_path))
        # A compiler that is killed removes no temporary files; these go with the directory.
        own = {"PWD": moved.cwd, "TMPDIR": os.fsdecode(task.directory)}
        env = {**relocate_env(named, os.fsdecode(tree)), **own}
        return _PlainExecution(
            task,
            [os.fsencode(word) for word in argv],
            os.fsencode(moved.cwd),
            {os.fsencode(name): os.fsencode(value) for name, value in env.items()},
            moved,
            tree,
            _reach(task, tree) if self._confined else None,
            specs,
            listing,
        )


def _reach(task: SandboxTask, tree: bytes) -> Reach:
    """The client's tree, the compiler's installation as a namespace lends it, and what is private.

    Only the last is for writing, and nothing in the two that come with jobs is for executing.
    """
    driver = task.driver
    parts = worker_files.own_parts(driver)
    worker_files.check_apart(parts, task.directory)
    own = map(os.fsencode, (driver.path, driver.identity.real_path, *driver.identity.needs))
    return Reach(
        read=(tree, *_RANDOM),
        run=(*worker_files.system_paths(), *parts, *own),
        write=(task.directory, _NULL),
    )


@dataclass(frozen=True)
class _PlainExecution:
    task: SandboxTask
    argv: list[bytes]
    cwd: bytes
    env: Mapping[bytes, bytes]
    moved: Relocated
    #: The tree's root, canonical.
    tree: bytes
    reach: Reach | None
    #: What has the assembler list what it has read, and where it does; "": it does not.
    specs: str = ""
    listing: str = ""

    def is_of_task(self, name: bytes) -> bool:
        """Whether it is in the tree or the task's own directory."""
        path = posixpath.normpath(posixpath.join(self.cwd, name))
        return path.startswith((self.tree + b"/", self.task.directory + b"/"))

    def answer(self, completed: Completed, opened: Sequence[bytes] = ()) -> CompilerResult:
        """Everything with the tree's prefix taken off."""
        if completed.status < 0:
            raise InfrastructureError(f"the compiler was killed by signal {-completed.status}")
        if completed.status in _NOT_EXECUTED:
            raise InfrastructureError(f"cannot run {self.task.driver.path}")
        with translated():
            written, dependencies = self._written(os.fsdecode(self.tree))
        assembled: tuple[bytes, ...] = ()
        if completed.status == 0:
            names = assembler.listed(os.fsencode(self.listing)) if self.listing else opened
            left = {file.path for file in written}
            assembled = assembler.relocated(self.task, names, self.cwd, self.tree, left)
        if completed.status != 0:  # then there may be no list of what it read
            self._check_read(os.fsencode(path) for path, _ in places(plain(completed.stderr)))
            self._check_denied(plain(completed.stderr))
        return CompilerResult(
            completed.status,
            unmap_text(completed.stdout, self.tree),
            unmap_text(completed.stderr, self.tree),
            written,
            dependencies,
            assembled,
        )

    def _written(self, tree: str) -> tuple[tuple[Written, ...], tuple[bytes, ...] | None]:
        command, moved = self.task.command, self.moved
        targets = {moved.output_path: command.output}
        dependencies = None
        if command.dependencies is not None:
            targets[moved.dependency_path] = command.dependencies.path
        written = []
        out = posixpath.dirname(moved.output_path)
        for name in sorted(disk.listdir(out)):
            path = posixpath.join(out, name)
            if path in (self.specs, self.listing):
                continue
            status = disk.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                raise InfrastructureError(f"the compiler left {name!r}, which is no output")
            with disk.open_to_read(path) as file:
                content = file.read()
            if path == moved.dependency_path:
                self._check_read(names(content, command.family))
                content = unmap_dependency_file(content, tree, command.family)
                dependencies = names(content, command.family)
            if path in targets:
                place = resolved(self.task, os.fsencode(targets[path]))
                written.append(Written(place, stat.S_IMODE(status.st_mode), content))
            elif path != moved.dependency_path:
                raise InfrastructureError(f"the compiler wrote {name!r} unasked")
        return tuple(written), dependencies

    def _check_denied(self, stderr: bytes) -> None:
        """Refuse the verdict on a file of this machine that was not opened: another worker may have
        the dev box's there. An assembler's is the dev box's to judge anyway."""
        reach = self.reach
        if reach is None or is_assemblers(stderr):
            return
        for name in set(_BETWEEN_NAMES.split(stderr[:_MAX_SEARCHED])):
            if b"/" not in name or len(name) > MAX_PATH_BYTES or b"\0" in name:
                continue
            path = os.path.normpath(os.path.join(self.cwd, name))
            known = any(is_within(path, p) for p in (*reach.read, *reach.run, *reach.write))
            if not known and os.path.isfile(path):
                raise InfrastructureError(f"{os.fsdecode(path)!r} is outside the mirror")

    def _check_read(self, paths: Iterable[bytes]) -> None:
        """Refuse what was made of files of this machine, which the dev box's have nothing to do
        with. Once a path is unmapped, nobody can tell the one from the other."""
        for path in paths:
            moved = path.startswith(self.tree + b"/")
            known = path[len(self.tree) :] if moved else path
            own = path.startswith(self.task.directory + b"/")
            alien = path.startswith(b"/") and not (moved or own)
            if alien or climbs_out(self.task.command.cwd, os.fsdecode(known)):
                raise InfrastructureError(f"{os.fsdecode(path)!r} was read outside the mirror")


def _beside(moved: Relocated) -> tuple[str, str]:
    """Two names in the output directory that are none of the outputs'."""
    directory = posixpath.dirname(moved.output_path)
    names = (posixpath.join(directory, name) for name in ("a", "aa", "aaa", "aaaa"))
    free = (path for path in names if path not in (moved.output_path, moved.dependency_path))
    return next(free), next(free)
