"""What ``status`` and ``doctor`` show of each worker. Decides nothing and changes nothing.

A worker is seen from two sides: what it answers when it is asked (its pusher), and that it asks for
jobs (the farm). Neither says the other: a network may be cut in one direction.
"""

import itertools
import os
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from distbuild.compiler.identity import Identity
from distbuild.farm.farm import Farm, Seen
from distbuild.farm.queue import WORKER_S
from distbuild.farm.results import RefusedResults
from distbuild.push.pusher import Pusher, refresh_all
from distbuild.syncer.compilers import Compilers
from distbuild.syncer.worker_check import Checked

#: A worker's status is shown when it is no older; for a new one is waited so long (seconds).
STATUS_AGE_S = 1.0
STATUS_WAIT_S = 1.0
#: A worker that owes its status for so long is shown as not answering.
SILENT_S = 0.9
#: The compilers that are looked for on PATH.
NAMES = ("gcc", "g++", "clang", "clang++")


class WorkerView:
    """The workers of a farm, those that ``pushers`` know first."""

    def __init__(self, farm: Farm, pushers: Sequence[Pusher], compilers: Compilers) -> None:
        self._farm = farm
        self._pushers = pushers
        self._compilers = compilers

    def compilers(self) -> list[dict[str, str]]:
        """The dev box's compilers that a command has called, or that a check has found."""
        return [
            {"path": shown_path(path), "version": found.version, "identity": found.digest}
            for path, found in self._compilers.seen()
        ]

    def begin_check(self, path: str) -> float:
        """Find the compilers on this PATH, and have every worker asked how it is; returns when that
        was, on the monotonic clock."""
        began = time.monotonic()
        for pusher in self._pushers:
            pusher.refresh(0)
        self._compilers.look_for(NAMES, path)
        return began

    def testable(self) -> dict[str, tuple[str, Identity]]:
        """For each worker that has one, a compiler of the dev box: its name and identity."""
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
        """Each worker by its host, or by its label; with what its test came to.

        ``since``: what it said of itself before (on the monotonic clock) is too old.
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
            state = "up" if _asks(heard[name]) else "not asking for work"
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
        """A worker that the configuration names; its own words come first and decide nothing."""
        return {
            **(pusher.status if pusher.up else {}),
            "state": _state(pusher, seen),
            "error": pusher.error,
            "answered_s": _rounded(pusher.answered_s()),
            **self._as_seen(seen),
            "mirrored_generation": pusher.generation,
            "pushes": pusher.pushes,
            "left_files": pusher.left_blobs,
            "left_bytes": pusher.left_bytes,
        }

    def _as_seen(self, seen: Seen | None) -> dict[str, Any]:
        """What its requests for jobs tell of a worker."""
        if seen is None:
            return {"asked_s": None, "compilers": []}
        identities = _identities(seen)
        mine = self._compilers.seen()
        found = [shown_path(path) for path, i in mine if i.digest in identities]
        return {"asked_s": _rounded(seen.silent_s), "compilers": found}


def shown_path(path: str) -> str:
    """A path for JSON: what is no UTF-8 in it becomes a replacement character."""
    return os.fsencode(path).decode("utf-8", "replace")


def _state(pusher: Pusher, seen: Seen | None) -> str:
    if not pusher.up:
        return "down"
    if pusher.silent_s() >= SILENT_S:
        return "not answering"
    store = pusher.status.get("store")
    if isinstance(store, dict) and store.get("is_full"):
        return "full"
    return "up" if _asks(seen) else "not asking for work"


def _asks(seen: Seen | None) -> bool:
    return seen is not None and seen.silent_s <= WORKER_S


def _identities(seen: Seen) -> set[str]:
    return {toolchain.identity for toolchain in seen.toolchains}


def _refused(last: RefusedResults) -> dict[str, Any]:
    return {"refused_results": last.count, "refused_why": last.why}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _unique(label: str, taken: Collection[str]) -> str:
    """A label with a number where others have the same."""
    numbered = (f"{label}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([label], numbered) if name not in taken)
