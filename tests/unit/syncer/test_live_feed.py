"""The events of open pages: all that changed and nothing else, and no thread without a page."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from distbuild.history.store import History
from distbuild.http.response import Response
from distbuild.one_shot import OneShot
from distbuild.syncer.live_feed import MAX_PENDING, LiveFeed, page_status, trouble
from tests.support.cluster import wait_until
from tests.unit.history.test_store import Clock, record

UP: dict[str, Any] = {"state": "up", "error": "", "num_cores": 2, "compilers": ["/usr/bin/gcc"]}


def status(**workers: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "1",
        "jobs": {"queued": 0, "running": 0},
        "compilers": [],
        "local": {},
        "received_bytes": 0,
        "mirror": {"generation": 3, "sent_bytes": 5, "files": 1},
        "workers": workers or {"w:1": {**UP, "toolchains": ["large"]}},
    }


class Fed:
    """A feed over a history, and the service's other parts as far as the feed asks for them."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.history = History(path, 10**9, lambda: 4, self.clock)
        self.jobs: dict[int, dict[str, Any]] = {}
        self.asked = 0
        running = SimpleNamespace(shown=lambda: dict(self.jobs))
        service = SimpleNamespace(history=self.history, running=running, status=self.status)
        self.feed = LiveFeed(cast("Any", service), {"X": "y"})

    def status(self) -> dict[str, Any]:
        self.asked += 1
        return status()

    def begin(self, number: int) -> Any:
        job = self.history.begin(1, "")
        self.jobs[number] = {"build": job.build, "began": job.began, "worker": ""}
        return job

    def end(self, number: int, job: Any, **other: object) -> None:
        del self.jobs[number]
        self.history.end(job, record(self.clock, **other))

    def thread(self) -> bool:
        return any(thread.name == "dashboard" for thread in threading.enumerate())


class Page:
    """One open page; ``close`` is what the server does when the browser is gone."""

    def __init__(self, fed: Fed) -> None:
        self.later = fed.feed.stream()
        head = next(self.later)
        assert isinstance(head, Response)
        assert head.is_stream
        assert head.headers["Content-Type"] == "text/event-stream"

    def event(self) -> dict[str, Any]:
        """The next event that says something."""
        while True:
            step = next(self.later)
            if isinstance(step, bytes):
                if step.startswith(b"data: "):
                    return dict(json.loads(step.removeprefix(b"data: ")))
            else:
                assert not isinstance(step, Response)
                assert step.wait(60)

    def close(self) -> None:
        self.later.close()


@pytest.fixture
def fed(tmp_path: Path) -> Iterator[Fed]:
    made = Fed(tmp_path / "history.sqlite")
    yield made
    made.feed.stop()
    made.history.stop()


def test_a_page_gets_first_all_and_then_what_has_changed(fed: Fed) -> None:
    first = fed.begin(1)
    fed.end(1, first, source=b"/a.c")
    fed.begin(2)
    page = Page(fed)
    event = page.event()
    assert event["build"]["jobs"] == 1
    assert [job["source"] for job in event["jobs"]] == ["/a.c"]
    assert list(event["begun"]) == ["2"]
    assert event["status"]["workers"] == {"w:1": UP}
    assert event["trouble"] == ""
    third = fed.begin(3)
    event = page.event()
    assert list(event["begun"]) == ["3"]
    assert not {"build", "jobs", "over", "status", "trouble"} & set(event)
    fed.end(3, third, source=b"/b.c")
    event = page.event()
    assert [job["source"] for job in event["jobs"]] == ["/b.c"]
    assert event["over"] == [3]
    assert event["build"]["jobs"] == 2
    page.close()


def test_a_build_is_there_before_its_first_command_has_ended(fed: Fed) -> None:
    page = Page(fed)
    assert "build" not in page.event()
    job = fed.begin(1)
    event = page.event()
    assert (event["build"]["number"], event["build"]["jobs"]) == (job.build, 0)
    assert event["build"]["began"] == job.began
    page.close()


