"""The queue under any order of events: each job in one place, and answered exactly once."""

import copy
import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from distbuild.command.model import LocalReason
from distbuild.farm.jobs import (
    Action,
    Assign,
    CompileLocally,
    EndLease,
    Need,
    State,
    Wake,
    Worker,
)
from distbuild.farm.queue import LEASE_S, MAX_TRIES, WORKER_S, JobQueue
from distbuild.protocol.errors import IllegalTransition
from tests.support.examples import examples
from tests.support.queues import inconsistencies

NAMES = ["w1", "w2", "w3"]
TOOLCHAINS = ["gcc", "clang"]
#: Less than a lease lasts with a renewal: jobs run for too long, too.
JOB_S = LEASE_S + 5.0
REASON = LocalReason.LEASES_LOST

names = st.sampled_from(NAMES)
needs = st.builds(Need, st.sampled_from(TOOLCHAINS), st.booleans())
descriptions = st.tuples(
    st.sampled_from([frozenset(TOOLCHAINS), frozenset(["gcc"])]), st.sampled_from([True, False])
)


class Queues(RuleBasedStateMachine):
    """``answers`` and ``leases`` are kept by this model from the actions alone."""

    @initialize()
    def begin(self) -> None:
        self.queue = JobQueue(job_timeout_s=JOB_S)
        self.now = 1000.0
        self.needs: dict[int, Need] = {}
        self.answers: dict[int, str] = {}
        self.leases: dict[str, tuple[int, str]] = {}
        self.over: list[str] = []
        self.assigned: dict[int, int] = {}
        self.woken: set[str] = set()
        # Asked, got nothing, and was not told since that there is something.
        self.asleep: set[str] = set()
        self.described: dict[str, tuple[frozenset[str], bool]] = {}

    # --- what comes back ------------------------------------------------------------------------

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Wake(workers):
                    self.woken.update(workers)
                    self.asleep.difference_update(workers)
                case CompileLocally(number, _, _):
                    self.answer(number, "local")
                case EndLease(worker, lease):
                    assert self.leases.get(lease, (0, worker))[1] == worker
                case Assign():
                    raise AssertionError("assigned although nobody asked")
        holders = {lease: worker for lease, (_, worker) in self.leases.items()}
        for lease in [le for le, worker in holders.items() if not self.queue.leased(le, worker)]:
            del self.leases[lease]
            self.over.append(lease)

    def answer(self, number: int, how: str) -> None:
        assert number not in self.answers, f"job {number} is answered twice"
        self.answers[number] = how

    def before(self) -> None:
        self.woken.clear()

    def waiting(self) -> list[int]:
        jobs = map(self.queue.job, self.needs)
        return [job.number for job in jobs if job is not None and job.state is State.QUEUED]

    # --- events ---------------------------------------------------------------------------------

    @rule(need=needs, name=st.integers(0, 2))
    def submit(self, need: Need, name: int) -> None:
        number, actions = self.queue.submit(need, self.now, name)
        self.needs[number] = need
        self.take(actions)
        if self.answers.get(number) != "local":
            fitting = {n for n, w in self.queue.workers.items() if w.fits(need)}
            assert fitting <= self.woken

    @rule(name=names, has=descriptions)
    def heard(self, name: str, has: tuple[frozenset[str], bool]) -> None:
        toolchains, namespaces = self.described.setdefault(name, has)
        self.take(self.queue.heard(Worker(name, toolchains, namespaces, self.now)))

    @rule(name=names, slots=st.integers(0, 3), ahead=st.integers(0, 2))
    def lease(self, name: str, slots: int, ahead: int) -> None:
        worker = self.queue.workers.get(name)
        if worker is None:
            with pytest.raises(IllegalTransition):
                self.queue.lease(name, slots, self.now, ahead)
            return
        line = [n for n in self.waiting() if worker.fits(self.needs[n])]
        offered = self.queue.offers(worker, self.now)
        fresh = [n for n in line if name not in self.queue._jobs[n].avoided]
        given = self.queue.lease(name, slots, self.now, ahead)
        slots += ahead
        assert len(given) <= slots
        numbers = []
        for action in given:
            assert isinstance(action, Assign)
            assert action.worker == name
            assert action.lease not in self.leases
            assert action.lease not in self.over
            numbers.append(action.number)
            self.leases[action.lease] = (action.number, name)
            self.assigned[action.number] = self.assigned.get(action.number, 0) + 1
        assert numbers == [n for n in line if n in numbers], "not the oldest first"
        passed_over = [n for n in fresh if n not in numbers]
        assert not passed_over or len(numbers) == slots
        assert offered == bool(numbers) or slots == 0
        self.asleep.discard(name)
        if not numbers and (slots or not offered):
            self.asleep.add(name)

    @rule(data=st.data(), name=names)
    def renew(self, data: st.DataObject, name: str) -> None:
        some = data.draw(st.lists(st.sampled_from([*self.leases, *self.over, "?"]), max_size=3))
        ended = self.queue.renew(name, some, self.now)
        assert ended == [x for x in some if self.leases.get(x, (0, ""))[1] != name]

    @rule(data=st.data(), name=names, answered=st.booleans())
    def request_ended(self, data: st.DataObject, name: str, answered: bool) -> None:
        some = list(self.leases)
        if answered:
            some = data.draw(st.lists(st.sampled_from([*self.leases, *self.over, "?"]), max_size=3))
            end = self.queue.answered(name, some, self.now)
        else:
            end = self.queue.disconnected(name, self.now)
        assert self.now < end < self.now + LEASE_S
        held = [n for lease, (n, worker) in self.leases.items() if worker == name and lease in some]
        assert all(self.over_at(number) <= end for number in held)
        assert self.queue.due(self.now) <= end or not held

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), usable=st.booleans())
    def ended(self, data: st.DataObject, usable: bool) -> None:
        lease = data.draw(st.sampled_from(list(self.leases)))
        self.queue.ended(lease, self.now, usable=usable)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(list(self.leases)))
        self.answer(self.leases[lease][0], "done")
        self.take(self.queue.finish(lease))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(list(self.leases)))
        number = self.leases[lease][0]
        self.before()
        self.take(self.queue.retry(lease, REASON, "", self.now))
        if number not in self.answers:
            assert any(w in self.woken for w in self.queue.workers), "nobody is told"

    @precondition(lambda self: self.needs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(list(self.needs)))
        held = [lease for lease, (n, _) in self.leases.items() if n == number]
        actions = self.queue.cancel(number)
        assert [a.lease for a in actions if isinstance(a, EndLease)] == held
        if number not in self.answers:
            self.answer(number, "cancelled")
        self.take(actions)

    @rule(seconds=st.sampled_from([0.1, 2.0, WORKER_S, LEASE_S + 1]))
    def tick(self, seconds: float) -> None:
        sooner = self.queue.tick(self.now)
        self.take(sooner)
        due = self.queue.due(self.now)
        self.now += seconds
        if self.now < due:
            untouched = copy_of(self.queue)
            assert untouched.tick(self.now) == [a for a in sooner if isinstance(a, Wake)]
            assert facts_of(untouched) == facts_of(self.queue)
        overdue = {le for le, (n, _) in self.leases.items() if self.over_at(n) < self.now}
        actions = self.queue.tick(self.now)
        assert {a.lease for a in actions if isinstance(a, EndLease)} == overdue
        self.take(actions)
        self.asleep &= self.queue.workers.keys()  # others are forgotten
        for number in self.waiting():
            assert self.queue.obstacle(self.needs[number], self.now) is None

    @rule(name=names)
    def lost(self, name: str) -> None:
        self.take(self.queue.lost(name, self.now))
        self.asleep.discard(name)
        assert name not in {worker for _, worker in self.leases.values()}

    @rule(name=names)
    def leave(self, name: str) -> None:
        held = {lease for lease, (_, worker) in self.leases.items() if worker == name}
        self.take(self.queue.leave(name, self.now))
        self.asleep.discard(name)
        assert held <= self.leases.keys()
        assert name not in self.queue.workers

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def late(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.over))
        before = copy_of(self.queue)
        for event in (
            lambda: self.queue.finish(lease),
            lambda: self.queue.retry(lease, REASON, "", self.now),
        ):
            with pytest.raises(IllegalTransition):
                event()
        assert facts_of(self.queue) == facts_of(before)

    # --- what always holds ----------------------------------------------------------------------

    def over_at(self, number: int) -> float:
        job = self.queue.job(number)
        assert job is not None
        return min(job.deadline, job.ends)

    @invariant()
    def is_consistent(self) -> None:
        if hasattr(self, "queue"):
            assert inconsistencies(self.queue) == []

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        for number in getattr(self, "needs", ()):
            job = self.queue.job(number)
            assert (job is None) == (number in self.answers)
            leases = [le for le, (n, _) in self.leases.items() if n == number]
            assert len(leases) == (job is not None and job.state is State.LEASED)

    @invariant()
    def nobody_sleeps_while_there_is_work(self) -> None:
        for name in getattr(self, "asleep", ()):
            assert not self.queue.offers(self.queue.workers[name], self.now)

    @invariant()
    def no_job_is_tried_too_often(self) -> None:
        assert all(tries <= MAX_TRIES for tries in getattr(self, "assigned", {}).values())

    @invariant()
    def no_lease_lasts_for_ever(self) -> None:
        for number, _ in getattr(self, "leases", {}).values():
            assert self.over_at(number) <= self.now + JOB_S

    @invariant()
    def the_counts_agree(self) -> None:
        if hasattr(self, "queue"):
            assert self.queue.queued() == len(self.waiting())
            assert self.queue.running() == len(self.leases)
            counted = list(self.answers.values())
            assert self.queue.counters.done == counted.count("done")
            assert self.queue.counters.cancelled == counted.count("cancelled")

    def teardown(self) -> None:
        """With time, and nobody asking, whatever is open is answered too."""
        if not hasattr(self, "queue"):
            return
        for _ in range(MAX_TRIES + 1):
            self.now += LEASE_S + WORKER_S + 1
            self.take(self.queue.tick(self.now))
        assert self.answers.keys() == self.needs.keys()
        assert inconsistencies(self.queue) == []


def copy_of(queue: JobQueue) -> JobQueue:
    """One that goes on counting with the other: Python 3.14 copies no ``itertools.count``."""
    counts = (queue._numbers, queue._lease_numbers)
    return copy.deepcopy(queue, {id(count): count for count in counts})


def facts_of(queue: JobQueue) -> dict[str, object]:
    """All that a queue holds; of its number series, which know no equality, the next number."""
    facts = {name: getattr(queue, name) for name in queue.__struct_fields__}
    return {n: repr(v) if isinstance(v, itertools.count) else v for n, v in facts.items()}


TestQueues = Queues.TestCase
TestQueues.settings = examples(0.6, stateful_step_count=40)
