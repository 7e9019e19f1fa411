"""Selects the worker's own files that a sandbox shows, and the tree's files that shadow them.

The worker's compilers need their programs, libraries and headers where they are installed: in
``/usr``, or in a directory of their own. Files of the client's tree at those paths shadow them.
"""

import functools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from distbuild.mirror.policy import Handling, handling, is_pseudo_fs
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import DirectoryEntry, SymlinkEntry, WithheldEntry
from distbuild.system.paths import MAX_SYMLINKS
from distbuild.worker.compilers import InstalledDriver
from distbuild.worker.sandbox.base import SandboxTask
from distbuild.worker.sandbox.mounts import MANY_NAMES, MountPlan
from distbuild.worker.tree.paths import is_within
from distbuild.worker.tree.tree import Tree

#: A directory with more names than this that only the worker has is not hidden as a whole.
MAX_HIDDEN = 1000


def crowded(paths: Sequence[bytes]) -> list[bytes]:
    """The directories that contain more than ``MANY_NAMES`` of the paths, outer ones first; not
    ``/usr`` and other top-level ones."""
    if len(paths) <= MANY_NAMES:
        return []
    inside: Counter[bytes] = Counter()
    for directory, count in Counter(map(os.path.dirname, paths)).items():
        while directory.count(b"/") > 1:
            inside[directory] += count
            directory = os.path.dirname(directory)
    return sorted(directory for directory, count in inside.items() if count > MANY_NAMES)


def gathered(
    paths: Sequence[bytes], directories: Iterable[bytes], tree: Tree, needs: Sequence[bytes]
) -> list[bytes]:
    """The paths, outer ones first, with all that are in one of the ``directories`` replaced by it
    where that hides nothing that a compiler could miss. ``directories``: outer ones first."""
    whole: list[bytes] = []
    for directory in directories:
        if any(is_within(directory, outer) for outer in whole):
            continue
        if not any(is_within(need, directory) for need in needs) and _may_hide(directory, tree):
            whole.append(directory)
    rest = (path for path in paths if not any(is_within(path, outer) for outer in whole))
    return sorted([*whole, *rest]) if whole else list(paths)


def _may_hide(directory: bytes, tree: Tree) -> bool:
    """Whether the worker's directory has only names that the tree has too, and text files."""
    left = MAX_HIDDEN
    for place, directories, names in os.walk(directory):
        for path in (os.path.join(place, name) for name in (*directories, *names)):
            if (os.path.isdir(path) and not os.path.islink(path)) or _is_in(tree, path):
                continue
            left -= 1
            if left < 0 or not _is_text(path):
                return False
    return True


def _is_in(tree: Tree, path: bytes) -> bool:
    entry = tree.lookup(os.fsdecode(path))
    return entry is not None and not isinstance(entry, WithheldEntry)


def _is_text(path: bytes) -> bool:
    """Judged by the name, and by not being executable."""
    is_library = handling(os.fsdecode(os.path.basename(path))) is Handling.IGNORE
    return not is_library and not os.access(path, os.X_OK)


#: Names in the root directory that compilers and the dynamic linker use.
TOP = re.compile(rb"bin|sbin|lib\w*")
#: Subdirectories that a compiler installed in a directory of its own uses. Not the whole directory
#: is shown: it may be a user's home.
_PARTS = (b"bin", b"lib", b"lib32", b"lib64", b"libexec")
#: The files of /etc that compilers and the dynamic linker read.
_ETC = (b"alternatives", b"ld.so.cache", b"ld.so.conf", b"ld.so.conf.d")
_MAX_KEPT = 64


def system_paths() -> list[bytes]:
    """The paths of this machine that every compiler may see, beside its own installation."""
    top = sorted(b"/" + name for name in os.listdir(b"/") if TOP.fullmatch(name))
    etc = (b"/etc/" + name for name in _ETC)
    return [b"/usr", *top, *filter(os.path.exists, etc)]


def check_apart(parts: Iterable[bytes], own: bytes) -> None:
    """Raise InfrastructureError if a directory to be shown contains ``own``, a task's directory."""
    real = os.path.realpath(own)
    for part in parts:
        if is_within(real, os.path.realpath(part)):
            raise InfrastructureError(f"{os.fsdecode(part)} holds this worker's own files")


def own_parts(driver: InstalledDriver) -> tuple[bytes, ...]:
    """The directories of a compiler that is installed outside ``/usr``; of others none."""
    directory = os.path.dirname(os.fsencode(driver.identity.real_path))
    if _is_system_s(directory) or os.path.basename(directory) != b"bin":
        return ()
    prefix = os.path.dirname(directory)
    # A cross compiler has its assembler in a directory named after its target.
    machine = os.fsencode(driver.identity.version.rpartition(" ")[2])
    parts = (os.path.join(prefix, name) for name in (*_PARTS, machine))
    return tuple(filter(os.path.isdir, parts))


