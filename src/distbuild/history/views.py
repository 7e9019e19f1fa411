"""What a build's jobs say together: its parallelism, what limited it, its timeline. Pure: reads the
JSON documents of ``store.History``.
"""

import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distbuild.history.builds import Outcome
from distbuild.protocol.messages import PREPARED, QUEUED, REMOTE, UNDERSTOOD

Job = Mapping[str, Any]
#: A cause is named as the limit from this share of the build's time on.
MANY_SHARE, SOME_SHARE, FEW_SHARE = 0.5, 0.3, 0.15
#: A shorter build (seconds) has no limit that is worth a word.
SHORT_S = 1.0
#: Characters of a command that are shown.
MAX_COMMAND = 40
#: The row of what ran on the dev box itself.
HERE = "dev box"


def ran_on_workers(jobs: Iterable[Job]) -> list[tuple[float, float, Job]]:
    """When workers were busy with the jobs: begin and end (Unix time), in order.

    A job counts once, with the time of all its rounds. What a worker does not report, the
    network and its line for slots, counts as before its compiler.
    """
    found = []
    for job in jobs:
        phases = job["phases"]
        if REMOTE in phases:
            before = sum(phases.get(phase, 0.0) for phase in (UNDERSTOOD, PREPARED, QUEUED))
            end = job["began"] + before + phases[REMOTE]
            found.append((end - (job["ran_s"] or phases[REMOTE]), end, job))
    return sorted(found, key=lambda item: item[:2])


def most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    """How many spans overlap at most."""
    return max((count for _, _, count in _levels(spans)), default=0)


def _levels(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float, int]]:
    """The pieces of time between all begins and ends, each with the number of spans in it."""
    changes = sorted(change for a, b in spans for change in ((a, 1), (b, -1)))
    levels, count = [], 0
    for (at, step), (following, _) in itertools.pairwise(changes):
        count += step
        if following > at:
            levels.append((at, following, count))
    return levels


def summary(build: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a build with its jobs: seconds of compiling, parallelism, and its limit."""
    jobs: Sequence[Job] = build["jobs_of_it"]
    remote = [(begin, end) for begin, end, _ in ran_on_workers(jobs)]
    wall = build["wall_s"]
    ran = sum(job["ran_s"] for job in jobs)
    return {
        "ran_s": round(ran, 3),
        "cpu_s": round(sum(job["cpu_s"] for job in jobs), 3),
        "most_memory_bytes": max((job["memory_bytes"] for job in jobs), default=0),
        "parallelism": round(ran / wall, 2) if wall else 0.0,
        "most_at_once": most_at_once(remote),
        "limit": limit(jobs, remote, build["slots"], wall),
    }


def limit(
    jobs: Sequence[Job], remote: Sequence[tuple[float, float]], slots: int, wall: float
) -> str:
    """What kept the build from being faster, in words; "": nothing stands out."""
    if not jobs or wall < SHORT_S:
        return ""
    all_levels = _levels((job["began"], job["began"] + job["took_s"]) for job in jobs)
    last = max(jobs, key=lambda job: job["began"] + job["took_s"])
    begin, end, left = all_levels[-1] if all_levels else (0.0, 0.0, 0)
    alone = end - begin if left == 1 else 0.0
    if alone >= FEW_SHARE * wall:
        what = "file" if last["source"] else "command"
        named = last["source"] or last["command"][:MAX_COMMAND]
        return f"one long {what}: for {alone:.1f} s only {named} ran, the last"
    full = sum(b - a for a, b, count in _levels(remote) if slots and count >= slots)
    if full >= MANY_SHARE * wall:
        return f"slots: all {slots} were busy for {full / wall:.0%} of the time"
    empty = sum(b - a for a, b, count in all_levels if count == 0)
    if empty >= SOME_SHARE * wall:
        return (
            f"other commands (links, scripts): no compile to do for {empty / wall:.0%} of the time"
        )
    most = max((count for _, _, count in all_levels), default=0)
    if slots and most < slots:
        return f"make -j: at most {most} commands came at once, for {slots} slots"
    return ""


def lanes(spans: Sequence[tuple[float, float]]) -> list[int]:
    """A row for each span, so that spans of one row do not overlap. The spans are in order."""
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    rows = []
    for begin, end in spans:
        while busy and busy[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        row = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (end, row))
        rows.append(row)
    return rows


def trace_events(build: Mapping[str, Any]) -> dict[str, Any]:
    """The build in the Chrome trace format: a process for each worker, a thread for each slot."""
    jobs: Sequence[Job] = build["jobs_of_it"]
    origin = build["began"]
    rows: dict[str, list[tuple[float, float, Job]]] = {}
    for begin, end, job in ran_on_workers(jobs):
        rows.setdefault(job["worker"] or "?", []).append((begin, end, job))
    here = [
        (job["began"], job["began"] + job["took_s"], job)
        for job in sorted(jobs, key=lambda job: job["began"])
        if job["outcome"] in (Outcome.LOCAL, Outcome.HIT)
    ]
    if here:
        rows[HERE] = here
    events: list[dict[str, Any]] = []
    for process, (worker, spans) in enumerate(sorted(rows.items()), start=1):
        named = {"name": "process_name", "ph": "M", "pid": process, "args": {"name": worker}}
        events.append(named)
        ordered = [(begin, end) for begin, end, _ in spans]
        for (begin, end, job), row in zip(spans, lanes(ordered), strict=True):
            place = {"ph": "X", "pid": process, "tid": row + 1}
            events.append(place | _bar(begin - origin, end - begin, job))
    levels = _levels((begin, end) for begin, end, _ in ran_on_workers(jobs))
    counts = [(at, count) for at, _, count in levels] + [(end, 0) for _, end, _ in levels[-1:]]
    for at, count in counts:
        when = round(1e6 * (at - origin))
        events.append(
            {"name": "on workers", "ph": "C", "pid": 0, "ts": when, "args": {"jobs": count}}
        )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _bar(begin: float, took: float, job: Job) -> dict[str, Any]:
    shown = ("source", "command", "cwd", "reason", "phases", "ran_s", "cpu_s", "memory_bytes")
    return {
        "name": job["source"].rpartition("/")[2] or job["command"][:MAX_COMMAND],
        "cat": job["outcome"],
        "ts": round(1e6 * begin),
        "dur": round(1e6 * took),
        "args": {key: job[key] for key in shown if job[key]},
    }


def slower(before: Iterable[Job], now: Iterable[Job]) -> list[tuple[str, float, float]]:
    """The sources that workers compiled in both builds with the seconds of each, those whose time
    changed most first."""
    earlier = {job["source"]: job["ran_s"] for job in before if job["ran_s"]}
    both = [
        (job["source"], earlier[job["source"]], job["ran_s"])
        for job in now
        if job["ran_s"] and job["source"] in earlier
    ]
    return sorted(both, key=lambda item: -abs(item[2] - item[1]))
