"""A farm in a simulated world: the syncer's and the workers' own code, over a network that loses
messages, on machines that die, freeze and are cut off. Compilers only take their time.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

from distbuild import one_shot
from distbuild.command.model import Local
from distbuild.farm import farm as farm_module
from distbuild.farm import long_polls, queue
from distbuild.farm.executor import Task
from distbuild.farm.farm import Farm
from distbuild.farm.jobs import FarmLimits
from distbuild.one_shot import OneShot
from distbuild.protocol.errors import DistBuildError, InfrastructureError
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
    Toolchain,
)
from distbuild.worker import agent, client, leases, results, slots
from distbuild.worker.agent import Agent, Workshop
from distbuild.worker.slots import Pace, Slots, Tally
from tests.simulation.world import Event, Host, Pool, World, installed
from tests.support.tasks import failed, task

MODULES = (one_shot, farm_module, long_polls, agent, client, leases, results, slots)
CLIENT, EPOCH = "dev", "e"
#: When TCP gives up on a connection of which nothing is heard (seconds); see http.server.
DEAD_S = 3.0
#: How long a worker may go on with a job whose lease has ended, when the network is in order: the
#: longest poll of a renewal, or a pause after a failed one.
CANCELLED_S = 8.0
#: How long a job may wait while a worker that could take it has a free slot and is in order: the
#: longest pause of an agent after failures, and a request's way.
IDLE_S = 8.0
#: How long a dead worker may have jobs: a lease and a tick.
LOST_S = queue.LEASE_S + FarmLimits().rest_s + 1.0
#: How long after the last loss a worker is in order again: the longest time-out of a request.
SETTLED_S = client.ANSWER_TIMEOUT_S + 10.0
#: How long a run may take after its troubles.
ANSWERED_S = 6_000.0

T = TypeVar("T")


class Broken(BaseException):
    """What must never be has happened. No ``except Exception`` of the code's own catches it."""


class Network:
    """Between each worker and the syncer. ``cut``: nothing gets through, and nobody is told."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.loss = 0.0
        self.is_cut: dict[Host, bool] = defaultdict(bool)
        #: The last time at which something was lost, by worker.
        self.lost_at: dict[Host, float] = defaultdict(float)

    def delay(self) -> float:
        return self._world.chance.choice((0.0001, 0.001, 0.02, 0.2))

    def loses(self, host: Host) -> bool:
        """Whether a message to or from this worker is lost now."""
        lost = self.is_cut[host] or self._world.chance.random() < self.loss
        if lost:
            self.lost_at[host] = self._world.now
        return lost


class Call:
    """A request on its way, and the connection on which it is."""

    def __init__(self, world: World) -> None:
        self.done = Event(world)
        self.reply: Any = None
        self.is_closed = False
        self.on_close: list[Callable[[], object]] = []

    def close(self) -> None:
        self.is_closed = True
        for act in self.on_close:
            act()


class Compiler:
    """What a worker's slot runs: nothing for some time."""

    is_tentative = False

    def __init__(self, lease: str, seconds: float) -> None:
        self.lease, self.seconds = lease, seconds

    def has_failed(self) -> bool:
        return True


class Cancellation:
    """Stands for the worker's own, which has a pipe."""

    def __init__(self) -> None:
        self._is_set = False
        self.heard: list[Callable[[], object]] = []

    def set(self) -> None:
        self._is_set = True
        for act in self.heard:
            act()

    def is_set(self) -> bool:
        return self._is_set

    def close(self) -> None:
        pass


