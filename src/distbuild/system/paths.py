"""Paths on their way into and out of system calls.

Inside, and on the wire, every path is POSIX-like (``windows_paths``); the system wants its own
form. On POSIX both are the same, and nothing is done. ``bytes`` are as ``os.fsencode`` gives them.
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

#: A directory's name must leave room for one of eight and three more: the limit is 248, a file's
#: 260, and a drive's current directory does not count (``MAX_PATH``).
_LONG = 240
#: As ``os.fsencode`` has them there: names are 16-bit units, and single surrogates are allowed.
_CODEC = ("utf-8", "surrogatepass")


def windows_form(path: AnyStr) -> AnyStr:
    """The form of an absolute internal path that Windows' calls take, however long it is.

    Raises FileNotFoundError for what can name no file there: on no drive, a device, a stream.
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
    """The internal form of an absolute path that Windows gave."""
    if isinstance(path, bytes):
        return from_windows(path.decode(*_CODEC)).encode(*_CODEC)
    return from_windows(path)


def _extended(native: str) -> str:
    """A path that is taken as it stands, with up to 32,767 characters; so it has no dots."""
    plain = ntpath.normpath(native)
    if plain.startswith("\\\\"):
        return "\\\\?\\UNC" + plain[1:]
    return "\\\\?\\" + plain


def _same(path: AnyStr) -> AnyStr:
    return path


#: How ``str`` and ``bytes`` are converted, as ``os.fsencode`` does it.
ERRORS = sys.getfilesystemencodeerrors()
#: What all spellings of one path have in common; None where each is a file of its own.
FOLD: Callable[[str], str] | None = fold if WINDOWS else None
#: The form for system calls of an internal path, ``str`` or ``bytes``; may raise OSError.
to_system = windows_form if WINDOWS else _same
#: The internal form of an absolute path that the system gave.
from_system = internal_form if WINDOWS else _same
