"""Prepares a compile that runs unchanged at the dev box's paths (bubblewrap), and reads its result.

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
from collections.abc import Mapping, Sequence
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
from distbuild.worker.sandbox import assembler, worker_files
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
from distbuild.worker.sandbox.output_dirs import PrivateDirectory
from distbuild.worker.sandbox.view import OURS, SPECS, Views, base_plan
from distbuild.worker.tree.paths import check_path, is_within
from distbuild.worker.tree.store import translated

_DEPENDENCIES = b"deps.d"
_ASSEMBLED = b"assembled.d"
#: The specs file that makes gcc's assembler write that list.
_ASKING = b"asking.specs"
_CONFINED = b"--unshare-all --die-with-parent --new-session --cap-drop ALL".split()
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
        command = [bwrap.encode(), *_CONFINED, *plan.arguments(), b"--chdir", OURS]
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
    """Runs compilers in bubblewrap at ``bwrap``; ``search_path`` is the PATH that they see."""

    namespaces = True

    def __init__(self, bwrap: str, search_path: str) -> None:
        self._bwrap = os.fsencode(bwrap)
        self._search_path = search_path
        self._views = Views()

    def prepare(self, task: SandboxTask) -> Execution:
        """Make the private directories, the mounts and the command line."""
        with translated():
            with contextlib.suppress(FileExistsError):  # left empty by an earlier job
                os.mkdir(_ours(task))
            if native.is_wanted(task.command):
                _write_specs(task)
            asking = _asking(task)
            directories = _private_directories(task)
            try:
                mounts = self._views.arguments(task, directories, _ours(task))
            except ValueError as error:
                raise InfrastructureError(f"cannot show the dev box's paths: {error}") from error
        argv0, path = self._argv0(task)
        observer = observe(task.command, os.fsdecode(OURS + b"/" + _DEPENDENCIES))
        named = {**environment(task, path), **observer.env}
        words = _run([argv0, *asking, *map(os.fsencode, observer.argv[1:])], observer)
        if named["PWD"] != os.fsdecode(task.job.cwd):
            # bubblewrap sets PWD to the directory that it changes to.
            words = [_ENV, b"PWD=" + os.fsencode(named["PWD"]), *words]
        argv = [self._bwrap, b"--json-status-fd", REPORT, *_CONFINED, *mounts]
        argv += [b"--chdir", task.job.cwd, b"--", *words]
        env = {os.fsencode(name): os.fsencode(value) for name, value in named.items()}
        return _NamespaceExecution(task, argv, env, directories, observer)

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
    directories: list[PrivateDirectory]
    observer: Observer
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
        exit_code = _exit_code(completed)
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
        names = opened
        if assembler.is_asked(self.task.command):
            names = assembler.listed(_ours(self.task) + b"/" + _ASSEMBLED)
        return assembler.in_namespace(self.task, names, {file.path for file in written})

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


def _private_directories(task: SandboxTask) -> list[PrivateDirectory]:
    """One for each directory that the compiler may write in and that the dev box has."""
    tree = task.tree
    places = [tree.resolve(os.fsdecode(d)) for d in task.job.output_dirs]
    wanted = sorted({os.fsencode(place) for place in places if place is not None})
    outputs = _output_names(task)
    by_product = by_product_names(task.command)
    found = []
    for number, path in enumerate(wanted):
        private = PrivateDirectory(check_path(path), b"%s/out%d" % (task.directory, number))
        here = [out for out in outputs if (out.rpartition(b"/")[0] or b"/") == path]
        files = {out for out in here if isinstance(tree.lookup(os.fsdecode(out)), FileEntry)}
        absent = {os.path.basename(out) for out in here if out not in files}
        copied = {os.path.basename(out) for out in files}
        private.fill(
            tree.ground.real(path),
            absent,
            copied,
            lambda name: by_product.fullmatch(os.fsdecode(name)) is not None,
        )
        found.append(private)
    return found


def _output_names(task: SandboxTask) -> set[bytes]:
    return {resolved(task, os.fsencode(name)) for name in task.command.output_files()}


def find_bwrap(search_path: str) -> str | None:
    """bubblewrap's path on this machine."""
    return shutil.which("bwrap", path=search_path)
