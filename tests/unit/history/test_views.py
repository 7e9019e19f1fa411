"""What a build's jobs say together."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.history.views import HERE, lanes, most_at_once, slower, summary, trace_events

USED = {"phases": {}, "ran_s": 0.0, "cpu_s": 0.0, "memory_bytes": 0}
LOCAL = {"outcome": "local", "reason": "link", "worker": "", **USED}
LINK = {"source": "", "command": "gcc " + "x" * 100}


def job(began: float, took: float, **other: Any) -> dict[str, Any]:
    """A job that a worker had for all of its time but a tenth of a second at its begin."""
    return {
        "source": "/p/x.c",
        "command": "gcc -c x.c",
        "cwd": "/p",
        "outcome": "compiled",
        "reason": "",
        "worker": "w:1",
        "exit_code": 0,
        "began": began,
        "took_s": took,
        "phases": {"understood": 0.04, "queued": 0.06, "on the worker": took - 0.1},
        "ran_s": took - 0.2,
        "rounds": 1,
        "cpu_s": took / 2,
        "memory_bytes": int(10 * took),
        **other,
    }


def build(*jobs: dict[str, Any], slots: int = 4) -> dict[str, Any]:
    begin = min(one["began"] for one in jobs)
    end = max(one["began"] + one["took_s"] for one in jobs)
    return {"began": begin, "wall_s": end - begin, "slots": slots, "jobs_of_it": list(jobs)}


@pytest.mark.parametrize(
    ("made", "limit"),
    [
        (build(*[job(0.0, 10.0)] * 8, slots=8), "slots: all 8 were busy for 98% of the time"),
        (build(*[job(0.0, 10.0)] * 3), "make -j: at most 3 commands came at once, for 4 slots"),
        (
            build(*[job(0.0, 5.0)] * 5, job(0.0, 8.0, source="/p/long.c")),
            "one long file: for 3.0 s only /p/long.c ran, the last",
        ),
        (
            build(*[job(0.0, 2.0)] * 5, *[job(8.0, 2.0)] * 5),
            "other commands (links, scripts): no compile to do for 60% of the time",
        ),
        (build(*[job(n / 10, 1.0) for n in range(50)], slots=12), "make -j: at most 10 commands"),
        (
            build(*[job(0.0, 5.0)] * 5, job(5.0, 2.0, **LOCAL | LINK)),
            f"one long command: for 2.0 s only gcc {'x' * 36} ran, the last",
        ),
        (build(*[job(n / 10, 1.0) for n in range(50)], slots=10), ""),
        (build(job(0.0, 0.9), slots=1), ""),
    ],
)
def test_what_limited_a_build(made: dict[str, Any], limit: str) -> None:
    found = summary(made)["limit"]
    assert found.startswith(limit)
    assert bool(found) == bool(limit)


def test_the_figures_of_a_build() -> None:
    made = build(job(0.0, 4.0), job(1.0, 2.0), job(3.0, 1.0), job(0.0, 4.0, **LOCAL))
    found = summary(made)
    assert (found["ran_s"], found["most_at_once"]) == (pytest.approx(6.4), 2)
    assert found["cpu_s"] == pytest.approx(3.5)
    assert found["parallelism"] == pytest.approx(1.6)


def test_a_build_of_nothing_has_no_limit() -> None:
    nothing = {"began": 0.0, "wall_s": 0.0, "slots": 0, "jobs_of_it": []}
    assert summary(nothing) == {
        "ran_s": 0,
        "cpu_s": 0,
        "most_memory_bytes": 0,
        "parallelism": 0.0,
        "most_at_once": 0,
        "limit": "",
    }
    assert trace_events(nothing) == {"traceEvents": [], "displayTimeUnit": "ms"}


SPANS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 20)).map(lambda s: (float(s[0]), float(sum(s))))
).map(sorted)


@given(SPANS)
def test_lanes_are_as_few_as_can_be_and_nothing_overlaps(spans: list[tuple[float, float]]) -> None:
    rows = lanes(spans)
    assert max(rows, default=-1) + 1 == most_at_once(spans)
    for row in set(rows):
        own = [span for span, at in zip(spans, rows, strict=True) if at == row]
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(own))


def test_a_trace_has_a_process_for_each_worker_and_one_for_the_dev_box() -> None:
    made = build(job(5.0, 1.0), job(5.5, 1.0), job(5.0, 1.0, worker="w:2"), job(5.0, 2.0, **LOCAL))
    events = trace_events(made)["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    assert sorted(names.values()) == sorted([HERE, "w:1", "w:2"])
    spans = [(names[e["pid"]], e["tid"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert sorted(spans) == [
        (HERE, 1, 0, 2_000_000),
        ("w:1", 1, 200_000, 800_000),
        ("w:1", 2, 700_000, 800_000),
        ("w:2", 1, 200_000, 800_000),
    ]
    counts = [(e["ts"], e["args"]["jobs"]) for e in events if e["ph"] == "C"]
    assert counts == [(200_000, 2), (700_000, 3), (1_000_000, 1), (1_500_000, 0)]


def test_the_sources_that_changed_most_come_first() -> None:
    before = [job(0, 1.2, source="/a"), job(0, 2.2, source="/b"), job(0, 3.2, source="/gone")]
    now = [
        job(0, 1.3, source="/a"),
        job(0, 1.2, source="/b"),
        job(0, 9.0, **LOCAL | {"source": "/new"}),
    ]
    assert [source for source, *_ in slower(before, now)] == ["/b", "/a"]
