"""Sends the open pages of the dashboard what has changed, as server-sent events (WHATWG HTML, 9.2).

A thread composes the events twice a second while jobs come and go. It exists only while a page is
open.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

from distbuild.command.model import LocalReason
from distbuild.http.response import Response
from distbuild.http.site import Later
from distbuild.one_shot import OneShot
from distbuild.syncer.service import Service

log = logging.getLogger(__name__)

#: The shortest interval of events, and of asking the workers for their state (seconds).
PERIOD_S = 0.5
STATUS_S = 2.0
#: After this time without a change (seconds) the workers' state is looked at again.
REST_S = 15.0
#: A stream ends when so many events wait for its page, which then opens another.
MAX_PENDING = 100
#: What a page shows of a worker: facts of the syncer's own, and numbers by the worker's account.
OWN_FACTS = (
    *("state", "error", "compilers", "mirrored_generation", "left_files"),
    *("refused_results", "refused_why"),
)
CLAIMS = ("num_cores", "running", "load", "free_memory_bytes", "clock_off_s")
#: JavaScript has no larger exact integers.
MAX_CLAIM = 2**53
_REMEDIES = {
    LocalReason.NO_WORKER: "start a worker, or see dist_build.exe doctor",
    LocalReason.NO_TOOLCHAIN: "install it on a worker",
    LocalReason.NO_NAMESPACE: "install bubblewrap on the workers",
}
_REMEDY = "see docs/troubleshooting.md"


class _Page(msgspec.Struct, eq=False):
    """An open page, and what it has been sent."""

    bell: OneShot
    pending: deque[bytes] = msgspec.field(default_factory=deque)
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
    running: dict[int, dict[str, Any]] = msgspec.field(default_factory=dict)
    build: int = 0
    row: int = 0
    has_lost: bool = False


class LiveFeed:
    """The streams of a service's dashboard. ``headers``: those of each stream."""

    def __init__(self, service: Service, headers: Mapping[str, str]) -> None:
        self._service = service
        self._headers = {**headers, "Content-Type": "text/event-stream"}
        self._lock = threading.Lock()
        self._pages: set[_Page] = set()
        self._changed = threading.Event()
        self._is_stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._expected = (0, 0)

    def stream(self) -> Later:
        """One page's stream, until the page is closed or takes no more."""
        page = _Page(OneShot())
        self._enter(page)
        try:
            yield Response(self._headers, b"", is_stream=True)
            while not page.has_lost:
                yield page.bell
                page.bell = OneShot()
                while page.pending:
                    yield page.pending.popleft()
        finally:
            self._leave(page)

    def stop(self) -> None:
        """End the thread; returns once it has ended."""
        self._is_stopping.set()
        self._changed.set()
        if (thread := self._thread) is not None:
            thread.join()

    def _enter(self, page: _Page) -> None:
        with self._lock:
            self._pages.add(page)
            if history := self._service.history:
                history.on_change = self._changed.set
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dashboard", daemon=True)
                self._thread.start()
        self._changed.set()

    def _leave(self, page: _Page) -> None:
        with self._lock:
            self._pages.discard(page)
        self._changed.set()

    def _run(self) -> None:
        status: dict[str, Any] = {}
        asked = changed = -STATUS_S
        while True:
            is_fresh = asked > changed
            if self._changed.wait(REST_S if is_fresh else STATUS_S):
                changed = time.monotonic()
            self._changed.clear()
            with self._lock:
                pages = list(self._pages)
                if not pages or self._is_stopping.is_set():
                    if history := self._service.history:
                        history.on_change = None
                    self._thread = None
                    return
            if time.monotonic() - asked >= STATUS_S:
                status, asked = page_status(self._service.status()), time.monotonic()
            running = self._service.running.shown()
            for page in pages:
                self._send(page, status, running)
            self._is_stopping.wait(PERIOD_S)

    def _send(
        self, page: _Page, status: dict[str, Any], running: dict[int, dict[str, Any]]
    ) -> None:
        try:
            page.pending.append(self._event(page, status, running))
            page.has_lost = len(page.pending) > MAX_PENDING
        except Exception:
            log.exception("no event for a page")
            page.has_lost = True
        page.bell.set()

    def _event(
        self, page: _Page, status: dict[str, Any], running: dict[int, dict[str, Any]]
    ) -> bytes:
        """What has changed for a page; a comment if nothing has."""
        build = self._build(running)
        fields: dict[str, Any] = {
            "build": build,
            "status": status,
            "trouble": trouble(build, status),
        }
        event = {key: value for key, value in fields.items() if page.fields.get(key) != value}
        page.fields = fields
        number = build["number"] if build else 0
        if number != page.build:
            page.build, page.row = number, 0
        jobs = history.jobs_after(number, page.row) if (history := self._service.history) else []
        if jobs:
            page.row = jobs[-1]["row"]
            event["jobs"] = jobs
        begun = {key: job for key, job in running.items() if page.running.get(key) != job}
        over = [key for key in page.running if key not in running]
        page.running = running
        event |= {"begun": begun} if begun else {}
        event |= {"over": over} if over else {}
        if not event:
            return b":\n\n"
        event["now"] = time.time()
        return b"data: " + json.dumps(event).encode() + b"\n\n"

    def _build(self, running: Mapping[int, Mapping[str, Any]]) -> dict[str, Any] | None:
        """The latest build, perhaps one of which no command has ended yet, with the number of its
        commands that an earlier build suggests."""
        history = self._service.history
        if history is None:
            return None
        latest = next(iter(history.builds(1)), None)
        number = max((job["build"] for job in running.values()), default=0)
        if latest is None or latest["number"] < number:
            began = [job["began"] for job in running.values() if job["build"] == number]
            latest = None if not began else {**_NEW, "number": number, "began": min(began)}
        if latest is None:
            return None
        if self._expected[0] != latest["number"] and latest["jobs"]:
            self._expected = latest["number"], history.commands_before(latest["number"])
        is_known = self._expected[0] == latest["number"]
        return {**latest, "expected": self._expected[1] if is_known else 0}


