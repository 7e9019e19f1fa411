import queue
import threading
from collections.abc import Iterator, Sequence

import pytest

from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import (
    BATCH_BYTES,
    Blob,
    OutputFile,
    ResultBatch,
    ResultRequest,
    ResultsReply,
)
from distbuild.worker.results import LARGE_BYTES, ResultSender
from distbuild.worker.slots import Pace
from tests.support.cluster import wait_until
from tests.unit.worker.fakes import WAIT_S, FakeSyncer


class Sending:
    """A delivery to a fake syncer; ``gone`` has each lease that is off its hands, in order."""

    def __init__(self) -> None:
        self.syncer = FakeSyncer()
        self.gone: queue.Queue[str] = queue.Queue()
        self.delivery = ResultSender(self.syncer, self._note, Pace(1), 0.01)
        self.delivery.start()

    def _note(self, results: Sequence[ResultRequest]) -> None:
        for result in results:
            self.gone.put(result.lease_id)

    def put(self, *names: object, size: int = 1) -> None:
        for name in names:
            output = OutputFile(b"/o", 0o644, Blob(b"d" * 32, size, b"x" * size))
            self.delivery.put(ResultRequest(str(name), "w", outputs=[output]))

    def delivered(self) -> list[str]:
        found = []
        while not self.syncer.delivered.empty():
            found.append(self.syncer.delivered.get().lease_id)
        return found

    def close(self) -> None:
        self.syncer.answering.set()
        self.syncer.down.clear()
        self.delivery.close()


@pytest.fixture
def sending() -> Iterator[Sending]:
    made = Sending()
    yield made
    made.close()


def test_a_single_result_leaves_at_once(sending: Sending) -> None:
    sending.put(1)
    assert sending.gone.get(timeout=WAIT_S) == "1"
    assert sending.syncer.batches == [["1"]]


def test_what_becomes_ready_meanwhile_shares_the_next_request(sending: Sending) -> None:
    sending.syncer.answering.clear()
    sending.put("first")
    sending.syncer.wait_batches(1)
    names = [str(number) for number in range(200)]
    sending.put(*names)
    sending.syncer.answering.set()
    sending.close()
    assert sending.syncer.batches == [["first"], names]
    assert sending.delivered() == ["first", *names]


def test_a_request_is_closed_when_it_has_grown_large(sending: Sending) -> None:
    sending.syncer.answering.clear()
    sending.put("first")
    sending.syncer.wait_batches(1)
    third = BATCH_BYTES // 3
    sending.put("a", "b", "c", "d", size=third)
    sending.syncer.answering.set()
    sending.close()
    assert max(map(len, sending.syncer.batches)) <= 2
    assert sorted(sending.delivered()) == ["a", "b", "c", "d", "first"]


def test_a_result_larger_than_a_batch_goes_alone_and_holds_nobody_up(sending: Sending) -> None:
    sending.syncer.answering.clear()
    sending.put("large", size=BATCH_BYTES + 1)
    sending.syncer.wait_batches(1)
    sending.put("other large", size=BATCH_BYTES + 1)
    assert sending.syncer.wait_batches(2) == [["large"], ["other large"]]


def test_a_failing_request_loses_nothing(sending: Sending, monkeypatch: pytest.MonkeyPatch) -> None:
    take, failures = sending.syncer.results, iter(range(3))

    def fail_some(batch: ResultBatch) -> ResultsReply:
        if next(failures, None) is not None:
            raise InfrastructureError("syncer down")
        return take(batch)

    monkeypatch.setattr(sending.syncer, "results", fail_some)
    sending.put(*range(50))
    gone = {sending.gone.get(timeout=WAIT_S) for _ in range(50)}
    assert gone == {str(number) for number in range(50)}
    assert sorted(sending.delivered(), key=int) == [str(number) for number in range(50)]


def test_a_refused_result_takes_no_other_with_it(sending: Sending) -> None:
    sending.syncer.refused.add("bad")
    sending.syncer.answering.clear()
    sending.put("first")
    sending.syncer.wait_batches(1)
    sending.put("a", "bad", "b")
    sending.close()
    assert sorted(sending.delivered()) == ["a", "b", "first"]
    assert {sending.gone.get(timeout=WAIT_S) for _ in range(4)} == {"a", "b", "bad", "first"}


def test_a_syncer_that_stays_away_is_given_up(sending: Sending) -> None:
    sending.syncer.down.set()
    sending.put("1")
    assert sending.gone.get(timeout=WAIT_S) == "1"
    assert sending.delivered() == []


def test_a_result_that_does_not_get_through_is_given_back(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = sending.syncer.results

    def pass_small(batch: ResultBatch) -> ResultsReply:
        if any(result.outputs for result in batch.results):
            raise InfrastructureError("connection reset")
        return take(batch)

    monkeypatch.setattr(sending.syncer, "results", pass_small)
    sending.put("1")
    assert sending.gone.get(timeout=WAIT_S) == "1"
    given = sending.syncer.delivered.get(timeout=WAIT_S)
    assert (given.lease_id, given.worker) == ("1", "w")
    assert given.error == "its result does not get through: connection reset"


def test_closing_delivers_what_is_left(sending: Sending) -> None:
    sending.put(*range(300))
    sending.close()
    assert sorted(map(int, sending.delivered())) == list(range(300))


class Slow(Pace):
    """Each request is to wait for so long."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(1)
        self.delay_s = delay_s

    def delay(self) -> float:
        return self.delay_s


def test_a_syncer_that_does_not_answer_does_not_hold_up_the_end(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ResultBatch] = []
    timed_out = threading.Event()

    def results(batch: ResultBatch) -> ResultsReply:
        asked.append(batch)
        timed_out.wait(WAIT_S)
        raise InfrastructureError("timed out")

    monkeypatch.setattr("distbuild.worker.results.CLOSING_S", -1.0)
    monkeypatch.setattr(sending.syncer, "results", results)
    sending.put(1)
    wait_until(lambda: asked, "it is under way")
    closing = threading.Thread(target=sending.delivery.close)
    closing.start()
    wait_until(lambda: sending.delivery._closed, "it is being closed")
    timed_out.set()
    closing.join()
    assert len(asked) == 1, "it is not sent again"
    assert sending.gone.get(timeout=WAIT_S) == "1"


def test_where_results_come_fast_those_of_the_next_moments_go_together(sending: Sending) -> None:
    sending.delivery._pace = Slow(0.2)
    for name in range(5):
        sending.put(name)
    assert sending.syncer.wait_batches(1) == [["0", "1", "2", "3", "4"]]


def test_the_end_is_not_waited_for(sending: Sending) -> None:
    sending.delivery._pace = Slow(600.0)
    sending.put("a")
    sending.delivery.close()
    assert sending.delivered() == ["a"]


def test_a_sender_that_another_has_outrun_stays(sending: Sending) -> None:
    """Two wait for more, and one of them takes it all."""
    sending.delivery._pace = Slow(0.1)
    for name in ("a", "b", "c"):
        sending.put(name, size=LARGE_BYTES)
    for _ in range(3):
        sending.gone.get(timeout=WAIT_S)
    sending.put("d")
    assert sending.gone.get(timeout=WAIT_S) == "d"
    assert [sender.is_alive() for sender in sending.delivery._senders] == [True] * 3
