"""Finds the real compiler behind a name on PATH, skipping wrappers such as ccache and dist_build.

A wrapper is a link to a known program, or dist_build under another name. Scripts that call
dist_build are listed in DIST_BUILD_SKIP: each compiler is started with the list of those started
before it. The launcher has the same rules in C (``launcher/dist_build.c``).
"""

import filecmp
import functools
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from distbuild.protocol.errors import InfrastructureError
from distbuild.system.paths import WINDOWS

#: Links to these are wrappers of a compiler; the search continues after them on PATH.
WRAPPERS = frozenset(
    ("ccache", "distcc", "icecc", "sccache", "dist_build", "dist_build.exe", "dist_build_client")
)
SKIP = "DIST_BUILD_SKIP"
#: Number of stacked wrappers of one name; more of them are a loop.
MAX_PASSED = 16

#: Every format of binary programs has a zero byte within so many.
_HEAD_BYTES = 256

#: Suffixes that Windows adds to a program's name, in this order (PATHEXT by default).
_SUFFIXES = (".com", ".exe", ".bat", ".cmd")
_LIKE_COMPILERS = ("cc", "g++", "c++", "clang")


def find_driver(name: str, cwd: str, path: str, skip: Sequence[str] = ()) -> str | None:
    """The file that a shell in ``cwd`` with this PATH runs for ``name``, without wrappers.

    The files in ``skip`` are skipped too, under any path. All paths are the system's.
    """
    found = find_with_status(name, cwd, path, skip)
    return None if found is None else found[0]


def find_with_status(
    name: str, cwd: str, path: str, skip: Sequence[str] = ()
) -> tuple[str, os.stat_result] | None:
    """As ``find_driver``, with the file's status, for which each job would else need a call."""
    if _is_path(name):
        named = _with_suffix(os.path.join(cwd, name))
        # After a wrapper that is named by its path, PATH is searched, as the wrapper itself does.
        if not (is_wrapper(named, name) or _is_one_of(named, skip)):
            status = _program_status(named)
            return None if status is None else (named, status)
    for candidate, status in _on_path(name, cwd, path):
        if not (_leads_to_wrapper(candidate, status, name) or _is_one_of(candidate, skip)):
            return candidate, status
    return None


def is_script(program: str) -> bool:
    """Whether an executable file is text that a shell or another program runs."""
    try:
        with open(program, "rb") as file:
            return b"\0" not in file.read(_HEAD_BYTES)
    except OSError:
        return False  # or it cannot be read, and so not be a script that can run


def is_wrapper(candidate: str, name: str = "") -> bool:
    """Whether a file is a wrapper; not if ``name`` asks for that wrapper itself, such as ccache."""
    try:
        return _leads_to_wrapper(candidate, os.stat(candidate), name)
    except OSError:
        return False


