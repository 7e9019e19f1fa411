"""Runs the real compiler in this process' place: the last step of the ladder."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from distbuild.drivers import find_driver

NOT_FOUND = 127
NOT_RUNNABLE = 126


def run_locally(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Replace this process by the compiler; ends with 127 when there is none."""
    program = find_driver(argv[0], _working_directory(), env.get("PATH", os.defpath))
    if program is None:
        print(f"dist_build: {argv[0]}: command not found", file=sys.stderr)
        sys.exit(NOT_FOUND)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    try:
        os.execve(program, list(argv), clean_environment(env))
    except OSError as error:
        print(f"dist_build: {program}: {error.strerror}", file=sys.stderr)
        sys.exit(NOT_RUNNABLE)


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
