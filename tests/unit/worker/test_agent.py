import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from distbuild.mirror.manifest import Summary
from distbuild.protocol.messages import Change, Changes, FileEntry, Job, ResultRequest
from distbuild.protocol.names import client_label
from distbuild.worker import client
from distbuild.worker.agent import Agent, Workshop
from distbuild.worker.leases import AgentTiming
from distbuild.worker.process.here import Watcher
from distbuild.worker.slots import Slots, Tally
from distbuild.worker.tree.store import MIN_FREE_BYTES, OwnFiles, Store
from distbuild.worker.tree.trees import Trees
from tests.unit.worker.fakes import WAIT_S, FakeCompilers, FakeRunner, FakeSyncer, TwiceRunner

QUICK = AgentTiming(renew_wait_s=0.05)


class Worker:
    """A worker with fakes around it."""

    def __init__(
        self,
        directory: Path,
        cores: int,
        *syncers: FakeSyncer,
        ahead: int = 0,
        runner: FakeRunner | None = None,
        timing: AgentTiming = QUICK,
    ) -> None:
        store = Store(directory / "store")
        trees = Trees(directory / "sandbox", store, OwnFiles(store, enabled=False))
        self.runner = runner or FakeRunner()
        self.syncers = syncers
        self.stop = threading.Event()
        self.shop = Workshop(
            port=8443,
            name="w",
            label="w:8443",
            trees=trees,
            store=store,
            compilers=FakeCompilers(),  # type: ignore[arg-type]
            runner=self.runner,  # type: ignore[arg-type]
            namespaces=True,
            slots=Slots(cores, ahead),
            tally=Tally(lambda: 1000.0),
            starters=ThreadPoolExecutor(cores),
            watcher=Watcher(),
            finishers=ThreadPoolExecutor(cores),
        )
        self.agents = [
            Agent(syncer, self.shop, self.stop, alone=len(syncers) == 1, timing=timing)
            for syncer in syncers
        ]
        for agent in self.agents:
            agent.start()

    def running(self) -> str:
        return self.runner.running.get(timeout=WAIT_S)

    def finish(self) -> None:
        self.stop.set()
        self.shop.slots.close()
        for syncer in self.syncers:
            syncer.down.clear()
        for agent in self.agents:
            agent.leave(WAIT_S)
        self.shop.finish()
        for agent in self.agents:
            agent.finish(WAIT_S)


