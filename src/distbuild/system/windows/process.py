"""Runs a process and its descendants in a Windows job object, with limits. Knows no compiler.

Rules: "Job Objects" of the Windows documentation. When this process ends for any reason, the system
closes the job's handle, which ends all processes in the job.
"""

import contextlib
import ctypes
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

assert sys.platform == "win32"  # for the type checker, too

import _winapi
from ctypes import wintypes

#: The lowest memory limit of a job (bytes): large translation units need some GiB.
MIN_MEMORY = 8 * 1024**3
MAX_CPU_S = 30 * 60
#: The exit code of processes that are ended here.
ENDED = 1
#: Exit codes have 32 bits: unsigned as read from a process, signed as passed to an exit.
_CODES = 1 << 32

_kernel = ctypes.WinDLL("kernel32", use_last_error=True)
_ntdll = ctypes.WinDLL("ntdll")

_CREATE_SUSPENDED = 0x4
_EXTENDED_LIMITS = 9
_LIMIT_JOB_TIME = 0x4
_LIMIT_JOB_MEMORY = 0x200
#: A crash shows no dialogue box, which would wait for a click.
_LIMIT_DIE_ON_UNHANDLED_EXCEPTION = 0x400
#: Processes that are started in the job do not belong to it.
_LIMIT_SILENT_BREAKAWAY = 0x1000
_LIMIT_KILL_ON_JOB_CLOSE = 0x2000
_NO_CRITICAL_ERROR_BOX, _NO_FAULT_BOX, _NO_OPEN_FILE_BOX = 0x1, 0x2, 0x8000
_TICKS_PER_S = 10_000_000


class _BasicLimits(ctypes.Structure):
    _fields_ = [
        ("process_time", ctypes.c_int64),
        ("job_time", ctypes.c_int64),
        ("flags", wintypes.DWORD),
        ("minimum_working_set", ctypes.c_size_t),
        ("maximum_working_set", ctypes.c_size_t),
        ("active_processes", wintypes.DWORD),
        ("affinity", ctypes.c_size_t),
        ("priority_class", wintypes.DWORD),
        ("scheduling_class", wintypes.DWORD),
    ]


class _Limits(ctypes.Structure):
    _fields_ = [
        ("basic", _BasicLimits),
        ("io", ctypes.c_uint64 * 6),
        ("process_memory", ctypes.c_size_t),
        ("job_memory", ctypes.c_size_t),
        ("peak_process_memory", ctypes.c_size_t),
        ("peak_job_memory", ctypes.c_size_t),
    ]


class _MemoryStatus(ctypes.Structure):
    _fields_ = [
        ("length", wintypes.DWORD),
        ("load", wintypes.DWORD),
        ("physical", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 6),
    ]


_kernel.CreateJobObjectW.restype = wintypes.HANDLE
_kernel.CreateJobObjectW.argtypes = (ctypes.c_void_p, wintypes.LPCWSTR)
_kernel.SetInformationJobObject.argtypes = (
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
)
_kernel.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
_kernel.TerminateJobObject.argtypes = (wintypes.HANDLE, wintypes.UINT)
_ntdll.NtResumeProcess.argtypes = (wintypes.HANDLE,)


def limit_descendants() -> None:
    """Disable error dialogues for this process and its descendants. Once, at its start."""
    _kernel.SetErrorMode(_NO_CRITICAL_ERROR_BOX | _NO_FAULT_BOX | _NO_OPEN_FILE_BOX)


class JobObject:
    """A job object: its processes end together, at the latest with this process."""

    def __init__(self, limits: "_Limits") -> None:
        handle = _kernel.CreateJobObjectW(None, None)
        if not handle:
            raise ctypes.WinError(ctypes.get_last_error())
        self._handle = handle
        size = ctypes.sizeof(limits)
        if not _kernel.SetInformationJobObject(
            handle, _EXTENDED_LIMITS, ctypes.byref(limits), size
        ):
            error = ctypes.WinError(ctypes.get_last_error())
            self.close()
            raise error

    def add(self, process: int) -> None:
        """Add a process, by its handle, with all processes that it starts from now on. Raises
        OSError."""
        if not _kernel.AssignProcessToJobObject(self._handle, process):
            raise ctypes.WinError(ctypes.get_last_error())

    def end(self) -> None:
        """End its processes."""
        _kernel.TerminateJobObject(self._handle, ENDED)

    def close(self) -> None:
        """End its processes, and free it. Idempotent."""
        if self._handle:
            _winapi.CloseHandle(self._handle)
            self._handle = 0


def start(
    argv: Sequence[str], cwd: str, env: Mapping[str, str]
) -> tuple["subprocess.Popen[bytes]", JobObject]:
    """Start ``argv`` in a job of its own, with an empty stdin, and pipes for stdout and stderr.

    It has no window, and does not receive this console's Ctrl-C. Raises OSError or ValueError.
    """
    job = JobObject(_compiler_limits())
    try:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            creationflags=subprocess.CREATE_NO_WINDOW
            | subprocess.CREATE_NEW_PROCESS_GROUP
            | _CREATE_SUSPENDED,
        )
    except BaseException:
        job.close()
        raise
    # It is still suspended, so that none of its children are outside the job.
    handle = int(process._handle)  # type: ignore[attr-defined]
    try:
        job.add(handle)
        if _ntdll.NtResumeProcess(handle) != 0:
            raise OSError("a process cannot be resumed")
    except BaseException:
        process.kill()
        job.close()
        with process, contextlib.suppress(OSError):
            process.wait()
        raise
    return process, job


def run_here(program: str, words: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a program with this process's streams and console; its exit code. Raises OSError.

    It ends with this process. Its children do not: the compiler's server for program databases
    serves other compiles as well.
    """
    limits = _Limits()
    limits.basic.flags = _LIMIT_KILL_ON_JOB_CLOSE | _LIMIT_SILENT_BREAKAWAY
    job = JobObject(limits)
    # Both processes receive Ctrl-C: the program decides its effect.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = subprocess.Popen(words, executable=program, env=env, close_fds=False)
    with contextlib.suppress(OSError):  # it has ended already
        job.add(int(process._handle))  # type: ignore[attr-defined]
    status = process.wait()
    return status - _CODES if status >= _CODES // 2 else status


def _compiler_limits() -> _Limits:
    memory = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    _kernel.GlobalMemoryStatusEx(ctypes.byref(memory))
    limits = _Limits()
    limits.basic.flags = (
        _LIMIT_KILL_ON_JOB_CLOSE
        | _LIMIT_DIE_ON_UNHANDLED_EXCEPTION
        | _LIMIT_JOB_MEMORY
        | _LIMIT_JOB_TIME
    )
    limits.basic.job_time = MAX_CPU_S * _TICKS_PER_S
    limits.job_memory = max(memory.physical, MIN_MEMORY)
    return limits
