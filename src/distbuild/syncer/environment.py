"""Syncer side: the dev box's time zone (TZ) and terminal description (TERMINFO) for compilers.

With the zone a worker's ``__DATE__`` and ``__TIME__`` are the dev box's.
"""

import base64
import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from distbuild.system.paths import WINDOWS

LOCALTIME = Path("/etc/localtime")
UTC = "UTC0"


def local_zone(localtime: Path = LOCALTIME) -> str:
    """The zone as a value of TZ that needs no zone files on the worker.

    It is the last line of a version 2 zone file (RFC 8536, section 3.3): the rule in force now,
    which is all that a compiler's clock needs. UTC if there is none. On Windows, whose C library
    accepts such values too, it is the present offset.
    """
    if WINDOWS:
        return fixed_zone(time.localtime().tm_gmtoff)
    try:
        data = localtime.read_bytes()
    except OSError:
        return UTC
    footer = data.rstrip(b"\n").rpartition(b"\n")[2]
    if not data.startswith(b"TZif") or not data.endswith(b"\n") or not footer.isascii():
        return UTC
    return footer.decode() or UTC


def fixed_zone(offset_s: int) -> str:
    """A zone that is ``offset_s`` seconds east of UTC; in TZ, east is negative."""
    sign = "-" if offset_s > 0 else "+"
    hours, minutes = divmod(abs(offset_s) // 60, 60)
    return f"DBZ{sign}{hours:02}:{minutes:02}"


class Zone:
    """The present zone: a change while the syncer runs is noticed."""

    def __init__(self, localtime: Path = LOCALTIME) -> None:
        self._localtime = localtime
        self._seen: tuple[int, int, int] | None = None
        self._zone = UTC

    def now(self) -> str:
        """The value of ``local_zone``; costs one ``stat`` if nothing has changed."""
        if WINDOWS:
            return local_zone(self._localtime)
        try:
            status = os.stat(self._localtime)
        except OSError:
            return UTC
        seen = (status.st_dev, status.st_ino, status.st_ctime_ns)
        if seen != self._seen:
            self._zone, self._seen = local_zone(self._localtime), seen
        return self._zone


#: Where ncurses looks (terminfo(5), "Fetching Compiled Descriptions"), as distributions build it.
DATABASES = ("/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo", "/usr/lib/terminfo")
#: Terminals that have no colours whatever a database says.
_COLOURLESS = ("", "dumb")
#: Real ones have some 4 KB.
_MAX_ENTRY_BYTES = 32 * 1024


def describe(env: Mapping[str, str], home: str) -> dict[str, str] | None:
    """``TERMINFO`` with the entry of TERM in it; empty if none is needed; None: no entry here."""
    name, given = env.get("TERM", ""), env.get("TERMINFO", "")
    if name in _COLOURLESS or given.startswith(("b64:", "hex:")):
        return {}
    if "/" in name:
        return None
    for directory in _directories(env, home):
        for letter in (name[0], f"{ord(name[0]):x}"):
            with contextlib.suppress(OSError, ValueError):
                file = Path(directory, letter, name)
                if file.stat().st_size <= _MAX_ENTRY_BYTES:
                    return {"TERMINFO": "b64:" + base64.b64encode(file.read_bytes()).decode()}
    return None


def _directories(env: Mapping[str, str], home: str) -> Iterator[str]:
    if given := env.get("TERMINFO"):
        yield given
    yield os.path.join(home, ".terminfo")
    for directory in env.get("TERMINFO_DIRS", "").split(":"):
        if directory:
            yield directory
    yield from DATABASES
