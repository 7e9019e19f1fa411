"""Records which files a program and its children open to read, by seccomp notifications.

See seccomp_unotify(2); Linux on x86-64 and ARM64. Each open costs some ten microseconds, so only
compiles whose inputs cannot be proved otherwise are started like this. Knows no compiler.
"""

import contextlib
import ctypes
import functools
import os
import platform
import select
import struct
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import msgspec

from distbuild.protocol.errors import UnseenInputs

if sys.platform != "win32":  # there, nothing is started like this
    import fcntl

T = TypeVar("T")


class _Machine(msgspec.Struct, frozen=True):
    """An architecture's system call numbers; ``audit``: its identifier in seccomp."""

    audit: int
    seccomp: int
    openat: int
    #: Calls that may open a file and whose arguments are not examined.
    others: tuple[int, ...]
    open: int = -1


#: openat2 and io_uring_setup are 437 and 425 on all architectures.
_OPENAT2 = 437
_MACHINES = {
    "x86_64": _Machine(0xC000003E, 317, 257, (304, 425), open=2),
    "aarch64": _Machine(0xC00000B7, 277, 56, (265, 425)),
}
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _GET_NOTIF_SIZES = 1, 3
_NEW_LISTENER = 1 << 3
_CONTINUE = 1
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
#: System call numbers of x86-64 from here on belong to x32 programs.
_FIRST_X32 = 0x40000000
#: struct seccomp_notif: id, pid, flags, number, architecture, instruction, six arguments; struct
#: seccomp_notif_resp: id, value, error, flags.
_NOTICE, _REPLY = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
_SIZES = struct.pack("=HHH", _NOTICE.size, _REPLY.size, 64)
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_AT_FDCWD = 0xFFFFFF9C
#: struct open_how of openat2(2): flags, mode, resolve.
_HOW = struct.Struct("=QQQ")
_RESOLVE_IN_ROOT = 0x10
#: Flags of opens that read no file: to create, list, or only name it.
_NO_READING = os.O_CREAT | os.O_DIRECTORY | os.O_PATH if sys.platform == "linux" else 0
_PAGE = os.sysconf("SC_PAGE_SIZE") if sys.platform != "win32" else 4096
_WORD = 0xFFFFFFFF


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


class Opens:
    """Records the names by which one program opens files. Call ``start`` and, after the program's
    end, ``close``, once each.

    A process's names count from its first file that ``is_of_task``: its loader opens the earlier
    ones.
    """

    def __init__(self, is_of_task: Callable[[bytes], bool]) -> None:
        self._is_of_task = is_of_task
        self._names: dict[bytes, None] = {}
        self._groups: dict[int, int] = {}
        self._begun: set[int] = set()
        self._trouble = ""
        self._listener = -1
        self._stop = -1
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()

    def start(self, start: Callable[[], T]) -> T:
        """Call ``start`` and return its result: it starts the program, and must let no file be
        opened before exec. Raises UnseenInputs where the kernel cannot report opens."""
        if (machine := _MACHINES.get(platform.machine())) is None:
            raise UnseenInputs(f"opened files are not seen on {platform.machine()}")
        started: list[T] = []
        errors: list[BaseException] = []
        listening, tried = threading.Event(), threading.Event()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

        def confined() -> None:
            try:
                self._listener = _listen(machine)
                listening.set()
                started.append(start())
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                errors.append(error)
            listening.set()
            tried.set()
            self._ended.wait()  # bubblewrap dies with the thread that started it

        def watch() -> None:
            listening.wait()
            if self._listener >= 0:
                self._watch(machine)

        # The filter applies to one thread and its children; the watching thread is not its child.
        for name, target in (("opened files", watch), ("confined start", confined)):
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        tried.wait()
        if errors:
            self.close()
            raise errors[0]
        return started[0]

    def names(self) -> tuple[bytes, ...]:
        """All names, after ``close``. Raises UnseenInputs where some may be missing."""
        if self._trouble or not self._begun:
            raise UnseenInputs(self._trouble or "no opened file was seen")
        return tuple(self._names)

    def close(self) -> None:
        """Stop watching: the program has ended, or its next open fails."""
        if self._stop >= 0:
            os.eventfd_write(self._stop, 1)
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        for descriptor in (self._listener, self._stop):
            if descriptor >= 0:
                os.close(descriptor)
        self._listener = self._stop = -1

    def _watch(self, machine: _Machine) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        try:
            while not any(descriptor == self._stop for descriptor, _ in poll.poll()):
                notice = bytearray(_NOTICE.size)
                with contextlib.suppress(FileNotFoundError, InterruptedError):  # killed meanwhile
                    fcntl.ioctl(self._listener, _RECEIVE, notice)
                    self._take(machine, notice)
        except Exception as error:  # noqa: BLE001 - the program must not wait for ever
            self._trouble = f"opened files are not seen: {error}"
            # Without a listener, the pending call and all later ones fail.
            listener, self._listener = self._listener, -1
            os.close(listener)

    def _take(self, machine: _Machine, notice: bytearray) -> None:
        number, pid, _, call, architecture, _, *arguments = _NOTICE.unpack(notice)
        try:
            if architecture != machine.audit:
                self._trouble = "a program for another processor opens files"
            elif call == machine.openat:
                self._note(pid, arguments[0] & _WORD, arguments[1], arguments[2])
            elif call == machine.open:
                self._note(pid, _AT_FDCWD, arguments[0], arguments[1])
            elif call == _OPENAT2:
                self._note_openat2(pid, arguments)
            else:
                self._trouble = f"a file may have been opened by system call {call}"
        finally:
            with contextlib.suppress(FileNotFoundError):
                reply = bytearray(_REPLY.pack(number, 0, 0, _CONTINUE))
                fcntl.ioctl(self._listener, _SEND, reply)

    def _note_openat2(self, thread: int, arguments: list[int]) -> None:
        """Note a call of openat2, which bubblewrap uses from 0.12 on."""
        how = _bytes_at(thread, arguments[2], _HOW.size)
        if len(how) < _HOW.size:
            self._trouble = "the arguments of openat2 cannot be read"
            return
        flags, _, resolve = _HOW.unpack(how)
        in_root = bool(resolve & _RESOLVE_IN_ROOT)
        self._note(thread, arguments[0] & _WORD, arguments[1], flags, in_root=in_root)

    def _note(
        self, thread: int, directory: int, address: int, flags: int, *, in_root: bool = False
    ) -> None:
        """``in_root``: also an absolute name is relative to the directory."""
        if flags & os.O_ACCMODE == os.O_WRONLY or flags & _NO_READING:
            return
        group = self._group(thread)
        name = _text_at(thread, address)
        if name is None:
            if group in self._begun:
                self._trouble = "the name of an opened file cannot be read"
            return
        is_known = not in_root and (directory == _AT_FDCWD or name.startswith(b"/"))
        if group not in self._begun:
            if not (is_known and self._is_of_task(name)):
                return
            self._begun.add(group)
        if not is_known:
            self._trouble = f"{os.fsdecode(name)!r} was opened in a directory that is not known"
        self._names[name] = None

    def _group(self, thread: int) -> int:
        """The process of a thread."""
        group = self._groups.get(thread)
        if group is None:
            group = self._groups[thread] = _process_of(thread)
        return group


