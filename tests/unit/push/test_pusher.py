"""A worker in memory is kept at the manifest's generation, whatever happens to it."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from distbuild.credentials import Credentials, load_credentials
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import Bundle, Changes, ChangesReply, FileEntry
from distbuild.push.bundles import BlobSource, BundleLimits
from distbuild.push.pusher import MAX_TRIES, WITH_CHANGES_BYTES, Pusher, PushTiming, refresh_all
from distbuild.push.worker_client import ContentSender, Progress, WorkerClient, reason_of
from tests.support.mirrored import Mirror
from tests.support.workers import FakeWorkerClient

QUICK = PushTiming(backoff_s=0.05)


class Pushed:
    """A mirrored directory, a worker, and the pusher between them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.mirror = Mirror(base, "", "none")
        self.mirroring = self.mirror.mirroring
        self.mirroring._on_change = lambda: self.pusher.notify()
        self.client = FakeWorkerClient()
        self.lost: list[str] = []
        self.found: list[tuple[str, str]] = []
        self.use()
        self.write("x.h", "1")

    def use(self, timing: PushTiming = QUICK, limits: BundleLimits | None = None) -> None:
        """Have a pusher with these; before it is started."""
        self.pusher = Pusher(
            self.client,  # type: ignore[arg-type]
            "me",
            self.mirroring,
            BlobSource(self.mirroring.manifest, limits),
            SimpleNamespace(
                lost=self.lost.append,
                found=lambda worker, host: self.found.append((worker, host)),
            ),
            timing,
        )

    def write(self, name: str, text: str) -> None:
        """Write a file and have it in the manifest."""
        path = self.base / "r" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.mirroring.require([str(self.base / "r")])
        self.mirroring.settle()

    def start(self) -> None:
        self.mirroring.ready.set()
        self.pusher.start()

    def wait(self) -> None:
        """Until the worker's tree is the manifest."""
        generation = self.mirroring.manifest.generation
        self.client.wait_until(lambda: self.client.generation == generation)
        assert self.pusher.wait_for(generation, 10)
        assert self.client._summary() == self.mirroring.manifest.summary()

    def sent(self) -> list[str]:
        """What was asked of the worker since the last call, without questions for its status."""
        asked, self.client.asked = self.client.asked, []
        return [word for word in asked if word not in ("status", "probe")]


@pytest.fixture
def dev(certs_dir: Path) -> Credentials:
    return load_credentials(certs_dir, "dev")


@pytest.fixture
def pushed(tmp_path: Path) -> Iterator[Pushed]:
    base = Path(os.path.realpath(tmp_path)) / "base"
    base.mkdir()
    pushed = Pushed(base)
    yield pushed
    if pushed.pusher._thread.is_alive():
        pushed.pusher.stop()
    pushed.mirroring.stop()


def test_an_empty_worker_gets_everything_and_then_the_changes(pushed: Pushed) -> None:
    pushed.start()
    pushed.wait()
    first = pushed.mirroring.manifest.generation
    assert pushed.sent() == ["offer", "since 0", "blobs 1", "since 0"]
    pushed.write("y.h", "2")
    pushed.wait()
    assert pushed.sent() == [f"since {first} with 1"]
    assert pushed.pusher.progress.sent_blobs == 2


def test_a_worker_with_the_same_tree_gets_nothing(pushed: Pushed) -> None:
    pushed.client.blobs_held = set(pushed.mirroring.manifest._holders)
    pushed.client.changes(pushed.mirroring.changes("me", "", 0))
    pushed.client.epoch = "of another run"
    pushed.sent()
    pushed.start()
    pushed.pusher.wait_for(1, 10)
    assert pushed.sent() == ["offer"]


def test_nothing_is_said_before_the_first_scan_is_over(pushed: Pushed) -> None:
    pushed.pusher.start()
    pushed.client.wait_until(lambda: "status" in pushed.client.asked)
    pushed.pusher.refresh(0.0)
    pushed.client.wait_until(lambda: pushed.client.asked.count("status") >= 2)
    assert pushed.sent() == []
    pushed.mirroring.ready.set()
    pushed.pusher.notify()
    pushed.wait()


