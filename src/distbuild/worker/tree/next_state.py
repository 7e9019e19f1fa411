"""What a tree holds after changes, worked out without changing anything. Knows no disk and no lock.

The paths of changes are those that the syncer sends, and are checked here.
"""

import copy
from bisect import bisect_left
from collections.abc import Callable

from distbuild.mirror.manifest import Summary
from distbuild.protocol.messages import Changes, DirectoryEntry, Entry
from distbuild.worker.tree.paths import checked

Entries = dict[bytes, Entry]


def next_entries(
    old: Entries, changes: Changes, is_directory: Callable[[bytes], bool]
) -> tuple[Entries, list[bytes]]:
    """The entries after ``changes``, and the paths that differ, sorted.

    ``is_directory`` knows those that are directories without an entry. Raises ProtocolError for
    paths outside the tree.
    """
    named = checked(changes)
    if changes.base == 0:
        wanted = {path: entry for path, entry in named.items() if entry is not None}
        considered = old.keys() | wanted.keys()
    else:
        wanted = dict(old)
        closed = [p for p, e in named.items() if not isinstance(e, DirectoryEntry)]
        gone = _below(
            [p for p in closed if isinstance(old.get(p), DirectoryEntry) or is_directory(p)], old
        )
        for path in gone:
            wanted.pop(path, None)
        for path, entry in named.items():
            if entry is None:
                wanted.pop(path, None)
            else:
                wanted[path] = entry
        considered = named.keys() | gone
    touched = sorted(p for p in considered if wanted.get(p) != old.get(p))
    return wanted, touched


def next_summary(summary: Summary, old: Entries, wanted: Entries, touched: list[bytes]) -> Summary:
    """The summary of ``wanted``, from that of ``old``."""
    summary = copy.copy(summary)
    for path in touched:
        if (before := old.get(path)) is not None:
            summary.remove(path, before)
        if (after := wanted.get(path)) is not None:
            summary.add(path, after)
    return summary


def _below(tops: list[bytes], entries: Entries) -> set[bytes]:
    """The entries below paths that cease to be directories."""
    if not tops:
        return set()
    names = sorted(entries)
    below: set[bytes] = set()
    for top in (top.rstrip(b"/") for top in tops):
        begin, end = bisect_left(names, top + b"/"), bisect_left(names, top + b"0")
        below.update(names[begin:end])
    return below
