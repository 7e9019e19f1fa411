"""The syncer's operations, called by its HTTP routes: a facade of farm, mirror and pushers.

Knows no HTTP.
"""

import logging
import os
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from typing import Any

import msgspec

from distbuild import __version__
from distbuild.command.model import Local, LocalReason
from distbuild.farm.executor import Stopwatch, Task
from distbuild.farm.farm import Farm
from distbuild.history.store import Durations, History
from distbuild.mirror.live import Mirroring
from distbuild.one_shot import OneShot
from distbuild.protocol import messages
from distbuild.protocol.codec import decoded, encoded
from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.names import client_label, identity_of
from distbuild.push.bundles import BlobSource
from distbuild.push.pusher import Pusher
from distbuild.syncer.compile import Compiles
from distbuild.syncer.compilers import Compilers
from distbuild.syncer.local_callers import Caller, LocalCallers, WrapperOrders
from distbuild.syncer.membership import Membership
from distbuild.syncer.recording import Recording, RunningJobs
from distbuild.syncer.understand import Submission
from distbuild.syncer.worker_check import check_workers
from distbuild.syncer.worker_status import WorkerView, shown_path, slots_of

log = logging.getLogger(__name__)

#: A lease reply carries up to this many changes that the worker's tree lacks; more are pulled.
MAX_CHANGES_WITH_LEASE = 2000
PROGRESS_S = 0.2
#: The builds in a list of them.
MAX_BUILDS = 50


class Parts(msgspec.Struct, frozen=True):
    """The parts of a running syncer."""

    client_id: str
    #: The syncer's state directory, an absolute path.
    state: str
    farm: Farm
    mirroring: Mirroring
    source: BlobSource
    compiles: Compiles
    compilers: Compilers
    pushers: Iterable[Pusher]
    here: LocalCallers
    membership: Membership
    history: History | None = None


