"""Runs the real compiler in this process' place: the last step of the ladder.

Windows knows no such thing: there this process waits for it, and passes its exit code on.
"""

import errno
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from distbuild.compiler.find import SKIP, find_behind, passed, spelling, with_passed
from distbuild.protocol.errors import InfrastructureError

NOT_FOUND = 127
NOT_RUNNABLE = 126
MISTYPED = 2
_SHELL = "/bin/sh"


def run_locally(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Replace this process by the compiler; ends with 127 when there is none."""
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
    """Say so where a word that is no program is a slip for one of our own."""
    from distbuild.wrapper.describe import SUBCOMMANDS, meant  # of no use to a compile

    if like := meant(word):
        known = ", ".join(SUBCOMMANDS)
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
        # A script that does not say by what it is run: a shell runs it, execvp(3).
        script = words[0] if "/" in words[0] else program
        os.execve(_SHELL, [_SHELL, script, *words[1:]], env)


def _end(why: str, code: int) -> NoReturn:
    if sys.stderr is not None:  # with None, print takes standard output
        print(f"dist_build: {why}", file=sys.stderr)
    sys.exit(code)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"  # it was removed: only the compiler can say whether it minds


def clean_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment as it was before a frozen program's loader changed it."""
    cleaned = {name: value for name, value in env.items() if not name.startswith("_PYI_")}
    if getattr(sys, "frozen", False):
        original = cleaned.pop("LD_LIBRARY_PATH_ORIG", None)
        cleaned.pop("LD_LIBRARY_PATH", None)
        if original is not None:
            cleaned["LD_LIBRARY_PATH"] = original
    return cleaned
