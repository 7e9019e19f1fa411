"""What a compiler sees in a namespace: the client's tree, and what the worker lends. Runs nothing.

Planning takes longer than most of a job's other steps and comes to the same for job after job, so
plans are kept for as long as nothing that they were made from has changed.
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

#: Ours inside the sandbox; not a name that a dev box has.
OURS = b"/.dist_build"
#: What gcc gets for ``-march=native``.
SPECS = OURS + b"/native.specs"
#: What no dev box directory is shown in.
_KERNEL_S = (b"proc", b"sys")
#: Directories that a job may not write in, nor in what they are in.
_NEVER_PRIVATE = (b"/usr", b"/etc", b"/proc", b"/dev")
#: The worker's own directories are looked at again after this, as its compilers are.
KEEP_S = 10.0
_MAX_KEPT = 64


class Views:
    """Makes bubblewrap's options for tasks. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, list[bytes]]] = {}

    def arguments(
        self, task: SandboxTask, directories: Sequence[PrivateDirectory], ours: bytes
    ) -> list[bytes]:
        """The mounts for a task that writes in ``directories`` and ``ours``, which are in its own.

        Raises ValueError for what cannot be shown at its place.
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
    """The options with a NUL, which no path has, for the directory of which this task binds."""
    prefix = directory + b"/"
    return [
        b"\0" + word[len(directory) :]
        if before in (b"--bind", b"--ro-bind") and word.startswith(prefix)
        else word
        for before, word in zip([b"", *words], words, strict=False)
    ]


def _key(task: SandboxTask, directories: Sequence[PrivateDirectory]) -> Hashable:
    """All that a plan is made from, but for the worker's own directories; None: too much.

    Running jobs add names to a tree without a new revision: those that count are looked at.
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
    """What stands at those of the paths where running jobs may have something of their own."""
    held = {path for own in tree.holds.paths() for path in (own, *parents(own))}
    return tuple(
        (path, worker_files.kind_of(tree.ground.root + path)) for path in paths if path in held
    )


def _names(directory: bytes) -> frozenset[tuple[bytes, bool, bool]]:
    """The names in a directory with what kind of thing each is."""
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
    # What the compiler needs comes on top of a directory that it may write in and that holds it.
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
    """What every sandbox has of the worker, its kernel's file systems, and an empty /tmp."""
    plan = MountPlan()
    for path in worker_files.system_paths():
        place = plan.bind if path.startswith(b"/etc/") else plan.show
        place(path, path)
    plan.special(b"/proc", "proc")
    plan.special(b"/dev", "dev")
    plan.special(b"/tmp", "tmpfs")
    return plan


def _show_tree(plan: MountPlan, task: SandboxTask) -> None:
    """The tree's directories at their places, but for those that the worker has as well."""
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
    """Of the dev box's /dev its directories (/dev/shm), on top of what bwrap puts there."""
    for name in sorted(os.listdir(real)) if os.path.isdir(real) else ():
        if os.path.isdir(real + b"/" + name) and not os.path.islink(real + b"/" + name):
            plan.bind(b"/dev/" + name, real + b"/" + name)
