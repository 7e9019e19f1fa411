"""Replaces the wrapper's process by the real compiler: the fallback of every compile.

Windows cannot replace a process: there this one waits for the compiler and returns its exit code.
Also limits how many compiles run locally at a time without the syncer ("turns"), and determines
which reasons a build has not printed yet.
"""

import contextlib
import errno
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from distbuild.compiler.find import SKIP, find_behind, passed, spelling, with_passed
from distbuild.protocol.errors import InfrastructureError
from distbuild.system.process import hold

NOT_FOUND = 127
NOT_RUNNABLE = 126
MISTYPED = 2
_SHELL = "/bin/sh"


def run_locally(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Replace this process by the compiler; exits with 127 when there is none."""
    cwd = _working_directory()
    try:
        program = find_behind(argv[0], cwd, env)
    except InfrastructureError as error:
        _end(str(error), NOT_FOUND)
    if program is None:
        _end_if_subcommand(argv[0])
        tried = f"no compiler behind the wrappers on PATH (tried {env.get(SKIP)})"
        what = tried if passed(argv[0], env) else "command not found"
        _end(f"{argv[0]}: {what}", NOT_FOUND)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    words = [spelling(argv[0], program, cwd, env), *argv[1:]]
    try:
        _become(program, words, with_passed(program, clean_environment(env)))
    except OSError as error:
        _end(f"{program}: {error.strerror}", NOT_RUNNABLE)


def _end_if_subcommand(word: str) -> None:
    """Exit with a suggestion if a word that is no program may be a mistyped subcommand."""
    from distbuild.wrapper.commands import NAMES  # not needed for a compile
    from distbuild.wrapper.describe import meant  # not needed for a compile

    if like := meant(word):
        known = ", ".join(NAMES)
        what = f"no such program or subcommand; did you mean {like}? Subcommands: {known}"
        _end(f"{word}: {what}", MISTYPED)


def _become(program: str, words: list[str], env: Mapping[str, str]) -> NoReturn:
    if sys.platform == "win32":
        from distbuild.system.windows.process import run_here

        sys.exit(run_here(program, words, env))
    else:
        try:
            os.execve(program, words, env)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
        # A script without an interpreter line: a shell runs it, as in execvp(3).
        script = words[0] if "/" in words[0] else program
        os.execve(_SHELL, [_SHELL, script, *words[1:]], env)


def _end(why: str, code: int) -> NoReturn:
    if sys.stderr is not None:  # with None, print uses standard output
        print(f"dist_build: {why}", file=sys.stderr)
    sys.exit(code)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"  # it was removed: only the compiler knows whether that matters


def clean_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment as it was before a frozen program's loader changed it."""
    cleaned = {name: value for name, value in env.items() if not name.startswith("_PYI_")}
    if getattr(sys, "frozen", False):
        original = cleaned.pop("LD_LIBRARY_PATH_ORIG", None)
        cleaned.pop("LD_LIBRARY_PATH", None)
        if original is not None:
            cleaned["LD_LIBRARY_PATH"] = original
    return cleaned


#: Set for a program that runs in a turn: its children need no turn of their own.
IN_TURN = "DIST_BUILD_IN_TURN"
#: Longest wait for a turn (seconds): one may have been inherited by a process that never ends.
PATIENCE_S = 60.0
_LOOK_S = 0.05
_FIRST_FREE = 3  # not the number of a standard stream that the build has closed

if sys.platform == "win32":

    def take_turn(directory: Path, env: Mapping[str, str]) -> dict[str, str]:
        """Windows has no turns: the compiler does not replace this process, nor inherits a lock."""
        del directory
        return dict(env)

else:
    import fcntl

    def take_turn(directory: Path, env: Mapping[str, str]) -> dict[str, str]:
        """Wait until fewer local compiles run than there are cores; returns this one's environment.

        A turn is a locked open file, which the compiler that replaces this process inherits. Where
        such files cannot be made there are no turns.
        """
        if IN_TURN in env:
            return dict(env)
        deadline = time.monotonic() + PATIENCE_S
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            while not _is_taken(directory) and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
        except OSError:
            return dict(env)
        return {**env, IN_TURN: "1"}

    def _is_taken(directory: Path) -> bool:
        """Take a turn if one is free. Raises OSError where there can be none."""
        for number in range(len(os.sched_getaffinity(0))):
            try:
                lock = hold(directory / str(number))
            except BlockingIOError:
                continue
            with lock:
                kept = fcntl.fcntl(lock, fcntl.F_DUPFD, _FIRST_FREE)
            os.set_inheritable(kept, True)
            return True
        return False


#: A session may last for days: after so many seconds without such a line it is printed again.
QUIET_S = 600
#: The number of files for each reason; builds share them, by session number.
SHARES = 16
ADVICE = "; run dist_build.exe doctor (said once a build)"
_NAME = re.compile(r"[a-z_]{1,40}")

if sys.platform == "win32":

    def _build() -> tuple[int, int]:
        return 0, 0

    def _lock(handle: int) -> None:
        """No lock is needed: two lines at the same moment do no harm."""

else:
    import fcntl

    def _build() -> tuple[int, int]:
        """The session, and the foreground job of its terminal; 0: there is none."""
        job = 0
        with contextlib.suppress(OSError):
            terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
            try:
                job = os.tcgetpgrp(terminal)
            finally:
                os.close(terminal)
        return os.getsid(0), job

    def _lock(handle: int) -> None:
        """Lock a file; raises BlockingIOError when another process has locked it."""
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_first(directory: Path, reason: str, *, unknown: bool) -> bool:
    """Whether this build has not printed this reason yet.

    ``unknown``: the result where that cannot be determined, as where ``directory`` cannot be made.
    """
    if not _NAME.fullmatch(reason):
        return unknown
    session, job = _build()
    build = b"%d.%d" % (session, job)
    path = directory / f"{reason}.{session % SHARES}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        with open(path, "a+b", buffering=0) as file:
            _lock(file.fileno())
            age = abs(time.time() - os.fstat(file.fileno()).st_mtime)
            file.seek(0)
            said = file.read(len(build) + 1)
            file.truncate(0)
            file.write(build)
            return age > QUIET_S or said != build
    except BlockingIOError:
        return False  # another process is just printing it
    except OSError:
        return unknown
