import io
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from distbuild.logs import _replace_handlers, announce, say, set_up_logging
from tests.support.cluster import wait_until


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the handlers and their errors are written to."""
    made = io.StringIO()
    monkeypatch.setattr(sys, "stderr", made)
    return made


@pytest.fixture
def log(tmp_path: Path, stderr: io.StringIO) -> Iterator[Path]:
    del stderr  # there before the handlers
    root = logging.getLogger()
    before = root.handlers[:], root.level
    path = set_up_logging(tmp_path / "logs", "testd")
    yield path
    _replace_handlers()
    root.handlers, level = before
    root.setLevel(level)


def reopen() -> None:
    """Each handler opens its file at the next line, as after something else has set up logging."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()


def test_a_removed_directory_is_made_anew(log: Path, stderr: io.StringIO) -> None:
    shutil.rmtree(log.parent)
    reopen()
    logging.getLogger("x").info("a line")
    assert log.read_text().endswith("a line\n")
    assert stderr.getvalue() == ""


def test_a_line_that_cannot_be_written_is_no_traceback(log: Path, stderr: io.StringIO) -> None:
    log.unlink()
    log.symlink_to("/dev/full")
    reopen()
    logging.getLogger("x").warning("a line")
    assert stderr.getvalue() == "testd: WARNING: a line\n"
    log.unlink()


def test_what_is_announced_is_one_line_for_people_and_for_the_log(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    announce("syncer: here,\nhome /x")
    assert capsys.readouterr().out == "syncer: here, home /x\n"
    assert log.read_text().endswith("syncer: here, home /x\n")


class Broken(io.StringIO):
    """Its reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [None, Broken(), io.TextIOWrapper(io.BytesIO(), "ascii")])
def test_a_line_that_cannot_be_read_does_no_harm(stream: io.TextIOWrapper | None) -> None:
    say("home /gr\u00fc\udce9n", stream)
    if isinstance(stream, io.TextIOWrapper):
        written = stream.buffer
        assert isinstance(written, io.BytesIO)
        assert written.getvalue() == b"home /gr??n\n"


def test_a_signal_writes_the_stacks_of_all_threads(log: Path) -> None:
    started, ended = threading.Event(), threading.Event()

    def wait_for_the_end() -> None:
        started.set()
        ended.wait()

    thread = threading.Thread(target=wait_for_the_end)
    thread.start()
    started.wait()
    os.kill(os.getpid(), signal.SIGUSR1)
    stacks = log.with_name("testd.stacks")
    wait_until(lambda: "wait_for_the_end" in stacks.read_text(), "the stacks are written")
    ended.set()
    thread.join()
