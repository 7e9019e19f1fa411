"""Makes the mounts of a namespace from the client's tree and the worker's files. Runs nothing.

Planning takes longer than most of a job's other steps and has the same result for job after job,
so plans are cached until something that they were made from changes.
"""

import os
import time
from collections.abc import Callable, Hashable, Sequence

from distbuild.worker.sandbox import worker_files
from distbuild.worker.sandbox.base import SandboxTask
from distbuild.worker.sandbox.mounts import MountPlan
from distbuild.worker.sandbox.output_dirs import PrivateDirectory
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


class Views:
    """Makes bubblewrap's mount options for tasks. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, list[bytes]]] = {}

    def arguments(
        self, task: SandboxTask, directories: Sequence[PrivateDirectory], ours: bytes
    ) -> list[bytes]:
        """The mounts for a task that writes in ``directories`` and ``ours``, both in its directory.

        Raises ValueError for a path that cannot be shown.
        """
        key = _key(task, directories)
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


def _key(task: SandboxTask, directories: Sequence[PrivateDirectory]) -> Hashable:
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
        tuple((d.path, tuple(d.directories)) for d in directories),
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
    parts = worker_files.own_parts(task.driver)
    # A writable directory that contains the compiler's files is mounted before them.
    outer = [d for d in directories if any(is_within(part, d.path) for part in parts)]
    for directory in outer:
        _show_private(plan, task, directory)
    worker_files.show(plan, task)
    for directory in directories:
        if directory not in outer:
            _show_private(plan, task, directory)
    plan.bind(OURS, ours, writable=True)
    return plan


def _show_private(plan: MountPlan, task: SandboxTask, directory: PrivateDirectory) -> None:
    if any(is_within(path, directory.path) for path in _NEVER_PRIVATE):
        raise ValueError(f"{directory.path!r} is the worker's")
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
    plan.special(b"/dev", "dev")
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
    """Show the directories of the dev box's /dev (/dev/shm) over bubblewrap's own /dev."""
    for name in sorted(os.listdir(real)) if os.path.isdir(real) else ():
        if os.path.isdir(real + b"/" + name) and not os.path.islink(real + b"/" + name):
            plan.bind(b"/dev/" + name, real + b"/" + name)
