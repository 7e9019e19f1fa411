"""A worker of two developers, one of whom has a syncer that lies: over TLS, with real processes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import requests

from distbuild.credentials import load_credentials
from distbuild.protocol import messages
from distbuild.protocol.codec import pack
from distbuild.protocol.messages import (
    Change,
    Changes,
    CleanRequest,
    FileEntry,
    Job,
    JobFile,
    LeaseReply,
    SymlinkEntry,
)
from distbuild.protocol.names import client_label
from distbuild.wrapper.syncer_client import make_session
from tests.support.cluster import Cluster, wait_until
from tests.support.hostile_syncer import HostileSyncer
from tests.support.tools import need

pytestmark = pytest.mark.compiler

WAIT_S = 300.0
SECRET = "ALICES_SECRET"


class Shared:
    """Alice's syncer and its worker, which serves Bob's as well."""

    def __init__(self, cluster: Cluster, bob: HostileSyncer, certs: Path, project: Path) -> None:
        self.cluster, self.bob, self.certs, self.project = cluster, bob, certs, project
        self.worker = cluster.daemons[0]
        self.alice = (cluster.syncer.home / "state/client_id").read_text().strip()

    def job(self, text: bytes, cwd: bytes = b"/bob", **changes: object) -> Job:
        digest = hashlib.sha256(text).digest()
        source = cwd + b"/x.c"
        file = JobFile(source, FileEntry(digest, len(text), 0o644, 5), pack(text, digest))
        toolchain = next(
            t["identity"] for t in self.worker.status()["toolchains"] if t["name"] == "gcc"
        )
        argv = [b"gcc", b"-c", b"x.c", b"-o", b"x.o"]
        job = Job("bob's lease", 0, argv, cwd, {}, toolchain, [file], [cwd])
        return msgspec.structs.replace(job, **changes)

    def compiled(self, job: Job) -> messages.ResultRequest:
        self.bob.jobs.put(job)
        return self.bob.results.get(timeout=WAIT_S)

    def push(self, route: str, message: messages.Message) -> requests.Response:
        """As Bob's syncer, with the token that all developers have."""
        url = f"https://localhost:{self.worker.port}/api/v1/{route}"
        with make_session(load_credentials(self.certs, "dev"), "worker") as session:
            return session.post(url, data=messages.encode(message), timeout=WAIT_S)

    def tree_of_alice(self) -> Path:
        return self.worker.home / "sandbox" / client_label(self.alice)

    def alice_compiles(self) -> None:
        done = self.cluster.run(["gcc", "-c", "a.c"], self.project, DIST_BUILD_FALLBACK="0")
        assert done.exit_code == 0, (done, self.cluster.logs())


