"""What the routes call, over a real farm and mirror."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from distbuild import __version__
from distbuild.farm.farm import Farm
from distbuild.farm.local_slots import LocalSlots
from distbuild.protocol import messages
from distbuild.protocol.messages import FileEntry, LeaseRequest, PullRequest, Toolchain
from distbuild.push.bundles import BlobSource
from distbuild.push.pusher import Pusher
from distbuild.syncer.compile import Compiles
from distbuild.syncer.local_callers import LocalCallers
from distbuild.syncer.service import Parts, Service
from tests.support.preparing import IDENTITY, Box
from tests.support.tasks import leased, run
from tests.support.workers import FakeWorkerClient

if TYPE_CHECKING:
    from distbuild.syncer.membership import Membership


class Serving:
    """A service whose one configured worker is kept in memory."""

    def __init__(self, base: Path) -> None:
        self.box = Box(base)
        self.farm = Farm(expected=False)
        source = BlobSource(self.box.mirroring.manifest)
        self.client = FakeWorkerClient()
        self.pusher = Pusher(
            self.client,  # type: ignore[arg-type]
            "me",
            self.box.mirroring,
            source,
            self.farm,
        )
        compiles = Compiles(
            self.box.preparer, self.farm, self.box.mirroring, self.box.mirror.scanner
        )
        self.service = Service(
            Parts(
                "me",
                "/home/me/state",
                self.farm,
                self.box.mirroring,
                source,
                compiles,
                self.box.compilers,  # type: ignore[arg-type]
                (self.pusher,),
                LocalCallers(compiles, LocalSlots(2)),
                cast("Membership", None),  # a worker with the common token needs none
            ),
            clock=lambda: 1e9,
        )

    def request(self, *options: str) -> messages.SubmitRequest:
        submission = self.box.submission(*options)
        return messages.SubmitRequest(
            [os.fsencode(word) for word in submission.argv],
            os.fsencode(submission.cwd),
            {name: os.fsencode(value) for name, value in submission.env.items()},
        )

    def asking(self, epoch: str = "", generation: int = 0) -> LeaseRequest:
        toolchains = [Toolchain(IDENTITY.digest, "gcc")]
        return LeaseRequest("w1", 1, 0.0, toolchains, epoch, generation)

    def stop(self) -> None:
        self.farm.stop()
        if self.pusher._thread.is_alive():
            self.pusher.stop()
        self.box.stop()


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    base = Path(os.path.realpath(tmp_path)) / "base"
    base.mkdir()
    made = Serving(base)
    yield made
    made.stop()


def test_status_has_the_documented_shape(serving: Serving) -> None:
    status = serving.service.status()
    assert {
        "version": status["version"],
        "jobs": status["jobs"],
        "workers": status["workers"],
    } == {
        "version": __version__,
        "jobs": {
            "queued": 0,
            "running": 0,
            "done": 0,
            "failed": 0,
            "cancelled": 0,
            "retried": 0,
            "local": {},
        },
        "workers": {
            "w1:8443": {
                "state": "down",
                "error": "not reached yet",
                "answered_s": None,
                "asked_s": None,
                "compilers": [],
                "mirrored_generation": 0,
                "pushes": 0,
                "left_files": 0,
                "left_bytes": 0,
            }
        },
    }
    assert status["uptime_s"] >= 0
    assert {"generation", "files", "bytes", "roots"} <= status["mirror"].keys()


def test_status_counts_what_happened(serving: Serving) -> None:
    run(serving.service.submit(serving.request("-E")))
    run(serving.service.submit(serving.request()))
    status = serving.service.status()
    assert status["jobs"]["local"] == {"no_worker": 1, "preprocess_only": 1}
    mirror, base = status["mirror"], serving.box.base
    assert mirror["roots"] == [f"{base}/src", f"{base}/inc"]
    assert (mirror["files"], mirror["bytes"]) == (1, len("int a;\n"))


def test_status_shows_each_worker_with_its_own_status(serving: Serving) -> None:
    serving.pusher.start()
    serving.client.wait_until(lambda: serving.pusher.up)
    shown = serving.service.status()["workers"]
    assert shown["w1:8443"]["state"] == "not asking for work"
    assert shown["w1:8443"]["num_cores"] == 2
    leased(serving.farm, serving.asking())
    unconfigured = LeaseRequest("w2", 0, 0.0, [Toolchain("gcc", "gcc")])
    leased(serving.farm, unconfigured)
    shown = serving.service.status()["workers"]
    assert {name: worker["state"] for name, worker in shown.items()} == {
        "w1:8443": "up",
        "w2": "up",
    }


def test_workers_of_one_label_are_all_shown(serving: Serving) -> None:
    for name in ("a" * 32 + ".1", "b" * 32 + ".1", "b" * 32 + ".2"):
        asking = LeaseRequest(name, 0, 0.0, [Toolchain("gcc", "gcc")], label="box:8443")
        leased(serving.farm, asking)
    shown = serving.service.status()["workers"]
    assert shown.keys() - {"w1:8443"} == {"box:8443", "box:8443-2", "box:8443-3"}


def test_where_a_new_process_may_answer_is_asked_at_once(serving: Serving) -> None:
    """Only its status tells which of the configured hosts it is."""
    serving.pusher.start()
    serving.client.wait_until(lambda: serving.pusher.up)
    serving.client.asked, serving.client.name = [], "a.2"
    request = LeaseRequest("a.2", 0, 0.0, [Toolchain("gcc", "gcc")], life="2")
    run(serving.service.lease(request))
    serving.client.wait_until(lambda: serving.pusher.worker == "a.2")
    assert serving.service.status()["workers"].keys() == {"w1:8443"}


def test_paths_that_are_no_utf8_can_be_shown(serving: Serving) -> None:
    (serving.box.base / "caf\udce9").mkdir()
    serving.box.mirroring.require([f"{serving.box.base}/caf\udce9"])
    roots = serving.service.status()["mirror"]["roots"]
    assert roots == [f"{serving.box.base}/caf\N{REPLACEMENT CHARACTER}"]


def test_a_lease_carries_the_job_and_the_changes_that_it_needs(serving: Serving) -> None:
    live = serving.box.mirroring
    live.require([f"{serving.box.base}/inc"])
    have = live.settle()
    leased(serving.farm, serving.asking())
    serving.box.write("inc/new.h", "")
    compiling = serving.service.submit(serving.request())
    next(compiling)
    reply = run(serving.service.lease(serving.asking(live.epoch, have)))
    [job] = reply.jobs
    assert job.argv == serving.request().argv
    assert (job.generation, job.toolchain) == (live.manifest.generation, IDENTITY.digest)
    assert "SECRET" not in job.env
    assert (reply.client, reply.epoch) == ("me", live.epoch)
    assert reply.changes is not None
    assert (reply.changes.base, reply.changes.target) == (have, live.manifest.generation)
    assert serving.box.path("inc/new.h") in {c.path for c in reply.changes.entries or ()}
    result = messages.encode(messages.ResultRequest(job.lease_id, "w1", exit_code=1))
    assert serving.service.deliver(msgspec.Raw(result))
    answer = run(compiling)
    assert isinstance(answer, messages.SubmitReply)
    assert (answer.outcome, answer.exit_code) == ("done", 1)


@pytest.mark.parametrize("known", [False, True])
def test_a_lease_leaves_to_be_pulled_what_is_a_whole_listing(serving: Serving, known: bool) -> None:
    leased(serving.farm, serving.asking())
    compiling = serving.service.submit(serving.request())
    next(compiling)
    live = serving.box.mirroring
    request = serving.asking(live.epoch, live.manifest.generation) if known else serving.asking()
    assert run(serving.service.lease(request)).changes is None
    compiling.close()


def test_a_pull_gives_what_is_lacking(serving: Serving) -> None:
    live = serving.box.mirroring
    live.require([f"{serving.box.base}/inc"])
    now = live.settle()
    pull = serving.service.pull
    assert pull(PullRequest("other", 5)) == live.changes("me", "", 0)
    assert pull(PullRequest(live.epoch, now)).entries == []
    same = pull(PullRequest("other", 5, live.manifest.summary()))
    assert (same.entries, same.target) == (None, now)


def test_blobs_are_given_by_digest(serving: Serving) -> None:
    live = serving.box.mirroring
    live.require([f"{serving.box.base}/inc"])
    entry = live.manifest.get(f"{serving.box.base}/inc/a.h")
    assert isinstance(entry, FileEntry)
    batch = serving.service.blobs(messages.BlobRequest([entry.digest, bytes(32)]))
    assert [bundle.digests for bundle in batch.bundles] == [[entry.digest]]
    assert serving.service.blobs(messages.BlobRequest([])).bundles == []


def test_a_content_that_is_not_there_any_more_is_looked_for_at_once(serving: Serving) -> None:
    """The worker asks next what the file is, and would be offered the same as before."""
    live = serving.box.mirroring
    live.require([f"{serving.box.base}/inc"])
    before = live.manifest.get(f"{serving.box.base}/inc/a.h")
    assert isinstance(before, FileEntry)
    serving.box.write("inc/a.h", "int another;\n")
    assert serving.service.blobs(messages.BlobRequest([before.digest])).bundles == []
    after = live.manifest.get(f"{serving.box.base}/inc/a.h")
    assert isinstance(after, FileEntry)
    assert after.digest != before.digest


def test_explain_gives_the_reason(serving: Serving) -> None:
    explain = serving.service.explain
    assert explain(serving.request("-E")) == messages.ExplainReply("preprocess_only", "-E")
    assert explain(serving.request()).reason == "no_worker"
    leased(serving.farm, serving.asking())
    assert explain(serving.request()) == messages.ExplainReply()


def test_install_reports_until_every_reachable_worker_is_done(serving: Serving) -> None:
    serving.box.mirroring.require([f"{serving.box.base}/inc"])
    [only] = serving.service.install()
    assert only["workers"][0] == {
        "worker": "w1:8443",
        "done": False,
        "sent_files": 0,
        "sent_bytes": 0,
        "left_files": 0,
        "left_bytes": 0,
        "error": "not reached yet",
    }
    serving.pusher.start()
    serving.client.wait_until(lambda: serving.pusher.up)
    *_, last = serving.service.install()
    assert last["files"] == 1
    assert last["workers"][0]["done"]
    assert serving.client.generation == serving.box.mirroring.manifest.generation


def test_install_tells_what_this_call_sends(serving: Serving) -> None:
    serving.box.mirroring.require([f"{serving.box.base}/inc"])
    serving.pusher.start()
    serving.client.wait_until(lambda: serving.pusher.up)
    [*_, first] = serving.service.install()
    assert serving.pusher.progress.sent_blobs == 1
    [*_, second] = serving.service.install()
    assert first["workers"][0]["sent_files"] <= 1
    assert (second["workers"][0]["sent_files"], second["workers"][0]["sent_bytes"]) == (0, 0)
    assert second["workers"][0]["done"]


def test_clean_tells_which_workers_it_did_not_reach(serving: Serving) -> None:
    assert serving.service.clean() == {"w1:8443": ""}
    serving.client.down = True
    assert serving.service.clean() == {"w1:8443": "w1:8443: connection refused"}


@pytest.mark.parametrize("kind", ["lease", "renew"])
def test_a_worker_whose_connection_ends_is_looked_at(serving: Serving, kind: str) -> None:
    serving.pusher.start()
    serving.client.wait_until(lambda: serving.pusher.up)
    if kind == "lease":
        steps: Any = serving.service.lease(
            msgspec.structs.replace(serving.asking(), wait_s=30.0, life="x")
        )
    else:
        steps = serving.service.renew(messages.RenewRequest("w1", [], 30.0))
    next(steps)
    serving.client.asked = []
    steps.close()
    serving.client.wait_until(lambda: "probe" in serving.client.asked)


def test_a_worker_that_the_farm_forgot_is_forgotten(serving: Serving) -> None:
    def ask(name: str, life: str) -> None:
        run(serving.service.lease(LeaseRequest(name, 0, 0.0, [Toolchain("x", "x")], life=life)))

    for number in range(10):
        ask(f"w{number}", "a")
    assert len(serving.service._lives) == 10
    for number in range(9):
        serving.farm.lost(f"w{number}")
    ask("w9", "b")
    assert serving.service._lives == {"w9": "b"}
