"""Formats the status, reasons, sizes and versions as text for users. Pure."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from distbuild.command.driver import family_of
from distbuild.command.model import LocalReason
from distbuild.protocol.names import one_line

#: The last two need no syncer.
SUBCOMMANDS = (
    *("status", "install", "clean", "doctor", "explain", "cache", "builds", "trace", "top"),
    *("dashboard", "version", "help"),
)
_COMPILERS = ("gcc", "g++", "cc", "c++", "clang", "clang++", "cl", "clang-cl")
#: The least similarity of a mistyped word (difflib's ratio).
_LIKE = 0.7
_MAX_SHOWN = 300


def meaning(reason: str) -> str:
    """A sentence that explains a reason; "" for one that only a newer syncer knows."""
    try:
        return LocalReason(reason).meaning
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


def cache_line(cache: Mapping[str, Any]) -> str:
    """The object cache's counts in one line."""
    return (
        f"cache   {cache['hits']} hits  {sum(cache['misses'].values())} misses"
        f"  {cache['results']} results  {size(cache['bytes'])} of {size(cache['max_bytes'])}"
    )


def cache_lines(cache: Mapping[str, Any]) -> list[str]:
    """The object cache's counts: each cause of a miss, and each reason why a result is not kept."""
    lines = [cache_line(cache)]
    lines.extend(f"  miss {count:6d}  {why}" for why, count in cache["misses"].items())
    lines.extend(f"  not kept {count:6d}  {why}" for why, count in cache["unkept"].items())
    lines.append(f"  evicted {cache['evicted']}  damaged {cache['damaged']}")
    if cache.get("checked"):
        lines.append(f"  compared with a compile {cache['checked']}  wrong {cache['wrong']}")
    return lines


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
    if cache := status.get("cache"):
        lines.append(cache_line(cache))
    compilers = status.get("compilers", ())
    return [*lines, "workers", *worker_table(status["workers"], compilers)]


_COLUMNS = (*"host state heard slots running done free sandbox compilers".split(), "")


def worker_table(workers: Mapping[str, Any], compilers: Sequence[Mapping[str, str]]) -> list[str]:
    """A line for each worker, below a line of headings."""
    if not workers:
        return ['  none: "hosts" in config.json is empty and no worker has asked for work']
    rows = [_row(host, worker, compilers) for host, worker in workers.items()]
    # A worker's status may contain any text.
    return [
        "  " + line for line in aligned([list(map(one_line, row)) for row in (_COLUMNS, *rows)])
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


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines, with their columns below each other."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
