"""Makes the mounts of a namespace from the client's tree and the worker's files. Runs nothing.

A namespace is for one job, with all mounts by bubblewrap; or it is prepared for many, and each job
adds its own mounts in a copy. Planning takes longer than most of a job's other steps and has the
same result for job after job, so plans are cached until something that they were made from changes.
"""

import os
import time
from collections.abc import Callable, Hashable, Sequence

import msgspec

from distbuild.worker.sandbox import enter, worker_files
from distbuild.worker.sandbox.base import SandboxTask
from distbuild.worker.sandbox.mounts import MountPlan
from distbuild.worker.sandbox.output_dirs import LayeredDirectory, PrivateDirectory
from distbuild.worker.tree.paths import is_within, parents
from distbuild.worker.tree.tree import Tree

#: dist_build's directory inside the sandbox; no dev box has this name.
OURS = b"/.dist_build"
#: The specs file that gcc gets for ``-march=native``.
SPECS = OURS + b"/native.specs"
#: Kernel file systems: the dev box's are not shown.
_KERNEL_S = (b"proc", b"sys")
#: A job may not write in these directories, nor in their parents.
_NEVER_PRIVATE = (b"/usr", b"/etc", b"/proc", b"/dev")
#: TTL of cached plans (seconds): the worker's own directories may change, as its compilers do.
KEEP_S = 10.0
_MAX_KEPT = 64
#: In a prepared namespace, the directory with those of all running jobs: no job's compiler sees it.
_JOBS = b"/.dist_build.jobs"
#: There, an empty directory where a job's ``/tmp`` is made.
_NEW_TMP = b"/.dist_build.tmp"


class SharedView(msgspec.Struct, frozen=True):
    """What jobs with the same compiler and tree see alike: bubblewrap's options, the files of this
    machine by which they hold (see ``MountPlan.places``), and what /tmp has besides the tree's
    entries (see ``MountPlan.entries``): a compiler may be there."""

    words: tuple[bytes, ...]
    places: tuple[bytes, ...]
    tmp: tuple[tuple[bytes, bool, bytes | None], ...] = ()


class Views:
    """Makes the mounts for tasks. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, list[bytes]]] = {}
        self._shared: dict[Hashable, tuple[float, SharedView]] = {}

    def shared(self, task: SandboxTask, written: Sequence[bytes]) -> SharedView | None:
        """The mounts of a namespace for this task and others; None: it needs one of its own.

        ``written``: the directories that the task writes in. Raises ValueError for a path that
        cannot be shown.
        """
        key = _key(task, written)
        if key is None or any(_holds_compiler(task, path) for path in written):
            return None
        now = self._clock()
        made, view = self._shared.get(key, (now - KEEP_S, None))
        if view is None or now - made >= KEEP_S:
            view = _shared_view(task, written)
            if len(self._shared) >= _MAX_KEPT:
                self._shared.clear()
            self._shared[key] = now, view
        return view

    def arguments(
        self, task: SandboxTask, directories: Sequence[PrivateDirectory], ours: bytes
    ) -> list[bytes]:
        """The mounts for a task that writes in ``directories`` and ``ours``, both in its directory.

        Raises ValueError for a path that cannot be shown.
        """
        key = _key(task, [(d.path, tuple(d.directories)) for d in directories])
        now = self._clock()
        made, words = self._kept.get(key, (now - KEEP_S, []))
        if key is None or now - made >= KEEP_S:
            plain = _plan(task, directories, ours).arguments()
            if key is None:
                return plain
            words = _without(plain, task.directory)
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            self._kept[key] = now, words
        return [task.directory + word[1:] if word[:1] == b"\0" else word for word in words]


def _without(words: Sequence[bytes], directory: bytes) -> list[bytes]:
    """The options, with a NUL, which no path has, for the task's directory in bound paths."""
    prefix = directory + b"/"
    return [
        b"\0" + word[len(directory) :]
        if before in (b"--bind", b"--ro-bind") and word.startswith(prefix)
        else word
        for before, word in zip([b"", *words], words, strict=False)
    ]


def _key(task: SandboxTask, directories: Sequence[Hashable]) -> Hashable:
    """The cache key: a plan's inputs except the worker's own directories; None: not cacheable.

    Running jobs add names to a tree without a new revision: the relevant ones are in the key.
    """
    tree, root = task.tree, task.tree.ground.root
    identity = task.driver.identity
    over = worker_files.laid_over(task, worker_files.own_parts(task.driver))
    if worker_files.holds_a_need(over, identity.needs):
        return None
    return (
        root,
        tree.revision(),
        tree.roots,
        task.driver,
        tuple(map(_names, (root, root + b"/tmp", root + b"/dev"))),
        over,
        _held_kinds(tree, over),
        tuple(directories),
    )


def _held_kinds(tree: Tree, paths: Sequence[bytes]) -> tuple[tuple[bytes, str | bytes], ...]:
    """The kinds of those of the paths at which running jobs may have files of their own."""
    held = {path for own in tree.holds.paths() for path in (own, *parents(own))}
    return tuple(
        (path, worker_files.kind_of(tree.ground.root + path)) for path in paths if path in held
    )