def test_a_file_that_changed_since_it_was_hashed_comes_with_the_next_generation(
    pushed: Pushed,
) -> None:
    (pushed.base / "r/x.h").write_text("another text")
    pushed.start()
    pushed.client.wait_until(lambda: pushed.client.generation >= 2)
    pushed.wait()
    entry = pushed.mirroring.manifest.get(str(pushed.base / "r/x.h"))
    assert entry == pushed.mirroring._scanner.entry(str(pushed.base / "r/x.h"))


def test_a_file_that_changed_without_a_trace_is_read_again(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same size and times, as after a write through a mapping that the kernel has not noted yet."""
    monkeypatch.setattr("distbuild.mirror.digest_cache.time.time_ns", lambda: 2**62)
    monkeypatch.setattr("distbuild.mirror.scan.stat_key", lambda status: (0, 0, 0, 0))
    pushed.write("y.h", "1")
    (pushed.base / "r/y.h").write_text("2")
    pushed.start()
    pushed.client.wait_until(lambda: pushed.client.generation >= 3)
    pushed.wait()


def test_a_worker_that_goes_down_is_given_up_and_found_again(pushed: Pushed) -> None:
    pushed.start()
    pushed.wait()
    pushed.sent()
    pushed.client.set_down(True)
    pushed.write("y.h", "2")
    pushed.client.wait_until(lambda: len(pushed.client.asked) >= 3)
    assert (pushed.pusher.up, pushed.lost) == (False, ["w1"])
    assert pushed.pusher.error == "w1:8443: connection refused"
    pushed.client.set_down(False)
    pushed.wait()
    assert (pushed.pusher.up, pushed.pusher.error, pushed.lost) == (True, "", ["w1"])


def test_a_worker_that_was_started_anew_is_another_one(pushed: Pushed) -> None:
    """Its old self is not waited for: what was leased to that is lost."""
    pushed.client.name = "a.1"
    pushed.start()
    pushed.wait()
    pushed.client.name = "a.2"
    pushed.pusher.refresh(0)
    pushed.client.wait_until(lambda: len(pushed.found) == 2)
    assert (pushed.lost, pushed.found) == (["a.1"], [("a.1", "w1:8443"), ("a.2", "w1:8443")])
    assert pushed.pusher.worker == "a.2"


def test_a_worker_that_takes_no_changes_keeps_its_jobs(pushed: Pushed) -> None:
    """Its disk is full, or something between resets what is large."""
    pushed.start()
    pushed.wait()

    def refuse(changes: Changes) -> ChangesReply:
        del changes
        pushed.client.asked.append("refused")
        raise InfrastructureError("w1:8443: 507: disk full")

    take, pushed.client.changes = pushed.client.changes, refuse  # type: ignore[method-assign]
    pushed.client.asked = []
    pushed.write("y.h", "2")
    pushed.client.wait_until(lambda: pushed.client.asked.count("status") >= 3)
    assert (pushed.pusher.up, pushed.lost) == (True, [])
    assert pushed.pusher.error == "w1:8443: 507: disk full"
    assert pushed.client.asked.count("refused") >= 2
    pushed.client.changes = take  # type: ignore[method-assign]
    pushed.wait()
    pushed.pusher.refresh(0)
    pushed.client.asked = []
    pushed.client.wait_until(lambda: "status" in pushed.client.asked)
    assert pushed.pusher.error == ""


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (ChangesReply("need_full"), f"asked for everything {MAX_TRIES} times"),
        (ChangesReply("need_blobs", 0, [bytes(32)]), f"asked for everything {MAX_TRIES} times"),
        (ChangesReply("applied", 0), "unexpected answer 'applied' 0 to changes"),
        (ChangesReply("applied", 10**18), "unexpected answer 'applied' 1000000000000000000 to"),
        (ChangesReply("\x1b" * 1000, 1), r"unexpected answer '\x1b\x1b"),
    ],
)
def test_a_worker_that_answers_the_same_for_ever_is_left_alone_for_a_while(
    pushed: Pushed, reply: ChangesReply, error: str
) -> None:
    pushed.start()
    pushed.wait()
    take = pushed.client.changes
    asked: list[str] = []

    def repeat(changes: Changes) -> ChangesReply:
        asked.append("changes")
        return reply

    pushed.client.changes = repeat  # type: ignore[method-assign]
    pushed.write("y.h", "2")
    pushed.client.wait_until(lambda: bool(pushed.pusher.error))
    assert error in pushed.pusher.error
    assert len(pushed.pusher.error) < 200
    assert len(asked) <= 10 * MAX_TRIES  # in a few rounds
    assert pushed.pusher.up
    pushed.client.changes = take  # type: ignore[method-assign]
    pushed.wait()


def test_a_worker_that_restarts_empty_gets_everything_again(pushed: Pushed) -> None:
    pushed.use(PushTiming(backoff_s=0.05, status_s=0.01, probe_s=0.01))
    pushed.start()
    pushed.wait()
    pushed.sent()
    pushed.client.restart_empty()
    pushed.wait()
    assert pushed.sent()[:4] == ["offer", "since 0", "blobs 1", "since 0"]


def test_a_tree_that_fell_behind_gets_a_complete_listing(pushed: Pushed) -> None:
    pushed.start()
    pushed.wait()
    pushed.sent()
    base = pushed.client.generation
    pushed.client.generation -= 1
    pushed.write("y.h", "2")
    pushed.client.wait_until(lambda: pushed.client.generation == base + 1)
    assert pushed.sent() == [f"since {base} with 1", "since 0"]


def test_a_worker_that_is_emptied_during_a_push_stays_up(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed.start()
    pushed.wait()
    take = pushed.client.blobs

    def blobs(sent: list[Bundle]) -> None:
        take(sent)
        monkeypatch.setattr(pushed.client, "blobs", take)
        pushed.client.restart_empty()

    monkeypatch.setattr(pushed.client, "blobs", blobs)
    pushed.write("large.h", "x" * (WITH_CHANGES_BYTES + 1))
    pushed.wait()
    assert pushed.lost == []
    assert pushed.found == [("w1", "w1:8443")]


def test_a_cleaned_worker_is_filled_again(pushed: Pushed) -> None:
    pushed.start()
    pushed.wait()
    pushed.pusher.clean()
    pushed.pusher.notify()
    pushed.wait()
    assert "clean me" in pushed.sent()


def test_an_unforeseen_error_is_shown_and_does_not_end_the_thread(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(pushed.client, "changes", lambda changes: 1 / 0)
        pushed.start()
        said = "ZeroDivisionError: division by zero"
        pushed.client.wait_until(lambda: pushed.pusher.error == said)
    pushed.wait()


def test_an_idle_worker_is_only_probed_until_somebody_wants_its_status(pushed: Pushed) -> None:
    pushed.use(PushTiming(backoff_s=0.05, probe_s=0.01))
    pushed.start()
    pushed.wait()
    pushed.client.asked = []
    pushed.client.wait_until(lambda: pushed.client.asked.count("probe") >= 3)
    assert "status" not in pushed.client.asked
    pushed.pusher.refresh(60.0)
    assert "status" not in pushed.client.asked
    refresh_all([pushed.pusher], 0.0, 0.0)
    pushed.client.wait_until(lambda: "status" in pushed.client.asked)


def test_a_worker_in_doubt_is_probed_at_once(pushed: Pushed) -> None:
    pushed.start()
    pushed.wait()
    pushed.client.asked = []
    pushed.pusher.doubt()
    pushed.client.wait_until(lambda: "probe" in pushed.client.asked)
    pushed.client.set_down(True)
    pushed.pusher.doubt()
    pushed.client.wait_until(lambda: not pushed.pusher.up)
    assert pushed.lost == ["w1"]


def test_a_worker_whose_port_is_closed_is_given_up_at_the_next_probe(pushed: Pushed) -> None:
    pushed.use(PushTiming(backoff_s=0.05, probe_s=0.01))
    pushed.start()
    pushed.wait()
    pushed.client.asked = []
    pushed.client.set_down(True)
    pushed.client.wait_until(lambda: pushed.client.asked[-1:] == ["status"])
    assert pushed.lost == ["w1"]


def test_a_status_of_a_worker_that_hangs_is_not_waited_for(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed.start()
    pushed.wait()
    release = threading.Event()
    monkeypatch.setattr(pushed.client, "status", lambda: release.wait(10) and {})
    began = time.monotonic()
    refresh_all([pushed.pusher] * 50, 0.0, 0.05)
    assert time.monotonic() - began < 5.0
    release.set()


def test_a_status_of_a_worker_that_is_sent_contents_is_not_waited_for(pushed: Pushed) -> None:
    pusher = pushed.pusher
    pusher.up = True
    assert not pusher._may_be_shown(0.0)
    pusher.progress.left_blobs = 1
    assert pusher._may_be_shown(0.0)
    pusher.progress.left_blobs = 0
    pusher._filler.is_at_work = True
    assert pusher._may_be_shown(0.0)


def test_a_refresh_notices_a_worker_that_was_started_anew(pushed: Pushed) -> None:
    pushed.start()
    pushed.wait()
    pushed.sent()
    pushed.client.restart_empty()
    pushed.pusher.refresh(0)
    pushed.wait()
    assert pushed.sent()[:4] == ["offer", "since 0", "blobs 1", "since 0"]


def test_an_empty_worker_is_filled_while_the_first_scan_is_under_way(pushed: Pushed) -> None:
    pushed.use(limits=BundleLimits(found_files=2))
    ahead = pushed.pusher._source.ahead
    pushed.pusher.start()
    pushed.client.wait_until(lambda: "status" in pushed.client.asked)
    entry = pushed.mirroring.manifest.get(str(pushed.base / "r/x.h"))
    other = pushed.base / "other.h"
    other.write_text("2")
    assert isinstance(entry, FileEntry)
    found = pushed.mirroring._scanner.entry(str(other))
    assert isinstance(found, FileEntry)
    ahead.found(str(pushed.base / "r/x.h"), entry)
    ahead.found(str(other), found)
    pushed.client.wait_until(lambda: pushed.client.blobs_held == {entry.digest, found.digest})
    assert pushed.sent() == ["lacking 2", "blobs 2"]
    assert pushed.client.generation == 0
    ahead.found(str(pushed.base / "last.h"), msgspec.structs.replace(entry, digest=b"l" * 32))
    pushed.mirroring.ready.set()
    pushed.pusher.notify()
    pushed.wait()
    assert pushed.sent() == ["lacking 1", "since 0"]
    assert ahead.get(found.digest) is None


def test_what_waits_for_its_group_is_sent_once_the_scan_is_over(pushed: Pushed) -> None:
    pushed.use(limits=BundleLimits(found_files=1))
    source = pushed.pusher._source
    pushed.pusher.start()
    pushed.client.wait_until(lambda: "status" in pushed.client.asked)
    pushed.client.wait_until(lambda: source._users > 0)
    entry = pushed.mirroring.manifest.get(str(pushed.base / "r/x.h"))
    assert isinstance(entry, FileEntry)
    source.hashed(entry.digest, b"1")
    source.ahead.found(str(pushed.base / "r/x.h"), entry)
    pushed.client.wait_until(lambda: "lacking 1" in pushed.client.asked)
    assert pushed.sent() == ["lacking 1"]
    pushed.mirroring.ready.set()
    pushed.pusher.notify()
    pushed.wait()
    # Not with the changes, which would have to be sent a second time.
    assert pushed.sent() == ["blobs 1", "since 0"]


def test_a_worker_with_a_tree_is_sent_nothing_before_the_scan_is_over(pushed: Pushed) -> None:
    pushed.use(limits=BundleLimits(found_files=1))
    pushed.client.known = True
    pushed.pusher.start()
    pushed.client.wait_until(lambda: "status" in pushed.client.asked)
    asked = len(pushed.client.asked)
    entry = pushed.mirroring.manifest.get(str(pushed.base / "r/x.h"))
    assert isinstance(entry, FileEntry)
    pushed.pusher._source.ahead.found("/x.h", entry)
    pushed.pusher.refresh(0)
    pushed.client.wait_until(lambda: len(pushed.client.asked) > asked)
    assert pushed.sent() == []


def test_what_is_still_to_be_sent_is_shown_until_it_is_sent(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed.use(limits=BundleLimits(group_bytes=1, request_bytes=1))
    for number in range(5):
        pushed.write(f"{number}.h", "text" + str(number))
    pusher, seen = pushed.pusher, []
    take = pushed.client.blobs

    def blobs(sent: list[Bundle]) -> None:
        seen.append((pusher.progress.left_blobs, pusher.progress.left_bytes))
        take(sent)

    monkeypatch.setattr(pushed.client, "blobs", blobs)
    pushed.start()
    pushed.wait()
    assert seen[0] == (6, 26)
    assert (pusher.progress.left_blobs, pusher.progress.left_bytes, pusher.progress.sent_blobs) == (
        0,
        0,
        6,
    )


def test_a_delivery_ends_at_its_first_failure(pushed: Pushed) -> None:
    pushed.client.set_down(True)
    delivery = ContentSender(pushed.client, pushed.pusher._source, lambda: False)
    digests = list(pushed.mirroring.manifest._holders)
    with pytest.raises(InfrastructureError, match="refused"):
        delivery.send(digests)
    assert delivery.progress == Progress()
    over = ContentSender(pushed.client, pushed.pusher._source, lambda: True)
    with pytest.raises(InfrastructureError, match="ends"):
        over.send(digests)


def test_waiting_for_a_generation_that_does_not_come_ends(pushed: Pushed) -> None:
    assert not pushed.pusher.wait_for(1, 0.0)


class Answering:
    """Answers every request alike, in place of connections."""

    def __init__(self, answer: tuple[int, bytes] | InfrastructureError) -> None:
        self.answer = answer

    def get(self, path: str, timeout_s: float, most: int) -> tuple[int, bytes]:
        if isinstance(self.answer, InfrastructureError):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((507, b"no space\nmore"), "w1:1: 507 no space"),
        ((500, b""), "w1:1: 500 "),
        ((302, b""), "w1:1: 302 "),
        ((200, b"<html>"), "w1:1: /status makes no sense: "),
        ((200, b'{"clients": null}'), "w1:1: /status makes no sense: "),
        ((200, b'{"clients": {"a": 1}}'), "w1:1: /status makes no sense: "),
        ((200, b'{"name": ["a"]}'), "w1:1: /status makes no sense: "),
        ((200, b"[]"), "w1:1: /status makes no sense: "),
        ((200, b'{"a": ' + b"[" * 100_000), "w1:1: /status makes no sense: "),
        ((200, b'{"\xff": 1}'), "w1:1: /status makes no sense: "),
        (InfrastructureError("The read operation timed out"), "w1:1: timed out"),
    ],
)
def test_every_failure_of_a_request_is_of_the_infrastructure(
    answer: tuple[int, bytes] | InfrastructureError, message: str, dev: Credentials
) -> None:
    client = WorkerClient(dev, "w1:1")
    client._connections = Answering(answer)  # type: ignore[assignment]
    with pytest.raises(InfrastructureError) as caught:
        client.status()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[Errno 111] Connection refused", "connection refused"),
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed (_ssl.c:1)",
            "certificate verify failed",
        ),
        ("[Errno -2] Name or service not known", "not known"),
        (
            "the connection was closed before the answer",
            "the connection was closed before the answer",
        ),
    ],
)
def test_a_reason_is_a_few_words(text: str, reason: str) -> None:
    assert reason_of(text) == reason


def test_a_port_is_open_or_closed(dev: Credentials) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        client = WorkerClient(dev, host)
        client.probe()
    with pytest.raises(InfrastructureError, match=f"{host}: connection refused"):
        client.probe()
    with pytest.raises(InfrastructureError, match=f"{host}: connection refused"):
        client.status()
