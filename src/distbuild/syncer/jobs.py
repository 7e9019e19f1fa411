"""The values that the job queue works with: jobs, workers, events, and what is to be done."""

import enum
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Need:
    """What a worker must have to take a job."""

    toolchain: str
    namespaces: bool = False


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as it last described itself."""

    name: str
    toolchains: frozenset[str]
    namespaces: bool
    heard: float

    def fits(self, need: Need) -> bool:
        """Whether it can do what a job needs."""
        return need.toolchain in self.toolchains and (self.namespaces or not need.namespaces)


@dataclass(slots=True)
class Job:
    """One job's state. ``lease`` and ``worker`` are set only while LEASED."""

    number: int
    need: Need
    state: State = State.QUEUED
    tries: int = 0
    lease: str = ""
    worker: str = ""
    deadline: float = 0.0
    #: Workers that failed it; others are preferred.
    avoided: frozenset[str] = frozenset()
    #: When it was submitted.
    since: float = 0.0


# --- actions -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wake:
    """There is something to lease for these workers."""

    workers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Assign:
    """Send this job to the worker under this lease."""

    number: int
    worker: str
    lease: str


@dataclass(frozen=True, slots=True)
class CompileLocally:
    """Tell the wrapper to compile itself."""

    number: int
    reason: LocalReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class EndLease:
    """The worker no longer holds this lease; it should kill what runs under it."""

    worker: str
    lease: str


Action = Wake | Assign | CompileLocally | EndLease


@dataclass(slots=True)
class Counters:
    """Totals since the start; ``local`` by reason is kept by the service, which knows them all."""

    done: int = 0
    cancelled: int = 0
    retried: int = 0
