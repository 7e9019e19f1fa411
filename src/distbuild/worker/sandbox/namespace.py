"""Prepares a compile that runs unchanged at the dev box's paths, and reads its result.

The sandbox shows the worker's /usr and compilers; all else is the client's tree, read-only. Each
directory that the compiler may write in is private to the task.
"""

import contextlib
import json
import os
import posixpath
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from distbuild.command import native
from distbuild.command.driver import INCLUDES_NOTHING
from distbuild.command.model import Family
from distbuild.command.side_effects import by_product_names
from distbuild.protocol.errors import InfrastructureError, NamesItsPlace
from distbuild.protocol.messages import FileEntry, SymlinkEntry
from distbuild.system.paths import MAX_SYMLINKS
from distbuild.worker.compilers import search_path_for
from distbuild.worker.process.here import REPORT, Completed
from distbuild.worker.process.spawn import limits
from distbuild.worker.sandbox import assembler, enter, worker_files
from distbuild.worker.sandbox.base import (
    CompilerResult,
    Execution,
    Observer,
    SandboxTask,
    Written,
    environment,
    names,
    observe,
    resolved,
)
from distbuild.worker.sandbox.output_dirs import LayeredDirectory, PrivateDirectory
from distbuild.worker.sandbox.prepared import CONFINED, PreparedNamespaces
from distbuild.worker.sandbox.view import OURS, SPECS, Views, base_plan, operations
from distbuild.worker.tree.paths import check_path, is_within
from distbuild.worker.tree.store import translated

_DEPENDENCIES = b"deps.d"
_ASSEMBLED = b"assembled.d"
#: The specs file that makes gcc's assembler write that list.
_ASKING = b"asking.specs"
_PROBE_TIMEOUT_S = 20.0
_ENV = b"/usr/bin/env"
#: Runs a compiler, and after success again with extra arguments after its name.
_TWICE = b"""\
"$@"; code=$?
[ $code = 0 ] || exit $code
compiler=$1; shift
"$compiler" %s "$@" >/dev/null 2>&1
exit 0
"""
_SIGNALLED = 128


def probe(bwrap: str | None) -> str:
    """Why bubblewrap cannot be used here; "" when it can. Tries it with a command."""
    if bwrap is None:
        return "bubblewrap (bwrap) is not installed"
    with tempfile.TemporaryDirectory() as directory:
        plan = base_plan()
        plan.bind(OURS, os.fsencode(directory), writable=True)
        command = [bwrap.encode(), *CONFINED, *plan.arguments(), b"--chdir", OURS]
        command += [b"--", b"/bin/sh", b"-c", b"exec >made && test -e /proc/self/exe"]
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"bubblewrap does not run: {error}"
        if done.returncode != 0 or not os.path.exists(os.path.join(directory, "made")):
            text = done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}"
            return f"bubblewrap does not work here: {text.splitlines()[-1]}"
    return ""


