"""What a stolen build machine can read of a developer: what his commands have mirrored, no more.

A worker says which files it lacked. Whatever it says, nothing is mirrored that the dev box itself
cannot derive from the command, or from a text that the command reads.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from distbuild.protocol.messages import (
    BlobBatch,
    BlobRequest,
    Changes,
    InputFile,
    PullRequest,
    ResultRequest,
    decode,
)
from tests.support.cluster import Cluster, run_here
from tests.support.hostile_worker import HostileWorker

ARGV = ["gcc", "-c", "a.c", "-o", "a.o"]
MARK = "#error dist_build_withheld"
#: Begins with lines that a compiler could stumble over.
SECRET = b'#include "neighbour"\n#define KEY "id_rsa"\nsecret\n'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The developer's home, with what is nobody else's."""
    made = Path(os.path.realpath(tmp_path_factory.mktemp("people"))) / "dev"
    for name in (
        ".ssh/id_rsa",
        ".aws/credentials",
        ".gnupg/secring.gpg",
        ".config/app/token",
        ".bash_history",
        ".netrc",
        "letters/love.txt",
        "letters/neighbour",
        "letters/größe ü.txt",
        "letters/with\nnewline",
        "other project/keys.json",
        "other project/x.c",
    ):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(SECRET + name.encode())
    (made / ".ssh/id_rsa").chmod(0o600)
    (made / "other project/x.c").write_text("int x;\n")
    deep = made / "d" / "/".join(["d" * 200] * 19)
    deep.mkdir(parents=True)
    (deep / "key").write_bytes(SECRET + b"deep")
    os.mkfifo(made / "letters/fifo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(made))
        yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def syncer(
    home: Path, tmp_path_factory: pytest.TempPathFactory, certs_dir: Path
) -> Iterator[Cluster]:
    """A real syncer of that developer, without a worker of its own."""
    started = Cluster(tmp_path_factory.mktemp("syncer"), certs_dir, [])
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()


@pytest.fixture(scope="module")
def project(home: Path) -> Path:
    """A project in the home, with a link that leads to where it should not."""
    root = home / "project"
    root.mkdir()
    (root / "a.c").write_text('#include "a.h"\nint a = A;\n')
    (root / "a.h").write_text("#define A 1\n")
    (root / "link").symlink_to("../.ssh/id_rsa")
    return root


@pytest.fixture
def evil(syncer: Cluster, certs_dir: Path) -> Iterator[HostileWorker]:
    """A stolen build machine: it has the worker's token."""
    made = HostileWorker(syncer.url, certs_dir)
    yield made
    made._connections.close()


class Seen:
    """What a worker with a token gets to know of the mirror from now on."""

    def __init__(self, evil: HostileWorker, syncer: Cluster) -> None:
        self._evil, self._syncer = evil, syncer
        self._begin = self._pull("", 0)
        self._roots = self._shown()

    def _pull(self, epoch: str, have: int) -> Changes:
        status, body = self._evil.post("mirror/pull", PullRequest(epoch, have))
        assert status == 200
        return decode(body, Changes)

    def _shown(self) -> list[str]:
        return list(self._syncer.syncer.status()["mirror"]["roots"])

    def more(self) -> list[object]:
        """What was mirrored since."""
        entries = self._pull(self._begin.epoch, self._begin.target).entries or []
        roots = [root for root in self._shown() if root not in self._roots]
        return [*(change.path for change in entries), *roots]


def said(stderr: str | bytes, **fields: object) -> Callable[[str], ResultRequest]:
    """A failed compile with these messages, in which ``PATH`` is the path that is asked for."""
    text = stderr.encode() if isinstance(stderr, str) else stderr

    def lie(path: str) -> ResultRequest:
        told = text.replace(b"PATH", os.fsencode(path))
        return ResultRequest("", "", 1, b"", told, **fields)  # type: ignore[arg-type]

    return lie


def told_by_json(path: str) -> ResultRequest:
    """gcc's -fdiagnostics-format=json."""
    caret = {"caret": {"file": path, "line": 1, "column": 2}}
    message = [{"kind": "error", "message": MARK, "locations": [caret]}]
    return ResultRequest("", "", 1, b"", json.dumps(message).encode())


def read(
    *, exit_code: int, beside: bool = False, **fields: object
) -> Callable[[str], ResultRequest]:
    """The file was read, with other bytes than it has; ``beside``: one beside it."""

    def lie(path: str) -> ResultRequest:
        named = os.path.join(os.path.dirname(path), "none.h") if beside else path
        inputs = [InputFile(os.fsencode(named), bytes(32))]
        return ResultRequest("", "", exit_code, inputs=inputs, **fields)  # type: ignore[arg-type]

    return lie


LIES: dict[str, Callable[[str], ResultRequest]] = {
    "placeholder": said(f"PATH:1:2: error: {MARK}\n"),
    "placeholder, in colour": said(f"\x1b[01m\x1b[KPATH:1:2:\x1b[m\x1b[K error: {MARK}\n"),
    "placeholder, disturbed": said(f"PATH:1:2: error: {MARK}\n", disturbed=True),
    "placeholder, as JSON": told_by_json,
    "placeholder, included": said(f"In file included from a.c:1:\nPATH:1:2: error: {MARK}\n"),
    "read": read(exit_code=0),
    "read, failed": read(exit_code=1),
    "read, disturbed": read(exit_code=1, disturbed=True),
    "read beside": read(exit_code=0, beside=True),
    "no -include": said("cc1: fatal error: PATH: No such file or directory\n"),
    "no -include, clang": said("<built-in>:1:10: fatal error: 'PATH' file not found\n"),
    "missing in it": said("PATH:1:10: fatal error: neighbour: No such file or directory\n"),
    "failed in it": said("PATH:2:1: error: expected something\n"),
    "failed beside it": said("PATH/../a.h:2:1: error: expected something\n"),
}
PATHS: dict[str, str] = {
    "absolute": "{home}/letters/love.txt",
    "climbing": "../letters/love.txt",
    "climbing far": "../../../../../../../../../../../../etc/passwd",
    "a link in the project": "link",
    "a link, absolute": "{home}/project/link",
    "of the process": "/proc/self/cwd{home}/letters/love.txt",
    "the root of the process": "/proc/self/root{home}/letters/love.txt",
    "not ASCII": "{home}/letters/größe ü.txt",
    "with a newline": "{home}/letters/with\nnewline",
    "a private key": "{home}/.ssh/id_rsa",
    "a token": "{home}/.config/app/token",
    "history": "{home}/.bash_history",
    "history, climbing": "../.netrc",
    "shadow": "/etc/shadow",
    "our own key": "{syncer}/certs/dev/token",
    "our own configuration": "{syncer}/config.json",
    "another project's": "{home}/other project/keys.json",
    "another project's, climbing": "../other project/keys.json",
    "nearly 5,000 bytes": "{home}/d/" + "/".join(["d" * 200] * 19) + "/key",
    "more than 5,000 bytes": "{home}/" + "x/../" * 1000 + "letters/love.txt",
    "a directory": "{home}/letters",
    "a pipe": "{home}/letters/fifo",
    "a device": "/dev/zero",
    "with a zero byte": "{home}/letters/love.txt\0",
    "nothing": "",
}


@pytest.mark.in_turn("path", "half", of=3)
@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_nothing_is_mirrored_because_a_worker_asks_for_it(
    syncer: Cluster, evil: HostileWorker, home: Path, project: Path, path: str, half: int
) -> None:
    asked_for = path.format(home=home, syncer=syncer.syncer.home)
    with evil.answering(lambda job, truth: truth):
        # Of the other project everything is mirrored but what is withheld.
        words = ["gcc", "-c", "x.c", "-o", "x.o"]
        assert syncer.run(words, home / "other project").exit_code == 0
        assert syncer.run(ARGV, project).exit_code == 0
    assert run_here(ARGV, project).exit_code == 0
    expected = (project / "a.o").read_bytes()
    seen = Seen(evil, syncer)
    for_now: list[ResultRequest] = []
    with evil.answering(lambda job, truth: as_of(truth, for_now[0])):
        for what, lie in list(LIES.items())[half::2]:
            for_now[:] = [lie(asked_for)]
            (project / "a.o").unlink()
            done = syncer.run(ARGV, project)
            assert seen.more() == [], what
            if done.exit_code != 0:
                # As it may of any compile, a worker may say of this one that it failed.
                assert what.startswith("no -include"), done
                (project / "a.o").touch()
                continue
            assert (project / "a.o").read_bytes() == expected, (what, done)
    assert not contents(evil, asked_for)
    assert "Traceback" not in syncer.syncer.output()


def as_of(truth: ResultRequest, lie: ResultRequest) -> ResultRequest:
    """A lie about the job of which that is the truth."""
    return msgspec.structs.replace(lie, lease_id=truth.lease_id, worker=truth.worker)


def contents(evil: HostileWorker, path: str) -> bool:
    """Whether the syncer gives out what is in a file."""
    if "\0" in path or not os.path.isfile(path):
        return False
    if not os.access(path, os.R_OK):  # the syncer runs as the same user
        return False
    data = Path(path).read_bytes()
    status, body = evil.post("mirror/blobs", BlobRequest([hashlib.sha256(data).digest()]))
    assert status == 200
    return bool(decode(body, BlobBatch).bundles)


def test_what_a_compile_in_the_home_itself_mirrors(
    syncer: Cluster, evil: HostileWorker, home: Path
) -> None:
    """Of the home's own files those that begin with a dot are mirrored by name alone."""
    (home / "hello.c").write_text('#include "hello.h"\n#include ".hidden.h"\n')
    (home / "hello.h").write_text("int hello;\n")
    (home / ".hidden.h").write_text("int hidden;\n")
    words = ["gcc", "-c", "hello.c", "-o", "hello.o"]
    with evil.answering(lambda job, truth: truth):
        assert syncer.run(words, home).exit_code == 0
    assert contents(evil, f"{home}/hello.h")
    for name in (".bash_history", ".netrc", ".hidden.h", ".ssh/id_rsa", ".aws/credentials"):
        assert not contents(evil, f"{home}/{name}"), name


def test_what_a_command_names_is_mirrored_all_the_same(
    syncer: Cluster, evil: HostileWorker, home: Path, project: Path
) -> None:
    """That is the developer's word."""
    (home / ".aws/sdk").mkdir()
    (home / ".aws/sdk/a.h").write_text("#define A 7\n")
    with evil.answering(lambda job, truth: truth):
        assert syncer.run(["gcc", f"-I{home}/.aws/sdk", *ARGV[1:]], project).exit_code == 0
    assert contents(evil, f"{home}/.aws/sdk/a.h")
    assert not contents(evil, f"{home}/.aws/credentials")
