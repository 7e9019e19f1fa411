"""Runs a command unchanged in a file system that looks like the dev box's (bubblewrap).

The worker lends its /usr and its compilers; all else that is seen is the client's tree, read only.
Each directory that the compiler may write in is a private one.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

from distbuild.mirror.store import translated
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import FileEntry
from distbuild.worker.mounts import MountPlan
from distbuild.worker.observe import Observer, names, observe
from distbuild.worker.paths import check_path, is_within
from distbuild.worker.private import PrivateDirectory
from distbuild.worker.runner import REPORT, Completed
from distbuild.worker.sandbox import (
    Answer,
    Execution,
    Task,
    Written,
    environment,
    resolved,
)

#: Ours inside the sandbox; not a name that a dev box has.
_OURS = b"/.dist_build"
_DEPENDENCIES = b"deps.d"
_CONFINED = b"--unshare-all --die-with-parent --new-session --cap-drop ALL".split()
#: What no dev box directory is shown in.
_KERNEL_S = (b"proc", b"sys")
#: Of /etc, what compilers and the dynamic linker read.
_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d")
_PROBE_TIMEOUT_S = 20.0
_SIGNALLED = 128


def probe(bwrap: str | None) -> str:
    """Why bubblewrap cannot be used here; empty when it can. Really runs it."""
    if bwrap is None:
        return "bubblewrap (bwrap) is not installed"
    with tempfile.TemporaryDirectory() as directory:
        plan = _base_plan()
        plan.bind(_OURS, os.fsencode(directory), writable=True)
        command = [bwrap.encode(), *_CONFINED, *plan.arguments(), b"--chdir", _OURS]
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
    """bubblewrap at ``bwrap``; ``search_path`` is the PATH that compilers see."""

    namespaces = True

    def __init__(self, bwrap: str, search_path: str) -> None:
        self._bwrap = os.fsencode(bwrap)
        self._search_path = search_path

    def prepare(self, task: Task) -> Execution:
        """Private directories, mounts and the command line."""
        with translated():
            os.mkdir(_ours(task))
            directories = _private_directories(task)
            try:
                plan = _plan(task, directories)
                mounts = plan.arguments()
            except ValueError as error:
                raise InfrastructureError(f"cannot show the dev box's paths: {error}") from error
        argv0, path = self._argv0(task)
        observer = observe(task.command, os.fsdecode(_OURS + b"/" + _DEPENDENCIES))
        words = [argv0, *map(os.fsencode, observer.argv[1:])]
        argv = [self._bwrap, b"--json-status-fd", REPORT, *_CONFINED, *mounts]
        argv += [b"--chdir", task.job.cwd, b"--", *words]
        named = {**environment(task, path), **observer.env}
        env = {os.fsencode(name): os.fsencode(value) for name, value in named.items()}
        return _NamespaceExecution(task, argv, env, directories, observer)

    def _argv0(self, task: Task) -> tuple[bytes, str]:
        """The compiler's name as the job has it, if that finds the right one; and the PATH."""
        named = os.fsdecode(task.job.argv[0])
        driver = task.driver
        path = f"{os.path.dirname(driver.path)}:{self._search_path}"
        if named in (driver.name, driver.path):
            return os.fsencode(named), path
        if named.startswith("/usr/") and os.path.realpath(named) == driver.identity.real_path:
            return os.fsencode(named), path
        return os.fsencode(driver.path), path


@dataclass(frozen=True)
class _NamespaceExecution:
    task: Task
    argv: list[bytes]
    env: Mapping[bytes, bytes]
    directories: list[PrivateDirectory]
    observer: Observer
    cwd: bytes = b"/"

    def answer(self, completed: Completed) -> Answer:
        """Everything as the compiler said it."""
        exit_code = _exit_code(completed)
        with translated():
            written = tuple(file for d in self.directories for file in d.written())
            dependencies = self._dependencies(written)
        return Answer(exit_code, completed.stdout, completed.stderr, written, dependencies)

    def _dependencies(self, written: tuple[Written, ...]) -> tuple[bytes, ...] | None:
        asked = self.task.command.dependencies
        if asked is None:
            return self.observer.read(_ours(self.task) + b"/" + _DEPENDENCIES)
        path = resolved(self.task, os.fsencode(asked.path))
        return next(
            (
                names(file.content, self.task.command.family)
                for file in written
                if file.path == path
            ),
            None,
        )


def _ours(task: Task) -> bytes:
    return task.directory + b"/ours"


def _exit_code(completed: Completed) -> int:
    """The compiler's exit code, which bubblewrap reports apart from its own."""
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