@pytest.fixture(scope="module", params=["auto", "plain"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certs_dir: Path
) -> Iterator[Shared]:
    need("gcc")
    top = tmp_path_factory.mktemp("shared")
    project = top / "alice"
    project.mkdir()
    (project / "secret.h").write_text(f'#define NAME "{SECRET}"\n')
    (project / "a.c").write_text('#include "secret.h"\nconst char *name = NAME;\n')
    with HostileSyncer("b" * 64).serving(certs_dir) as bob:
        cluster = Cluster(top / "farm", certs_dir, [{"sandbox": request.param}])
        config = cluster.daemons[0].home / "config.json"
        both = msgspec.json.decode(config.read_bytes()) | {"syncer": [cluster.url, bob.url]}
        config.write_bytes(msgspec.json.encode(both))
        try:
            made = cluster.start()
            shared = Shared(made, bob, certs_dir, project)
            shared.alice_compiles()
            yield shared
            made.stop()
        finally:
            cluster.kill()


@pytest.fixture(autouse=True)
def _no_harm(shared: Shared) -> Iterator[None]:
    """Whatever Bob says, the worker logs no traceback, and Alice's next compile is right."""
    yield
    shared.bob.client_of_jobs = ""
    shared.bob.client = "b" * 64
    (shared.project / "a.o").unlink(missing_ok=True)
    shared.alice_compiles()
    assert SECRET.encode() in (shared.project / "a.o").read_bytes()
    assert "Traceback" not in shared.worker.output()
    assert shared.alice not in shared.worker.output()


def test_bob_has_his_own_jobs_compiled(shared: Shared) -> None:
    """What is refused below is refused for what it is."""
    result = shared.compiled(shared.job(b"int x;\n"))
    assert (result.error, result.exit_code, len(result.outputs)) == ("", 0, 1)


def test_alices_tree_is_not_bobs_who_knows_her_id(shared: Shared) -> None:
    """She pushes her headers, so the tree has them; his job needs no generation of hers."""
    shared.bob.client_of_jobs = shared.alice
    result = shared.compiled(
        shared.job(b'#include "secret.h"\nint x = NAME;\n', bytes(shared.project))
    )
    assert "another syncer's client" in result.error
    assert SECRET.encode() not in messages.encode(result)


def test_nor_is_it_where_he_names_it_before_he_has_jobs(shared: Shared) -> None:
    before = len(shared.bob.asked)
    shared.bob.client = shared.alice
    wait_until(lambda: len(shared.bob.asked) > before + 3, "the worker asks again")
    assert all(request.slots == 0 for request in shared.bob.asked[before + 2 :])


def test_nor_by_her_label_or_by_her_paths(shared: Shared) -> None:
    tree = bytes(shared.tree_of_alice()) + bytes(shared.project)
    for named in (shared.project, tree):
        text = b'__asm__(".incbin \\"%s/secret.h\\"");\n' % bytes(named)
        result = shared.compiled(shared.job(text))
        assert SECRET.encode() not in messages.encode(result)
    shared.bob.client = client_label(shared.alice)
    result = shared.compiled(shared.job(b'#include "secret.h"\n', bytes(shared.project)))
    assert SECRET.encode() not in messages.encode(result)


def test_bob_is_told_nothing_of_alices_tree(shared: Shared) -> None:
    lease = shared.worker.status()["clients"][client_label(shared.alice)]
    assert lease["generation"] > 0
    told = b"".join(map(messages.encode, [*shared.bob.asked, *shared.bob.pulled]))
    assert shared.alice.encode() not in told
    epochs = {*(r.epoch for r in shared.bob.asked), *(r.epoch for r in shared.bob.pulled)}
    assert epochs <= {"", "evil", "e"}
    status = str(shared.worker.status()) + str(shared.cluster.syncer.status())
    assert shared.alice not in status


def test_bob_does_not_remove_her_tree(shared: Shared) -> None:
    for client in (client_label(shared.alice), f"../sandbox/{client_label(shared.alice)}", "."):
        shared.push("clean", CleanRequest(client))
    assert (shared.tree_of_alice() / str(shared.project).lstrip("/") / "secret.h").exists()


@pytest.mark.parametrize("path", [b"/../x", b"/a/../../../x", b"x", b"", b"/a\0", b"/a//b", b"//"])
def test_no_change_leads_out_of_a_tree(shared: Shared, path: bytes) -> None:
    entry = FileEntry(hashlib.sha256(b"").digest(), 0, 0o644, 5)
    for entries in ([Change(path, entry)], [Change(path, SymlinkEntry(b"/etc"))], [Change(path)]):
        changes = Changes("b" * 64, "evil", 0, 2, bytes(32), entries)
        assert shared.push("mirror/changes", changes).status_code == 400


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        messages.encode(LeaseReply("../../etc", "e")),
        messages.encode(LeaseReply("", "e" * 100_000)),
        messages.encode(LeaseReply("b" * 64, "e", clock=float("nan"))),
        messages.encode(LeaseReply("b" * 64, "e", clock=float("inf"))),
        messages.encode(
            LeaseReply("b" * 64, "e", changes=Changes("x", "e", 5, 1, b"", [], [b"x"]))
        ),
    ],
    ids=range(8),
)
def test_a_reply_that_makes_no_sense_is_passed_over(shared: Shared, reply: bytes) -> None:
    shared.bob.replies.put(reply)
    result = shared.compiled(shared.job(b"int y;\n"))
    assert (result.error, result.exit_code) == ("", 0)


def test_one_lease_twice_is_passed_over(shared: Shared) -> None:
    job = shared.job(b"int z;\n")
    shared.bob.replies.put(LeaseReply("b" * 64, "evil", [job, job]))
    shared.bob.replies.put(LeaseReply("b" * 64, "evil", [job] * 1000))
    result = shared.compiled(shared.job(b"int y;\n", lease_id="another"))
    assert (result.error, result.exit_code, result.lease_id) == ("", 0, "another")
