"""What is remembered of a job, and which jobs make up a build.

A build is a series of jobs of one session (the shell or make that started the wrappers) or of one
DIST_BUILD_BUILD, without a longer pause. Pure: times are given, in Unix seconds.
"""

import bisect
import enum
import itertools
import math
import re
import shlex
from typing import Any

import msgspec

#: A build ends after so many seconds without a job.
PAUSE_S = 15.0


class Outcome(enum.StrEnum):
    """How a job ended."""

    COMPILED = "compiled"
    HIT = "hit"
    LOCAL = "local"
    #: The compiler's exit code was not 0.
    FAILED = "failed"
    #: The wrapper went away.
    CANCELLED = "cancelled"


class JobRecord(msgspec.Struct, frozen=True):
    """One command of a build. Texts are as the file system has them, and need not be UTF-8."""

    #: The words of the command, joined by NULs.
    command: bytes
    cwd: bytes
    #: The absolute path; empty: the command is not understood.
    source: bytes
    outcome: Outcome
    #: Why it was compiled locally.
    reason: str
    worker: str
    exit_code: int
    began: float
    took_s: float
    #: Seconds by phase, see ``farm.executor``.
    phases: dict[str, float]
    #: The compiler's own time on the worker, by its account; 0: not known.
    ran_s: float
    #: How often a worker compiled it.
    rounds: int
    #: The compiler's processor time and peak memory, by the workers' account; 0: not known, and
    #: memory also if it is less than the worker's own.
    cpu_s: float = 0.0
    memory_bytes: int = 0
    #: What the reason is about, in words.
    detail: str = ""
    #: Files that the compiler read; 0: not known.
    inputs: int = 0
    #: Why the object cache had no result.
    missed: str = ""
    #: The compiler's messages, if it failed; without the excerpts of sources.
    messages: bytes = b""


def _text(data: bytes) -> str:
    """For JSON: bytes that are not UTF-8 become replacement characters."""
    return data.decode("utf-8", "replace")


def shown_brief(job: JobRecord) -> dict[str, Any]:
    """What a timeline needs of a job."""
    return {
        "source": _text(job.source),
        "outcome": job.outcome,
        "reason": job.reason,
        "worker": job.worker,
        "exit_code": job.exit_code,
        "began": job.began,
        "took_s": round(job.took_s, 4),
        "phases": {phase: round(seconds, 4) for phase, seconds in job.phases.items()},
        "ran_s": round(job.ran_s, 4),
        "rounds": job.rounds,
        "cpu_s": round(job.cpu_s, 4),
        "memory_bytes": job.memory_bytes,
    }


def shown_job(job: JobRecord, before_s: float | None) -> dict[str, Any]:
    """A job for JSON. ``before_s``: what its source usually took."""
    return {
        **shown_brief(job),
        "command": shlex.join(_text(job.command).split("\0")),
        "cwd": _text(job.cwd),
        "detail": job.detail,
        "inputs": job.inputs,
        "missed": job.missed,
        "messages": _text(job.messages),
        # What the same source usually took in earlier builds; only of the slowest.
        **({"usual_s": round(before_s, 4)} if before_s else {}),
    }


class Histogram:
    """How long something took: counts up to bounds in seconds, three to a decade."""

    BOUNDS = (
        0.001,
        0.002,
        0.005,
        0.01,
        0.02,
        0.05,
        0.1,
        0.2,
        0.5,
        1.0,
        2.0,
        5.0,
        10.0,
        20.0,
        50.0,
        100.0,
    )

    def __init__(self) -> None:
        self._counts = [0] * (len(self.BOUNDS) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self._counts[bisect.bisect_left(self.BOUNDS, seconds)] += 1
        self.sum_s += seconds

    def up_to(self) -> list[tuple[float, int]]:
        """Each bound, the infinite one last, with the number of durations up to it."""
        return list(zip((*self.BOUNDS, math.inf), itertools.accumulate(self._counts), strict=True))


#: Kept of a failed compile's messages (bytes).
MAX_MESSAGES = 4_000
_MESSAGE = re.compile(
    rb"^(?:\S.*: (?:fatal error|[Ee]rror|[Ww]arning|note): .*|In file included from .*)$",
    re.MULTILINE,
)


def messages_of(stderr: bytes) -> bytes:
    """The lines of a compiler's uncoloured output that are messages, and no excerpts of sources."""
    return b"\n".join(_MESSAGE.findall(stderr))[:MAX_MESSAGES]


class Key(msgspec.Struct, frozen=True):
    """What the jobs of one build have in common: a name, else a session."""

    name: str
    session: int


class _Open(msgspec.Struct):
    number: int
    running: int
    last: float


class OpenBuilds:
    """Assigns jobs to builds, which have ascending numbers from ``first`` on. Not thread-safe."""

    def __init__(self, first: int) -> None:
        self._numbers = itertools.count(first)
        self._open: dict[Key, _Open] = {}

    def begin(self, key: Key, now: float) -> tuple[int, bool]:
        """The build of a job that begins; whether the build is new."""
        self.close(now)
        known = self._open.get(key)
        if known is not None:
            known.running += 1
            known.last = max(known.last, now)
            return known.number, False
        self._open[key] = _Open(next(self._numbers), 1, now)
        return self._open[key].number, True

    def end(self, key: Key, number: int, now: float) -> None:
        """A job of this build has ended."""
        known = self._open.get(key)
        if known is not None and known.number == number:
            known.running -= 1
            known.last = max(known.last, now)

    def close(self, now: float) -> None:
        """Close the builds that are over: none of them gets a job any more."""
        self._open = {k: build for k, build in self._open.items() if not self._is_over(build, now)}

    def numbers(self) -> set[int]:
        """The open builds."""
        return {build.number for build in self._open.values()}

    @staticmethod
    def _is_over(build: _Open, now: float) -> bool:
        return build.running <= 0 and now - build.last > PAUSE_S
