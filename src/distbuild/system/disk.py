"""The file functions of ``os`` and ``shutil`` for internal paths (``system.paths``).

On POSIX these are the functions themselves. On Windows the arguments are converted, and a call on a
file that another program has open at the moment is retried for some tens of milliseconds.
"""

import contextlib
import functools
import os
import posixpath
import shutil
import stat as modes
import sys
import time
from collections.abc import Callable, Iterable
from io import FileIO
from typing import Any, AnyStr, NamedTuple, TypeVar, cast

from distbuild.system.paths import WINDOWS, follow_links, from_system, to_system
from distbuild.system.windows import calls, files
from distbuild.system.windows.names import fold

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

#: Windows errors to retry: sharing and lock violations; and access denied, the error for a name
#: that is being deleted.
_PASSING = frozenset({32, 33})
_PASSING_FOR_WRITERS = _PASSING | {5}
#: Windows' limit of links followed in one look-up.
_MAX_LINKS = 63
#: A disk with fewer free inodes than this counts as full.
_FEW_FILES = 100
#: Bytes per read of a file that has grown, or is larger than one call reads.
_REST_BYTES = 16 * 1024 * 1024
#: Not inherited by started programs; on Windows also without newline conversion.
O_PRIVATE: int = getattr(os, "O_CLOEXEC", 0) | (
    getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
)
#: Pauses between retries (seconds): virus scanners and indexers open a file just after a write.
_PAUSES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04)


def _for_reading(call: F) -> F:
    return _by_path(call, 1, _PASSING)


def _for_writing(call: F, paths: int = 1) -> F:
    return _by_path(call, paths, _PASSING_FOR_WRITERS)


def _by_path(call: F, paths: int, passing: frozenset[int]) -> F:
    """``call`` with its first ``paths`` arguments converted to the system's form, and retried."""
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
    """The result of ``call``, retried after the Windows errors ``passing``; blocking."""
    for pause in pauses:
        try:
            return call()
        except OSError as error:
            if getattr(error, "winerror", None) not in passing:
                raise
            time.sleep(pause)
    return call()


def make_link(target: bytes, path: bytes, *, to_directory: bool) -> bool:
    """Make a link on Windows at ``path`` to an absolute target; whether that succeeded."""
    try:
        native = (os.fsdecode(to_system(target)), os.fsdecode(to_system(path)))
        files.make_link(*native, to_directory=to_directory)
    except OSError:
        return False
    return True


def remove_tree(path: AnyStr) -> None:
    """Remove a directory with its contents, as far as possible."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(to_system(path), ignore_errors=True)


stat = _for_reading(files.status) if WINDOWS else os.stat
lstat = _for_reading(files.own_status) if WINDOWS else os.lstat
listdir = _for_reading(os.listdir)
access = _for_reading(os.access)
open_descriptor = _for_writing(os.open)
unlink = _for_writing(os.unlink)
rmdir = _for_writing(os.rmdir)
mkdir = _for_writing(os.mkdir)
makedirs = _for_writing(os.makedirs)
#: Replaces an existing file of the new name.
rename = _for_writing(os.replace, 2)
link = _for_writing(os.link, 2)
utime = _for_writing(os.utime)
chmod = _for_writing(os.chmod)
copy2 = _for_writing(shutil.copy2, 2)
rmtree = _for_writing(shutil.rmtree)


def is_writable_directory(path: str) -> bool:
    """Whether a path leads to a directory in which this process may create files."""
    if WINDOWS:
        return isdir(path) and access(path, os.W_OK | os.X_OK)
    # A path that ends in ``/.`` leads to a directory or nowhere.
    return os.access(posixpath.join(path, "."), os.W_OK | os.X_OK)


def free_bytes(path: bytes) -> int:
    """The bytes that an ordinary user may still write on this path's disk; 0 also if it has no free
    inodes. Raises OSError."""
    named = to_system(os.fsdecode(path))
    if sys.platform == "win32":
        return shutil.disk_usage(named).free
    status = os.statvfs(named)
    takes_none = status.f_files > 0 and status.f_favail < _FEW_FILES
    return 0 if takes_none else status.f_bavail * status.f_frsize


def discard(path: bytes) -> None:
    """Unlink a file, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        unlink(path)


