"""What a stolen build machine can do to a developer: nothing but refuse to compile."""

import functools
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import zstandard

from distbuild.protocol.codec import pack_inputs
from distbuild.protocol.messages import (
    Blob,
    InputFile,
    Job,
    ResultRequest,
)
from tests.support.cluster import Cluster, Done, run_here
from tests.support.hostile_worker import HostileWorker, output, plain

ARGV = ["gcc", "-c", "a.c", "-o", "a.o"]
MIB = 1024 * 1024


def local_object(project: Path) -> bytes:
    """What the local compiler makes of it."""
    assert run_here(ARGV, project).exit_code == 0
    made = (project / "a.o").read_bytes()
    (project / "a.o").unlink()
    return made


class Victim:
    """A developer's project, and what lies around it that nobody may touch."""

    def __init__(self, syncer: Cluster, evil: HostileWorker, project: Path) -> None:
        self.syncer, self.evil, self.project = syncer, evil, project
        self.home = project.parent
        (project / "sub").mkdir()
        (project / "out").symlink_to(self.home)
        (self.home / "keys").mkdir()
        (self.home / "keys/authorized_keys").write_text("mine\n")
        (project / "a.py").write_text("mine\n")
        self.object = local_object(project)
        self.before = self.files()

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Everything around, but the object."""
        found = {}
        for path in sorted(self.home.rglob("*")):
            if path.is_file() and not path.is_symlink() and path != self.project / "a.o":
                found[str(path)] = (path.stat().st_mode, path.read_bytes())
        return found

    def build(self, lie: Callable[[Job, ResultRequest], Any], *argv: str) -> Done:
        """A compile whose only worker lies; the answer."""
        with self.evil.answering(lie):
            # As another build, to which a reason is said anew.
            shutil.rmtree(self.syncer.syncer.home / "state/said", ignore_errors=True)
            return self.syncer.run(list(argv) or ARGV, self.project)

    def assert_unharmed(self, done: Done, why: str = "result_refused") -> None:
        """The object is the local compiler's; nothing else was written; one line says why."""
        assert done.exit_code == 0
        assert (self.project / "a.o").read_bytes() == self.object
        assert (self.project / "a.o").stat().st_mode & 0o111 == 0
        assert self.files() == self.before
        assert done.stderr.startswith(b"dist_build: compiled locally: " + why.encode())
        assert done.stderr.count(b"\n") == 1
        assert done.stderr.rstrip(b"\n").decode().isprintable()


@pytest.fixture
def victim(syncer: Cluster, evil: HostileWorker, project: Path) -> Victim:
    return Victim(syncer, evil, project)


def test_an_honest_answer_is_taken(victim: Victim) -> None:
    before = victim.syncer.jobs()["done"]
    done = victim.build(lambda job, truth: truth)
    assert (done.exit_code, done.stderr) == (0, b"")
    assert (victim.project / "a.o").read_bytes() == victim.object
    assert (victim.syncer.jobs()["done"], victim.evil.taken) == (before + 1, [True])


#: Where a worker may not write, as ``{}``: the project.
PLACES = [
    "{}/../.bashrc",
    "{}/../keys/authorized_keys",
    "{}/sub/../a.o",
    "{}/./a.o",
    "{}//a.o",
    "{}/out/a.o",
    "{}/out/keys/authorized_keys",
    "{}/a.c",
    "{}/a.h",
    "{}/a.py",
    "{}/a.d",
    "{}/a.o.sh",
    "{}/a.i",
    "{}/b.o",
    "{}/sub/a.o",
    "{}/a.o/",
    "{}/a.o/x",
    "{}/.",
    "{}/..",
    "{}/",
    "{}/a.o\0",
    "{}\0/a.o",
    "a.o",
    "./a.o",
    "",
    "/",
    "/a.o",
    "/etc/profile.d/evil.sh",
    "{}/" + "n" * 300,
    "{}/" + "n/" * 2500 + "a.o",
    "{}/\udcff",
    "{}/größe %s '\"",
    "{}/a.o\r\nDist-Build: local",
    "/proc/self/cwd/a.o",
]