def _names(directory: bytes) -> frozenset[tuple[bytes, bool, bool]]:
    """The entries of a directory: name, whether a directory, whether a symlink."""
    try:
        with os.scandir(directory) as found:
            return frozenset(
                (e.name, e.is_dir(follow_symlinks=False), e.is_symlink()) for e in found
            )
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def _plan(task: SandboxTask, directories: Sequence[PrivateDirectory], ours: bytes) -> MountPlan:
    plan = base_plan()
    _show_tree(plan, task)
    # A writable directory that contains the compiler's files is mounted before them.
    outer = [d for d in directories if _holds_compiler(task, d.path)]
    for directory in outer:
        _show_private(plan, task, directory)
    worker_files.show(plan, task)
    for directory in directories:
        if directory not in outer:
            _show_private(plan, task, directory)
    plan.bind(OURS, ours, writable=True)
    return plan


def _holds_compiler(task: SandboxTask, directory: bytes) -> bool:
    parts = worker_files.own_parts(task.driver)
    return any(is_within(part, directory) for part in parts)


def _shared_view(task: SandboxTask, written: Sequence[bytes]) -> SharedView:
    plan = base_plan()
    _show_tree(plan, task)
    worker_files.show(plan, task)
    for path in written:
        _check_private(path)
        real = task.tree.ground.real(path)
        if not plan.is_shown(path, real):
            plan.bind(path, real)
    plan.bind(_JOBS, os.path.dirname(task.directory), writable=True)
    for path in (OURS, _NEW_TMP):
        plan.special(path, "dir")
    of_tree = {name for name, _, _ in _names(task.tree.ground.root + b"/tmp")}
    tmp = tuple(entry for entry in plan.entries(b"/tmp") if entry[0] not in of_tree)
    return SharedView(tuple(plan.arguments()), tuple(plan.places()), tmp)


def operations(
    task: SandboxTask,
    directories: Sequence[PrivateDirectory | LayeredDirectory],
    view: SharedView,
) -> list[bytes]:
    """What ``enter`` does in a copy of the shared view, to make it the task's own.

    It gets its own processes and ``/tmp``, and its directories take the place of the tree's."""
    words = enter.one(b"proc", b"/proc")
    if not any(directory.path == b"/tmp" for directory in directories):
        words += _own_tmp(task.tree.ground.root + b"/tmp", view.tmp)
    own = _JOBS + b"/" + os.path.basename(task.directory)
    for directory in directories:
        real = own + b"/" + os.path.basename(directory.real)
        if isinstance(directory, LayeredDirectory):
            words += enter.overlay(directory.path, real)
            continue
        for name in directory.directories:
            words += enter.bind(directory.path.rstrip(b"/") + b"/" + name, real + b"/" + name)
        words += enter.bind(real, directory.path)
    return [*words, *enter.bind(own + b"/ours", OURS), *enter.one(b"detach", _JOBS)]


def _own_tmp(real: bytes, others: Sequence[tuple[bytes, bool, bytes | None]]) -> list[bytes]:
    """An empty /tmp, in which the entries of the tree's and the others are shown."""
    entries = [
        (name, is_directory, os.readlink(real + b"/" + name) if is_symlink else None)
        for name, is_directory, is_symlink in sorted(_names(real))
    ]
    entries += others
    if not entries:
        return enter.one(b"tmpfs", b"/tmp")
    words = enter.one(b"tmpfs", _NEW_TMP)
    for name, is_directory, target in entries:
        shown, made = b"/tmp/" + name, _NEW_TMP + b"/" + name
        if target is not None:
            words += enter.link(target, made)
        else:
            words += enter.one(b"directory" if is_directory else b"file", made)
            words += enter.bind(shown, made)
    return [*words, *enter.move(_NEW_TMP, b"/tmp")]


def _check_private(directory: bytes) -> None:
    if any(is_within(path, directory) for path in _NEVER_PRIVATE):
        raise ValueError(f"{directory!r} is the worker's")


def _show_private(plan: MountPlan, task: SandboxTask, directory: PrivateDirectory) -> None:
    _check_private(directory.path)
    plan.bind(directory.path, directory.real, writable=True)
    for name in directory.directories:
        below = directory.path.rstrip(b"/") + b"/" + name
        plan.bind(below, task.tree.ground.real(below))


def base_plan() -> MountPlan:
    """The mounts of every sandbox: the worker's system paths, /proc, /dev and an empty /tmp."""
    plan = MountPlan()
    for path in worker_files.system_paths():
        place = plan.bind if path.startswith(b"/etc/") else plan.show
        place(path, path)
    plan.special(b"/proc", "proc")
    plan.special(b"/dev", "devices")
    plan.special(b"/tmp", "tmpfs")
    return plan


def _show_tree(plan: MountPlan, task: SandboxTask) -> None:
    """Show the tree's top-level directories, except those that the plan has already."""
    root = task.tree.ground.root
    for name in sorted(set(os.listdir(root)).difference(_KERNEL_S)):
        path, real = b"/" + name, root + b"/" + name
        if path == b"/tmp":
            plan.bind_children(path, real)
        elif path == b"/dev":
            _show_devices(plan, real)
        elif not plan.has(path):
            plan.show(path, real)


def _show_devices(plan: MountPlan, real: bytes) -> None:
    """Show the directories of the dev box's /dev (/dev/shm) beside the devices."""
    for name in sorted(os.listdir(real)) if os.path.isdir(real) else ():
        if os.path.isdir(real + b"/" + name) and not os.path.islink(real + b"/" + name):
            plan.bind(b"/dev/" + name, real + b"/" + name)
