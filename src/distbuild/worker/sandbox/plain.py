"""Prepares a compile relocated into the client's tree, as a plain process, and reads its result.

For workers without namespaces. Refuses commands that are exact only at the original paths. Landlock
limits the command to the tree, its private directory and the compiler's installation, since an
assembler's directives read any file that they name.
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
from distbuild.protocol.errors import InfrastructureError, OutsideTree
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
    names,
    resolved,
)
from distbuild.worker.sandbox.landlock import Reach
from distbuild.worker.tree.paths import MAX_PATH_BYTES, is_within
from distbuild.worker.tree.store import translated

#: Exit codes of a shell that cannot execute its command.
_NOT_EXECUTED = (126, 127)
_NULL = b"/dev/null"
#: Separates names in diagnostics; includes the quotation marks of UTF-8.
_BETWEEN_NAMES = re.compile(rb"[\s'\"`:;,<>()\[\]]+|\xe2\x80[\x98\x99\x9c\x9d]")
_MAX_SEARCHED = 1024 * 1024
_RANDOM = (b"/dev/urandom", b"/dev/random", b"/dev/zero")


class PlainSandbox:
    """Without namespaces: compilers see this machine's paths. ``search_path`` is their PATH.

    ``confined`` False: they may open everything that this process may.
    """

    namespaces = False

    def __init__(self, search_path: str, *, confined: bool = True) -> None:
        self._search_path = search_path
        self._confined = confined
        # The canonical path of a tree's root, which does not change while the worker runs.
        self._canonical: Callable[[bytes], bytes] = functools.cache(disk.realpath)

    def prepare(self, task: SandboxTask) -> Execution:
        """Relocate the command and redirect its outputs into the task's directory."""
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
        # A killed compiler leaves its temporary files; here they are removed with the directory.
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
    """The client's tree, the compiler's installation as a namespace shows it, and private files.

    Only private files can be written; neither the tree's nor private ones can be executed.
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
    #: The specs file that makes the assembler list its inputs, and that list; "": not used.
    specs: str = ""
    listing: str = ""

    def is_of_task(self, name: bytes) -> bool:
        """Whether the name is in the tree or in the task's directory."""
        path = posixpath.normpath(posixpath.join(self.cwd, name))
        return path.startswith((self.tree + b"/", self.task.directory + b"/"))

    def answer(self, completed: Completed, opened: Sequence[bytes] = ()) -> CompilerResult:
        """The result, with the tree's prefix removed from all paths."""
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
        if completed.status != 0:  # there may be no list of its inputs then
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
        """Raise OutsideTree if a message names a file of this machine that Landlock denies:
        another worker may show the dev box's file there. The dev box repeats an assembler's failure
        anyway."""
        reach = self.reach
        if reach is None or is_assemblers(stderr):
            return
        for name in set(_BETWEEN_NAMES.split(stderr[:_MAX_SEARCHED])):
            if b"/" not in name or len(name) > MAX_PATH_BYTES or b"\0" in name:
                continue
            path = os.path.normpath(os.path.join(self.cwd, name))
            known = any(is_within(path, p) for p in (*reach.read, *reach.run, *reach.write))
            if not known and os.path.isfile(path):
                raise OutsideTree(f"{os.fsdecode(path)!r} is outside the mirror")

    def _check_read(self, paths: Iterable[bytes]) -> None:
        """Raise OutsideTree if a path is a file of this machine outside the tree.

        Once paths are unmapped, such a file and the dev box's are not distinguishable."""
        for path in paths:
            moved = path.startswith(self.tree + b"/")
            known = path[len(self.tree) :] if moved else path
            own = path.startswith(self.task.directory + b"/")
            alien = path.startswith(b"/") and not (moved or own)
            if alien or climbs_out(self.task.command.cwd, os.fsdecode(known)):
                raise OutsideTree(f"{os.fsdecode(path)!r} was read outside the mirror")


def _beside(moved: Relocated) -> tuple[str, str]:
    """Two paths in the output directory that are no output's."""
    directory = posixpath.dirname(moved.output_path)
    names = (posixpath.join(directory, name) for name in ("a", "aa", "aaa", "aaaa"))
    free = (path for path in names if path not in (moved.output_path, moved.dependency_path))
    return next(free), next(free)