def _process_of(thread: int) -> int:
    with open(f"/proc/{thread}/status", "rb") as file:
        for line in file:
            if line.startswith(b"Tgid:"):
                return int(line[5:])
    return thread


def _text_at(thread: int, address: int) -> bytes | None:
    """The string at an address of a suspended thread; None: unreadable, or without an end."""
    first = _PAGE - address % _PAGE
    buffer = ctypes.create_string_buffer(first + _PAGE)
    here = _Vector(ctypes.addressof(buffer), first + _PAGE)
    # The next page may not be mapped; process_vm_readv reads only whole elements.
    there = (_Vector * 2)(_Vector(address, first), _Vector(address + first, _PAGE))
    read = _libc().process_vm_readv(thread, ctypes.byref(here), 1, there, 2, 0)
    end = buffer.raw.find(b"\0", 0, max(read, 0))
    return buffer.raw[:end] if end >= 0 else None


def _bytes_at(thread: int, address: int, length: int) -> bytes:
    """The memory at an address of a suspended thread; shorter if a part is unreadable."""
    buffer = ctypes.create_string_buffer(length)
    here, there = _Vector(ctypes.addressof(buffer), length), _Vector(address, length)
    read = _libc().process_vm_readv(thread, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return buffer.raw[: max(read, 0)]


def _listen(machine: _Machine) -> int:
    """Make the kernel report the opens of this thread and its children; returns the listener."""
    libc = _libc()
    sizes = ctypes.create_string_buffer(len(_SIZES))
    if libc.syscall(machine.seccomp, _GET_NOTIF_SIZES, 0, sizes) or sizes.raw != _SIZES:
        raise UnseenInputs("the kernel has no notifications of seccomp that are known here")
    words = b"".join(_filter(machine))
    program = _Program(len(words) // 8, words)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener = libc.syscall(machine.seccomp, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program))
    if listener < 0:
        error = os.strerror(ctypes.get_errno())
        raise UnseenInputs(f"the kernel reports no opened files: {error}")
    os.set_inheritable(int(listener), False)
    return int(listener)


def _filter(machine: _Machine) -> list[bytes]:
    """A program for seccomp(2): notify of calls that open files, and of foreign architectures."""
    traced = [n for n in (machine.open, machine.openat, _OPENAT2, *machine.others) if n >= 0]
    tests = [(_EQUAL, number) for number in traced]
    lines = [(_LOAD, 0, 0, 4), (_EQUAL, 0, len(tests) + 3, machine.audit), (_LOAD, 0, 0, 0)]
    lines.append((_AT_LEAST, len(tests) + 1, 0, _FIRST_X32))
    for left, (code, number) in zip(range(len(tests), 0, -1), tests, strict=True):
        lines.append((code, left, 0, number))
    lines += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    return [struct.pack("=HBBI", *line) for line in lines]


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.process_vm_readv.restype = ctypes.c_ssize_t
    libc.process_vm_readv.argtypes = (
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong),
        *(ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong),
    )
    return libc