class SimulatedWorker:
    """One process of a worker: an agent with its slots, and what stands for disk and compilers."""

    def __init__(self, model: "SimulatedFarm", name: str, cores: int, ahead: int) -> None:
        self.model, self.name, self.cores = model, name, cores
        self.host = Host(name)
        self.running: dict[str, str] = {}
        self.seconds_idle = 0.0
        self.died_at = math.inf
        self.stop: Any = None
        self.shop: Any = None
        self.agent: Any = None
        self.is_leaving = False
        self.trees, self.store = model.tree_and_store(self)
        model.world.spawn(self.host, lambda: self._start(cores, ahead), "main")

    def _start(self, cores: int, ahead: int) -> None:
        world = self.model.world
        self.stop = Event(world)
        self.shop = Workshop(
            name=self.name,
            label=self.name,
            port=0,
            trees=self.trees,
            store=self.store,
            compilers=Compilers(),  # type: ignore[arg-type]
            runner=self,  # type: ignore[arg-type]
            namespaces=True,
            slots=Slots(cores, ahead),
            tally=Tally(lambda: world.now),
            starters=Pool(world, 2),  # type: ignore[arg-type]
            watcher=self,  # type: ignore[arg-type]
            finishers=Pool(world, 2),  # type: ignore[arg-type]
        )
        self.agent = Agent(Link(self.model, self.host), self.shop, self.stop, alone=True)
        self.agent.start()

    def leave(self) -> None:
        """SIGTERM: as worker.main does it."""
        if self.agent is None or self.is_leaving:
            return
        self.is_leaving = True

        def run() -> None:
            self.stop.set()
            self.agent.leave(20.0)
            self.shop.slots.close()
            self.shop.slots.wait_unused()
            self.agent.finish(20.0)
            self.host.is_alive = False

        self.model.world.spawn(self.host, run, "leave")

    # The runner and the watcher of this worker.

    def run(
        self, job: Job, tree: object, cancellation: Cancellation, clock: object
    ) -> Generator[Compiler, str, ResultRequest | None]:
        model, name = self.model, job.implicit_include.decode()
        model.begins(self, job.lease_id, name)
        reading = model.reads(self, job, tree)
        if (yield Compiler(job.lease_id, model.compile_time())):
            return None
        reading()
        if model.world.chance.random() < model.failing:
            return self.failed(job, "it failed here")
        return failed(job.lease_id, self.name, stdout=job.implicit_include)

    def failed(self, job: Job, error: str) -> ResultRequest:
        return ResultRequest(job.lease_id, self.name, error=error)

    def watch(
        self, compiler: Compiler, cancellation: Cancellation, ended: Callable[[str], object]
    ) -> None:
        world, over = self.model.world, [False]

        def end(how: str) -> None:
            if not over[0]:
                over[0] = True
                self.running.pop(compiler.lease, None)
                world.spawn(self.host, lambda: ended(how), "watcher")

        cancellation.heard.append(lambda: end("cancelled"))
        if cancellation.is_set():
            end("cancelled")
        world.after(compiler.seconds, lambda: end(""))


class Trees:
    """The trees of a worker without a mirror: always up to date."""

    def tree_for(self, url: str, client_id: str) -> "Trees":
        return self

    def position(self) -> tuple[str, int, bytes]:
        return EPOCH, 1, b""

    def heal(self) -> None:
        pass


class Store:
    """A disk with room."""

    def is_full(self) -> bool:
        return False


class Compilers:
    """One compiler."""

    def advertised(self) -> list[Toolchain]:
        return [Toolchain("gcc", "gcc")]


class Link:
    """A worker's requests: each takes its time, and it or its answer may be lost."""

    def __init__(self, model: "SimulatedFarm", host: Host) -> None:
        self._model, self._host = model, host
        self.url = "https://syncer"

    def lease(self, request: LeaseRequest) -> LeaseReply:
        def answer() -> Generator[OneShot, None, LeaseReply]:
            given = yield from self._model.farm.lease(request)
            jobs = [self._model.given(lease, one, request.worker) for lease, one in given]
            return LeaseReply(CLIENT, EPOCH, jobs, self._model.changes_for(request, jobs))

        timeout_s = client.ANSWER_TIMEOUT_S if request.toolchains else client.FAREWELL_TIMEOUT_S
        return self._model.send(answer, request.wait_s + timeout_s, self._host)

    def renew(self, request: RenewRequest) -> RenewReply:
        def answer() -> Generator[OneShot, None, RenewReply]:
            return RenewReply((yield from self._model.farm.renew(request)))

        return self._model.send(answer, request.wait_s + client.ANSWER_TIMEOUT_S, self._host)

    def results(self, batch: ResultBatch) -> ResultsReply:
        def answer() -> Generator[OneShot, None, ResultsReply]:
            yield from ()
            return ResultsReply([self._model.deliver(result) for result in batch.results])

        return self._model.send(answer, client.ANSWER_TIMEOUT_S, self._host)

    def pull(self, request: PullRequest) -> Changes:
        def answer() -> Generator[OneShot, None, Changes]:
            yield from ()
            return self._model.pull(request)

        return self._model.send(answer, client.ANSWER_TIMEOUT_S, self._host)

    def blobs(self, request: BlobRequest) -> BlobBatch:
        def answer() -> Generator[OneShot, None, BlobBatch]:
            yield from ()
            return self._model.blobs(request)

        return self._model.send(answer, client.ANSWER_TIMEOUT_S, self._host)