def test_the_thread_lives_as_long_as_a_page_is_open(fed: Fed) -> None:
    assert not fed.thread()
    assert fed.history.on_change is None
    pages = [Page(fed), Page(fed)]
    for page in pages:
        page.event()
    assert fed.thread()
    pages[0].close()
    fed.begin(1)
    assert "1" in pages[1].event()["begun"]
    pages[1].close()
    wait_until(lambda: not fed.thread(), "the thread has ended")
    assert fed.history.on_change is None
    asked = fed.asked
    fed.begin(2)
    page = Page(fed)
    assert len(page.event()["begun"]) == 2
    assert fed.asked > asked
    page.close()


def test_a_page_that_takes_nothing_is_closed(fed: Fed) -> None:
    page = Page(fed)
    page.event()
    [known] = fed.feed._pages
    known.pending.extend([b":\n\n"] * MAX_PENDING)
    fed.begin(1)
    wait_until(lambda: known.has_lost, "the feed has given the page up")
    for step in page.later:
        assert isinstance(step, bytes) or (isinstance(step, OneShot) and step.wait(60))
    assert not fed.feed._pages


def test_after_an_error_the_page_opens_another_stream(fed: Fed) -> None:
    page = Page(fed)
    page.event()
    fed.jobs[1] = {}  # malformed
    fed.begin(2)
    for step in page.later:
        assert isinstance(step, bytes) or (isinstance(step, OneShot) and step.wait(60))
    del fed.jobs[1]
    again = Page(fed)
    assert list(again.event()["begun"]) == ["2"]
    again.close()


def test_a_stopped_feed_has_no_thread(fed: Fed) -> None:
    page = Page(fed)
    page.event()
    fed.feed.stop()
    assert not fed.thread()
    page.close()


def test_a_page_sees_of_a_worker_only_what_it_shows() -> None:
    shown = page_status(status())
    assert shown["workers"] == {"w:1": UP}
    assert shown["mirror"] == {"generation": 3, "sent_bytes": 5}


@pytest.mark.parametrize("claim", ["7", [1], None, float("nan"), float("inf"), 10**400, {"a": 1}])
def test_what_a_worker_claims_is_a_number_or_not_shown(claim: object) -> None:
    shown = page_status(status(liar={**UP, "load": claim, "running": 2.5}))
    assert shown["workers"] == {"liar": {**UP, "running": 2.5}}


DOWN = {"state": "down", "error": "connection refused"}


@pytest.mark.parametrize(
    ("reasons", "workers", "said"),
    [
        ({}, {"a:1": UP}, ""),
        ({"link": 50}, {"a:1": UP}, ""),
        (
            {"no_toolchain": 41, "link": 2},
            {"a:1": UP},
            "41 jobs were local: no worker has clang 16.0.6; install it on a worker.",
        ),
        ({}, {"a:1": UP, "b:1": DOWN}, "Worker b:1 is down (connection refused);"),
        ({}, {"a:1": DOWN, "b:1": DOWN}, "Worker a:1 is down (connection refused), and 1 more;"),
        ({"no_toolchain": 1, "of_a_newer": 9}, {"a:1": DOWN}, "1 job was local:"),
    ],
)
def test_one_sentence_says_what_is_wrong_and_what_to_do(
    reasons: dict[str, int], workers: dict[str, Any], said: str
) -> None:
    compilers = [
        {"path": "/usr/bin/gcc", "version": "gcc 12.2.0"},
        {"path": "/usr/bin/clang-16", "version": "clang 16.0.6"},
    ]
    sentence = trouble({"reasons": reasons}, {"workers": workers, "compilers": compilers})
    assert sentence.startswith(said)
    assert bool(sentence) == bool(said)


def test_without_workers_the_sentence_names_the_command_that_invites_one() -> None:
    assert "dist_build.exe setup --invite" in trouble(None, {"workers": {}})
