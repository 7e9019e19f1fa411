"""Calls of the Windows API (kernel32) for files that Python lacks. Paths are in Windows' form.

Imported on every system, works only on Windows. Knows no internal paths.
"""

import ctypes
import functools
import os
from ctypes import wintypes
from typing import Any

#: Untyped: the stubs for other systems lack its Windows parts.
_ctypes: Any = ctypes

_GENERIC_READ = 0x80000000
#: Share mode for reading, writing and deleting: an open handle blocks no other program.
SHARE_ALL = 7
_OPEN_EXISTING = 3
INVALID_HANDLE = ctypes.c_void_p(-1).value
_DRIVE_REMOTE = 4


@functools.cache
def kernel32() -> Any:
    """The kernel32 library; ``last_error`` returns its errors."""
    library = _ctypes.WinDLL("kernel32", use_last_error=True)
    library.CreateFileW.restype = wintypes.HANDLE
    library.CreateFileW.argtypes = (
        *(wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, wintypes.LPVOID),
        *(wintypes.DWORD, wintypes.DWORD, wintypes.HANDLE),
    )
    library.FindFirstFileW.restype = wintypes.HANDLE
    library.FindFirstFileW.argtypes = (wintypes.LPCWSTR, wintypes.LPVOID)
    library.FindClose.argtypes = (wintypes.HANDLE,)
    library.GetDriveTypeW.argtypes = (wintypes.LPCWSTR,)
    library.CloseHandle.argtypes = (wintypes.HANDLE,)
    library.GetFileInformationByHandle.argtypes = (wintypes.HANDLE, wintypes.LPVOID)
    library.GetFileInformationByHandleEx.argtypes = (
        *(wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD),
    )
    return library


def last_error() -> OSError:
    """The error of this thread's last call of a library."""
    error: OSError = _ctypes.WinError(_ctypes.get_last_error())
    return error


def open_shared(path: str, flags: int) -> int:
    """An ``opener`` for ``open``, for reading: others may rename and delete the file meanwhile.

    Python's own ``open`` would make their calls fail. Raises OSError.
    """
    import msvcrt

    crt: Any = msvcrt
    system: Any = os
    handle = kernel32().CreateFileW(path, _GENERIC_READ, SHARE_ALL, None, _OPEN_EXISTING, 0, None)
    if handle == INVALID_HANDLE:
        raise last_error()
    return int(crt.open_osfhandle(handle, flags | system.O_NOINHERIT))


def handle_of(descriptor: int) -> int:
    """The system's handle of one of Python's file descriptors."""
    import msvcrt

    crt: Any = msvcrt
    return int(crt.get_osfhandle(descriptor))


def name_on_disk(path: str) -> str:
    """The last name of ``path`` as the directory spells it, in its long form; "" if not known."""
    found = wintypes.WIN32_FIND_DATAW()
    handle = kernel32().FindFirstFileW(path, ctypes.byref(found))
    if handle == INVALID_HANDLE:
        return ""
    kernel32().FindClose(handle)
    return str(found.cFileName)


def make_junction(target: str, path: str) -> None:
    """Make a junction at ``path`` to the directory ``target``. Raises OSError."""
    import _winapi

    calls: Any = _winapi
    calls.CreateJunction(target, path)


def is_remote(path: str) -> bool:
    """Whether a path is on another machine: on a share or a network drive."""
    if path.startswith("\\\\") and not path.startswith("\\\\?\\"):
        return True
    drive = os.path.splitdrive(path)[0].removeprefix("\\\\?\\")
    return drive.startswith("UNC") or kernel32().GetDriveTypeW(drive + "\\") == _DRIVE_REMOTE


def is_wine() -> bool:
    """Whether this Windows is wine, which loses notifications and has no junctions."""
    return hasattr(_ctypes.WinDLL("ntdll"), "wine_get_version")
