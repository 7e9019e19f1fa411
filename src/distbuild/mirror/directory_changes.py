"""Directory watches on Windows: ReadDirectoryChangesW with an I/O completion port.

All methods but ``wake`` must be called from one thread. watchdog's reader cannot be used here: it
treats a completion without data, which on Windows means lost events, as one without events.
"""

import contextlib
import ctypes
from ctypes import wintypes
from dataclasses import dataclass, field
from typing import Any

from distbuild.system.windows.calls import INVALID_HANDLE, SHARE_ALL, kernel32, last_error

#: Per watch, in the kernel and here: about a thousand events. Network shares allow at most 64 KiB.
BUFFER_BYTES = 64 * 1024
#: Changes of file names, directory names, sizes, last-write times and creation times.
_FILTER = 0x1 | 0x2 | 0x8 | 0x10 | 0x40
_FILE_LIST_DIRECTORY = 1
_OPEN_EXISTING = 3
_BACKUP_SEMANTICS = 0x02000000
_OVERLAPPED = 0x40000000
_FOREVER = 0xFFFFFFFF
_NOTIFY_ENUM_DIR = 1022


class _Overlapped(ctypes.Structure):
    _fields_ = (
        ("Internal", ctypes.c_void_p),
        ("InternalHigh", ctypes.c_void_p),
        ("Offset", wintypes.DWORD),
        ("OffsetHigh", wintypes.DWORD),
        ("hEvent", wintypes.HANDLE),
    )


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion of a watch; empty ``data``: events were lost; None: the watch ended."""

    key: int
    data: bytes | None


#: Returned by ``wait`` after ``wake``; belongs to no watch.
WOKEN = Completion(0, None)


@dataclass(slots=True)
class _Watch:
    handle: int
    deep: bool
    closed: bool = False
    buffer: Any = field(default_factory=lambda: ctypes.create_string_buffer(BUFFER_BYTES))
    overlapped: _Overlapped = field(default_factory=_Overlapped)


class DirectoryChanges:
    """Directory watches, identified by integer keys, whose events are read with ``wait``."""

    def __init__(self) -> None:
        self._library = _declared(kernel32())
        self._port = self._library.CreateIoCompletionPort(INVALID_HANDLE, None, 0, 1)
        if not self._port:
            raise last_error()
        self._watches: dict[int, _Watch] = {}
        self._last_key = 0

    def open(self, path: str, *, deep: bool) -> int:
        """Watch a directory, given in Windows' form, and with ``deep`` the tree below it.

        Returns the watch's key. Raises OSError if the directory cannot be watched.
        """
        handle = self._library.CreateFileW(
            path,
            _FILE_LIST_DIRECTORY,
            SHARE_ALL,
            None,
            _OPEN_EXISTING,
            _BACKUP_SEMANTICS | _OVERLAPPED,
            None,
        )
        if handle == INVALID_HANDLE:
            raise last_error()
        self._last_key += 1
        key, watch = self._last_key, _Watch(handle, deep)
        if not self._library.CreateIoCompletionPort(handle, self._port, key, 0):
            error = last_error()
            self._library.CloseHandle(handle)
            raise error
        self._watches[key] = watch
        try:
            self._listen(watch)
        except OSError:
            self._library.CloseHandle(handle)
            del self._watches[key]
            raise
        return key

    def close(self, key: int) -> None:
        """End a watch; ``wait`` returns none of its events afterwards."""
        watch = self._watches.get(key)
        if watch is not None and not watch.closed:
            # The kernel may write to the buffer until the watch's last completion has arrived.
            watch.closed = True
            self._library.CloseHandle(watch.handle)

    def wait(self, timeout_ms: int = _FOREVER) -> Completion | None:
        """The next completion; ``WOKEN`` if there is none to handle; None after the timeout."""
        count, key = wintypes.DWORD(), ctypes.c_size_t()
        overlapped = ctypes.c_void_p()
        good = self._library.GetQueuedCompletionStatus(
            self._port,
            ctypes.byref(count),
            ctypes.byref(key),
            ctypes.byref(overlapped),
            timeout_ms,
        )
        if not overlapped.value:
            return WOKEN if good else None
        watch = self._watches[key.value]
        if watch.closed:
            del self._watches[key.value]
            return WOKEN
        if not good and last_error().winerror != _NOTIFY_ENUM_DIR:  # type: ignore[attr-defined]
            return self._ended(key.value, watch)
        data = watch.buffer.raw[: count.value] if good else b""
        try:
            self._listen(watch)
        except OSError:
            return self._ended(key.value, watch)
        return Completion(key.value, data)

    def wake(self) -> None:
        """Make ``wait`` return ``WOKEN``; thread-safe."""
        self._library.PostQueuedCompletionStatus(self._port, 0, 0, None)

    def stop(self) -> None:
        """End all watches and close the completion port."""
        for key in list(self._watches):
            self.close(key)
        while self._watches and self.wait(1000) is not None:
            pass
        self._library.CloseHandle(self._port)

    def _ended(self, key: int, watch: _Watch) -> Completion:
        with contextlib.suppress(KeyError):
            del self._watches[key]
        self._library.CloseHandle(watch.handle)
        return Completion(key, None)

    def _listen(self, watch: _Watch) -> None:
        if not self._library.ReadDirectoryChangesW(
            watch.handle,
            watch.buffer,
            BUFFER_BYTES,
            watch.deep,
            _FILTER,
            None,
            ctypes.byref(watch.overlapped),
            None,
        ):
            raise last_error()


def _declared(library: Any) -> Any:
    """The library with its functions' types declared: by default handles are cut to 32 bits."""
    handle, pointer, word = wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD
    library.CreateIoCompletionPort.restype = handle
    library.CreateIoCompletionPort.argtypes = (handle, handle, ctypes.c_size_t, word)
    library.GetQueuedCompletionStatus.argtypes = (handle, pointer, pointer, pointer, word)
    library.PostQueuedCompletionStatus.argtypes = (handle, word, ctypes.c_size_t, pointer)
    library.ReadDirectoryChangesW.argtypes = (
        *(handle, pointer, word, wintypes.BOOL, word),
        *(pointer, pointer, pointer),
    )
    return library