def _asking(call: F) -> F:
    """``call``, a predicate of ``os.path``, for internal paths; False for impossible names."""
    if not WINDOWS:
        return call

    @functools.wraps(call)
    def converted(path: Any) -> Any:
        try:
            return call(to_system(path))
        except FileNotFoundError:
            return False

    return cast("F", converted)


def _open(path: str | bytes) -> FileIO:
    return open(path, "rb", buffering=0)


def _read_whole(path: str) -> tuple[bytes, os.stat_result]:
    handle = os.open(path, os.O_RDONLY | O_PRIVATE)
    try:
        status = os.fstat(handle)
        # One byte more than the size: a shorter result shows the end without another call.
        data = os.read(handle, status.st_size + 1)
        if len(data) != status.st_size:
            data += b"".join(iter(lambda: os.read(handle, _REST_BYTES), b""))
        return data, status
    finally:
        os.close(handle)


def _read_whole_on_windows(path: str) -> tuple[bytes, os.stat_result]:
    with open_to_read(path) as file:
        status = fstat(file.fileno())
        return file.read(), status


def _as_on_disk(path: str) -> str:
    directory, _, name = path.rpartition("/")
    try:
        native = to_system(path)
    except FileNotFoundError:
        return path
    if native.endswith("\\"):
        return path
    return f"{directory}/{calls.name_on_disk(native) or name}"


def _as_it_is(path: str) -> str:
    return path


exists = _asking(os.path.exists)
lexists = _asking(os.path.lexists)
isfile = _asking(os.path.isfile)
isdir = _asking(os.path.isdir)


def realpath(path: AnyStr) -> AnyStr:
    """``path`` with every link followed; on Windows also in the disk's spelling."""
    if not WINDOWS:
        return os.path.realpath(path)
    if isinstance(path, bytes):
        return os.fsencode(_real_on_windows(os.fsdecode(path)))
    return _real_on_windows(path)


class _Link(NamedTuple):
    target: str


def _real_on_windows(path: str) -> str:
    # Python's own function replaces a drive that stands for a share or a directory by that.
    return follow_links(path, _link_at, _Link, spell=as_on_disk, most=_MAX_LINKS) or path


def _link_at(path: str) -> _Link | None:
    try:
        return _Link(readlink(path)) if is_link(lstat(path)) else None
    except OSError:
        return None


def has_short_name(path: str) -> bool:
    """Whether ``path`` has a part that is the short (8.3) name of a file, such as ``PROGRA~1``."""
    if not WINDOWS or "~" not in path:
        return False
    here = ""
    for part in posixpath.normpath(path).split("/")[1:]:
        step = f"{here}/{part}"
        if "~" in part and fold(as_on_disk(step)) != fold(step):
            return True
        here = step
    return False


def is_respelled(path: str) -> bool:
    """Whether a path without links differs from the disk's spelling, on Windows."""
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
        return os.fsencode(files.inside_target(os.fsdecode(target)))
    return files.inside_target(target)


def _is_link(status: os.stat_result) -> bool:
    return modes.S_ISLNK(status.st_mode)


#: A link's target in internal form, relative or absolute.
readlink = _link_on_windows if WINDOWS else os.readlink
links_to_directory = files.links_to_directory
#: Whether a status of ``lstat`` is that of a symbolic link or of a Windows junction.
is_link = files.is_link if WINDOWS else _is_link
#: A path with its last name as the directory spells it; on POSIX each has only one spelling.
as_on_disk = _as_on_disk if WINDOWS else _as_it_is
#: A file, unbuffered, for reading bytes; other programs may replace it meanwhile.
open_to_read = _for_reading(files.open_to_read) if WINDOWS else _open
#: A file's bytes, and its status from before they were read.
read_whole = _read_whole_on_windows if WINDOWS else _read_whole
#: The listing of a directory, a context manager.
scandir = _for_reading(files.scan) if WINDOWS else os.scandir
#: The status of an open file.
fstat = files.status_of_descriptor if WINDOWS else os.fstat
