"""Restricts the files that a thread, and every process that it starts, may open (Landlock).

Needs no privileges and no namespaces: Linux 5.13 or later. A restriction lasts as long as its
thread, so each use has a thread of its own. Knows no job and no compiler. POSIX.

The constants are those of linux/landlock.h; system call numbers are equal on all architectures.
"""

import ctypes
import errno
import functools
import os
import stat
import struct
import threading
from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T")

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
#: All rights of the first ABI version; each later one adds to them.
_FIRST_RIGHTS = (1 << 13) - 1
_ADDED_RIGHTS = {2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
#: The rights that can be granted on files other than directories.
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

_READ = _READ_FILE | _READ_DIR
_RUN = _READ | _EXECUTE
_WRITE = _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER
_WRITE |= _TRUNCATE
#: Binding and connecting TCP sockets; abstract Unix sockets, and signals to processes outside.
_NET_VERSION, _NET = 4, 0b11
_SCOPE_VERSION, _SCOPE = 6, 0b11


class Reach(msgspec.Struct, frozen=True):
    """Files, and directories with everything below, that may be opened: to ``read``; to read and
    execute (``run``); to read and ``write``.

    Other files cannot be opened. A path that does not exist grants nothing.
    """

    read: tuple[bytes, ...] = ()
    run: tuple[bytes, ...] = ()
    write: tuple[bytes, ...] = ()


def obstacle() -> str:
    """Why this machine cannot restrict a thread; "" when it can. Tries it on a new thread."""

    def is_open() -> bool:
        try:
            os.close(os.open("/", os.O_RDONLY))
        except PermissionError:
            return False
        return True

    try:
        return "Landlock has no effect here" if within(Reach(), is_open) else ""
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            return "this kernel has no Landlock (Linux 5.13 or later, enabled)"
        return f"Landlock does not work here: {error.strerror}"


def within(reach: Reach, act: Callable[[], T]) -> T:
    """Run ``act`` in a new thread restricted to ``reach``; returns or raises what it does.

    Processes that it starts stay restricted. Raises OSError where Landlock does not work.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            _restrict(reach)
            results.append(act())
        except BaseException as error:  # noqa: BLE001 - raised anew in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="confined")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _restrict(reach: Reach) -> None:
    """Restrict the calling thread until its end."""
    version = _version()
    handled = _FIRST_RIGHTS
    for since, rights in _ADDED_RIGHTS.items():
        handled |= rights if version >= since else 0
    attributes = struct.pack("=Q", handled)
    if version >= _NET_VERSION:
        attributes += struct.pack("=Q", _NET)
    if version >= _SCOPE_VERSION:
        attributes += struct.pack("=Q", _SCOPE)
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for paths, rights in ((reach.read, _READ), (reach.run, _RUN), (reach.write, _WRITE)):
            for path in paths:
                _allow(ruleset, path, rights & handled)
        if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise _error()
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: bytes, rights: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            rights &= _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, target)
        _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(target)


@functools.cache
def _version() -> int:
    return _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)


def _call(number: int, *arguments: int | bytes | None) -> int:
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = int(_libc().syscall(ctypes.c_long(number), *words))
    if result < 0:
        raise _error()
    return result


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc
