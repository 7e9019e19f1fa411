"""Formats the status, reasons, sizes and versions as text for users. Pure."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from distbuild.command.driver import family_of
from distbuild.command.model import LocalReason
from distbuild.protocol.names import one_line

SUBCOMMANDS = ("status", "install", "clean", "doctor", "explain", "version", "help")
_COMPILERS = ("gcc", "g++", "cc", "c++", "clang", "clang++", "cl", "clang-cl")
#: The least similarity of a mistyped word (difflib's ratio).
_LIKE = 0.7
_MAX_SHOWN = 300

_MEANINGS: Mapping[LocalReason, str] = {
    LocalReason.NOT_A_COMPILER: "the command is not a gcc, clang or cl on this machine",
    LocalReason.LINK: "linking is done on the dev box; compile with -c to distribute",
    LocalReason.PREPROCESS_ONLY: "preprocessing (-E, module scans) costs more sent than it saves",
    LocalReason.DEPENDENCIES_ONLY: "-M and -MM only list dependencies",
    LocalReason.INFORMATION: "the command only asks the compiler about itself",
    LocalReason.STDIN: "the source comes from standard input",
    LocalReason.STDOUT: "an output goes to standard output",
    LocalReason.NO_SOURCE: "there is no source file in the command",
    LocalReason.SEVERAL_SOURCES: "one command with several sources",
    LocalReason.SOURCE_MISSING: "the source cannot be read; the compiler says so itself",
    LocalReason.OTHER_LANGUAGE: "the compiler is one for another language than C and C++",
    LocalReason.PROBE: "a configure script tries the compiler out, one small file at a time",
    LocalReason.SPECIAL_INPUT: "the command names a pipe, a device or a private file",
    LocalReason.UNKNOWN_LANGUAGE: "the source is in a language that is not distributed",
    LocalReason.PRECOMPILED_HEADER: "a precompiled header is made or would be used",
    LocalReason.MODULES: "modules read and write files that are not mirrored",
    LocalReason.NATIVE_TARGET: "the code is for this machine's own processor",
    LocalReason.DEBUG_DATABASE: "debug information goes into a database that compiles share",
    LocalReason.PROFILE_USE: "profile data is read from a place that only the compiler knows",
    LocalReason.RUNS_OTHER_CODE: "the compiler would load a plug-in or run another program",
    LocalReason.ASSEMBLER_INPUT: "the assembler reads or lacks a file that is not mirrored",
    LocalReason.OUTPUT_SPECIAL: "an output is not a regular writable file in an existing directory",
    LocalReason.RESPONSE_FILE: "a response file is too large, nested too deeply, or no file",
    LocalReason.UNSUPPORTED_OPTION: "this option is not known to be safe to distribute",
    LocalReason.NAMES_A_FILE: "an unknown option has a value that may name a file",
    LocalReason.OTHER_FILES: "the wrapper sees other files than the syncer (a container?)",
    LocalReason.FARM_FULL: "all workers were busy and a core of the dev box was idle",
    LocalReason.COMPILER_CRASHED: "the worker's compiler crashed; the local compiler shows why",
    LocalReason.HARD_LINKS: "two of its headers are one file, which clang includes once",
    LocalReason.UNPROVED_FAILURE: "the compile failed before it listed the files that it read",
    LocalReason.NAMES_ITS_PLACE: "the object contains the paths at which it was compiled",
    LocalReason.OUTPUT_NOT_WRITTEN: "the outputs could not be written",
    LocalReason.NO_WORKER: "no worker asks for work; see dist_build.exe status",
    LocalReason.NO_TOOLCHAIN: "no worker has exactly this compiler; see dist_build.exe status",
    LocalReason.NO_NAMESPACE: "only a worker with bubblewrap gives the same bytes here",
    LocalReason.LEASES_LOST: "the workers that took the job did not finish it",
    LocalReason.RESULT_REFUSED: "the workers that took the job sent results that cannot be right",
    LocalReason.INPUTS_CHANGED: "its files kept changing while it was compiled",
    LocalReason.INPUT_NOT_MIRRORED: "it reads a file that could not be mirrored",
    LocalReason.SYNCER_ERROR: "a fault in the syncer; see logs/syncer.log",
    LocalReason.SYNCER_STOPPING: "the syncer is being stopped",
}


def meaning(reason: str) -> str:
    """A sentence that explains a reason; "" for one that only a newer syncer knows."""
    try:
        return _MEANINGS[LocalReason(reason)]
    except ValueError:
        return ""


def meant(word: str) -> str:
    """The subcommand that a word may be a typo of; "" if it resembles a compiler's name more, or
    nothing."""
    is_none = "/" in word or len(word) > 2 * max(map(len, SUBCOMMANDS))
    if is_none or family_of(word) is not None:
        return ""
    best = difflib.get_close_matches(word.lower(), SUBCOMMANDS, 1, _LIKE)
    rivals = difflib.get_close_matches(word.lower(), _COMPILERS, 1, _LIKE)
    if not best or (rivals and _likeness(word, rivals[0]) >= _likeness(word, best[0])):
        return ""
    return best[0]


def _likeness(word: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, word.lower()).ratio()


def size(count: int) -> str:
    """Bytes in the largest unit that keeps the number above one."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def part(worker: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A mapping in a worker's own status; empty if missing or of another type."""
    found = worker.get(name)
    return found if isinstance(found, dict) else {}


def shown(value: object) -> str:
    """Untrusted text, made safe for a terminal: bounded, without control characters."""
    text = str("" if value is None else value)[:_MAX_SHOWN]
    return "".join(character if character.isprintable() else "?" for character in text)


def ago(seconds: float | None) -> str:
    """The time since an event as text; None: it never happened."""
    return "never" if seconds is None else f"{seconds:.0f} s ago"


def versions(paths: Sequence[str], compilers: Sequence[Mapping[str, str]]) -> str:
    """Compilers by name and version: "gcc and g++ 12.2.0, clang 14.0.6"."""
    names: dict[str, list[str]] = {}
    for compiler in compilers:
        if compiler["path"] in paths:
            number = next(iter(compiler["version"].split()[1:2]), "")
            names.setdefault(number, []).append(compiler["path"].rpartition("/")[2])
    return ", ".join(
        " and ".join(dict.fromkeys(called)) + f" {number}".rstrip()
        for number, called in names.items()
    )


def status_lines(status: Mapping[str, Any]) -> list[str]:
    """The syncer's status as lines of text."""
    jobs, mirror = status["jobs"], status["mirror"]
    names = ("queued", "running", "done", "failed", "cancelled", "retried")
    lines = [
        f"dist_build {status['version']}, up {status['uptime_s']:.0f} s",
        "jobs    " + "  ".join(f"{name} {jobs[name]}" for name in names),
    ]
    for reason, count in jobs["local"].items():
        lines.append(f"  local {count:6d}  {reason}: {meaning(reason)}")
    lines.append(
        f"mirror  generation {mirror['generation']}  {mirror['files']} files"
        f"  {size(mirror['bytes'])}  {len(mirror['roots'])} roots"
    )
    lines.extend(f"  polled  {root}" for root in mirror.get("polled", ()))
    compilers = status.get("compilers", ())
    return [*lines, "workers", *worker_table(status["workers"], compilers)]


_COLUMNS = (
    "host",
    "state",
    "heard",
    "slots",
    "running",
    "done",
    "free",
    "sandbox",
    "compilers",
    "",
)


def worker_table(workers: Mapping[str, Any], compilers: Sequence[Mapping[str, str]]) -> list[str]:
    """A line for each worker, below a line of headings."""
    if not workers:
        return ['  none: "hosts" in config.json is empty and no worker has asked for work']
    rows = [_row(host, worker, compilers) for host, worker in workers.items()]
    # A worker's status may contain any text.
    return [
        "  " + line for line in _aligned([list(map(one_line, row)) for row in (_COLUMNS, *rows)])
    ]


def _row(
    host: str, worker: Mapping[str, Any], compilers: Sequence[Mapping[str, str]]
) -> tuple[str, ...]:
    heard = [s for s in (worker.get("answered_s"), worker.get("asked_s")) if s is not None]
    free = part(worker, "store").get("free_bytes")
    has = versions(worker.get("compilers", ()), compilers)
    return (
        host,
        str(worker.get("state", "")),
        ago(min(heard, default=None)),
        *(shown(worker.get(name)) for name in ("num_cores", "running", "done")),
        size(free) if isinstance(free, int) else "",
        shown(part(worker, "sandbox").get("mode")),
        has or ("none of yours" if compilers and worker.get("asked_s") is not None else ""),
        _error_of(worker),
    )


def _error_of(worker: Mapping[str, Any]) -> str:
    error = str(worker.get("error", ""))
    count = worker.get("refused_results", 0)
    return f"{count} results refused: {worker.get('refused_why')} {error}" if count else error


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
