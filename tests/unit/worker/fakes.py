"""A syncer and a compiler run without network and processes. Same signatures as the real ones."""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import psutil

from distbuild.protocol.codec import bundle
from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.messages import (
    BlobBatch,
    BlobRequest,
    Changes,
    Job,
    LeaseReply,
    LeaseRequest,
    PullRequest,
    RenewReply,
    RenewRequest,
    ResultBatch,
    ResultRequest,
    ResultsReply,
    Terminal,
)
from distbuild.worker.clock_check import Clock
from distbuild.worker.job import Steps
from distbuild.worker.process.here import TIMEOUT_S, Cancellation, Completed, Watcher, start
from distbuild.worker.tree.tree import Tree

WAIT_S = 60.0


def run(
    argv: Sequence[bytes],
    cwd: bytes | str,
    env: Mapping[bytes, bytes],
    cancellation: Cancellation,
    timeout_s: float = TIMEOUT_S,
    terminal: Terminal | None = None,
) -> Completed:
    """A program from its start to its end."""
    watcher, ended = Watcher(look_s=0.05), queue.Queue[str]()
    try:
        running = start(argv, cwd, env, terminal)
        watcher.watch(running, cancellation, ended.put, timeout_s)
        return running.finish(ended.get())
    finally:
        watcher.close()


def ends(pid: int) -> bool:
    """Whether a process that was sent SIGKILL ends; it may stay a zombie that init has to reap."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.002)
    return False


def finished(steps: Steps, cancellation: Cancellation) -> ResultRequest | None:
    """A job's result; see JobRunner.run."""
    watcher, ended = Watcher(), queue.Queue[str]()
    try:
        compiler = next(steps)
        while True:
            watcher.watch(compiler, cancellation, ended.put)
            compiler = steps.send(ended.get())
    except StopIteration as end:
        result = end.value
        assert result is None or isinstance(result, ResultRequest)
        return result
    finally:
        watcher.close()


class FakeSyncer:
    """Answers from queues; records what it was asked."""

    def __init__(self, url: str = "https://syncer:1", client: str = "dev") -> None:
        self.url = url
        self.client = client
        self.epoch = "e"
        self.asked: list[LeaseRequest] = []
        self.pulled: list[PullRequest] = []
        self.delivered: queue.Queue[ResultRequest] = queue.Queue()
        #: The leases of each batch of results that has come.
        self.batches: list[list[str]] = []
        self.refused: set[str] = set()
        self.answering = threading.Event()
        self.answering.set()
        self.listing: Changes | None = None
        self.contents: dict[bytes, bytes] = {}
        #: Gives one job more than was asked for.
        self.greedy = False
        self.renewed: list[set[str]] = []
        self.down = threading.Event()
        self._jobs: list[Job] = []
        self._ended: list[str] = []
        self._changed = threading.Condition()
        self._closed = False
        self.changes: Changes | None = None
        self.clock = 0.0

    def add(self, *jobs: Job) -> None:
        """Have jobs to lease."""
        with self._changed:
            self._jobs.extend(jobs)
            self._changed.notify_all()

    def end(self, lease_id: str) -> None:
        """Say at the next renewal that this lease has ended."""
        with self._changed:
            self._ended.append(lease_id)
            self._changed.notify_all()

    def close(self) -> None:
        """Answer all that waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_asked(self, is_it: Callable[[LeaseRequest], bool]) -> LeaseRequest:
        """Wait until a lease request of this kind has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(map(is_it, self.asked)), WAIT_S)
            return next(filter(is_it, self.asked))

    def wait_renewed(self, leases: set[str]) -> None:
        """Wait until just these leases have been renewed."""
        with self._changed:
            self.renewed.clear()
            assert self._changed.wait_for(lambda: leases in self.renewed, WAIT_S), self.renewed

    def wait_batches(self, count: int) -> list[list[str]]:
        """Wait until so many batches of results have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.batches) >= count, WAIT_S)
            return list(self.batches)

    def lease(self, request: LeaseRequest) -> LeaseReply:
        with self._changed:
            self.asked.append(request)
            self._changed.notify_all()
            if self.down.is_set():
                raise InfrastructureError("syncer down")
            if not request.toolchains:
                self._closed = True
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._jobs or self._closed, request.wait_s)
            count = request.slots + request.ahead + self.greedy
            given, self._jobs = self._jobs[:count], self._jobs[count:]
            changes = self.changes if given else None
            return LeaseReply(self.client, self.epoch, given, changes, self.clock)

    def renew(self, request: RenewRequest) -> RenewReply:
        with self._changed:
            self.renewed.append(set(request.leases))
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._closed or set(self._ended) & set(request.leases), request.wait_s
            )
            return RenewReply([lease for lease in request.leases if lease in self._ended])

    def results(self, batch: ResultBatch) -> ResultsReply:
        if self.down.is_set():
            raise InfrastructureError("syncer down")
        with self._changed:
            self.batches.append([result.lease_id for result in batch.results])
            self._changed.notify_all()
        self.answering.wait(WAIT_S)
        if any(result.lease_id in self.refused for result in batch.results):
            raise ProtocolError("a malformed result")
        for result in batch.results:
            self.delivered.put(result)
        return ResultsReply([True] * len(batch.results))

    def pull(self, request: PullRequest) -> Changes:
        self.pulled.append(request)
        if self.listing is None:
            raise InfrastructureError("nothing to pull")
        return self.listing

    def blobs(self, request: BlobRequest) -> BlobBatch:
        found = [d for d in request.digests if d in self.contents][:1]
        return BlobBatch([bundle({d: self.contents[d]}) for d in found])


class FakeRunner:
    """Runs until released, or until cancelled."""

    def __init__(self) -> None:
        self.running: queue.Queue[str] = queue.Queue()
        self.release = threading.Event()
        self.generations: list[int] = []
        self.clocks: list[Clock | None] = []

    def run(
        self, job: Job, tree: Tree, cancellation: Cancellation, clock: Clock | None = None
    ) -> Steps:
        yield from ()
        self.clocks.append(clock)
        self.generations.append(tree.generation)
        self.running.put(job.lease_id)
        import select

        while not self.release.is_set():
            if select.select([cancellation], [], [], 0.01)[0]:
                return None
        return ResultRequest(job.lease_id, "w", exit_code=0)

    def failed(self, job: Job, error: str) -> ResultRequest:
        return ResultRequest(job.lease_id, "w", error=error)


class TwiceRunner(FakeRunner):
    """Runs a program that fails, and then in the same slot another one that does not."""

    def __init__(self, first: bytes = b"/bin/false") -> None:
        super().__init__()
        self._first = first
        self.started: list[tuple[str, int]] = []

    def run(
        self, job: Job, tree: Tree, cancellation: Cancellation, clock: Clock | None = None
    ) -> Steps:
        for number, program in enumerate((self._first, b"/bin/true")):
            compiler = start([program], b"/", {})
            compiler.is_tentative = number == 0
            self.started.append((job.lease_id, number))
            compiler.finish((yield compiler))
        return ResultRequest(job.lease_id, "w", exit_code=0)


class FakeCompilers:
    """Advertises one compiler."""

    def advertised(self):
        from distbuild.protocol.messages import Toolchain

        return [Toolchain("id", "gcc")]
