"""The calls of ``os`` on files, for internal paths (``system_paths``).

On POSIX these are the calls of ``os`` themselves. On Windows paths are converted on the way, and a
file that another program has open just now is asked for again for some tens of milliseconds.
"""

import contextlib
import errno
import functools
import os
import shutil
import stat as modes
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import FileIO
from typing import Any, AnyStr, Generic, Protocol, TypeVar, cast

from distbuild import windows_calls, windows_status
from distbuild.system_paths import WINDOWS, from_system, internal_form, to_system
from distbuild.windows_names import fold, is_nameable

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Name = TypeVar("Name", str, bytes, covariant=True)

#: Sharing and lock violations; and access denied, as it is said of a name that is being deleted.
_PASSING = frozenset({32, 33})
_PASSING_FOR_WRITERS = _PASSING | {5}
#: Reparse tags (winnt.h): a symbolic link, and a junction, which a mounted volume is as well.
_SYMLINK, _JUNCTION = 0xA000000C, 0xA0000003
_FILE_ATTRIBUTE_DIRECTORY = 0x10
_MAX_LINKS = 63
#: Not for the programs that are started; on Windows also without a change to line ends.
O_PRIVATE: int = getattr(os, "O_CLOEXEC", 0) | (
    getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
)
#: Virus scanners and indexers look at a file just after it was written (seconds).
_PAUSES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04)


def _for_reading(call: F) -> F:
    return _by_path(call, 1, _PASSING)


def _for_writing(call: F, paths: int = 1) -> F:
    return _by_path(call, paths, _PASSING_FOR_WRITERS)


def _by_path(call: F, paths: int, passing: frozenset[int]) -> F:
    """``call`` with its first ``paths`` arguments in the system's form."""
    if not WINDOWS:
        return call

    @functools.wraps(call)
    def converted(*given: Any, **named: Any) -> Any:
        native = [to_system(path) for path in given[:paths]]
        return patiently(functools.partial(call, *native, *given[paths:], **named), passing)

    return cast("F", converted)


def patiently(
    call: Callable[[], T],
    passing: frozenset[int] = _PASSING_FOR_WRITERS,
    pauses: Iterable[float] = _PAUSES,
) -> T:
    """What ``call`` returns; tried again while it raises one of Windows' errors ``passing``."""
    for pause in pauses:
        try:
            return call()
        except OSError as error:
            if getattr(error, "winerror", None) not in passing:
                raise
            time.sleep(pause)
    return call()


def make_link(target: bytes, path: bytes, *, to_directory: bool) -> bool:
    """A link on Windows at ``path`` to an absolute target; whether there is one now.

    Directories get a junction, which everybody may make; links to files are a privilege.
    """
    try:
        if to_directory:
            windows_calls.make_junction(*map(os.fsdecode, (to_system(target), to_system(path))))
        else:
            os.symlink(to_system(target), to_system(path))
    except OSError:
        return False
    return True


