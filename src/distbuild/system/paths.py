"""Converts paths between the internal form and the form that the operating system's calls take.
Resolves symlinks, on a disk or in a listing.

In the program and on the wire, every path is POSIX-like (``system.windows.paths``). On POSIX both
forms are the same, and nothing is converted. ``bytes`` are encoded as by ``os.fsencode``.
"""

import errno
import ntpath
import os
import sys
from collections.abc import Callable
from typing import AnyStr, Protocol, TypeVar

from distbuild.system.windows.names import fold, from_windows, is_nameable, to_windows

WINDOWS = os.name == "nt"
#: The kernel's limit of symlinks followed in one look-up (path_resolution(7)).
MAX_SYMLINKS = 40

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


class Link(Protocol):
    """A symbolic link's ``target``: relative or absolute, in internal form."""

    @property
    def target(self) -> str | bytes:
        """The path that it leads to."""


L = TypeVar("L", bound=Link)


def follow_links(
    path: str,
    look: Callable[[str], object],
    link: type[L],
    directory: type | None = None,
    *,
    spell: Callable[[str], str] | None = None,
    most: int = MAX_SYMLINKS,
) -> str | None:
    """Follow the symlinks in an absolute path as the kernel does (path_resolution(7)): ``..`` steps
    up from the *resolved* directory.

    ``look`` returns what is at a path whose directory is resolved: a ``link``, a ``directory``,
    something else, or None. The result is None after more than ``most`` links; and if a component
    is missing or no directory, unless ``directory`` is None: then each passes for a directory.
    ``spell`` returns the disk's spelling of a path.
    """
    pending = _components(path)
    here, followed = "", 0
    while pending:
        part = pending.pop()
        if part in (".", ".."):
            here = here.rpartition("/")[0] if part == ".." else here
            continue
        step = f"{here}/{part}"
        if spell is not None:
            step = spell(step)
        found = look(step)
        if isinstance(found, link):
            followed += 1
            if followed > most:
                return None
            target = os.fsdecode(found.target)
            pending += _components(target)
            here = "" if target.startswith("/") else here
        elif directory is None or isinstance(found, directory) or not (pending or found is None):
            here = step
        else:
            return None
    return here or "/"


def _components(path: str) -> list[str]:
    """A path's parts, last first; a trailing slash, which requires a directory, gives a ``.``."""
    parts = [part for part in path.split("/") if part]
    if path.endswith("/"):
        parts.append(".")
    return parts[::-1]


#: The error handler between ``str`` and ``bytes``, that of ``os.fsencode``.
ERRORS = sys.getfilesystemencodeerrors()
#: Maps all spellings of one path to a common form; None if names are case-sensitive.
FOLD: Callable[[str], str] | None = fold if WINDOWS else None
#: The form for system calls of an internal path, ``str`` or ``bytes``; may raise OSError.
to_system = windows_form if WINDOWS else _same
#: The internal form of an absolute path from the system.
from_system = internal_form if WINDOWS else _same
