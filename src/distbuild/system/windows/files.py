"""Windows implementations of ``disk``'s functions: status, listing, links. Paths are in Windows'
form."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from typing import AnyStr, Generic, Protocol, TypeVar

from distbuild.system.paths import internal_form
from distbuild.system.windows import calls
from distbuild.system.windows import status as file_status
from distbuild.system.windows.names import is_nameable

Name = TypeVar("Name", str, bytes, covariant=True)

#: Reparse tags (winnt.h): of symbolic links, and of junctions and mounted volumes.
_SYMLINK, _JUNCTION = 0xA000000C, 0xA0000003
_FILE_ATTRIBUTE_DIRECTORY = 0x10


def status(path: str | bytes) -> os.stat_result:
    """The status of the file that a path leads to. Raises OSError."""
    try:
        return file_status.status(os.fsdecode(path), follow=True)
    except PermissionError:
        return os.stat(path)


def own_status(path: str | bytes) -> os.stat_result:
    """The status of a path itself, which may be a link. Raises OSError."""
    try:
        return file_status.status(os.fsdecode(path), follow=False)
    except PermissionError:
        return os.lstat(path)


def status_of_descriptor(descriptor: int) -> os.stat_result:
    """The status of an open file. Raises OSError."""
    return file_status.status_of_handle(calls.handle_of(descriptor))


def open_to_read(path: str | bytes) -> FileIO:
    """Open unbuffered, so that other programs may rename and delete the file meanwhile."""
    return open(os.fsdecode(path), "rb", buffering=0, opener=calls.open_shared)


class Item(Protocol[Name]):
    """An entry of a directory; see ``os.DirEntry``."""

    @property
    def name(self) -> Name:
        """The entry's name, without its directory."""

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Its own status; links are never followed, whatever ``follow_symlinks`` says."""

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a directory itself, not a link to one."""


@dataclass(frozen=True, slots=True)
class _Item(Generic[AnyStr]):
    name: AnyStr
    status: os.stat_result

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        del follow_symlinks
        return self.status

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        del follow_symlinks
        return stat.S_ISDIR(self.status.st_mode) and not is_link(self.status)


def scan(path: AnyStr) -> contextlib.AbstractContextManager[Iterator[Item[AnyStr]]]:
    """A directory's listing, without names that programs cannot open."""
    found = file_status.listing(os.fsdecode(path))
    named = ((name, known) for name, known in found if is_nameable(name))
    if isinstance(path, bytes):
        return contextlib.nullcontext(_Item(os.fsencode(name), known) for name, known in named)
    return contextlib.nullcontext(_Item(name, known) for name, known in named)


def make_link(target: str, path: str, *, to_directory: bool) -> None:
    """Make a link at ``path`` to an absolute target. Raises OSError.

    A link to a directory is a junction, which any user may make; links to files need a privilege.
    """
    if to_directory:
        calls.make_junction(target, path)
    else:
        os.symlink(target, path)


def inside_target(target: str) -> str:
    """A link's target, relative or absolute, in internal form. Raises FileNotFoundError for a
    mounted volume without a path."""
    if target.lower().startswith("\\\\?\\volume{"):
        raise FileNotFoundError(errno.ENOENT, "a volume without a path is mounted there", target)
    if target[1:2] == ":" or target.startswith("\\"):
        return internal_form(target)
    return target.replace("\\", "/")


def is_link(known: os.stat_result) -> bool:
    """Whether a status is that of a symbolic link or a junction."""
    return getattr(known, "st_reparse_tag", 0) in (_SYMLINK, _JUNCTION)


def links_to_directory(known: os.stat_result) -> bool:
    """Whether a link's own status is that of a link to a directory, on Windows."""
    return bool(getattr(known, "st_file_attributes", 0) & _FILE_ATTRIBUTE_DIRECTORY)
