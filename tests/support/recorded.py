"""The compiles of a real build: recorded, then each run again, here and through the wrapper."""

import contextlib
import os
import shlex
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from distbuild.command.model import CompileCommand
from distbuild.command.parse import parse
from tests.support.cluster import Cluster, Done, run_here

PARALLEL = 3
_SOURCES = (".c", ".cc", ".cpp", ".cxx", ".C", ".S", ".s", ".hxx", ".hh", ".hpp", ".h")
_PRECOMPILED = (".gch", ".pch")
_REMOTE, _LOCAL = b"dist_build: compiled by ", b"dist_build: compiled locally: "
#: One file a command, so that commands of a parallel build do not mix.
_RECORDER = """#!/bin/bash
printf '%s\\0' "$PWD" "$@" > "{place}/$BASHPID-$RANDOM-$RANDOM"
exec "$@"
"""


@dataclass(frozen=True)
class Command:
    """A command and the directory that it ran in."""

    cwd: Path
    argv: tuple[str, ...]

    def __str__(self) -> str:
        return f"(cd {self.cwd}; {shlex.join(self.argv)})"


class Recorder:
    """``program`` goes before the compiler of a build; ``compiles`` are what it ran."""

    def __init__(self, place: Path) -> None:
        self._log = place / "log"
        self._log.mkdir(parents=True)
        self.program = place / "recorder"
        self.program.write_text(_RECORDER.format(place=self._log))
        self.program.chmod(0o755)

    def compiles(self) -> list[Command]:
        """The commands that compile a source that is still there, each output once."""
        found: dict[tuple[Path, str], Command] = {}
        for path in sorted(self._log.iterdir(), key=lambda path: path.stat().st_mtime_ns):
            cwd, *argv = path.read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
            command = Command(Path(cwd), tuple(argv))
            if _compiles(command):
                found[command.cwd, _output(command)] = command
        return list(found.values())


def _compiles(command: Command) -> bool:
    """Whether this compiles a source of the project; a probe's is gone, or named as one."""
    sources = [word for word in command.argv[1:] if word.endswith(_SOURCES)]
    return (
        not {"-c", "-S"}.isdisjoint(command.argv)
        and any((command.cwd / name).is_file() for name in sources)
        and not any("conftest" in name or "TryCompile" in str(command.cwd) for name in sources)
    )


def _output(command: Command) -> str:
    """The value of -o, or else the command itself."""
    argv = command.argv
    return argv[argv.index("-o") + 1] if "-o" in argv[:-1] else str(argv)


@dataclass
class Found:
    """How many compiles were equal; ``unstable``: those of which two local runs differ."""

    same: int = 0
    different: list[str] = field(default_factory=list)
    unstable: list[str] = field(default_factory=list)
    local: "Counter[str]" = field(default_factory=Counter)

    def __str__(self) -> str:
        unstable, local = len(self.unstable), dict(self.local)
        return f"{self.same} same, {len(self.different)} different, {unstable=}, {local=}"


def compare_all(cluster: Cluster, commands: Sequence[Command]) -> Found:
    """Run each command here and through the wrapper, in its place.

    Precompiled headers come first, since others read them; commands that write the same file, as
    libtool's two for one source do, come one after the other.
    """
    locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
    read_by_others = [c for c in commands if _output(c).endswith(_PRECOMPILED)]
    rest = [c for c in commands if c not in read_by_others]
    found = Found()
    with ThreadPoolExecutor(PARALLEL) as pool:
        verdicts = [_compare(cluster, command, locks) for command in read_by_others]
        verdicts += pool.map(lambda command: _compare(cluster, command, locks), rest)
    for command, (verdict, happened) in zip([*read_by_others, *rest], verdicts, strict=True):
        if happened:
            found.local[happened] += 1
        if not verdict:
            found.same += 1
        elif verdict == ["unstable"]:
            found.unstable.append(str(command))
        else:
            found.different.append(f"{command}: {verdict}")
    return found


def _compare(
    cluster: Cluster, command: Command, locks: Mapping[str, threading.Lock]
) -> tuple[list[str], str]:
    """What differs (``unstable``: between two local runs too), and why it was compiled here."""
    names = _written_by(command)
    with contextlib.ExitStack() as stack:
        for path in sorted({os.path.realpath(command.cwd / name) for name in names}):
            stack.enter_context(locks[path])
        return _compared(cluster, command, names)


def _compared(cluster: Cluster, command: Command, names: list[str]) -> tuple[list[str], str]:
    local = _outcome(run_here(command.argv, command.cwd), command.cwd, names)
    done = cluster.run(command.argv, command.cwd, DIST_BUILD_VERBOSE="1")
    said, _, rest = done.stderr.partition(b"\n")
    assert said.startswith((_REMOTE, _LOCAL)), said
    ours = _outcome(Done(done.exit_code, done.stdout, rest), command.cwd, names)
    happened = ""
    if said.startswith(_LOCAL):
        happened = said.removeprefix(_LOCAL).decode(errors="replace").partition(":")[0].strip()
    wrong = [name for name in local if local[name] != ours[name]]
    if wrong:
        again = _outcome(run_here(command.argv, command.cwd), command.cwd, names)
        if all(again[name] != local[name] for name in wrong):
            return ["unstable"], happened
    return wrong, happened


def _written_by(command: Command) -> list[str]:
    parsed = parse(list(command.argv), str(command.cwd), _read)
    if isinstance(parsed, CompileCommand):
        return list(dict.fromkeys(parsed.output_files()))
    return [_output(command)] if "-o" in command.argv else []


def _read(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def _outcome(done: Done, cwd: Path, names: Sequence[str]) -> dict[str, object]:
    files = {name: _read(os.path.join(cwd, name)) for name in names}
    return {
        "exit code": done.exit_code,
        "stdout": done.stdout,
        "stderr": done.stderr,
        **files,
    }