class SimulatedFarm:
    """The syncer's farm, its workers, and what is known of each job from outside."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.network = Network(world)
        self.syncer = Host("syncer")
        self.farm: Any = None
        self.workers: list[SimulatedWorker] = []
        self.connections: dict[Host, list[Call]] = defaultdict(list)
        self.failing = 0.0
        self.longest_s = 5.0
        self.answers: Counter[str] = Counter()
        self.open: set[str] = set()
        #: By job: its leases, oldest first.
        self.leased: dict[str, list[str]] = defaultdict(list)
        self.local: Counter[str] = Counter()
        #: When a lease was first seen to have ended although its job still runs.
        self._ended_at: dict[str, float] = {}
        self._names = itertools.count(1)
        world.spawn(self.syncer, self._start, "main")

    def _start(self) -> None:
        limits = FarmLimits(grace_s=5.0)
        self.farm = Farm(
            expected=True, now=lambda: self.world.now, job_timeout_s=120.0, limits=limits
        )

    def add_worker(self, cores: int, ahead: int) -> None:
        self.workers.append(SimulatedWorker(self, f"w{next(self._names)}", cores, ahead))

    def tree_and_store(self, worker: SimulatedWorker) -> tuple[Any, Any]:
        """What a worker has of the mirror: here nothing."""
        return Trees(), Store()

    def reads(self, worker: SimulatedWorker, job: Job, tree: Any) -> Callable[[], object]:
        """A compiler begins to read the tree; what is returned is called when it has ended."""
        return lambda: None

    def prepared(self, name: str) -> Task:
        """The task of a compile that is submitted now."""
        return task(name)

    def alive(self) -> list[SimulatedWorker]:
        return [worker for worker in self.workers if worker.host.is_alive]

    def compile_time(self) -> float:
        return self.world.chance.choice((0.01, 0.1, 1.0, self.longest_s))

    # --- the wrappers ---------------------------------------------------------------------------

    def submit(self, gives_up_s: float | None = None) -> None:
        """Compile a file; the wrapper may die after some time."""
        name = f"{next(self._names)}.c"
        self.open.add(name)
        self.world.spawn(self.syncer, lambda: self._compile(name, gives_up_s), name)

    def _compile(self, name: str, gives_up_s: float | None) -> None:
        ends = None if gives_up_s is None else self.world.now + gives_up_s
        running = self.farm.execute(self.prepared(name))
        try:
            while True:
                event = next(running)
                if not self._wait(event, ends):
                    running.close()
                    break
        except StopIteration as end:
            self.answers[name] += 1
            if isinstance(end.value, Local):
                self.local[end.value.reason.name] += 1
            elif end.value.stdout != name.encode():
                raise Broken(f"{name} was answered with {end.value.stdout!r}") from None
        self.open.discard(name)

    def _wait(self, event: OneShot, ends: float | None = None, call: Call | None = None) -> bool:
        """Whether the event fires before the time ends or the connection is closed."""
        mine, fired = self.world.task, [False]

        def fire() -> None:
            fired[0] = True
            self.world.wake(mine)

        event.then(fire)
        if call is not None:
            call.on_close.append(lambda: self.world.wake(mine))
        while not fired[0]:
            if call is not None and call.is_closed:
                return False
            if not self.world.suspend(ends) and not fired[0]:
                return False
        return True

    # --- the workers' requests ------------------------------------------------------------------

    def send(
        self,
        answer: Callable[[], Generator[OneShot, None, T]],
        most_s: float,
        host: Host,
        at: Host | None = None,
    ) -> T:
        """A request over the network of the worker ``host``: what ``at`` (the syncer) answers."""
        call = Call(self.world)
        if self.network.loses(host):
            self.world.after(DEAD_S, call.done.set)
        else:

            def arrive() -> None:
                self._serve(call, answer, host, at or self.syncer)

            self.world.after(self.network.delay(), arrive)
        calls = self.connections[host]
        calls.append(call)
        try:
            call.done.wait(most_s)
        finally:
            if call in calls:
                calls.remove(call)
            call.close()
        if isinstance(call.reply, DistBuildError):
            raise call.reply
        if call.reply is None:
            raise InfrastructureError("no answer")
        return call.reply  # type: ignore[no-any-return]

    def _serve(
        self,
        call: Call,
        answer: Callable[[], Generator[OneShot, None, Any]],
        host: Host,
        at: Host,
    ) -> None:
        if at.is_alive:
            self.world.spawn(at, lambda: self._answer(call, answer(), host), "request")
        else:
            call.done.set()  # connection refused

    def _answer(self, call: Call, answering: Generator[OneShot, None, Any], host: Host) -> None:
        try:
            while True:
                event = next(answering)
                if not self._wait(event, call=call):
                    answering.close()
                    return
        except StopIteration as end:
            reply = end.value
        except DistBuildError as error:
            reply = error
        if self.network.loses(host):
            self.world.after(DEAD_S, call.done.set)
            return

        def arrive() -> None:
            if not call.is_closed:
                call.reply = reply
                call.done.set()

        self.world.after(self.network.delay(), arrive)

    def pull(self, request: PullRequest) -> Changes:
        raise InfrastructureError("no mirror")

    def blobs(self, request: BlobRequest) -> BlobBatch:
        raise InfrastructureError("no mirror")

    def changes_for(self, request: LeaseRequest, jobs: list[Job]) -> Changes | None:
        """The changes of the mirror that go with leased jobs."""
        return None

    def given(self, lease: str, one: Any, worker: str) -> Job:
        name = one.implicit_include
        self.leased[name].append(lease)
        if len(self.leased[name]) > queue.MAX_TRIES:
            raise Broken(f"{name} has been leased {len(self.leased[name])} times")
        return Job(lease, one.generation, [], b"/p", {}, "gcc", implicit_include=name.encode())

    def deliver(self, result: ResultRequest) -> bool:
        taken = bool(self.farm.deliver(result))
        name = next((n for n, given in self.leased.items() if result.lease_id in given), None)
        if taken and name is None:
            raise Broken(f"a result under the unknown lease {result.lease_id} is taken")
        if taken and name is not None and self.leased[name][-1] != result.lease_id:
            raise Broken(f"a result under an earlier lease of {name} is taken")
        return taken

    def die(self, worker: SimulatedWorker) -> None:
        """A worker's process is killed: its connections end at once, unless they are cut."""
        worker.host.is_alive = False
        worker.died_at = self.world.now
        delay = DEAD_S if self.network.is_cut[worker.host] else 0.001
        calls = list(self.connections.pop(worker.host, ()))

        def end() -> None:
            for call in calls:
                call.close()

        self.world.after(delay, end)

    def cut(self, worker: SimulatedWorker, seconds: float) -> None:
        """Nothing gets through for a while; connections that are tried meanwhile end."""
        self.network.is_cut[worker.host] = True
        calls = list(self.connections[worker.host])

        def notice() -> None:
            if self.network.is_cut[worker.host]:
                for call in calls:
                    call.close()
                    call.done.set()

        def mend() -> None:
            self.network.is_cut[worker.host] = False
            self.network.lost_at[worker.host] = self.world.now

        self.world.after(DEAD_S, notice)
        self.world.after(seconds, mend)

    # --- what must hold -------------------------------------------------------------------------

    def begins(self, worker: SimulatedWorker, lease: str, name: str) -> None:
        """A worker starts a job's compiler."""
        worker.running[lease] = name
        if len(worker.running) > worker.cores:
            raise Broken(f"{worker.name} runs {len(worker.running)} jobs in {worker.cores} slots")
        if not self._is_valid(worker, lease):
            return
        for other in self.workers:
            for held, what in other.running.items():
                if what == name and held != lease and self._is_valid(other, held):
                    raise Broken(f"{name} is leased to {worker.name} and {other.name}")

    def _is_valid(self, worker: SimulatedWorker, lease: str) -> bool:
        return self.farm._queue.leased(lease, worker.name) is not None

    def look(self, passed_s: float) -> None:
        """Called again and again: nothing waits or runs for nothing."""
        if self.farm is None:
            return
        waiting = self.farm._queue.queued()
        for worker in self.alive():
            lost = self.network.lost_at[worker.host]
            is_well = (
                not self.network.is_cut[worker.host]
                and worker.host.frozen_until <= self.world.now
                and not worker.is_leaving
                and worker.shop is not None
                and self.world.now - max(lost, worker.host.frozen_until) > SETTLED_S
            )
            self._look_for_idle(worker, waiting, passed_s, is_well=is_well)
            self._look_for_forgotten(worker, is_well=is_well)
        for worker in self.workers:
            held = self.farm._queue.held()[worker.name]
            if held and self.world.now - worker.died_at > LOST_S:
                raise Broken(f"{worker.name} is dead and still has {held} jobs")

    def _look_for_idle(
        self, worker: SimulatedWorker, waiting: int, passed_s: float, *, is_well: bool
    ) -> None:
        is_idle = is_well and waiting > 0 and len(worker.running) < worker.cores
        known = self.farm._queue.workers.get(worker.name)
        # Not one that has failed there, while there is another worker.
        is_idle = is_idle and (known is None or self.farm._queue.offers(known, self.world.now))
        worker.seconds_idle = worker.seconds_idle + passed_s if is_idle else 0.0
        if worker.seconds_idle > IDLE_S:
            raise Broken(f"{waiting} jobs wait while {worker.name} has a free slot")

    def _look_for_forgotten(self, worker: SimulatedWorker, *, is_well: bool) -> None:
        for lease, name in worker.running.items():
            if not is_well or self._is_valid(worker, lease):
                self._ended_at.pop(lease, None)
            elif self.world.now - self._ended_at.setdefault(lease, self.world.now) > CANCELLED_S:
                raise Broken(f"{worker.name} still runs {name}, whose lease has ended")

    def check_that_nothing_is_left(self) -> None:
        """After all jobs were answered, and some time in which nothing happened."""
        twice = {name: count for name, count in self.answers.items() if count > 1}
        if twice or self.open:
            raise Broken(f"answered twice: {twice}; not answered: {self.open}")
        inner = self.farm._queue
        left = (inner._jobs, inner._queued, inner._leases, self.farm._waiting, self.farm._held)
        if any(left):
            raise Broken(f"the syncer keeps {left}")
        for worker in self.alive():
            if worker.shop is None or worker.is_leaving:
                continue
            its = worker.shop.slots
            # An offer that waits for its answer has the free slots.
            if its._used or its._line or worker.running or worker.agent._leases._held:
                raise Broken(f"{worker.name} keeps {its._used} slots, {worker.agent._leases._held}")


F = TypeVar("F", bound=SimulatedFarm)


@contextmanager
def simulated(
    seed: int | str, make: Callable[[World], F], modules: Sequence[ModuleType] = MODULES
) -> Iterator[F]:
    """A farm without workers, in a world of its own, to which these modules belong."""
    world = World(seed)
    numbers = itertools.count()
    more = {
        "random_salt": lambda: f"{next(numbers)}.",
        "Cancellation": Cancellation,
        "Pace": lambda count: Pace(count, lambda: world.now),
    }
    with installed(world, modules, **more):
        try:
            yield make(world)
        finally:
            world.close()
