import threading
from concurrent.futures import ThreadPoolExecutor

from distbuild.worker.slots import MAX_SAMPLES, Offer, Slots, Tally

WAIT_S = 60.0


def test_all_free_slots_go_to_the_only_one_who_asks() -> None:
    slots = Slots[str](4)
    assert slots.take() == Offer(4)
    assert slots.settle(Offer(4), ["a"]) == ["a"]
    assert slots.take() == Offer(3)


def wait_asked(slots: Slots[str], count: int) -> None:
    """Wait until so many askers are waiting."""
    with slots._changed:
        assert slots._changed.wait_for(lambda: len(slots._askers) >= count, WAIT_S)


def test_slots_are_given_in_the_order_of_asking() -> None:
    slots = Slots[str](1)
    assert slots.take() == Offer(1)
    order: list[str] = []

    def ask(name: str) -> None:
        taken = slots.take()
        order.append(name)
        slots.settle(taken)

    threads: list[threading.Thread] = []
    for name in "abc":
        thread = threading.Thread(target=ask, args=(name,))
        thread.start()
        wait_asked(slots, len(threads) + 1)
        threads.append(thread)
    slots.settle(Offer(1))
    for thread in threads:
        thread.join(WAIT_S)
    assert order == ["a", "b", "c"]


def test_who_asks_together_shares_what_is_free() -> None:
    slots = Slots[str](4)
    assert slots.take() == Offer(4)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(slots.take) for _ in range(2)]
        wait_asked(slots, 2)
        slots.settle(Offer(4))
        assert [future.result(WAIT_S) for future in asked] == [Offer(2), Offer(2)]


def test_closed_slots_are_given_to_nobody() -> None:
    slots = Slots[str](1)
    slots.take()
    with ThreadPoolExecutor(2) as pool:
        taking, waiting = pool.submit(slots.take), pool.submit(slots.wait_free)
        slots.close()
        assert taking.result(WAIT_S) == Offer()
        assert waiting.result(WAIT_S) is False


def test_a_free_slot_can_be_waited_for_without_taking_it() -> None:
    slots = Slots[str](1)
    assert slots.wait_free()
    assert slots.take() == Offer(1)


def test_only_the_last_samples_are_kept() -> None:
    tally = Tally(lambda: 5.0)
    for _ in range(MAX_SAMPLES):
        tally.started()
        tally.ended("done")
    assert len(tally.performance()) == MAX_SAMPLES
    assert tally.performance()[-1] == (5.0, 0)
    assert tally.counts() == {"running": 0, "done": MAX_SAMPLES, "failed": 0, "cancelled": 0}


def test_what_comes_beyond_the_slots_waits_in_line_for_the_next_free_one() -> None:
    slots = Slots[str](2, ahead=4)
    offer = slots.take()
    assert offer == Offer(2, 4)
    assert slots.settle(offer, ["a", "b", "c", "d"]) == ["a", "b"]
    assert [slots.next(), slots.next(), slots.next()] == ["c", "d", None]
    assert slots.take() == Offer(1, 4)


def test_a_slot_that_became_free_meanwhile_is_filled_from_the_offer_ahead() -> None:
    slots = Slots[str](1, ahead=2)
    assert slots.settle(slots.take(), ["a", "b"]) == ["a"]
    assert slots.next() == "b"
    offer = slots.take()
    assert offer == Offer(0, 2)
    assert slots.next() is None
    assert slots.settle(offer, ["c", "d"]) == ["c"]
    assert slots.next() == "d"


def test_a_line_that_was_offered_in_vain_is_not_offered_again_until_it_moves() -> None:
    slots = Slots[str](1, ahead=2)
    slots.settle(slots.take(), ["a", "b"])
    assert slots.next() == "b"
    assert slots.settle(slots.take()) == []
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(slots.take)
        wait_asked(slots, 1)
        assert not asked.done()
        assert slots.next() is None
        assert asked.result(WAIT_S) == Offer(1, 2)


def test_what_is_dropped_leaves_the_line() -> None:
    slots = Slots[str](1, ahead=3)
    slots.settle(slots.take(), ["a", "b", "c", "d"])
    assert slots.drop(lambda value: value in ("a", "c")) == ["c"]
    assert [slots.next(), slots.next(), slots.next()] == ["b", "d", None]


def test_closed_slots_hand_nothing_on() -> None:
    slots = Slots[str](1, ahead=1)
    slots.settle(slots.take(), ["a", "b"])
    slots.close()
    assert slots.next() is None
    assert slots.drop(lambda _: True) == ["b"]


def test_at_the_end_what_runs_is_waited_for_and_an_offer_is_not() -> None:
    slots: Slots[str] = Slots(3, 1)
    offer = slots.take()
    assert slots.settle(offer, ["a", "b"]) == ["a", "b"]
    assert slots.take().slots == 1  # in somebody's hands for ever
    slots.close()
    waited = threading.Event()

    def wait() -> None:
        slots.wait_unused()
        waited.set()

    thread = threading.Thread(target=wait)
    thread.start()
    slots.next()
    assert not waited.wait(0.1)
    slots.next()
    assert waited.wait(10)
    thread.join()
