import threading
from concurrent.futures import ThreadPoolExecutor

from distbuild.worker.slots import MAX_SAMPLES, Slots, Tally

WAIT_S = 10.0


def test_all_free_slots_go_to_the_only_one_who_asks() -> None:
    slots = Slots(4)
    assert slots.take() == 4
    slots.give(3)
    assert slots.take() == 3


def test_slots_are_given_in_the_order_of_asking() -> None:
    slots = Slots(1)
    assert slots.take() == 1
    order: list[str] = []

    def ask(name: str) -> None:
        taken = slots.take()
        order.append(name)
        slots.give(taken)

    threads: list[threading.Thread] = []
    for name in "abc":
        thread = threading.Thread(target=ask, args=(name,))
        thread.start()
        assert slots.wait_asked(len(threads) + 1, WAIT_S)
        threads.append(thread)
    slots.give()
    for thread in threads:
        thread.join(WAIT_S)
    assert order == ["a", "b", "c"]


def test_who_asks_together_shares_what_is_free() -> None:
    slots = Slots(4)
    assert slots.take() == 4
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(slots.take) for _ in range(2)]
        assert slots.wait_asked(2, WAIT_S)
        slots.give(4)
        assert sorted(future.result(WAIT_S) for future in asked) == [2, 2]


def test_closed_slots_are_given_to_nobody() -> None:
    slots = Slots(1)
    slots.take()
    with ThreadPoolExecutor(2) as pool:
        taking, waiting = pool.submit(slots.take), pool.submit(slots.wait_free)
        slots.close()
        assert taking.result(WAIT_S) == 0
        assert waiting.result(WAIT_S) is False


def test_a_free_slot_can_be_waited_for_without_taking_it() -> None:
    slots = Slots(1)
    assert slots.wait_free()
    assert slots.take() == 1


def test_only_the_last_samples_are_kept() -> None:
    tally = Tally(lambda: 5.0)
    for _ in range(MAX_SAMPLES):
        tally.started()
        tally.ended("done")
    assert len(tally.performance()) == MAX_SAMPLES
    assert tally.performance()[-1] == (5.0, 0)
    assert tally.counts() == {"running": 0, "done": MAX_SAMPLES, "failed": 0, "cancelled": 0}
