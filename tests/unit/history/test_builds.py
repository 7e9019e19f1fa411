"""Which jobs make up a build."""

from hypothesis import given
from hypothesis import strategies as st

from distbuild.history.builds import MAX_MESSAGES, PAUSE_S, Key, OpenBuilds, messages_of


def is_open(builds: OpenBuilds, number: int, now: float) -> bool:
    builds.close(now)
    return number in builds.numbers()


ONE, OTHER = Key("", 1), Key("night", 0)


def test_jobs_of_one_session_are_one_build_until_a_pause() -> None:
    builds = OpenBuilds(7)
    assert builds.begin(ONE, 100.0) == (7, True)
    builds.end(ONE, 7, 101.0)
    assert builds.begin(ONE, 101.0 + PAUSE_S) == (7, False)
    builds.end(ONE, 7, 120.0)
    assert is_open(builds, 7, 120.0 + PAUSE_S)
    assert not is_open(builds, 7, 120.1 + PAUSE_S)
    assert builds.begin(ONE, 120.1 + PAUSE_S) == (8, True)


def test_a_build_stays_open_while_a_job_runs() -> None:
    builds = OpenBuilds(1)
    builds.begin(ONE, 0.0)
    assert is_open(builds, 1, 1000.0)
    assert builds.begin(ONE, 1000.0) == (1, False)
    builds.end(ONE, 1, 1001.0)
    assert is_open(builds, 1, 5000.0)


def test_other_sessions_are_other_builds() -> None:
    builds = OpenBuilds(1)
    assert [builds.begin(key, 0.0)[0] for key in (ONE, OTHER, ONE, OTHER)] == [1, 2, 1, 2]


def test_a_late_end_of_an_earlier_build_is_no_end_of_the_present_one() -> None:
    builds = OpenBuilds(1)
    builds.begin(ONE, 0.0)
    builds.end(ONE, 1, 0.0)
    builds.begin(ONE, 100.0)
    builds.end(ONE, 1, 100.0)
    assert is_open(builds, 2, 1000.0)


@given(st.lists(st.tuples(st.sampled_from([ONE, OTHER]), st.floats(0, 40), st.floats(0, 40))))
def test_numbers_ascend_and_no_build_has_a_longer_pause(
    jobs: list[tuple[Key, float, float]],
) -> None:
    builds, now, known = OpenBuilds(1), 0.0, 0
    last: dict[int, float] = {}
    for key, pause, took in jobs:
        now += pause
        number, is_new = builds.begin(key, now)
        assert is_new == (number == known + 1)
        known = max(known, number)
        assert now - last.get(number, now) <= PAUSE_S
        now += took
        builds.end(key, number, now)
        last[number] = now


def test_messages_are_kept_without_excerpts_of_sources() -> None:
    gcc = b"""In file included from a.c:1:
a.h:2:1: error: unknown type name 'secret'
    2 | secret x; // error: none
      | ^~~~~~
a.c:3:5: note: here
"""
    clang = b"a.c:1:1: fatal error: 'x.h' file not found\n#include <x.h>\n         ^\n1 error.\n"
    assembler = b"a.s: Assembler messages:\na.s:1: Error: no such instruction: `foo'\n"
    assert messages_of(gcc).splitlines() == [gcc.splitlines()[n] for n in (0, 1, 4)]
    assert messages_of(clang) == clang.splitlines()[0]
    assert messages_of(assembler) == assembler.splitlines()[1]
    assert len(messages_of(gcc * 1000)) == MAX_MESSAGES
