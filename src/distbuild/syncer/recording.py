"""Records the syncer's commands: those that run now, and each for the history when it ends."""

import itertools
import os
import time
from types import TracebackType
from typing import Any

from distbuild.cache.objects import SHOWN
from distbuild.command import probe
from distbuild.command.diagnostics import plain
from distbuild.farm.executor import Stopwatch
from distbuild.history.builds import JobRecord, Outcome, messages_of
from distbuild.history.store import History, RunningJob
from distbuild.protocol import messages
from distbuild.protocol.names import one_line
from distbuild.syncer.understand import Submission
from distbuild.syncer.worker_status import shown_path

#: The longest name of a build (characters), and the most that is kept of a command line (bytes).
MAX_NAME = 100
MAX_COMMAND = 8_000


class RunningJobs:
    """The commands that run now. ``history`` None: nothing is recorded, and none is known."""

    def __init__(self, history: History | None) -> None:
        self.history = history
        self._numbers = itertools.count(1)
        # Each change is one step of the interpreter, so that it needs no lock.
        self._recordings: dict[int, Recording] = {}

    def add(self, recording: "Recording") -> int:
        """A command has come; returns its number, by which ``remove`` forgets it."""
        number = next(self._numbers)
        self._recordings[number] = recording
        return number

    def remove(self, number: int) -> None:
        """The command has ended."""
        self._recordings.pop(number, None)

    def shown(self) -> dict[int, dict[str, Any]]:
        """The commands as JSON types, by their numbers."""
        running = list(self._recordings.items())
        return {number: shown for number, each in running if (shown := each.shown())}


class Recording:
    """A command from its arrival to its end. A context: if that is left without ``end``, the
    wrapper went away."""

    def __init__(
        self, running: RunningJobs, request: messages.SubmitRequest, submission: Submission
    ) -> None:
        self.submission = submission
        #: The command goes on after the context, until ``end``.
        self.is_left_open = False
        self._running = running
        self._request = request
        self._job: RunningJob | None = None
        if running.history is not None:
            name = submission.env.get(probe.BUILD_NAME, "")
            shown = shown_path(name)[:MAX_NAME] if name else ""
            self._job = running.history.begin(request.session, shown)
            self._number = running.add(self)

    def __enter__(self) -> "Recording":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        if kind is not None or not self.is_left_open:
            self._end(Outcome.CANCELLED, messages.SubmitReply("local"))

    def shown(self) -> dict[str, Any] | None:
        """The command as JSON types; None: it has just ended."""
        job, watch = self._job, self.submission.stopwatch
        if job is None:
            return None
        source, worker, ended = ("", "", "")
        if watch is not None:
            source, worker, ended = watch.source, watch.worker, watch.ended
        return {
            "build": job.build,
            "began": job.began,
            "source": shown_path(source),
            "worker": worker,
            "ended": ended,
            "is_local": self.is_left_open,
        }

    def end(self, reply: messages.SubmitReply) -> None:
        """The command has ended with this reply, or with the local compile that it orders."""
        if reply.outcome != "done":
            outcome = Outcome.LOCAL
        elif reply.exit_code != 0:
            outcome = Outcome.FAILED
        else:
            outcome = Outcome.HIT if reply.worker == SHOWN else Outcome.COMPILED
        self._end(outcome, reply)

    def _end(self, outcome: Outcome, reply: messages.SubmitReply) -> None:
        job, self._job = self._job, None
        history = self._running.history
        if job is None or history is None:
            return
        self._running.remove(self._number)
        watch, request = self.submission.stopwatch or Stopwatch(), self._request
        command = b"\0".join(request.argv)
        record = JobRecord(
            command=command[:MAX_COMMAND],
            cwd=request.cwd,
            source=os.fsencode(watch.source),
            outcome=outcome,
            reason=reply.reason,
            worker=reply.worker,
            exit_code=reply.exit_code,
            began=job.began,
            took_s=max(0.0, time.time() - job.began),
            phases=dict(watch.phases),
            ran_s=watch.ran_s,
            rounds=watch.rounds,
            detail=one_line(shown_path(reply.detail)) if reply.detail else "",
            inputs=watch.inputs,
            missed=watch.missed,
            cpu_s=watch.cpu_s,
            memory_bytes=watch.memory_bytes,
            messages=messages_of(plain(reply.stderr)) if outcome is Outcome.FAILED else b"",
        )
        history.end(job, record)
