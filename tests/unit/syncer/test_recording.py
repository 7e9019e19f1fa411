"""A command is among the running ones until it ends, and then in the history."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distbuild.farm.executor import Stopwatch
from distbuild.history.store import History
from distbuild.protocol.messages import PREPARED, QUEUED, UNDERSTOOD, SubmitReply, SubmitRequest
from distbuild.syncer.recording import Recording, RunningJobs
from distbuild.syncer.understand import Submission

REQUEST = SubmitRequest([b"gcc", b"-c", b"a.c"], b"/p", {}, session=7)


def submission() -> Submission:
    return Submission(("gcc", "-c", "a.c"), "/p", {}, None, Stopwatch())


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    made = History(tmp_path / "history.sqlite", 10**9, lambda: 4)
    yield made
    made.stop()


def recorded(history: History) -> dict[str, Any]:
    build = history.build(0)
    assert build is not None
    [job] = build["jobs_of_it"]
    return dict(job)


def test_a_running_command_shows_how_far_it_is(history: History) -> None:
    running = RunningJobs(history)
    with Recording(running, REQUEST, submission()) as recording:
        watch = recording.submission.stopwatch
        assert watch is not None
        [shown] = running.shown().values()
        assert (shown["source"], shown["worker"], shown["ended"]) == ("", "", "")
        watch.source = "/p/a.c"
        watch.end(UNDERSTOOD)
        watch.end(PREPARED)
        watch.leased("w:1")
        [shown] = running.shown().values()
        assert (shown["source"], shown["worker"], shown["ended"]) == ("/p/a.c", "w:1", QUEUED)
        watch.inputs, watch.missed = 65, "never compiled"
        recording.end(SubmitReply("done", worker="w:1"))
        assert running.shown() == {}
    job = recorded(history)
    assert (job["outcome"], job["inputs"], job["missed"]) == ("compiled", 65, "never compiled")


def test_a_failure_is_kept_with_its_messages_and_no_source_text(history: History) -> None:
    stderr = b"a.c:1:1: \x1b[01;31merror: \x1b[mno\n    1 | secret\n      | ^\n"
    with Recording(RunningJobs(history), REQUEST, submission()) as recording:
        recording.end(SubmitReply("done", exit_code=1, stderr=stderr, worker="w:1"))
    job = recorded(history)
    assert (job["outcome"], job["messages"]) == ("failed", "a.c:1:1: error: no")


def test_warnings_of_a_compile_are_not_kept(history: History) -> None:
    with Recording(RunningJobs(history), REQUEST, submission()) as recording:
        recording.end(SubmitReply("done", stderr=b"a.c:1:1: warning: no\n", worker="w:1"))
    assert recorded(history)["messages"] == ""


def test_a_command_that_runs_here_is_running_until_its_program_ends(history: History) -> None:
    running = RunningJobs(history)
    with Recording(running, REQUEST, submission()) as recording:
        recording.is_left_open = True
    [shown] = running.shown().values()
    assert shown["is_local"]
    recording.end(SubmitReply("local", reason="link", detail="x\ny"))
    assert running.shown() == {}
    job = recorded(history)
    assert (job["outcome"], job["reason"], job["detail"]) == ("local", "link", "x y")


def test_a_wrapper_that_goes_away_leaves_no_running_command(history: History) -> None:
    running = RunningJobs(history)
    with pytest.raises(GeneratorExit), Recording(running, REQUEST, submission()):
        raise GeneratorExit
    assert running.shown() == {}
    assert recorded(history)["outcome"] == "cancelled"


def test_without_a_history_nothing_is_recorded() -> None:
    running = RunningJobs(None)
    with Recording(running, REQUEST, submission()) as recording:
        assert running.shown() == {}
        recording.end(SubmitReply("done"))
