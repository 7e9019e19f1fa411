"""Test compiles: each goes to its worker, all at the same time, and none is waited for."""

import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest

from distbuild.command.model import Family
from distbuild.compiler.identity import Identity
from distbuild.farm.farm import Farm
from distbuild.protocol.codec import pack_output
from distbuild.protocol.messages import InputFile, OutputFile, ResultRequest
from distbuild.syncer.worker_check import check_workers, task_for
from tests.support.cluster import wait_until
from tests.support.tasks import asking, failed, leased, run, task

GCC = ("gcc", Identity("gcc", Family.GCC, "gcc 12.2.0 x", "/usr/bin/gcc", (), ()))
DIRECTORY = "/home/me/state"
#: For a test that is not to end by itself.
LONG_S = 30.0
SOURCE = InputFile(b"/home/me/state/check.c", bytes(32))
OBJECT = OutputFile(b"/home/me/state/check.o", 0o644, pack_output(b"object"))


@pytest.fixture
def farm() -> Iterator[Farm]:
    made = Farm(expected=False)
    for name in ("w1", "w2"):
        leased(made, asking(name))
    yield made
    made.stop()


def answering(
    farm: Farm, worker: str, answer: Callable[[str], ResultRequest | None]
) -> threading.Thread:
    """A worker that answers one job so."""

    def work() -> None:
        [(lease, given)] = leased(farm, asking(worker, 1, LONG_S))
        assert given.worker == worker
        result = answer(lease)
        if result is not None:
            assert farm.deliver(result)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def compiled(worker: str) -> Callable[[str], ResultRequest]:
    return lambda lease: ResultRequest(lease, worker, outputs=[OBJECT], inputs=[SOURCE])


def test_each_worker_compiles_its_own_test(farm: Farm) -> None:
    threads = [answering(farm, worker, compiled(worker)) for worker in ("w2", "w1")]
    checked = check_workers(farm, {"w1": GCC, "w2": GCC}, DIRECTORY, LONG_S)
    for thread in threads:
        thread.join()
    assert {name: c.outcome for name, c in checked.items()} == {"w1": "compiled", "w2": "compiled"}
    assert farm.counts() == {"queued": 0, "running": 0, "cancelled": 0, "retried": 0}


@pytest.mark.parametrize(
    ("result", "detail"),
    [
        (ResultRequest("", "w1", exit_code=1, stderr=b"x: bad\nmore"), "x: bad"),
        (
            ResultRequest("", "w1", exit_code=1, stderr=b"\xff" * 5000),
            "\N{REPLACEMENT CHARACTER}" * 200,
        ),
        (ResultRequest("", "w1", exit_code=1), "it failed and printed nothing"),
        (ResultRequest("", "w1", error="odd", crashed=True), "compiler_crashed: w1: odd"),
    ],
)
def test_what_a_worker_does_wrong_is_told(farm: Farm, result: ResultRequest, detail: str) -> None:
    def answer(lease: str) -> ResultRequest:
        return msgspec.structs.replace(result, lease_id=lease)

    thread = answering(farm, "w1", answer)
    checked = check_workers(farm, {"w1": GCC}, DIRECTORY, LONG_S)["w1"]
    thread.join()
    assert (checked.outcome, checked.detail) == ("failed", detail)


def test_a_worker_that_is_silent_holds_nobody_up(farm: Farm) -> None:
    """One takes its test and says no more, the other does not even ask."""
    took = answering(farm, "w1", lambda _: None)
    checked = check_workers(farm, {"w1": GCC, "w2": GCC}, DIRECTORY, 0.2)
    took.join()
    assert {name: c.outcome for name, c in checked.items()} == {"w1": "silent", "w2": "silent"}
    assert farm.counts() == {"queued": 0, "running": 0, "cancelled": 2, "retried": 0}


def test_a_worker_that_is_not_there_is_refused(farm: Farm) -> None:
    other = ("gcc", msgspec.structs.replace(GCC[1], digest="another"))
    checked = check_workers(farm, {"gone": GCC, "w1": other}, DIRECTORY, LONG_S)
    assert {name: c.outcome for name, c in checked.items()} == {"gone": "refused", "w1": "refused"}


def test_a_test_is_no_job_for_another_worker(farm: Farm) -> None:
    pinned = farm.execute(task_for("w1", *GCC, DIRECTORY))
    other = farm.execute(task())
    next(pinned)
    next(other)
    [(lease, given)] = leased(farm, asking("w2", 5))
    assert given.worker == ""
    assert leased(farm, asking("w2")) == []
    assert [t.worker for _, t in leased(farm, asking("w1"))] == ["w1"]
    pinned.close()
    assert farm.deliver(failed(lease, "w2"))
    run(other)


def test_a_test_of_a_worker_that_goes_away_ends(farm: Farm) -> None:
    ended: list[str] = []

    def check() -> None:
        ended.append(check_workers(farm, {"w1": GCC}, DIRECTORY, LONG_S)["w1"].outcome)

    thread = threading.Thread(target=check)
    thread.start()
    wait_until(lambda: farm.counts()["queued"], "the test is queued")
    farm.lost("w1")
    farm._ticker.sooner(0.0)
    thread.join(10)
    assert ended == ["refused"]


def test_a_test_names_its_source_below_the_directory_it_is_given() -> None:
    made = task_for("w1", *GCC, "/home/\udcff me/st%te")
    assert made.files[0].path == b"/home/\xff me/st%te/check.c"
    assert made.command.argv() == ["gcc", "-nostdinc", "-c", "check.c", "-o", "check.o"]