@pytest.mark.parametrize("place", PLACES)
def test_no_file_is_written_that_the_command_does_not_write(victim: Victim, place: str) -> None:
    path = place.replace("{}", os.path.realpath(victim.project))

    def lie(job: Job, truth: ResultRequest) -> ResultRequest:
        outputs = [*truth.outputs, output(path, b"echo evil\n", 0o755)]
        return msgspec.structs.replace(truth, outputs=outputs)

    victim.assert_unharmed(victim.build(lie))
    assert not any(victim.evil.taken)
    assert len(victim.evil.jobs) == 3


def test_a_link_in_the_place_of_an_output_is_not_written_through(victim: Victim) -> None:
    """A build of its own may have it so; the local compiler writes through it."""
    (victim.project / "a.o").symlink_to(victim.home / "keys/authorized_keys")
    done = victim.build(lambda job, truth: truth)
    assert done.exit_code == 0
    assert victim.evil.jobs == []
    (victim.home / "keys/authorized_keys").write_text("mine\n")
    assert victim.files() == victim.before


def test_a_link_that_comes_meanwhile_is_replaced_and_not_written_through(victim: Victim) -> None:
    def lie(job: Job, truth: ResultRequest) -> ResultRequest:
        (victim.project / "a.o").symlink_to(victim.home / "keys/authorized_keys")
        return truth

    done = victim.build(lie)
    assert (done.exit_code, done.stderr) == (0, b"")
    assert not (victim.project / "a.o").is_symlink()
    assert victim.files() == victim.before


@pytest.mark.parametrize("mode", [0o755, 0o4755, 0o2777, 0o7777, 0o1777, 2**31, -1])
def test_an_object_is_no_program(victim: Victim, mode: int) -> None:
    def lie(job: Job, truth: ResultRequest) -> ResultRequest:
        [made] = truth.outputs
        return msgspec.structs.replace(truth, outputs=[msgspec.structs.replace(made, mode=mode)])

    umask = os.umask(0o002)
    try:
        done = victim.build(lie)
    finally:
        os.umask(umask)
    assert (done.exit_code, done.stderr) == (0, b"")
    assert (victim.project / "a.o").stat().st_mode & 0o7777 == 0o664


def _but(**fields: Any) -> Callable[[Job, ResultRequest], bytes]:
    """The truth with these fields of it changed, whatever their types allow."""

    def lie(job: Job, truth: ResultRequest) -> bytes:
        changed = {name: f(job, truth) if callable(f) else f for name, f in fields.items()}
        result = msgspec.to_builtins(truth, builtin_types=[bytes])
        return msgspec.msgpack.encode({"results": [{**result, **changed}]})

    return lie


def _object(job: Job, truth: ResultRequest, **blob: Any) -> Any:
    [made] = truth.outputs
    changed = msgspec.structs.replace(made, blob=msgspec.structs.replace(made.blob, **blob))
    return msgspec.to_builtins([changed], builtin_types=[bytes])


def _blob(**fields: Any) -> Callable[[Job, ResultRequest], Any]:
    return lambda job, truth: _object(job, truth, **fields)


@functools.cache
def bomb(size: int) -> Blob:
    """So many zeros in a ten thousandth of the bytes."""
    packer = zstandard.ZstdCompressor(level=1).compressobj(size=size)
    data, left = b"", size
    while left:
        part = min(left, 16 * MIB)
        data += packer.compress(bytes(part))
        left -= part
    digest = hashlib.sha256(bytes(size)).digest() if size < 100 * MIB else bytes(32)
    return Blob(digest, size, data + packer.flush())


def _read(*items: tuple[bytes, bytes]) -> bytes:
    return pack_inputs([InputFile(path, digest) for path, digest in items])