class Service:
    """The syncer's operations. ``clock`` gives Unix time."""

    def __init__(self, parts: Parts, clock: Callable[[], float] = time.time) -> None:
        self._parts = parts
        self._clock = clock
        self._started = time.monotonic()
        self._lives: dict[str, str] = {}
        self._view = WorkerView(parts.farm, parts.pushers, parts.compilers)
        self.compiles = parts.compiles
        self.membership = parts.membership
        self.running = RunningJobs(parts.history)
        self._received_bytes = 0  # without a lock: a display may miss some

    # --- for the wrapper ------------------------------------------------------------------------

    def submit(
        self, request: messages.SubmitRequest
    ) -> Generator[OneShot, None, messages.SubmitReply]:
        """Compile for a wrapper that writes the outputs itself; see ``Compiles.compile``."""
        if request.place and not self._parts.here.sees_our_files(request.place):
            return self.compiles.locally(Local(LocalReason.OTHER_FILES))
        with self._recorded(request) as recording:
            reply = yield from self.compiles.compile(recording.submission)
            recording.end(reply)
        return msgspec.structs.replace(reply, detail=shown_path(reply.detail))

    def run(self, request: messages.SubmitRequest) -> Generator[OneShot, None, WrapperOrders]:
        """Compile for a wrapper of this machine; see ``LocalCallers.run``."""
        caller = Caller(request.umask & 0o777, request.group, request.place, request.places_outputs)
        with self._recorded(request) as recording:
            orders = yield from self._parts.here.run(recording.submission, caller)
            if not orders.holds_slot:
                recording.end(orders.reply)
                return orders
            recording.is_left_open = True
        return msgspec.structs.replace(orders, ended=lambda: recording.end(orders.reply))

    def _recorded(self, request: messages.SubmitRequest) -> Recording:
        return Recording(self.running, request, _submission(request))

    @property
    def history(self) -> History | None:
        """The history of builds; None: nothing is recorded."""
        return self._parts.history

    def builds(self) -> list[dict[str, Any]]:
        """The last builds, the latest first, without their jobs."""
        history = self._parts.history
        return [] if history is None else history.builds(MAX_BUILDS)

    def build(self, number: int) -> dict[str, Any] | None:
        """One build with its jobs; 0: the latest. None: there is no such build."""
        history = self._parts.history
        return None if history is None else history.build(number)

    def release(self) -> None:
        """Release the local slot that a wrapper's orders hold."""
        self._parts.here.slots.release()

    def explain(self, request: messages.SubmitRequest) -> messages.ExplainReply:
        """Whether a command would be distributed, and why not."""
        submission = _submission(request)
        local = self.compiles.explain(submission)
        if isinstance(local, Local):
            return messages.ExplainReply(str(local.reason), shown_path(local.detail))
        return messages.ExplainReply(cache=shown_path(self.compiles.explain_cache(submission)))

    def install(self) -> Iterator[dict[str, Any]]:
        """Push the mirror's present state to every worker; yields the progress until all that are
        up have it."""
        target = self._parts.mirroring.settle()
        counts = self._parts.mirroring.manifest.counts()
        before = {
            p.host: (p.progress.sent_blobs, p.progress.sent_bytes) for p in self._parts.pushers
        }
        for pusher in self._parts.pushers:
            pusher.notify()
        while True:
            hosts = [self._progress(p, target, *before[p.host]) for p in self._parts.pushers]
            yield {"files": counts.files, "bytes": counts.size, "workers": hosts}
            pushers = (p for p in self._parts.pushers if p.up and not p.error)
            pending = [pusher for pusher in pushers if pusher.generation < target]
            if not pending:
                return
            pending[0].wait_for(target, PROGRESS_S)

    @staticmethod
    def _progress(pusher: Pusher, target: int, blobs: int, size: int) -> dict[str, Any]:
        """A worker's progress; ``blobs`` and ``size`` (bytes): totals sent before it began."""
        return {
            "worker": pusher.host,
            "done": pusher.up and not pusher.error and pusher.generation >= target,
            "sent_files": pusher.progress.sent_blobs - blobs,
            "sent_bytes": pusher.progress.sent_bytes - size,
            "left_files": pusher.progress.left_blobs,
            "left_bytes": pusher.progress.left_bytes,
            "error": pusher.error,
        }

    def check(self) -> dict[str, Any]:
        """Test every worker, for ``doctor``; returns the document with the result of each. Takes
        some seconds at most."""
        view, farm = self._view, self._parts.farm
        began = view.begin_check(os.environ.get("PATH", os.defpath))
        return {
            "version": __version__,
            "uptime_s": self._uptime_s(),
            "compilers": view.compilers(),
            "workers": view.workers(check_workers(farm, view.testable(), self._parts.state), began),
        }

    def clean(self) -> dict[str, str]:
        """Remove this client's sandbox from every worker; per host "" or the error."""
        outcome = {}
        for pusher in self._parts.pushers:
            try:
                pusher.clean()
                outcome[pusher.host] = ""
            except InfrastructureError as error:
                outcome[pusher.host] = str(error)
        return outcome

    # --- for workers ----------------------------------------------------------------------------

    def lease(
        self, request: messages.LeaseRequest
    ) -> Generator[OneShot, None, messages.LeaseReply]:
        """Lease jobs to a worker, with the changes that its tree lacks; a long poll."""
        if self._lives.get(request.worker) != request.life:
            known = self._parts.farm.workers()
            self._lives = {n: life for n, life in list(self._lives.items()) if n in known}
            self._lives[request.worker] = request.life
            for pusher in self._pushers_of(request.worker) or self._may_be(request.worker, known):
                pusher.refresh(0)  # the worker was restarted
        try:
            given = yield from self._parts.farm.lease(request)
        except GeneratorExit:
            self._vanished(request.worker)
            raise
        jobs = [self._job(lease, task) for lease, task in given]
        changes = None
        if any(task.generation > request.generation for _, task in given):
            changes = self.pull(messages.PullRequest(request.epoch, request.generation))
            if changes.base == 0 or len(changes.entries or ()) > MAX_CHANGES_WITH_LEASE:
                changes = None
        return messages.LeaseReply(
            self._parts.client_id, self._parts.mirroring.epoch, jobs, changes, self._clock()
        )

    @staticmethod
    def _job(lease: str, task: Task) -> messages.Job:
        command = task.command
        # All at once: each call costs as much as encoding some words.
        count, words = len(task.env), command.argv()
        implicit = task.implicit_include or ""
        cwd, included, *values = encoded([command.cwd, implicit, *task.env.values(), *words])
        return messages.Job(
            lease_id=lease,
            generation=task.generation,
            argv=values[count:],
            cwd=cwd,
            env=dict(zip(task.env, values[:count], strict=True)),
            toolchain=task.toolchain,
            files=list(task.files),
            output_dirs=encoded(task.output_dirs),
            builtin_dirs=encoded(task.builtin_dirs),
            implicit_include=included,
            processor=list(task.processor),
            terminal=task.terminal,
        )

    def pull(self, request: messages.PullRequest) -> messages.Changes:
        """The changes that a worker's tree lacks."""
        mirroring = self._parts.mirroring
        client = self._parts.client_id
        if request.summary and request.summary == mirroring.manifest.summary():
            return mirroring.changes(client, "", 0, offer=True)
        return mirroring.changes(client, request.epoch, request.have)

    def blobs(self, request: messages.BlobRequest) -> messages.BlobBatch:
        """The first batch of the blobs that a worker requests; it requests the rest again."""
        batch = next(self._parts.source.batches(request.digests), [])
        if not batch:
            # The files have changed since they were offered: recheck them, so that the next changes
            # that the worker gets are right.
            paths_of = self._parts.mirroring.manifest.paths_of
            self._parts.mirroring.recheck(p for d in request.digests for p in paths_of(d))
        return messages.BlobBatch(batch)

    def renew(
        self, request: messages.RenewRequest
    ) -> Generator[OneShot, None, messages.RenewReply]:
        """Extend a worker's leases; a long poll."""
        try:
            return messages.RenewReply((yield from self._parts.farm.renew(request)))
        except GeneratorExit:
            self._vanished(request.worker)
            raise

    def _vanished(self, worker: str) -> None:
        """The worker dropped its request, so that it may be dead: probe its port."""
        for pusher in self._pushers_of(worker):
            pusher.doubt()

    def _pushers_of(self, worker: str) -> list[Pusher]:
        return [p for p in self._parts.pushers if p.worker == worker]

    def _may_be(self, worker: str, known: Collection[str]) -> list[Pusher]:
        """Pushers whose host may be a worker that was unknown so far."""
        same = identity_of(worker)
        return [
            p for p in self._parts.pushers if p.worker not in known or same == identity_of(p.worker)
        ]

    def deliver(self, result: msgspec.Raw, notify: Callable[[OneShot], None] = OneShot.set) -> bool:
        """Decode and accept a worker's result; False: it was dropped. See ``Farm.deliver``."""
        self._received_bytes += len(memoryview(result))
        try:
            return self._parts.farm.deliver(messages.decode(result, messages.ResultRequest), notify)
        except ProtocolError as error:
            # The job is retried on another worker if its lease can be decoded. If not, ``decode``
            # raises and the lease expires.
            claim = messages.decode(result, messages.Claim)
            self._parts.farm.refuse(claim, str(error))
            return False

    def _uptime_s(self) -> float:
        return round(time.monotonic() - self._started, 1)

    # --- for all clients ------------------------------------------------------------------------

    def measured(self) -> tuple[dict[str, Any], int, Durations]:
        """What metrics are made of: the status, the slots of all workers, and the durations of
        ``History.durations``."""
        history = self._parts.history
        durations = {} if history is None else history.durations()
        return self.status(), slots_of(self._parts.pushers), durations

    def status(self) -> dict[str, Any]:
        """The document served as ``/status``."""
        mirroring = self._parts.mirroring
        counts = mirroring.manifest.counts()
        jobs: dict[str, Any] = self._parts.farm.counts()
        jobs["retried"] += self.compiles.repeated
        jobs["done"], jobs["failed"] = self.compiles.done, self.compiles.failed
        jobs["local"] = dict(sorted(self.compiles.local.items()))
        return {
            "version": __version__,
            "uptime_s": self._uptime_s(),
            "client": client_label(self._parts.client_id),
            "jobs": jobs,
            "local": self._parts.here.slots.counts(),
            "cache": self.compiles.cached(),
            "compilers": self._view.compilers(),
            "mirror": {
                "generation": mirroring.manifest.generation,
                "files": counts.files,
                "bytes": counts.size,
                "roots": [shown_path(root.path) for root in mirroring.roots],
                "partly": [shown_path(path) for path in mirroring.roots.shallow()],
                "polled": [shown_path(root.path) for root in mirroring.roots if root.polled],
                **mirroring.effort(),
                "sent_entries": sum(p.sent_entries for p in self._parts.pushers),
                "sent_blobs": self._parts.source.sent,
                "sent_bytes": self._parts.source.sent_bytes,
            },
            "received_bytes": self._received_bytes,
            "workers": self._view.workers(),
        }


def _submission(request: messages.SubmitRequest) -> Submission:
    cwd, *words = decoded([request.cwd, *request.argv, *request.env.values()])
    count = len(request.argv)
    env = dict(zip(request.env, words[count:], strict=True))
    return Submission(
        tuple(words[:count]), cwd, env, request.terminal, Stopwatch(), is_timed=request.timed
    )
