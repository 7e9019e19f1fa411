"""One mount for many files: which directories of the worker's may be the dev box's as a whole.

A directory of links to files elsewhere makes each of those files a root of its own. bubblewrap's
time grows with the square of the number of mounts: 1,500 of them take seconds, in each job.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence

from distbuild.mirror.policy import Handling, handling
from distbuild.protocol.messages import WithheldEntry
from distbuild.worker.sandbox.mounts import MANY_NAMES
from distbuild.worker.tree.paths import is_within
from distbuild.worker.tree.tree import Tree

#: So many names that only the worker has are looked at before a directory stays its own.
MAX_HIDDEN = 1000


def crowded(paths: Sequence[bytes]) -> list[bytes]:
    """The directories that more than a few of the paths are in, outer ones first; not ``/usr`` and
    its like."""
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
    """The paths, with one of the ``directories``, outer ones first, in place of all that are in
    it, where nothing that a compiler could miss is lost by that. Outer paths first."""
    whole: list[bytes] = []
    for directory in directories:
        if any(is_within(directory, outer) for outer in whole):
            continue
        if not any(is_within(need, directory) for need in needs) and _may_hide(directory, tree):
            whole.append(directory)
    rest = (path for path in paths if not any(is_within(path, outer) for outer in whole))
    return sorted([*whole, *rest]) if whole else list(paths)


def _may_hide(directory: bytes, tree: Tree) -> bool:
    """Whether the worker has nothing in a directory but what the tree has, or texts."""
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
    """By its name, and by not being there to run."""
    is_library = handling(os.fsdecode(os.path.basename(path))) is Handling.IGNORE
    return not is_library and not os.access(path, os.X_OK)