Start = Callable[..., Worker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[Worker] = []

    def begin(cores: int, *syncers: FakeSyncer, **options: Any) -> Worker:
        made.append(Worker(tmp_path, cores, *syncers, **options))
        return made[-1]

    yield begin
    for worker in made:
        worker.runner.release.set()
        worker.finish()


@pytest.fixture
def syncer() -> FakeSyncer:
    return FakeSyncer()


def job(lease: str, generation: int = 0) -> Job:
    return Job(lease, generation, [b"gcc"], b"/", {}, "id")


def listing(syncer: FakeSyncer, content: bytes, target: int) -> Changes:
    """A full listing with one file, whose content the syncer can send."""
    entry = FileEntry(hashlib.sha256(content).digest(), len(content), 0o644, 5)
    syncer.contents[entry.digest] = content
    summary = Summary()
    summary.add(b"/a.h", entry)
    changes = [Change(b"/a.h", entry)]
    return Changes(syncer.client, syncer.epoch, 0, target, summary.digest(), changes)


def result(syncer: FakeSyncer) -> ResultRequest:
    return syncer.delivered.get(timeout=WAIT_S)


@pytest.fixture
def at_zero(syncer: FakeSyncer) -> FakeSyncer:
    """A syncer with an empty mirror, which every tree has from the first pull on."""
    syncer.listing = Changes(syncer.client, syncer.epoch, 0, 0, Summary().digest(), [])
    return syncer


def test_jobs_run_at_once_up_to_the_slots(start: Start, at_zero: FakeSyncer) -> None:
    at_zero.add(job("1"), job("2"), job("3"))
    worker = start(2, at_zero)
    assert {worker.running(), worker.running()} == {"1", "2"}
    assert worker.runner.running.empty()
    worker.runner.release.set()
    assert {result(at_zero).lease_id for _ in range(3)} == {"1", "2", "3"}


def test_a_second_compiler_has_the_slot_of_the_first(start: Start, at_zero: FakeSyncer) -> None:
    runner = TwiceRunner()
    at_zero.add(*map(job, "123"))
    start(1, at_zero, runner=runner, ahead=2)
    assert [result(at_zero).lease_id for _ in range(3)] == ["1", "2", "3"]
    assert runner.started == [(lease, number) for lease in "123" for number in (0, 1)]


@pytest.mark.parametrize("first", [b"/bin/false", b"/bin/true"])
def test_each_slot_is_free_once_however_many_compilers_a_job_has(
    start: Start, at_zero: FakeSyncer, first: bytes
) -> None:
    """A first compiler that did well gave its slot away; a second one runs all the same."""
    at_zero.add(*map(job, "12345678"))
    worker = start(2, at_zero, runner=TwiceRunner(first), ahead=6)
    assert {result(at_zero).lease_id for _ in range(8)} == set("12345678")
    at_zero.add(*map(job, "abcd"))
    assert {result(at_zero).lease_id for _ in range(4)} == set("abcd")
    worker.finish()
    assert worker.shop.slots._free == 2


def test_a_job_knows_how_wrong_the_clock_is(start: Start, at_zero: FakeSyncer) -> None:
    at_zero.clock = time.time() - 10800
    at_zero.add(job("1"))
    worker = start(1, at_zero)
    worker.running()
    (clock,) = worker.runner.clocks
    assert clock is not None
    assert 10800 <= clock.off_s < 10800 + WAIT_S


def test_a_request_says_what_the_worker_is(start: Start, syncer: FakeSyncer) -> None:
    start(3, syncer)
    asked = syncer.wait_asked(lambda r: True)
    assert (asked.worker, asked.slots, asked.namespaces) == ("w", 3, True)
    assert [toolchain.name for toolchain in asked.toolchains] == ["gcc"]


def test_a_worker_whose_disk_is_full_takes_its_leave_until_there_is_room(
    start: Start, at_zero: FakeSyncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [MIN_FREE_BYTES - 1]
    monkeypatch.setattr("distbuild.worker.tree.store.disk.free_bytes", lambda _: free[0])
    at_zero.add(job("1"))
    worker = start(1, at_zero, timing=AgentTiming(renew_wait_s=0.05, full_pause_s=0.01))
    farewell = at_zero.wait_asked(lambda r: not r.toolchains)
    assert (farewell.worker, len(at_zero.asked), worker.shop.store.status().is_full) == (
        "w",
        1,
        True,
    )
    free[0] += 1
    assert worker.running() == "1"
    assert not worker.shop.store.status().is_full


def test_changes_with_the_lease_are_applied_with_their_blobs(
    start: Start, syncer: FakeSyncer, tmp_path: Path
) -> None:
    syncer.changes = listing(syncer, b"int a;\n", 4)
    syncer.add(job("1", 4))
    worker = start(1, syncer)
    worker.running()
    assert worker.runner.generations == [4]
    assert syncer.pulled == []
    assert (tmp_path / "sandbox" / client_label("dev") / "a.h").read_bytes() == b"int a;\n"


def test_missing_changes_are_pulled_before_the_job_starts(start: Start, syncer: FakeSyncer) -> None:
    syncer.listing = listing(syncer, b"int a;\n", 9)
    syncer.add(job("1", 8))
    worker = start(1, syncer)
    worker.running()
    assert worker.runner.generations == [9]
    assert [request.have for request in syncer.pulled] == [0]


def test_a_job_whose_generation_cannot_be_reached_is_given_back(
    start: Start, syncer: FakeSyncer
) -> None:
    syncer.listing = listing(syncer, b"int a;\n", 3)
    syncer.add(job("1", 8))
    start(1, syncer)
    assert "generation 8" in result(syncer).error


def test_a_job_is_given_back_when_a_blob_is_not_sent(
    start: Start, syncer: FakeSyncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "GONE_PAUSE_S", 0.001)
    syncer.changes = listing(syncer, b"int a;\n", 4)
    syncer.listing = syncer.changes
    syncer.contents.clear()
    syncer.add(job("1", 4))
    start(1, syncer)
    assert "does not send" in result(syncer).error


def test_a_file_that_goes_before_it_is_sent_is_no_trouble(
    start: Start, syncer: FakeSyncer, tmp_path: Path
) -> None:
    syncer.changes = listing(syncer, b"int gone;\n", 4)
    syncer.contents.clear()
    syncer.listing = listing(syncer, b"int newer;\n", 5)
    syncer.add(job("1", 4))
    worker = start(1, syncer)
    worker.running()
    assert worker.runner.generations == [5]
    assert (tmp_path / "sandbox" / client_label("dev") / "a.h").read_bytes() == b"int newer;\n"


def test_an_ended_lease_frees_the_slot_and_gives_no_result(
    start: Start, at_zero: FakeSyncer
) -> None:
    at_zero.add(job("1"), job("2"))
    worker = start(1, at_zero)
    assert worker.running() == "1"
    at_zero.end("1")
    assert worker.running() == "2"
    worker.runner.release.set()
    assert result(at_zero).lease_id == "2"
    assert worker.shop.tally.counts()["cancelled"] == 1


def test_a_result_is_delivered_again_after_a_failure(start: Start, at_zero: FakeSyncer) -> None:
    at_zero.add(job("1"))
    worker = start(1, at_zero)
    worker.running()
    at_zero.down.set()
    worker.runner.release.set()
    with pytest.raises(queue.Empty):
        at_zero.delivered.get(timeout=0.1)
    at_zero.down.clear()
    assert result(at_zero).lease_id == "1"


def test_a_refused_result_is_dropped(start: Start, at_zero: FakeSyncer) -> None:
    at_zero.refused.add("1")
    at_zero.add(job("1"))
    worker = start(1, at_zero)
    worker.running()
    worker.runner.release.set()
    worker.finish()
    assert at_zero.delivered.empty()


def test_an_unreachable_syncer_is_asked_again(start: Start, at_zero: FakeSyncer) -> None:
    at_zero.down.set()
    worker = start(1, at_zero)
    at_zero.wait_asked(lambda r: len(at_zero.asked) > 1)
    at_zero.add(job("1"))
    at_zero.down.clear()
    assert worker.running() == "1"


def test_stopping_finishes_what_runs_and_takes_no_more(start: Start, at_zero: FakeSyncer) -> None:
    at_zero.add(job("1"))
    worker = start(2, at_zero)
    worker.running()
    worker.stop.set()
    finishing = threading.Thread(target=worker.finish)
    finishing.start()
    at_zero.wait_asked(lambda r: not r.toolchains)
    at_zero.add(job("2"))
    worker.runner.release.set()
    finishing.join(WAIT_S)
    errors = {}
    while not at_zero.delivered.empty():
        delivered = at_zero.delivered.get()
        errors[delivered.lease_id] = delivered.error
    assert errors.pop("1") == ""
    assert errors in ({}, {"2": "this worker is stopping"})
    assert worker.runner.running.empty()


def test_jobs_of_several_syncers_run_in_trees_of_their_own(start: Start, tmp_path: Path) -> None:
    syncers = [FakeSyncer(f"https://s:{n}", f"dev{n}") for n in range(2)]
    for one in syncers:
        one.listing = Changes(one.client, one.epoch, 0, 0, Summary().digest(), [])
        one.add(*(job(f"{one.client}-{n}") for n in range(3)))
    worker = start(1, *syncers)
    worker.runner.release.set()
    order = [worker.running()[:4] for _ in range(6)]
    assert sorted(order) == ["dev0"] * 3 + ["dev1"] * 3
    trees = {client_label(one.client) for one in syncers}
    assert {path.name for path in (tmp_path / "sandbox").iterdir()} >= trees


def test_a_syncer_hears_of_a_worker_that_is_busy_with_jobs_of_another(
    start: Start, at_zero: FakeSyncer
) -> None:
    other = FakeSyncer("https://other:1", "other")
    at_zero.add(job("1"))
    timing = AgentTiming(renew_wait_s=0.05, heartbeat_s=0.01, lease_wait_s=0.01)
    worker = start(1, at_zero, other, timing=timing)
    worker.running()
    other.wait_renewed(set())
    asked = len(other.asked)
    for _ in range(3):
        other.wait_renewed(set())
    assert len(other.asked) == asked
    worker.runner.release.set()
    assert result(at_zero).lease_id == "1"


def test_a_worker_that_asks_for_jobs_sends_no_heartbeat(start: Start, at_zero: FakeSyncer) -> None:
    start(1, at_zero, timing=AgentTiming(renew_wait_s=0.05, heartbeat_s=0.01, lease_wait_s=0.02))
    at_zero.wait_asked(lambda _: len(at_zero.asked) > 20)
    # One may fall into a moment in which the worker takes its free slot.
    assert len(at_zero.renewed) < 5


def test_the_tally_keeps_a_sample_per_change(start: Start, at_zero: FakeSyncer) -> None:
    at_zero.add(job("1"))
    worker = start(1, at_zero)
    worker.runner.release.set()
    result(at_zero)
    assert worker.shop.tally.performance() == [(1000.0, 1), (1000.0, 0)]
    assert worker.shop.tally.counts() == {"running": 0, "done": 1, "failed": 0, "cancelled": 0}


def test_jobs_ahead_start_in_order_as_slots_become_free(start: Start, at_zero: FakeSyncer) -> None:
    at_zero.add(*(job(str(number)) for number in range(4)))
    worker = start(1, at_zero, ahead=2)
    assert worker.running() == "0"
    asked = at_zero.wait_asked(lambda r: True)
    assert (asked.slots, asked.ahead) == (1, 2)
    assert worker.runner.running.empty()
    worker.runner.release.set()
    assert [worker.running() for _ in range(3)] == ["1", "2", "3"]
    assert {result(at_zero).lease_id for _ in range(4)} == {"0", "1", "2", "3"}


def test_a_full_line_is_not_asked_for_again(start: Start, at_zero: FakeSyncer) -> None:
    at_zero.add(*(job(str(number)) for number in range(9)))
    worker = start(1, at_zero, ahead=2)
    worker.running()
    at_zero.end("0")
    assert worker.running() == "1"
    # Half of the line is free now.
    asked = at_zero.wait_asked(lambda r: r.slots == 0)
    assert (asked.ahead, asked.wait_s) == (1, 0.0)


def test_more_jobs_than_asked_for_are_refused(start: Start, at_zero: FakeSyncer) -> None:
    at_zero.greedy = True
    at_zero.add(*(job(str(number)) for number in range(4)))
    worker = start(1, at_zero, ahead=2)
    at_zero.wait_asked(lambda r: len(at_zero.asked) > 1)
    assert worker.runner.running.empty()


def test_jobs_ahead_are_renewed(start: Start, at_zero: FakeSyncer) -> None:
    at_zero.add(job("0"), job("1"))
    worker = start(1, at_zero, ahead=1)
    worker.running()
    at_zero.wait_renewed({"0", "1"})


def test_a_cancelled_job_ahead_never_starts(start: Start, at_zero: FakeSyncer) -> None:
    at_zero.add(job("0"), job("1"), job("2"))
    worker = start(1, at_zero, ahead=2)
    assert worker.running() == "0"
    at_zero.end("1")
    at_zero.wait_renewed({"0", "2"})
    worker.runner.release.set()
    assert worker.running() == "2"
    assert {result(at_zero).lease_id for _ in range(2)} == {"0", "2"}
    assert worker.shop.tally.counts()["cancelled"] == 1


def test_jobs_ahead_are_given_back_at_once_when_stopping(start: Start, at_zero: FakeSyncer) -> None:
    at_zero.add(job("0"), job("1"), job("2"))
    worker = start(1, at_zero, ahead=2)
    worker.running()
    at_zero.wait_renewed({"0", "1", "2"})
    worker.stop.set()
    finishing = threading.Thread(target=worker.finish)
    finishing.start()
    back = [result(at_zero) for _ in range(2)]
    assert [(r.lease_id, r.error) for r in back] == [
        ("1", "this worker is stopping"),
        ("2", "this worker is stopping"),
    ]
    worker.runner.release.set()
    finishing.join(WAIT_S)
    assert result(at_zero).lease_id == "0"
    assert worker.runner.running.empty()


def test_many_jobs_leave_no_descriptor_open(start: Start, at_zero: FakeSyncer) -> None:
    before = len(os.listdir("/proc/self/fd"))
    at_zero.add(*(job(str(number)) for number in range(500)))
    worker = start(4, at_zero, ahead=1)
    worker.runner.release.set()
    assert len({result(at_zero).lease_id for _ in range(500)}) == 500
    worker.finish()
    assert len(os.listdir("/proc/self/fd")) == before