_NEW: dict[str, Any] = {
    "name": "",
    "wall_s": 0.0,
    "is_open": True,
    "slots": 0,
    "jobs": 0,
    "outcomes": {},
    "reasons": {},
}


def page_status(status: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the syncer's status that a page shows."""
    workers = {
        host: {key: worker[key] for key in OWN_FACTS if key in worker}
        | {key: worker[key] for key in CLAIMS if _is_number(worker.get(key))}
        for host, worker in status["workers"].items()
    }
    mirror = {key: status["mirror"][key] for key in ("generation", "sent_bytes")}
    parts = {
        key: status[key] for key in ("version", "jobs", "compilers", "local", "received_bytes")
    }
    return {**parts, "mirror": mirror, "workers": workers}


def _is_number(claim: object) -> bool:
    """Whether a worker's claim is a number that JSON and JavaScript know: finite, and not large."""
    return isinstance(claim, int | float) and -MAX_CLAIM < claim < MAX_CLAIM


def trouble(build: Mapping[str, Any] | None, status: Mapping[str, Any]) -> str:
    """One sentence on what is wrong now, with the remedy; "": nothing is known to be."""
    workers = status["workers"]
    if not workers:
        return "There is no worker: dist_build.exe setup --invite prints how to add one."
    counts = build["reasons"] if build else {}  # perhaps with one that only a newer syncer knows
    failed = [(counts[r], r) for r in LocalReason if r in counts and not r.by_design]
    if failed:
        count, reason = max(failed)
        jobs = "1 job was" if count == 1 else f"{count} jobs were"
        meaning = reason.meaning.partition(";")[0]
        if reason is LocalReason.NO_TOOLCHAIN and (lacking := _lacking(status)):
            meaning = f"no worker has {lacking}"
        return f"{jobs} local: {meaning}; {_REMEDIES.get(reason, _REMEDY)}."
    away = {host: worker for host, worker in workers.items() if worker["state"] != "up"}
    if away:
        host, worker = next(iter(away.items()))
        why = f" ({worker['error']})" if worker.get("error") else ""
        more = f", and {len(away) - 1} more" if len(away) > 1 else ""
        return f"Worker {host} is {worker['state']}{why}{more}; see dist_build.exe doctor."
    return ""


def _lacking(status: Mapping[str, Any]) -> str:
    """The versions of the dev box's compilers that no worker has."""
    up = [worker for worker in status["workers"].values() if worker["state"] == "up"]
    present = {path for worker in up for path in worker.get("compilers", ())}
    versions = (each["version"] for each in status["compilers"] if each["path"] not in present)
    return ", ".join(dict.fromkeys(versions))