def remove_tree(path: AnyStr) -> None:
    """A directory and what is in it, as far as it can be removed."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(to_system(path), ignore_errors=True)


def _status_on_windows(path: str | bytes) -> os.stat_result:
    try:
        return windows_status.status(os.fsdecode(path), follow=True)
    except PermissionError:
        return os.stat(path)


def _own_status_on_windows(path: str | bytes) -> os.stat_result:
    try:
        return windows_status.status(os.fsdecode(path), follow=False)
    except PermissionError:
        return os.lstat(path)


stat = _for_reading(_status_on_windows) if WINDOWS else os.stat
lstat = _for_reading(_own_status_on_windows) if WINDOWS else os.lstat
listdir = _for_reading(os.listdir)
access = _for_reading(os.access)
open_descriptor = _for_writing(os.open)
unlink = _for_writing(os.unlink)
rmdir = _for_writing(os.rmdir)
mkdir = _for_writing(os.mkdir)
makedirs = _for_writing(os.makedirs)
#: In place of what has the new name.
rename = _for_writing(os.replace, 2)
link = _for_writing(os.link, 2)
utime = _for_writing(os.utime)
chmod = _for_writing(os.chmod)
copyfile = _for_writing(shutil.copyfile, 2)
copy2 = _for_writing(shutil.copy2, 2)
rmtree = _for_writing(shutil.rmtree)


def _asking(call: F) -> F:
    """One of ``os.path`` that raises nothing."""
    if not WINDOWS:
        return call

    @functools.wraps(call)
    def converted(path: Any) -> Any:
        try:
            return call(to_system(path))
        except FileNotFoundError:
            return False

    return cast("F", converted)


class Item(Protocol[Name]):
    """What a directory has under one name; see ``os.DirEntry``."""

    @property
    def name(self) -> Name:
        """Its name."""

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Its own status; links are never followed, whatever is asked."""

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a directory, and no link to one."""


@dataclass(frozen=True, slots=True)
class _WindowsItem(Generic[AnyStr]):
    name: AnyStr
    status: os.stat_result

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        del follow_symlinks
        return self.status

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        del follow_symlinks
        return modes.S_ISDIR(self.status.st_mode) and not is_link(self.status)


@contextlib.contextmanager
def _scan_on_windows(path: AnyStr) -> Iterator[Iterator[Item[AnyStr]]]:
    found = _for_reading(windows_status.listing)(os.fsdecode(path))
    named = ((name, status) for name, status in found if is_nameable(name))
    if isinstance(path, bytes):
        yield (_WindowsItem(os.fsencode(name), status) for name, status in named)
    else:
        yield (_WindowsItem(name, status) for name, status in named)


def _windows_descriptor_status(descriptor: int) -> os.stat_result:
    return windows_status.status_of_handle(windows_calls.handle_of(descriptor))


def _open_on_windows(path: str | bytes) -> FileIO:
    opener = windows_calls.open_shared
    return _for_reading(open)(os.fsdecode(path), "rb", buffering=0, opener=opener)


def _open(path: str | bytes) -> FileIO:
    return open(path, "rb", buffering=0)


def _as_on_disk(path: str) -> str:
    directory, _, name = path.rpartition("/")
    try:
        native = to_system(path)
    except FileNotFoundError:
        return path
    if native.endswith("\\"):
        return path
    return f"{directory}/{windows_calls.name_on_disk(native) or name}"


def _as_it_is(path: str) -> str:
    return path


exists = _asking(os.path.exists)
lexists = _asking(os.path.lexists)
isfile = _asking(os.path.isfile)
isdir = _asking(os.path.isdir)


def realpath(path: AnyStr) -> AnyStr:
    """``path`` with every link followed; on Windows also in the spelling that the disk has."""
    if not WINDOWS:
        return os.path.realpath(path)
    if isinstance(path, bytes):
        return os.fsencode(_real_on_windows(os.fsdecode(path)))
    return _real_on_windows(path)


def _real_on_windows(path: str) -> str:
    # Python's own leads from a drive that stands for a share or a directory to that.
    pending = path.split("/")[::-1]
    here, followed = "", 0
    while pending:
        part = pending.pop()
        if part == "..":
            here = here.rpartition("/")[0]
        if part in ("", ".", ".."):
            continue
        step = f"{here}/{part}"
        try:
            linked = is_link(lstat(step)) and followed < _MAX_LINKS
            target = readlink(step) if linked else ""
        except OSError:
            target = ""
        if target:
            followed += 1
            pending += target.split("/")[::-1]
            here = "" if target.startswith("/") else here
        else:
            here = as_on_disk(step)
    return here or "/"


def is_respelled(path: str) -> bool:
    """Whether the disk spells a path without links otherwise."""
    if not WINDOWS:
        return False
    try:
        real = from_system(os.path.realpath(to_system(path)))
    except OSError:
        return False
    return real != path and fold(real) == fold(path)


def _link_on_windows(path: AnyStr) -> AnyStr:
    target = _for_reading(os.readlink)(path)
    if isinstance(target, bytes):
        return os.fsencode(_inside_target(os.fsdecode(target)))
    return _inside_target(target)


def _inside_target(target: str) -> str:
    if target.lower().startswith("\\\\?\\volume{"):
        raise FileNotFoundError(errno.ENOENT, "a volume without a path is mounted there", target)
    if target[1:2] == ":" or target.startswith("\\"):
        return internal_form(target)
    return target.replace("\\", "/")


def _is_link_on_windows(status: os.stat_result) -> bool:
    return getattr(status, "st_reparse_tag", 0) in (_SYMLINK, _JUNCTION)


def links_to_directory(status: os.stat_result) -> bool:
    """Whether a link on Windows, by its own status, is one of those that lead to directories."""
    return bool(getattr(status, "st_file_attributes", 0) & _FILE_ATTRIBUTE_DIRECTORY)


def _is_link(status: os.stat_result) -> bool:
    return modes.S_ISLNK(status.st_mode)


#: A link's target in internal form, relative or absolute.
readlink = _link_on_windows if WINDOWS else os.readlink
#: Whether a status of ``lstat`` is that of a symbolic link, or of one of Windows' junctions.
is_link = _is_link_on_windows if WINDOWS else _is_link
#: A path with its last name as the directory spells it; on POSIX there is but one spelling.
as_on_disk = _as_on_disk if WINDOWS else _as_it_is
#: A file, unbuffered, for reading bytes; nobody is kept from replacing it.
open_to_read = _open_on_windows if WINDOWS else _open
#: The listing of a directory, to be used with ``with``.
scandir = _scan_on_windows if WINDOWS else os.scandir
#: The status of an open file.
fstat = _windows_descriptor_status if WINDOWS else os.fstat
