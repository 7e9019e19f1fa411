"""Tells where something was mounted or unmounted: no file event speaks of that.

The kernel marks /proc/self/mountinfo as exceptional when the mount table changes (proc(5)), so that
asking costs one poll(2) while it does not.
"""

import contextlib
import os
import re
import select

from distbuild.system import disk

_TABLE = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-7]{3})")


class MountWatch:
    """The mount table of this process; empty where there is none to read."""

    def __init__(self, table: str = _TABLE) -> None:
        self._poll = select.poll() if hasattr(select, "poll") else None
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open(table, os.O_RDONLY | disk.O_PRIVATE)
        if self._fd < 0:
            self._poll = None
        if self._poll is not None:
            self._poll.register(self._fd, select.POLLPRI | select.POLLERR)
        self._mounts = self._read()

    def close(self) -> None:
        """Release the table."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._poll = None

    def points(self) -> frozenset[str]:
        """The mount points of which was last told."""
        return frozenset(point for _, point in self._mounts)

    def changed(self) -> list[str]:
        """Mount points that came or went since the last call, outermost first."""
        if self._poll is None or not self._poll.poll(0):
            return []
        before, self._mounts = self._mounts, self._read()
        return sorted({point for _, point in before ^ self._mounts})

    def _read(self) -> frozenset[tuple[bytes, str]]:
        if self._fd < 0:
            return frozenset()
        os.lseek(self._fd, 0, os.SEEK_SET)
        data = b""
        while chunk := os.read(self._fd, 1 << 20):
            data += chunk
        rows = (line.split(b" ", 5) for line in data.splitlines())
        return frozenset((row[0], _path(row[4])) for row in rows if len(row) > 5)


def _path(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda m: bytes([int(m[1], 8)]), field))