def _private_directories(task: Task) -> list[PrivateDirectory]:
    """One for each directory that the compiler may write in and that the dev box has."""
    tree = task.tree
    places = [tree.resolve(os.fsdecode(d)) for d in task.job.output_dirs]
    wanted = sorted({os.fsencode(place) for place in places if place is not None})
    outputs = _output_names(task)
    found = []
    for number, path in enumerate(wanted):
        private = PrivateDirectory(check_path(path), b"%s/out%d" % (task.directory, number))
        here = [out for out in outputs if (out.rpartition(b"/")[0] or b"/") == path]
        files = {out for out in here if isinstance(tree.lookup(os.fsdecode(out)), FileEntry)}
        absent = {os.path.basename(out) for out in here if out not in files}
        copied = {os.path.basename(out) for out in files}
        private.fill(tree.ground.real(path), absent, copied, _stems(task))
        found.append(private)
    return found


def _output_names(task: Task) -> set[bytes]:
    return {resolved(task, os.fsencode(name)) for name in task.command.output_files()}


def _stems(task: Task) -> list[bytes]:
    """How the names of by-products begin: as the output, the source or the -dump options say."""
    dumps = {a.option: a.value for a in task.command.arguments if a.value is not None}
    prefix = os.path.basename(dumps.get("-dumpdir", ""))
    stems = {prefix} if prefix else set()
    for name in (task.command.output, task.command.source, dumps.get("-dumpbase", "")):
        base = os.path.basename(name)
        stem = base.rpartition(".")[0] or base
        if stem:
            stems |= {stem + ".", stem + "-"}
    return [os.fsencode(stem) for stem in stems]


def _plan(task: Task, directories: list[PrivateDirectory]) -> MountPlan:
    plan = _base_plan()
    _show_tree(plan, task)
    _show_compiler(plan, task.driver.identity.real_path)
    lent = [b"/usr", b"/etc", b"/proc", b"/dev"]
    for directory in directories:
        if any(is_within(path, directory.path) for path in lent):
            raise ValueError(f"{directory.path!r} is the worker's")
        plan.bind(directory.path, directory.real, writable=True)
        for name in directory.directories:
            below = directory.path.rstrip(b"/") + b"/" + name
            plan.bind(below, task.tree.ground.real(below))
    plan.bind(_OURS, _ours(task), writable=True)
    return plan


def _base_plan() -> MountPlan:
    plan = MountPlan()
    plan.bind(b"/usr", b"/usr")
    for name in os.listdir(b"/"):
        if re.fullmatch(rb"bin|sbin|lib\w*", name):
            path = b"/" + name
            plan.show(path, path)
    for etc in _ETC:
        path = b"/etc/" + etc.encode()
        if os.path.exists(path):
            plan.bind(path, path)
    plan.special(b"/proc", "proc")
    plan.special(b"/dev", "dev")
    plan.special(b"/tmp", "tmpfs")
    return plan


def _show_tree(plan: MountPlan, task: Task) -> None:
    """The tree's directories at their places; below /usr and the like only its roots."""
    root = task.tree.ground.root
    needs = tuple(map(os.fsencode, task.driver.identity.needs))
    lent = set()
    for name in sorted(set(os.listdir(root)).difference(_KERNEL_S)):
        path, real = b"/" + name, root + b"/" + name
        if path == b"/tmp":
            plan.bind_children(path, real)
        elif path == b"/dev":
            _show_devices(plan, real)
        elif plan.has(path):
            lent.add(name)
        else:
            plan.show(path, real)
    for path in sorted(task.tree.roots):
        real = root + path
        if path[1:].split(b"/")[0] in lent and os.path.isdir(real):
            _show_root(plan, path, real, needs)


def _show_devices(plan: MountPlan, real: bytes) -> None:
    """Of the dev box's /dev its directories (/dev/shm), on top of what bwrap puts there."""
    for name in sorted(os.listdir(real)) if os.path.isdir(real) else ():
        if os.path.isdir(real + b"/" + name) and not os.path.islink(real + b"/" + name):
            plan.bind(b"/dev/" + name, real + b"/" + name)


def _show_root(plan: MountPlan, path: bytes, real: bytes, needs: tuple[bytes, ...]) -> None:
    """The dev box's directory in place of the worker's, but for what the compiler needs there."""
    if os.path.islink(real) or not os.path.isdir(real):
        plan.show(path, real)
    elif any(is_within(need, path) for need in needs):
        for name in sorted(os.listdir(real)):
            _show_root(plan, path + b"/" + name, real + b"/" + name, needs)
    else:
        plan.bind(path, real)


def _show_compiler(plan: MountPlan, real_path: str) -> None:
    """A compiler outside /usr comes with the whole directory it is installed in."""
    if not real_path.startswith(("/usr/", "/bin/")):
        prefix = os.fsencode(os.path.dirname(os.path.dirname(real_path)))
        if prefix != b"/":
            plan.bind(prefix, prefix)


def find_bwrap(search_path: str) -> str | None:
    """bubblewrap's path on this machine."""
    return shutil.which("bwrap", path=search_path)