def laid_over(task: SandboxTask, parts: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The paths of the tree that shadow the worker's files, outer ones first."""
    tree = task.tree
    paths = _roots_over(tree.roots, parts)
    # A source in a directory of which only the top is mirrored is in the tree for its job only.
    return paths + tuple(
        file.path
        for file in task.job.files
        if _is_lent(file.path, parts) and not any(is_within(file.path, path) for path in paths)
    )


@functools.lru_cache(_MAX_KEPT)
def _roots_over(roots: tuple[bytes, ...], parts: tuple[bytes, ...]) -> tuple[bytes, ...]:
    # Top-level directories always stay the worker's: its loader is in one.
    over = {root for root in roots if _is_lent(root, parts) and root.count(b"/") > 1}
    over.update(part for part in parts if any(is_within(part, root) for root in roots))
    return tuple(sorted(over))


@functools.lru_cache(_MAX_KEPT)
def holds_a_need(paths: tuple[bytes, ...], needs: tuple[str, ...]) -> bool:
    """Whether a file that the compiler needs is at or below one of these paths."""
    return any(is_within(os.fsencode(need), path) for path in paths for need in needs)


def shows_own(task: SandboxTask, path: bytes) -> bool:
    """Whether the worker's file may be visible at a path that the tree does not have."""
    parts, needs = own_parts(task.driver), tuple(map(os.fsencode, task.driver.identity.needs))
    if any(is_within(path, need) for need in needs):
        return True
    over = (p for p in laid_over(task, parts) if is_within(path, p))
    is_hidden = any(
        isinstance(task.tree.lookup(os.fsdecode(directory)), DirectoryEntry)
        and not any(is_within(need, directory) for need in needs)
        for directory in over
    )
    return _is_lent(path, parts) and not is_hidden


def is_read_by_loader(task: SandboxTask, path: bytes) -> bool:
    """Whether a program's loader may open a path, before the program opens its input."""
    parts = own_parts(task.driver)
    return (
        _is_lent(path, parts)
        or is_pseudo_fs(os.fsdecode(path))
        or any(is_within(path, os.fsencode(need)) for need in task.driver.identity.needs)
    )


def kind_of(path: bytes) -> str | bytes:
    """The kind of a path on this machine: a symlink's target, ``d``, ``f``, or "" for nothing."""
    if os.path.islink(path):
        return os.readlink(path)
    return "d" if os.path.isdir(path) else "f" if os.path.exists(path) else ""


def show(plan: MountPlan, task: SandboxTask) -> None:
    """Add the worker's files for this task's compiler, the tree's over them, and those that the
    compiler needs over these. Raises ValueError for a path that cannot be shown.
    """
    driver = task.driver
    parts = own_parts(driver)
    check_apart(parts, task.directory)
    for part in parts:
        plan.bind(part, part)
    needs = tuple(map(os.fsencode, driver.identity.needs))
    over = laid_over(task, parts)
    inside = [path for path in crowded(over) if _is_lent(path, parts)]
    for path in gathered(over, inside, task.tree, needs):
        _lay_over(plan, path, task.tree, needs)
    for need in needs:
        if not _is_system_s(need) and os.path.exists(need) and not os.path.islink(need):
            plan.bind(need, need)
    for path in (os.fsencode(driver.path), *needs):
        for link in _links(path):
            if not plan.is_shown(link, link):
                plan.show(link, link)


def _lay_over(plan: MountPlan, path: bytes, tree: Tree, needs: tuple[bytes, ...]) -> None:
    """Show the dev box's files instead of the worker's, except those that the compiler needs."""
    real = tree.ground.real(path)
    has_needs = any(is_within(need, path) for need in needs)
    if not os.path.isdir(real) or os.path.islink(real):
        if not has_needs and not _is_there(plan, path, tree):
            plan.show(path, real)
    elif has_needs:
        for name in sorted(os.listdir(real)):
            _lay_over(plan, path + b"/" + name, tree, needs)
    else:
        plan.bind(path, real)


def _is_there(plan: MountPlan, path: bytes, tree: Tree) -> bool:
    """Whether a path can stay as it is, instead of the tree's entry, which is no directory."""
    entry = tree.lookup(os.fsdecode(path))
    if isinstance(entry, WithheldEntry):
        # A placeholder would hide a program or library that is not listed among the needs.
        return plan.has(path)
    if isinstance(entry, SymlinkEntry) and os.path.islink(path):
        # To show a different link, the directory has to be rebuilt, name by name.
        return os.readlink(path) == entry.target and plan.is_shown(path, path)
    return not os.path.lexists(tree.ground.real(path))


def _is_lent(path: bytes, parts: Iterable[bytes]) -> bool:
    return (
        _is_system_s(path)
        or is_within(path, b"/etc")
        or any(is_within(path, part) for part in parts)
    )


def _is_system_s(path: bytes) -> bool:
    """Whether a path is in a directory that every sandbox shows of the worker."""
    top = path.split(b"/", 2)[1]
    return top == b"usr" or TOP.fullmatch(top) is not None


def _links(path: bytes) -> Iterator[bytes]:
    """The chain of symlinks from a program's name to the program."""
    for _ in range(MAX_SYMLINKS):
        if not os.path.islink(path):
            return
        yield path
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
