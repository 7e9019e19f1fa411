"""What a compiler sees in a namespace: the client's tree, and what the worker lends. Runs nothing.

Planning takes longer than most of a job's other steps and comes to the same for job after job, so
plans are kept for as long as nothing that they were made from has changed.
"""

import functools
import os
import re
import time
from collections.abc import Callable, Hashable, Sequence

from distbuild.worker.mounts import MountPlan
from distbuild.worker.paths import is_within
from distbuild.worker.private import PrivateDirectory
from distbuild.worker.sandbox import Task

#: Ours inside the sandbox; not a name that a dev box has.
OURS = b"/.dist_build"
#: What gcc gets for ``-march=native``.
SPECS = OURS + b"/native.specs"
#: What no dev box directory is shown in.
_KERNEL_S = (b"proc", b"sys")
#: Of /etc, what compilers and the dynamic linker read.
_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d")
_LENT_TOP = re.compile(rb"bin|sbin|lib\w*")
#: The worker's own directories are looked at again after this, as its compilers are.
KEEP_S = 10.0
_MAX_KEPT = 64


class Views:
    """Makes bubblewrap's options for tasks. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, list[bytes]]] = {}

    def arguments(
        self, task: Task, directories: Sequence[PrivateDirectory], ours: bytes
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


def _key(task: Task, directories: Sequence[PrivateDirectory]) -> Hashable:
    """All that a plan is made from, but for the worker's own directories; None: too much.

    Running jobs add names to a tree without a new revision: those that count are looked at.
    """
    tree, root = task.tree, task.tree.ground.root
    identity = task.driver.identity
    lent = _lent(tree.roots, identity.needs)
    if lent is None:
        return None
    return (
        root,
        tree.revision(),
        tree.roots,
        identity.real_path,
        tuple(map(_names, (root, root + b"/tmp", root + b"/dev"))),
        tuple(os.path.isdir(root + path) for path in lent),
        tuple((d.path, tuple(d.directories)) for d in directories),
    )


@functools.lru_cache(_MAX_KEPT)
def _lent(roots: tuple[bytes, ...], needs: tuple[str, ...]) -> tuple[bytes, ...] | None:
    """The roots that stand in directories of the worker's; None if a compiler is in one of them."""
    tops = {root: root.split(b"/", 2)[1] for root in roots}
    lent = [r for r, top in tops.items() if top in (b"usr", b"etc") or _LENT_TOP.fullmatch(top)]
    if any(is_within(os.fsencode(need), root) for root in lent for need in needs):
        return None
    return tuple(lent)


def _names(directory: bytes) -> frozenset[tuple[bytes, bool, bool]]:
    """The names in a directory with what kind of thing each is."""
    try:
        with os.scandir(directory) as found:
            return frozenset(
                (e.name, e.is_dir(follow_symlinks=False), e.is_symlink()) for e in found
            )
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def _plan(task: Task, directories: Sequence[PrivateDirectory], ours: bytes) -> MountPlan:
    plan = base_plan()
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
    plan.bind(OURS, ours, writable=True)
    return plan


def base_plan() -> MountPlan:
    """What every sandbox has of the worker, its kernel's file systems, and an empty /tmp."""
    plan = MountPlan()
    plan.bind(b"/usr", b"/usr")
    for name in os.listdir(b"/"):
        if _LENT_TOP.fullmatch(name):
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