class NamespaceSandbox:
    """Runs compilers in namespaces that bubblewrap at ``bwrap`` makes.

    Many jobs share one, entered by ``program`` (see ``enter``); without it each has its own.
    ``layers``: whether overlays work there. ``search_path``: the PATH that compilers see.
    """

    namespaces = True

    def __init__(
        self, bwrap: str, search_path: str, program: str | None = None, *, layers: bool = False
    ) -> None:
        self._bwrap = os.fsencode(bwrap)
        self._program = None if program is None else os.fsencode(program)
        self._layers = layers
        self._search_path = search_path
        self._views = Views()
        self._prepared = PreparedNamespaces(self._bwrap)

    def prepare(self, task: SandboxTask) -> Execution:
        """Make the private directories, the mounts and the command line."""
        with translated():
            with contextlib.suppress(FileExistsError):  # left empty by an earlier job
                os.mkdir(_ours(task))
            if native.is_wanted(task.command):
                _write_specs(task)
            asking = _asking(task)
        argv0, path = self._argv0(task)
        observer = observe(task.command, os.fsdecode(OURS + b"/" + _DEPENDENCIES))
        named = {**environment(task, path), **observer.env}
        env = {os.fsencode(name): os.fsencode(value) for name, value in named.items()}
        words = _run([argv0, *asking, *map(os.fsencode, observer.argv[1:])], observer)
        try:
            with translated():
                return self._execution(task, words, env, observer)
        except ValueError as error:
            raise InfrastructureError(f"cannot show the dev box's paths: {error}") from error

    def _execution(
        self,
        task: SandboxTask,
        words: list[bytes],
        env: Mapping[bytes, bytes],
        observer: Observer,
    ) -> Execution:
        """Runs ``words`` in a prepared namespace, or in a new one if that is needed."""
        written = _written_directories(task)
        view = None if self._program is None else self._views.shared(task, written)
        if view is None or self._program is None:
            private = _private_directories(task, written)
            argv = self._alone(task, private, words, env)
            return _NamespaceExecution(task, argv, env, private, observer)
        namespace = self._prepared.of(view)
        made = _layered_directories if self._layers else _private_directories
        directories = made(task, written)
        changes = [*operations(task, directories, view), *enter.one(b"chdir", task.job.cwd)]
        argv = enter.arguments(self._program, namespace.descriptors, limits(), changes, words)

        def forget() -> None:
            self._prepared.forget(namespace)

        return _NamespaceExecution(task, argv, env, directories, observer, forget)

    def _alone(
        self,
        task: SandboxTask,
        directories: Sequence[PrivateDirectory],
        words: list[bytes],
        env: Mapping[bytes, bytes],
    ) -> list[bytes]:
        """The command line that runs ``words`` in a new namespace."""
        mounts = self._views.arguments(task, directories, _ours(task))
        if env[b"PWD"] != task.job.cwd:
            # bubblewrap sets PWD to the directory that it changes to.
            words = [_ENV, b"PWD=" + env[b"PWD"], *words]
        argv = [self._bwrap, b"--json-status-fd", REPORT, *CONFINED, *mounts]
        return [*argv, b"--chdir", task.job.cwd, b"--", *words]

    def _argv0(self, task: SandboxTask) -> tuple[bytes, str]:
        """The compiler's name, spelled as in the job if that finds the right one; and the PATH.

        Raises NamesItsPlace if it would spell its own directories unlike the dev box's compiler.
        """
        named = os.fsdecode(task.job.argv[0])
        driver = task.driver
        path = search_path_for(driver.path, self._search_path)
        if "/" in named and named != driver.path and _leads_to_compiler(task, named):
            return os.fsencode(named), path
        _check_spelling(task)
        return os.fsencode(named if named == driver.name else driver.path), path


def _leads_to_compiler(task: SandboxTask, named: str) -> bool:
    """Whether this path in the sandbox is the task's compiler, or a symlink to it."""
    path = task.command.absolute(named)
    for _ in range(MAX_SYMLINKS):
        entry = task.tree.lookup(path)
        if not isinstance(entry, SymlinkEntry):
            break
        target = os.fsdecode(entry.target)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return path.startswith("/usr/") and os.path.realpath(path) == task.driver.identity.real_path


def _check_spelling(task: SandboxTask) -> None:
    """Raise NamesItsPlace if clang would spell its headers' paths unlike the dev box's.

    It derives them from the path by which it was found, not from its real path."""
    identity = task.driver.identity
    if identity.family is not Family.CLANG:
        return
    ours = {posixpath.normpath(d): d for d in (*identity.c_dirs, *identity.cxx_dirs)}
    for directory in map(os.fsdecode, task.job.builtin_dirs):
        spelled = ours.get(posixpath.normpath(directory), directory)
        if spelled != directory:
            raise NamesItsPlace(f"{task.driver.path} would say {spelled} for {directory}")


@dataclass(frozen=True)
class _NamespaceExecution:
    task: SandboxTask
    argv: list[bytes]
    env: Mapping[bytes, bytes]
    directories: Sequence[PrivateDirectory | LayeredDirectory]
    observer: Observer
    #: Holds the prepared namespace, and drops it for later jobs; None: it has none.
    forget: Callable[[], None] | None = None
    cwd: bytes = b"/"
    reach: None = None

    def is_of_task(self, name: bytes) -> bool:
        """The worker's files are read by loaders, except in directories that the command uses."""
        command = self.task.command
        path = posixpath.normpath(posixpath.join(self.task.job.cwd, name))
        source = os.fsencode(posixpath.normpath(command.absolute(command.source)))
        works = (os.path.dirname(source), self.task.job.cwd, *self.task.job.output_dirs, b"/tmp")
        is_near = any(is_within(path, place) for place in works)
        return is_near or not worker_files.is_read_by_loader(self.task, path)

    def answer(self, completed: Completed, opened: Sequence[bytes] = ()) -> CompilerResult:
        """The result, unchanged: the compiler ran at the dev box's paths."""
        try:
            exit_code = _exit_code(completed)
        except InfrastructureError:
            if self.forget is not None:
                self.forget()
            raise
        with translated():
            written = tuple(file for d in self.directories for file in d.written())
            dependencies = self._dependencies(written)
            assembled = self._assembled(written, opened) if exit_code == 0 else ()
        return CompilerResult(
            exit_code, completed.stdout, completed.stderr, written, dependencies, assembled
        )

    def _assembled(
        self, written: tuple[Written, ...], opened: Sequence[bytes]
    ) -> tuple[bytes, ...]:
        task, outputs = self.task, {file.path for file in written}
        found = assembler.in_namespace(task, opened, outputs, is_listed=False)
        if assembler.is_asked(task.command):
            names = assembler.listed(_ours(task) + b"/" + _ASSEMBLED)
            found += assembler.in_namespace(task, names, outputs, is_listed=True)
        return tuple(dict.fromkeys(found))

    def _dependencies(self, written: tuple[Written, ...]) -> tuple[bytes, ...] | None:
        command = self.task.command
        if command.language in INCLUDES_NOTHING:
            return (os.fsencode(command.source),)
        asked = command.dependencies
        if asked is None:
            return self.observer.read(_ours(self.task) + b"/" + _DEPENDENCIES)
        path = resolved(self.task, os.fsencode(asked.path))
        return next(
            (names(file.content, command.family) for file in written if file.path == path),
            None,
        )


