"""One command line, locally and through the wrapper: everything that it leaves, compared."""

import os
import shlex
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.cluster import Cluster, Done, run_here

#: What DIST_BUILD_VERBOSE says first on standard error.
_REMOTE, _LOCAL = b"dist_build: compiled by ", b"dist_build: compiled locally: "
Facts = tuple[int, bytes]


@dataclass(frozen=True)
class Line:
    """One command line. ``expected``: "remote" or a LocalReason; ``where``: below the project."""

    argv: tuple[str, ...]
    expected: str = "remote"
    where: str = "."
    env: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        places = [] if self.where == "." else [f"cd:{self.where}"]
        return shlex.join([*places, *(f"{n}={v}" for n, v in self.env.items()), *self.argv])


@dataclass(frozen=True)
class Outcome:
    """What two local runs and one through the wrapper left, and what the wrapper says it did."""

    local: Done
    again: Done
    ours: Done
    happened: str
    #: More about that, for people.
    said: str

    def fits(self, expected: str) -> bool:
        """Whether that happened which a row says. Of a compile that the compiler gives up, which
        each does at other errors, or its assembler, a worker's word may not be enough."""
        last_words = ("unproved_failure", "assembler_input")
        unproved = self.happened in last_words and self.local.exit_code != 0
        # Another version may not crash.
        is_mended = expected == "compiler_crashed" and self.local.exit_code >= 0
        as_remote = expected == "remote" and unproved
        return self.happened == expected or as_remote or (is_mended and self.happened == "remote")

    def differences(self) -> list[str]:
        """What is not equal, with both values; empty for a faithful compile.

        Contents in which the local compiler does not agree with itself (random seeds, times,
        addresses) are not compared; that they are there is.
        """
        local, again, ours = map(_named, (self.local, self.again, self.ours))
        wrong = []
        for name in sorted(local.keys() | ours.keys()):
            if local.get(name) == ours.get(name):
                continue
            if local.get(name) != again.get(name) and name in again and name in ours:
                continue
            wrong.append(f"{name}: {_apart(local.get(name), ours.get(name))}")
        return wrong


def _named(done: Done) -> dict[str, object]:
    printed = {"exit code": done.exit_code, "stdout": done.stdout, "stderr": done.stderr}
    return {**printed, **done.files}


def _apart(local: object, ours: object) -> str:
    """Both values from where they part."""
    mine, other = repr(local), repr(ours)
    pairs = enumerate(zip(mine, other, strict=False))
    common = next((at for at, (a, b) in pairs if a != b), min(len(mine), len(other)))
    begin = max(0, common - 60)
    return f"local ...{mine[begin : common + 240]} ours ...{other[begin : common + 240]}"


#: A compiler that goes by addresses (the order of clang's warnings of unused variables) may well
#: say the same a few times.
MAX_AGAIN = 6
#: What a row that begins with an option stands for.
DEFAULT = "$CC {} -c src/main.c -o build/out.o"


def parse_lines(
    text: str, names: Mapping[str, str], project: Path, default: str = DEFAULT
) -> list[Line]:
    """The rows of a table in ``lines/``; ``names`` are the values of $CC and $CXX."""
    expected, found = "remote", []
    for row in text.splitlines():
        if row.startswith("[") and row.endswith("]"):
            expected = row[1:-1]
        elif row and not row.startswith("#"):
            found.append(_line(row, expected, {**names, "PWD": str(project)}, default))
    return found


def _line(row: str, expected: str, variables: Mapping[str, str], default: str) -> Line:
    options = ("-", "@") if default == DEFAULT else ("-", "@", "/")
    whole = any(not word.startswith(options) for word in shlex.split(row)[:1])
    words = shlex.split(row if whole else default.replace("{}", row))
    for name, value in variables.items():
        words = [word.replace(f"${name}", value) for word in words]
    where, env = ".", {}
    while words[0].startswith("cd:") or "=" in words[0]:
        name, mark, value = words.pop(0).partition("=")
        if mark:
            env[name] = value
        else:
            where = name.removeprefix("cd:")
    return Line(tuple(words), expected, where, env)


def compare(cluster: Cluster, project: Path, line: Line) -> Outcome:
    """Run ``line`` in ``project`` with and without the wrapper; the project is put back."""
    where = project / line.where
    local = _left_by(lambda: run_here(line.argv, where, **line.env), project)
    env = {**line.env, "DIST_BUILD_VERBOSE": "1"}
    ours = _left_by(lambda: cluster.run(line.argv, where, **env), project)
    said, _, rest = ours.stderr.partition(b"\n")
    if said.startswith(_REMOTE):
        ours.stderr, happened = rest, "remote"
    elif said.startswith(_LOCAL):
        ours.stderr = rest
        happened = said.removeprefix(_LOCAL).decode(errors="replace").partition(":")[0].strip()
    else:
        happened = f"nothing known ({said.decode(errors='replace')})"
    again, left = local, MAX_AGAIN
    while left and _settled_by_nothing(local, again, ours):
        again = _left_by(lambda: run_here(line.argv, where, **line.env), project)
        left -= 1
    return Outcome(local, again, ours, happened, said.decode(errors="replace"))


def _settled_by_nothing(local: Done, again: Done, ours: Done) -> bool:
    """Whether ours differs from the local one where that agrees with itself, so far."""
    one, other, mine = map(_named, (local, again, ours))
    names = one.keys() | mine.keys()
    return any(one.get(n) != mine.get(n) and one.get(n) == other.get(n) for n in names)


def _left_by(run: Callable[[], Done], project: Path) -> Done:
    before = snapshot(project)
    done = run()
    after = snapshot(project)
    done.files = {
        name: after.get(name, (0, b"removed"))  # type: ignore[misc]
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    }
    _put_back(project, before, after)
    return done


def snapshot(project: Path) -> dict[str, Facts]:
    """(mode, content or target) of everything below ``project`` but directories' content."""
    found: dict[str, Facts] = {}
    for top, directories, names in os.walk(project):
        for name in (*directories, *names):
            path = os.path.join(top, name)
            mode = os.lstat(path).st_mode
            found[os.path.relpath(path, project)] = (mode, _content(path, mode))
    return found


def _content(path: str, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return os.fsencode(os.readlink(path))
    if not stat.S_ISREG(mode):
        return b""
    with open(path, "rb") as file:
        return file.read()


def _put_back(project: Path, before: Mapping[str, Facts], after: Mapping[str, Facts]) -> None:
    for name in sorted(after.keys() | before.keys(), reverse=True):
        if before.get(name) == after.get(name):
            continue
        path = project / name
        if name in after:
            path.rmdir() if stat.S_ISDIR(after[name][0]) else path.unlink()
    for name in sorted(before):
        if before[name] == after.get(name):
            continue
        (mode, content), path = before[name], project / name
        if stat.S_ISDIR(mode):
            path.mkdir()
        elif stat.S_ISLNK(mode):
            path.symlink_to(os.fsdecode(content))
        else:
            path.write_bytes(content)
            path.chmod(stat.S_IMODE(mode))


def all_lines(
    tables: Sequence[Path], names: Mapping[str, str], project: Path, default: str = DEFAULT
) -> list[Line]:
    """The rows of several tables."""
    texts = (table.read_text(encoding="utf-8") for table in tables)
    return [line for text in texts for line in parse_lines(text, names, project, default)]
