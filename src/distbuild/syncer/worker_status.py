"""Collects each worker's state for ``status`` and ``doctor``. Decides nothing.

It combines two sources: the worker's answers to requests (its pusher), and its own requests for
jobs (the farm). Neither implies the other: a network may be cut in one direction.
"""

import itertools
import os
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from distbuild.compiler.identity import Identity
from distbuild.farm.farm import Farm
from distbuild.farm.queue import WORKER_S
from distbuild.farm.workers import RefusedResults, Seen
from distbuild.push.pusher import Pusher, refresh_all
from distbuild.syncer.compilers import Compilers
from distbuild.syncer.worker_check import Checked

#: The TTL of a worker's status, and the time limit for a new one (seconds).
STATUS_AGE_S = 1.0
#: A worker that claims more slots is not believed.
MAX_SLOTS = 10_000
STATUS_WAIT_S = 1.0
#: A worker whose status is outstanding for so long (seconds) is shown as not answering.
SILENT_S = 0.9
#: Fields that only this side may add, and does not always.
_OURS = frozenset(("check", "failing_why", "refused_results", "refused_why"))
#: The compilers that are searched on PATH.
NAMES = ("gcc", "g++", "clang", "clang++")


class WorkerView:
    """A view of a farm's workers; the configured ones, which have a pusher, come first."""

    def __init__(self, farm: Farm, pushers: Iterable[Pusher], compilers: Compilers) -> None:
        self._farm = farm
        self._pushers = pushers
        self._compilers = compilers

    def compilers(self) -> list[dict[str, str]]:
        """The dev box's compilers that a command has called or a check has found."""
        return [
            {"path": shown_path(path), "version": found.version, "identity": found.digest}
            for path, found in self._compilers.seen()
        ]

    def begin_check(self, path: str) -> float:
        """Find the compilers on this PATH and request every worker's status; returns the time
        before that, on the monotonic clock."""
        began = time.monotonic()
        for pusher in self._pushers:
            pusher.refresh(0)
        self._compilers.look_for(NAMES, path)
        return began

    def testable(self) -> dict[str, tuple[str, Identity]]:
        """For each worker that has one of the dev box's compilers, its name and identity."""
        mine = [(path, i) for path, i in self._compilers.seen() if not i.family.speaks_cl]
        found: dict[str, tuple[str, Identity]] = {}
        for name, seen in self._farm.workers().items():
            for path, identity in mine:
                if identity.digest in _identities(seen):
                    found.setdefault(name, (os.path.basename(path), identity))
        return found

    def workers(
        self, checked: Mapping[str, Checked] | None = None, since: float | None = None
    ) -> dict[str, dict[str, Any]]:
        """Each worker's state by its host, or by its label, with the outcome of its test.

        ``since``: a status from before this time (monotonic clock) is requested again.
        """
        age_s = STATUS_AGE_S if since is None else time.monotonic() - since
        refresh_all(self._pushers, age_s, STATUS_WAIT_S)
        heard, refused = self._farm.workers(), self._farm.refused()
        names = {pusher.host: pusher.worker for pusher in self._pushers}
        shown = {p.host: self._configured(p, heard.get(p.worker)) for p in self._pushers}
        configured = set(names.values())
        for name in (name for name in heard if name not in configured):
            label = _unique(heard[name].label, shown)
            names[label] = name
            state = _state_as_seen(heard[name])
            shown[label] = {"state": state, "error": "", **self._as_seen(heard[name])}
        for label, name in names.items():
            if checked is not None and name in checked:
                shown[label]["check"] = msgspec.structs.asdict(checked[name])
            if last := refused.pop(name, None):
                shown[label].update(_refused(last))
        for last in refused.values():  # of workers that are gone
            shown[_unique(last.label, shown)] = {"state": "down", "error": "", **_refused(last)}
        return shown

    def _configured(self, pusher: Pusher, seen: Seen | None) -> dict[str, Any]:
        """A configured worker; its own status comes first, so that it overrides no other field."""
        return {
            **({k: v for k, v in pusher.status.items() if k not in _OURS} if pusher.up else {}),
            "state": _state(pusher, seen),
            "error": pusher.error,
            "answered_s": _rounded(pusher.answered_s()),
            **self._as_seen(seen),
            "mirrored_generation": pusher.generation,
            "pushes": pusher.pushes,
            "left_files": pusher.progress.left_blobs,
            "left_bytes": pusher.progress.left_bytes,
        }

    def _as_seen(self, seen: Seen | None) -> dict[str, Any]:
        """The facts about a worker that its requests for jobs show."""
        if seen is None:
            return {"asked_s": None, "compilers": []}
        identities = _identities(seen)
        mine = self._compilers.seen()
        found = [shown_path(path) for path, i in mine if i.digest in identities]
        failing = {"failing_why": seen.failing} if seen.failing else {}
        return {"asked_s": _rounded(seen.silent_s), "compilers": found, **failing}


def slots_of(pushers: Iterable[Pusher]) -> int:
    """How many compilers the configured workers that are up run at once, by their own account."""
    told = (pusher.status.get("num_cores") for pusher in pushers if pusher.up)
    return sum(slots for slots in told if isinstance(slots, int) and 0 < slots <= MAX_SLOTS)


def shown_path(path: str) -> str:
    """A path for JSON: bytes that are not UTF-8 become replacement characters."""
    return os.fsencode(path).decode("utf-8", "replace")


def _state(pusher: Pusher, seen: Seen | None) -> str:
    if not pusher.up:
        return "down"
    if pusher.silent_s() >= SILENT_S:
        return "not answering"
    store = pusher.status.get("store")
    if isinstance(store, dict) and store.get("is_full"):
        return "full"
    return _state_as_seen(seen)


def _state_as_seen(seen: Seen | None) -> str:
    if seen is None or seen.silent_s > WORKER_S:
        return "not asking for work"
    return "failing" if seen.failing else "up"


def _identities(seen: Seen) -> set[str]:
    return {toolchain.identity for toolchain in seen.toolchains}


def _refused(last: RefusedResults) -> dict[str, Any]:
    return {"refused_results": last.count, "refused_why": last.why}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _unique(label: str, taken: Collection[str]) -> str:
    """The label, with a number appended if it is taken."""
    numbered = (f"{label}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([label], numbered) if name not in taken)