#: What cannot be the truth of a compile that went well.
LIES: dict[str, Callable[[Job, ResultRequest], Any]] = {
    "exit code 256": _but(exit_code=256),
    "exit code 2^40": _but(exit_code=2**40),
    "exit code -1": _but(exit_code=-1),
    "exit code as text": _but(exit_code="0"),
    "no object": _but(outputs=[]),
    "the object twice": _but(outputs=lambda j, t: _object(j, t) * 2),
    "no inputs": _but(packed_inputs=b"", marks=b""),
    "marks of nothing": _but(packed_inputs=b"", marks=bytes(800)),
    "another source": _but(packed_inputs=_read((b"/etc/passwd", bytes(32))), marks=b""),
    "a relative input": _but(packed_inputs=_read((b"a.c", bytes(32))), marks=b""),
    "a NUL in an input": _but(packed_inputs=_read((b"/a\0.c", bytes(32))), marks=b""),
    "a short digest": _but(packed_inputs=_read((b"/a.c", bytes(31))), marks=b""),
    "a long digest": _but(packed_inputs=_read((b"/a.c", bytes(33))), marks=b""),
    "inputs that are none": _but(packed_inputs=b"x" * 100, marks=b""),
    "inputs of 1 GiB": _but(packed_inputs=bomb(1024 * MIB).data, marks=b""),
    "too many inputs": _but(
        packed_inputs=zstandard.compress(
            b"\xdd\x00\xa0\x00\x00" + b"\x92\xc4\x00\xc4\x00" * 6_000_000
        ),
        marks=b"",
    ),
    "too many inputs, unpacked": _but(inputs=[{"path": b"/a", "digest": b""}] * 100_001),
    "a relative input, unpacked": _but(inputs=[{"path": b"a.c", "digest": bytes(32)}]),
    "a NUL in an input, unpacked": _but(inputs=[{"path": b"/a\0", "digest": bytes(32)}]),
    "a short digest, unpacked": _but(inputs=[{"path": b"/a.c", "digest": b"x"}]),
    "a long digest, unpacked": _but(inputs=[{"path": b"/a.c", "digest": b"x" * 33}]),
    "65 MiB printed": _but(stdout=b"x" * (40 * MIB), stderr=b"x" * (25 * MIB)),
    "too many outputs": _but(outputs=lambda j, t: _object(j, t) * 2001),
    "an object of 1 GiB in 32 kB": _but(
        outputs=lambda j, t: _object(j, t, size=1024 * MIB, data=bomb(1024 * MIB).data)
    ),
    "an object of 2 GiB": _but(outputs=_blob(size=2048 * MIB)),
    "an object of -1 bytes": _but(outputs=_blob(size=-1)),
    "an object of 2^63 bytes": _but(outputs=_blob(size=2**63)),
    "outputs as text": _but(outputs="a.o"),
    "no outputs at all": _but(outputs=None),
    "too many marks": _but(marks=bytes(800_008)),
    "packed inputs of 33 MiB": _but(packed_inputs=bytes(33 * MIB)),
    "marks of another size": _but(packed_inputs=b"", marks=b"x" * 7),
}


@pytest.mark.parametrize("name", LIES)
def test_a_success_that_cannot_be_one_is_none(victim: Victim, name: str) -> None:
    victim.assert_unharmed(victim.build(LIES[name]))
    assert len(victim.evil.jobs) == 3
    refused = victim.syncer.syncer.status()["workers"][victim.evil.name]
    assert refused["refused_results"] >= 3
    assert refused["refused_why"].isprintable()