def _run(words: list[bytes], observer: Observer) -> list[bytes]:
    if not observer.again:
        return words
    again = " ".join(map(shlex.quote, observer.again))
    return [b"/bin/sh", b"-c", _TWICE % os.fsencode(again), b"sh", *words]


def _asking(task: SandboxTask) -> list[bytes]:
    """Compiler options by which the assembler's inputs are known; writes the specs file."""
    if assembler.is_asked(task.command):
        with open(_ours(task) + b"/" + _ASKING, "wb") as file:
            file.write(assembler.specs(OURS + b"/" + _ASSEMBLED))
    return assembler.options(task, OURS + b"/" + _ASKING)


def _write_specs(task: SandboxTask) -> None:
    with open(_ours(task) + b"/" + os.path.basename(SPECS), "w", encoding="utf-8") as file:
        file.write(native.specs_text(task.job.processor))


def _ours(task: SandboxTask) -> bytes:
    return task.directory + b"/ours"


def _exit_code(completed: Completed) -> int:
    """The compiler's exit code, which bubblewrap reports separately from its own."""
    code = None
    with contextlib.suppress(ValueError):  # cut off when bubblewrap itself was killed
        for line in completed.report.splitlines():
            code = json.loads(line).get("exit-code", code)
    if code is None:
        text = completed.stderr.decode(errors="replace").strip()
        raise InfrastructureError(f"sandbox failed: {text[-300:] or completed.status}")
    if code > _SIGNALLED:
        raise InfrastructureError(f"the compiler was killed by signal {code - _SIGNALLED}")
    return int(code)


def _written_directories(task: SandboxTask) -> list[bytes]:
    """The directories that the compiler may write in and that the dev box has, outer ones first."""
    places = [task.tree.resolve(os.fsdecode(d)) for d in task.job.output_dirs]
    return sorted({check_path(os.fsencode(place)) for place in places if place is not None})


def _private_directories(task: SandboxTask, written: Sequence[bytes]) -> list[PrivateDirectory]:
    """One for each of these directories."""
    found = []
    for number, path in enumerate(written):
        private = PrivateDirectory(path, b"%s/out%d" % (task.directory, number))
        private.fill(task.tree.ground.real(path), *_outputs_in(task, path))
        found.append(private)
    return found


def _layered_directories(task: SandboxTask, written: Sequence[bytes]) -> list[LayeredDirectory]:
    """One for each of these directories that is not in another."""
    found: list[LayeredDirectory] = []
    for path in written:
        outer = next((layered for layered in found if is_within(path, layered.path)), None)
        if outer is None:
            outer = LayeredDirectory(path, b"%s/out%d" % (task.directory, len(found)))
            found.append(outer)
        outer.fill(path, task.tree.ground.real(path), *_outputs_in(task, path))
    return found


def _outputs_in(
    task: SandboxTask, directory: bytes
) -> tuple[set[bytes], set[bytes], Callable[[bytes], bool]]:
    """The names of the outputs there: those that the dev box lacks, the others, and by-products."""
    here = {out for out in _output_names(task) if (out.rpartition(b"/")[0] or b"/") == directory}
    files = {out for out in here if isinstance(task.tree.lookup(os.fsdecode(out)), FileEntry)}
    by_product = by_product_names(task.command)
    return (
        set(map(os.path.basename, here - files)),
        set(map(os.path.basename, files)),
        lambda name: by_product.fullmatch(os.fsdecode(name)) is not None,
    )


def _output_names(task: SandboxTask) -> set[bytes]:
    return {resolved(task, os.fsencode(name)) for name in task.command.output_files()}


def find_bwrap(search_path: str) -> str | None:
    """bubblewrap's path on this machine."""
    return shutil.which("bwrap", path=search_path)
