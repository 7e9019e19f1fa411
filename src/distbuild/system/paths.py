"""Converts paths between the internal form and the form that the operating system's calls take.

In the program and on the wire, every path is POSIX-like (``system.windows.paths``). On POSIX both
forms are the same, and nothing is converted. ``bytes`` are encoded as by ``os.fsencode``.
"""

import errno
import ntpath
import os
import sys
from collections.abc import Callable
from typing import AnyStr

from distbuild.system.windows.names import fold, is_nameable
from distbuild.system.windows.paths import from_windows, to_windows

WINDOWS = os.name == "nt"

#: Longer paths get the extended form. A directory's limit is 248 characters, which leaves 8.3 for
#: a name in it; a file's is 260 (``MAX_PATH``). A drive's current directory does not count.
_LONG = 240
#: As ``os.fsencode`` on Windows: names are 16-bit units, and single surrogates are allowed.
_CODEC = ("utf-8", "surrogatepass")


def windows_form(path: AnyStr) -> AnyStr:
    """The Windows form of an absolute internal path of any length.

    Raises FileNotFoundError for a path that names no file there: on no drive, a device, a stream.
    """
    if isinstance(path, bytes):
        return windows_form(path.decode(*_CODEC)).encode(*_CODEC)
    parts = path.rstrip("/").split("/")[2:]
    try:
        if not all(part in ("", ".", "..") or is_nameable(part) for part in parts):
            raise ValueError
        native = to_windows(path)
    except ValueError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
    return _extended(native) if len(native) > _LONG else native


def internal_form(path: AnyStr) -> AnyStr:
    """The internal form of an absolute path from Windows."""
    if isinstance(path, bytes):
        return from_windows(path.decode(*_CODEC)).encode(*_CODEC)
    return from_windows(path)


def _extended(native: str) -> str:
    """The extended form, of up to 32,767 characters. Windows does not normalise it, so ``.`` and
    ``..`` are resolved here."""
    plain = ntpath.normpath(native)
    if plain.startswith("\\\\"):
        return "\\\\?\\UNC" + plain[1:]
    return "\\\\?\\" + plain


def _same(path: AnyStr) -> AnyStr:
    return path


#: The error handler between ``str`` and ``bytes``, that of ``os.fsencode``.
ERRORS = sys.getfilesystemencodeerrors()
#: Maps all spellings of one path to a common form; None if names are case-sensitive.
FOLD: Callable[[str], str] | None = fold if WINDOWS else None
#: The form for system calls of an internal path, ``str`` or ``bytes``; may raise OSError.
to_system = windows_form if WINDOWS else _same
#: The internal form of an absolute path from the system.
from_system = internal_form if WINDOWS else _same