#: What is found out only when it is written: the compile is local, at once.
DAMAGED: dict[str, Callable[[Job, ResultRequest], Any]] = {
    "no zstd": _but(outputs=_blob(data=b"no zstd")),
    "less than it says": _but(outputs=_blob(size=1)),
    "more than it says": _but(outputs=_blob(size=100_000)),
    "another frame behind it": _but(
        outputs=lambda j, t: _object(j, t, data=t.outputs[0].blob.data * 2)
    ),
    "one bit turned": _but(
        outputs=lambda j, t: _object(
            j, t, data=t.outputs[0].blob.data[:-1] + bytes([t.outputs[0].blob.data[-1] ^ 1])
        )
    ),
    "another digest, no checksum": _but(
        outputs=lambda j, t: _object(
            j, t, digest=bytes(32), size=3, data=zstandard.compress(b"abc")
        )
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_object_is_not_written(victim: Victim, name: str) -> None:
    victim.assert_unharmed(victim.build(DAMAGED[name]), "output_not_written")


@pytest.mark.parametrize(
    "error", ["\r\nDist-Build: done", "\x1b]0;evil\x07\x1b[2J", "e" * MIB, "\0", "é\u202e\n\n"]
)
def test_what_a_worker_says_went_wrong_is_one_line(victim: Victim, error: str) -> None:
    done = victim.build(_but(error=error))
    victim.assert_unharmed(done, "leases_lost")
    assert len(done.stderr) < 500


@pytest.mark.parametrize(("size", "is_taken"), [(300 * MIB, False), (60 * MIB, True)])
def test_large_objects_at_once_take_little_memory(
    victim: Victim, size: int, *, is_taken: bool
) -> None:
    """Six results in some 10 kB each. What a compiler may well write is not kept in memory."""
    assert victim.syncer.syncer.popen is not None
    process = psutil.Process(victim.syncer.syncer.popen.pid)
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # its peak begins anew: proc(5)
    before = process.memory_info().rss
    packed = bomb(size)
    lie = _but(outputs=lambda j, t: _object(j, t, **msgspec.structs.asdict(packed)))
    with victim.evil.answering(lie):
        processes = []
        for number in range(6):
            (victim.project / f"b{number}.c").write_text(f"int b{number};\n")
            words = ["gcc", "-c", f"b{number}.c", "-o", f"b{number}.o"]
            processes.append(victim.syncer.popen(words, victim.project))
        for one in processes:
            one.communicate()
            assert one.returncode == 0
    sizes = {(victim.project / f"b{number}.o").stat().st_size for number in range(6)}
    assert (sizes == {size}) == is_taken
    assert _peak(process) - before < 50 * MIB


def _peak(process: psutil.Process) -> int:
    text = Path(f"/proc/{process.pid}/status").read_text()
    [line] = [line for line in text.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_a_job_whose_result_is_refused_goes_to_another_worker(
    mixed: Cluster, certs_dir: Path, project: Path
) -> None:
    before = mixed.jobs()
    evil = HostileWorker(mixed.url, certs_dir)
    victim = str(project / "evil.sh")

    def lie(job: Job, truth: ResultRequest) -> ResultRequest:
        return msgspec.structs.replace(truth, outputs=[output(victim, b"evil", 0o755)])

    with evil.answering(lie):
        while not evil.jobs:  # more at once than the other has slots
            at_once = [
                mixed.popen(["gcc", "-c", "a.c", "-o", f"a{n}.o"], project) for n in range(8)
            ]
            assert [one.communicate() for one in at_once] == [(b"", b"")] * 8
            assert {one.returncode for one in at_once} == {0}
    evil.close()
    assert not os.path.exists(victim)
    objects = {path.read_bytes() for path in project.glob("*.o")}
    assert objects == {local_object(project)}
    after = mixed.jobs()
    assert after["local"] == before["local"]
    assert after["retried"] > before["retried"]
    worker = mixed.syncer.status()["workers"][evil.name]
    assert worker["refused_results"] == len(evil.jobs)
    assert worker["refused_why"].endswith("evil.sh, which its command does not")
    log = (mixed.syncer.home / "logs/syncer.log").read_text()
    warned = [line for line in log.splitlines() if f"a result of {evil.name} was refused" in line]
    assert ["WARNING" in line for line in warned] == [n == 0 for n in range(len(evil.jobs))]


# --- leases ------------------------------------------------------------------------------------


def test_a_lease_is_answered_by_its_own_worker_alone(victim: Victim, certs_dir: Path) -> None:
    other = HostileWorker(victim.syncer.url, certs_dir, "other:1")
    refused = []

    def lie(job: Job, truth: ResultRequest) -> ResultRequest:
        stolen = msgspec.structs.replace(
            truth, worker="other:1", outputs=[output(truth.outputs[0].path.decode(), b"evil")]
        )
        refused.append(other.deliver(stolen))
        return truth

    done = victim.build(lie)
    other.close()
    assert refused == [[False]]
    assert (done.exit_code, done.stderr, victim.evil.taken) == (0, b"", [True])
    assert (victim.project / "a.o").read_bytes() == victim.object


def test_no_lease_can_be_guessed(victim: Victim) -> None:
    victim.build(lambda job, truth: truth)
    victim.build(lambda job, truth: truth)
    first, second = (job.lease_id for job in victim.evil.jobs)
    assert first.partition(".")[0] != second.partition(".")[0]
    assert len(bytes.fromhex(first.partition(".")[0])) * 8 >= 128


# --- requests ----------------------------------------------------------------------------------

NAMES = ["", "a b", "a\r\nDist-Build: local", "a\0", "a\n", "é", "a" * 301, "a/b", "a\x1b[2J", 1]
LEASES: list[dict[str, Any]] = [
    *({"worker": name} for name in NAMES),
    *({"slots": n} for n in (-1, 2**31, 2**63, 1.5, "1", None)),
    *({"ahead": n} for n in (-1, 2**31, 2**63)),
    *({"wait_s": n} for n in (-1.0, float("nan"), float("inf"), float("-inf"), 1e9, None)),
    {"generation": -1},
    {"epoch": "e" * 301},
    {"epoch": 1},
    {"life": "e" * 301},
    {"toolchains": [{"identity": "i", "name": "n"}] * 1001},
    {"toolchains": [{"identity": "i" * 301, "name": "n"}]},
    {"toolchains": [{"identity": "i", "name": "n" * 301}]},
    {"toolchains": [{"identity": "i", "name": "n", "version": "v" * 301}]},
    {"toolchains": None},
    {"version": 1},
    {"namespaces": 2},
]


@pytest.mark.parametrize("lie", LEASES, ids=lambda value: repr(value)[:40])
def test_a_request_for_work_that_cannot_be_meant_is_refused(
    evil: HostileWorker, lie: dict[str, Any]
) -> None:
    status, body = evil.post("lease", plain(evil.asking(), **lie))
    assert status == (409 if "version" in lie else 400)
    assert len(body) < 1000
    assert body.decode().rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("route", "lie"),
    [
        *(("renew", {"worker": name, "leases": [], "wait_s": 0.0}) for name in NAMES),
        ("renew", {"worker": "w", "leases": ["l"] * 20_001, "wait_s": 0.0}),
        ("renew", {"worker": "w", "leases": ["l" * 301], "wait_s": 0.0}),
        ("renew", {"worker": "w", "leases": None, "wait_s": 0.0}),
        *(
            ("renew", {"worker": "w", "leases": [], "wait_s": n})
            for n in (-1.0, float("nan"), float("inf"), 1e9)
        ),
        ("mirror/pull", {"epoch": "e" * 101, "have": 0}),
        ("mirror/pull", {"epoch": "", "have": -1}),
        ("mirror/pull", {"epoch": "", "have": 0, "summary": bytes(33)}),
        ("mirror/blobs", {"digests": [bytes(32)] * 10_001}),
        ("mirror/blobs", {"digests": [bytes(33)]}),
        ("results", {"results": [{}] * 10_001}),
        ("results", {"results": None}),
        ("results", {}),
        ("results", {"results": [{"lease_id": "1"}]}),
        *(("results", {"results": [{"lease_id": "1", "worker": name}]}) for name in NAMES),
        ("results", {"results": [{"lease_id": "l" * 301, "worker": "w"}]}),
        ("results", {"results": [1, None, "x"]}),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_whatever_else_cannot_be_meant_is_refused(
    evil: HostileWorker, route: str, lie: dict[str, Any]
) -> None:
    status, body = evil.post(route, msgspec.msgpack.encode(lie))
    assert status == 400
    assert len(body) < 1000
    assert body.decode().rstrip("\n").isprintable()


def test_the_syncer_still_works_after_all_that(victim: Victim) -> None:
    test_an_honest_answer_is_taken(victim)
    log = (victim.syncer.syncer.home / "logs/syncer.log").read_text()
    assert "Traceback" not in log
