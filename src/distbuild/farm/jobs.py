"""The values that the job queue works with: jobs, workers, events, and what is to be done."""

import enum
import math
from collections.abc import Mapping

import msgspec

from distbuild.command.model import LocalReason


class State(enum.Enum):
    """Where a job is."""

    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    LOCAL = "local"
    CANCELLED = "cancelled"


class Event(enum.Enum):
    """What can happen to a job."""

    LEASE = "lease"
    REQUEUE = "requeue"
    FINISH = "finish"
    GIVE_UP = "give_up"
    CANCEL = "cancel"


#: Every change of a job's state that there is; all others are bugs of the caller.
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
    """What a worker must have to take a job. ``worker``: it must be this one; "": any."""

    toolchain: str
    namespaces: bool = False
    worker: str = ""


class Worker(msgspec.Struct, frozen=True):
    """A worker as it last described itself. ``label`` is what people know it by."""

    name: str
    toolchains: frozenset[str]
    namespaces: bool
    heard: float
    label: str = ""

    def fits(self, need: Need) -> bool:
        """Whether it can do what a job needs."""
        return (
            need.toolchain in self.toolchains
            and (self.namespaces or not need.namespaces)
            and need.worker in ("", self.name)
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
    #: Workers that failed it; others are preferred.
    avoided: frozenset[str] = frozenset()
    #: When it was submitted.
    since: float = 0.0
    #: What its duration is remembered under; 0: it is not.
    name: int = 0
    #: When the compiler began, as far as is known; infinity: it waits for a slot of its worker.
    started: float = 0.0
    #: How long it may run (seconds), and when the lease ends for that, however often it is renewed.
    limit: float = math.inf
    ends: float = math.inf
    #: How often it ran for too long.
    overruns: int = 0


# --- actions -----------------------------------------------------------------------------------


class Wake(msgspec.Struct, frozen=True):
    """There is something to lease for these workers."""

    workers: tuple[str, ...]


class Assign(msgspec.Struct, frozen=True):
    """Send this job to the worker under this lease."""

    number: int
    worker: str
    lease: str


class CompileLocally(msgspec.Struct, frozen=True):
    """Tell the wrapper to compile itself."""

    number: int
    reason: LocalReason
    detail: str = ""


class EndLease(msgspec.Struct, frozen=True):
    """The worker no longer holds this lease; it should kill what runs under it."""

    worker: str
    lease: str


Action = Wake | Assign | CompileLocally | EndLease


class Counters(msgspec.Struct):
    """Totals since the start; ``local`` by reason is kept by the service, which knows them all."""

    done: int = 0
    cancelled: int = 0
    retried: int = 0