def _leads_to_wrapper(candidate: str, status: os.stat_result, name: str) -> bool:
    facts = (candidate, name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return _is_wrapper(facts)


@functools.lru_cache(maxsize=1000)
def _is_wrapper(facts: tuple[str, str, int, int, int, int]) -> bool:
    """As ``is_wrapper``, cached by the file's state: every compile asks for the same few."""
    candidate, name = facts[:2]
    called = os.path.basename(os.path.realpath(candidate))
    if WINDOWS:
        called = called.lower()
    if (
        called in WRAPPERS or called.removesuffix(".exe") in WRAPPERS
    ) and called != os.path.basename(name):
        return True
    return _is_same_program(candidate, _own_launcher())


def passed(name: str, env: Mapping[str, str]) -> list[str]:
    """The programs called ``name`` that started this process, in the order of their starts."""
    base = os.path.basename(name)
    listed = env.get(SKIP, "").split(os.pathsep)
    return [path for path in listed if path and os.path.basename(path) == base]


def find_behind(name: str, cwd: str, env: Mapping[str, str]) -> str | None:
    """The driver for ``name`` after those that started this process; raises InfrastructureError for
    a loop.

    gcc -flto runs gcc by name: the driver is then that gcc itself, not the next one on PATH.
    """
    before = passed(name, env)
    if len(before) >= MAX_PASSED:
        listed = env.get(SKIP, "")
        raise InfrastructureError(f"{name}: called through itself {len(before)} times ({listed})")
    caller = env.get("COLLECT_GCC")
    if before and caller and os.path.basename(caller) == os.path.basename(name):
        return before[-1]
    return find_driver(name, cwd, _path(env), before)


def with_passed(program: str, env: Mapping[str, str]) -> dict[str, str]:
    """The environment for ``program``: a compiler is appended to DIST_BUILD_SKIP."""
    if not any(part in os.path.basename(program) for part in _LIKE_COMPILERS):
        return dict(env)
    before = [env[SKIP]] if SKIP in env else []
    return {**env, SKIP: os.pathsep.join([*before, program])}


def spelling(name: str, program: str, cwd: str, env: Mapping[str, str]) -> str:
    """``argv[0]`` for ``program``: the build's spelling, if it leads to the program.

    gcc looks for its own parts beside the file that ``argv[0]`` names.
    """
    named = os.path.join(cwd, name)
    on_path = () if _is_path(name) else _on_path(name, cwd, _path(env))
    called = named if _is_path(name) else next((found for found, _ in on_path), None)
    try:
        return name if called and os.path.samefile(called, program) else program
    except OSError:
        return program


def _path(env: Mapping[str, str]) -> str:
    return env.get("PATH", os.defpath)


def _on_path(name: str, cwd: str, path: str) -> Iterator[tuple[str, os.stat_result]]:
    candidates: Iterable[str] = _candidates(os.path.basename(name), cwd, path)
    if WINDOWS:
        candidates = map(_with_suffix, candidates)
    for candidate in candidates:
        if (status := _program_status(candidate)) is not None:
            yield candidate, status


@functools.lru_cache(maxsize=1000)
def _candidates(base: str, cwd: str, path: str) -> tuple[str, ...]:
    return tuple(os.path.join(cwd, directory, base) for directory in path.split(os.pathsep))


def _is_path(name: str) -> bool:
    """Whether a name is a path, for which PATH is not searched."""
    return "/" in name or (WINDOWS and ("\\" in name or ":" in name))


def _with_suffix(path: str) -> str:
    """On Windows, ``path`` with the suffix of an existing program, if it has none itself."""
    if WINDOWS and not path.lower().endswith(_SUFFIXES):
        for suffix in _SUFFIXES:
            if _is_program(path + suffix):
                return path + suffix
    return path


def _is_program(path: str) -> bool:
    return _program_status(path) is not None


def _program_status(path: str) -> os.stat_result | None:
    """The status of an executable file; None: there is none."""
    # access(2) first: for a missing file, stat(2) would cost Python an exception.
    if not os.access(path, os.X_OK):
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _is_one_of(path: str, others: Sequence[str]) -> bool:
    return any(_is_same_file(path, other) for other in others)


def _is_same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _own_launcher() -> str:
    """The path of this installation's native launcher, frozen or not."""
    if getattr(sys, "frozen", False):
        return os.path.join(os.path.dirname(sys.executable), "dist_build.exe")
    source = os.path.abspath(__file__)
    for _ in range(3):  # src/distbuild/compiler/find.py
        source = os.path.dirname(source)
    return os.path.join(source, "dist", "dist_build.exe")


def _is_same_program(path: str, other: str) -> bool:
    """Whether ``path`` is a link to ``other``, or a copy; compared only if the sizes are equal."""
    try:
        one, mine = os.stat(path), os.stat(other)
        if one.st_size != mine.st_size:
            return False
        return os.path.samestat(one, mine) or filecmp.cmp(path, other, shallow=False)
    except OSError:
        return False
