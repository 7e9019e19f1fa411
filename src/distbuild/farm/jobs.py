"""The farm's data types: limits, jobs with states and transitions, workers, events, actions."""

import enum
import math
import os
from collections.abc import Mapping

import msgspec

from distbuild.command.model import LocalReason

#: The longest run of a job with a known duration, as a multiple of that; at least so many seconds.
LONGER = 10.0
MIN_LIMIT_S = 60.0
#: The number of durations that are remembered, those used last.
MAX_KNOWN = 20_000


class FarmLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long (seconds) the farm waits, and how much it keeps."""

    #: The longest duration of one long poll; shorter than the silence allowed to a worker.
    poll_s: float = 10.0
    #: After the start jobs wait this long for the first worker to report.
    grace_s: float = 5.0
    #: The ticker's longest sleep. A deadline that is set during the sleep is later than that (a
    #: renewal waits 5 s, a lease lasts 15), or the ticker is woken for it.
    rest_s: float = 4.0
    #: Bounds the memory that a worker with a new name at each request can fill: a name is kept for
    #: a minute.
    workers: int = 1000
    #: Size of all results that were delivered but not yet fetched by their compiles.
    held_bytes: int = 256 * 1024 * 1024


class State(enum.StrEnum):
    """A job's state."""

    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    LOCAL = "local"
    CANCELLED = "cancelled"


class Event(enum.StrEnum):
    """An event that changes a job's state."""

    LEASE = "lease"
    REQUEUE = "requeue"
    FINISH = "finish"
    GIVE_UP = "give_up"
    CANCEL = "cancel"


#: All legal changes of a job's state; any other is a bug of the caller.
TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.QUEUED, Event.LEASE): State.LEASED,
    (State.QUEUED, Event.GIVE_UP): State.LOCAL,
    (State.QUEUED, Event.CANCEL): State.CANCELLED,
    (State.LEASED, Event.REQUEUE): State.QUEUED,
    (State.LEASED, Event.FINISH): State.DONE,
    (State.LEASED, Event.GIVE_UP): State.LOCAL,
    (State.LEASED, Event.CANCEL): State.CANCELLED,
}
#: The states in which a job is answered.
FINAL = frozenset({State.DONE, State.LOCAL, State.CANCELLED})


class Need(msgspec.Struct, frozen=True):
    """A job's requirements on a worker. ``worker``: only this one; "": any."""

    toolchain: str
    namespaces: bool = False
    worker: str = ""


class Worker(msgspec.Struct, frozen=True):
    """A worker as it last described itself. ``label`` is its display name.

    ``paused_until``: jobs failed on it, see ``Health``; until then it only gets those that name it.
    ``failing_until``: until then no job waits for it.
    """

    name: str
    toolchains: frozenset[str]
    namespaces: bool
    heard: float
    label: str = ""
    paused_until: float = 0.0
    failing_until: float = 0.0

    def fits(self, need: Need, now: float = math.inf) -> bool:
        """Whether it meets a job's requirements; ``now``: and is not paused."""
        return (
            need.toolchain in self.toolchains
            and (self.namespaces or not need.namespaces)
            and (need.worker == self.name or (not need.worker and now >= self.paused_until))
        )


class QueuedJob(msgspec.Struct):
    """One job's state. ``lease``, ``worker`` and its ``label`` are set only while LEASED."""

    number: int
    need: Need
    state: State = State.QUEUED
    tries: int = 0
    lease: str = ""
    worker: str = ""
    label: str = ""
    deadline: float = 0.0
    #: Workers on which it failed; others are preferred.
    avoided: frozenset[str] = frozenset()
    #: When it was submitted, and last leased.
    since: float = 0.0
    leased: float = 0.0
    #: The key under which its duration is remembered; 0: it is not.
    name: int = 0
    #: When the compiler began, as far as is known; infinity: it waits for a slot of its worker.
    started: float = 0.0
    #: How long it may run (seconds), and when the lease therefore ends, even if it is renewed.
    limit: float = math.inf
    ends: float = math.inf
    #: How often it exceeded ``limit``.
    overruns: int = 0


# --- actions -----------------------------------------------------------------------------------


class Wake(msgspec.Struct, frozen=True):
    """Notify the long polls of these workers of a job to lease; see ``Polls.notify``."""

    workers: tuple[str, ...]


class Assign(msgspec.Struct, frozen=True):
    """Send this job to the worker under this lease."""

    number: int
    worker: str
    lease: str


class CompileLocally(msgspec.Struct, frozen=True):
    """Answer the job with a local compile."""

    number: int
    reason: LocalReason
    detail: str = ""


class EndLease(msgspec.Struct, frozen=True):
    """Notify the worker that its lease has ended; it should kill the job's processes."""

    worker: str
    lease: str


Action = Wake | Assign | CompileLocally | EndLease


class Counters(msgspec.Struct):
    """Totals since the start. Local compiles are counted by ``Compiles``, which knows them all."""

    done: int = 0
    cancelled: int = 0
    retried: int = 0


class Durations(msgspec.Struct):
    """How long jobs took (seconds), by their names; the one used last is at the end."""

    _took: dict[int, float] = msgspec.field(default_factory=dict)

    def limit(self, name: int, most_s: float) -> float:
        """How long the job may run (seconds), at most ``most_s``."""
        took = self._took.get(name)
        usual = math.inf if took is None else max(LONGER * took, MIN_LIMIT_S)
        return min(most_s, usual)

    def remember(self, name: int, took_s: float) -> None:
        """The job has ended after this time."""
        self._took.pop(name, None)
        self._took[name] = took_s
        if len(self._took) > MAX_KNOWN:
            del self._took[next(iter(self._took))]

    def forget(self, name: int) -> None:
        """The job may take longer than before."""
        self._took.pop(name, None)


def random_salt() -> str:
    """128 random bits for lease names, so that no worker can guess another's lease and answer for
    it."""
    return os.urandom(16).hex() + "."
