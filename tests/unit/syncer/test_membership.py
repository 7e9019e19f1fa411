"""The workers that have joined: their file, and to whom the mirror is pushed."""

import stat
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from distbuild.config import Home
from distbuild.credentials import SHARED, Credentials, load_credentials
from distbuild.farm.farm import Farm
from distbuild.protocol.errors import ConfigError
from distbuild.protocol.messages import LeaseRequest, Toolchain
from distbuild.push.worker_client import WorkerClient
from distbuild.syncer.membership import (
    MOVE_S,
    JoinedWorker,
    JoinedWorkers,
    JoinRefused,
    Membership,
    Pushers,
)

if TYPE_CHECKING:
    from distbuild.push.pusher import Pusher

ONE = JoinedWorker("1" * 32, "one", "a" * 64, 1e9)
TWO = JoinedWorker("2" * 32, "two", "b" * 64, 1e9)


class FakePusher:
    """Notes what is asked of it, in ``asked``."""

    def __init__(self, client: WorkerClient) -> None:
        self.address = client.address
        self.host = client.host
        self.up = False
        self.worker = ""
        self.asked: list[str] = []

    def start(self) -> None:
        self.asked.append("start")

    def move(self, address: tuple[str, int]) -> None:
        self.address = address
        self.asked.append("move")

    def give_up(self) -> None:
        self.asked.append("give up")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credentials(certs_dir: Path) -> Credentials:
    return load_credentials(certs_dir, "dev", check_certificate=False)


@pytest.fixture
def joined(tmp_path: Path, credentials: Credentials) -> JoinedWorkers:
    """One worker has joined."""
    made = JoinedWorkers(tmp_path / "certs" / "joined_workers.json", credentials)
    made.add(ONE)
    return made


@pytest.fixture
def pushers(clock: Clock) -> Pushers:
    return Pushers((), cast("Callable[[WorkerClient], Pusher]", FakePusher), clock)


@pytest.fixture
def member(
    tmp_path: Path, credentials: Credentials, joined: JoinedWorkers, pushers: Pushers
) -> Iterator[Membership]:
    farm = Farm(expected=False)
    yield Membership(Home(tmp_path), credentials, joined, pushers, farm)
    farm.stop()


def asking(worker: JoinedWorker, port: int) -> LeaseRequest:
    name = f"{worker.identity}.x"
    return LeaseRequest(name, 1, 0.0, [Toolchain("t", "gcc")], label="other:1", port=port)


def fakes(pushers: Pushers) -> list[FakePusher]:
    return [cast("FakePusher", each) for each in pushers]


# --- the file ----------------------------------------------------------------------------------


def test_workers_are_read_again_and_their_tokens_accepted(
    tmp_path: Path, joined: JoinedWorkers, certs_dir: Path
) -> None:
    path = tmp_path / "certs" / "joined_workers.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    fresh = load_credentials(certs_dir, "dev", check_certificate=False)
    shared = fresh.accepted["worker"][SHARED]
    again = JoinedWorkers(path, fresh)
    assert list(again) == [ONE] == list(joined)
    assert fresh.accepted["worker"] == {SHARED: shared, ONE.identity: bytes.fromhex(ONE.token)}
    assert again.remove("one") == ONE
    assert fresh.accepted["worker"] == {SHARED: shared}
    assert list(JoinedWorkers(path, fresh)) == []


def test_a_name_is_taken_once(joined: JoinedWorkers) -> None:
    with pytest.raises(JoinRefused) as caught:
        joined.add(JoinedWorker(TWO.identity, "one", TWO.token, 0.0))
    assert caught.value.status == HTTPStatus.CONFLICT
    assert list(joined) == [ONE]
    assert joined.remove("two") is None


def listed(identity: str = "1" * 32, name: str = "w", token: str = "0" * 64) -> bytes:
    return msgspec.json.encode([JoinedWorker(identity, name, token, 0.0)])


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff", b"[1]", listed(identity="x"), listed(token="0"), listed(name="a b")],
)
def test_a_damaged_file_is_one_line(
    tmp_path: Path, credentials: Credentials, content: bytes
) -> None:
    path = tmp_path / "joined_workers.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"joined_workers.json: damaged; restore it, or remove"):
        JoinedWorkers(path, credentials)


# --- where they are reached ----------------------------------------------------------------------


def test_a_worker_is_reached_where_it_dials_in(member: Membership, pushers: Pushers) -> None:
    shown = member.dialled_in(ONE.identity, asking(ONE, 8443), "10.0.0.1")
    assert shown.label == "one"
    member.dialled_in(ONE.identity, asking(ONE, 8443), "10.0.0.1")
    (pusher,) = fakes(pushers)
    assert (pusher.host, pusher.address) == ("one", ("10.0.0.1", 8443))
    assert pusher.asked == ["start"]
    # Shown as one worker also as long as its port does not answer.
    assert pusher.worker == f"{ONE.identity}.x"


def test_a_worker_that_moves_too_often_waits(
    member: Membership, pushers: Pushers, clock: Clock
) -> None:
    for port in range(1000, 2000):
        clock.now += 0.001
        member.dialled_in(ONE.identity, asking(ONE, port), "10.0.0.1")
        member.dialled_in(ONE.identity, asking(ONE, 0), "10.0.0.1")
    (pusher,) = fakes(pushers)
    assert pusher.asked == ["start"]
    clock.now += MOVE_S + 1
    member.dialled_in(ONE.identity, asking(ONE, 7), "10.0.0.2")
    assert (pusher.asked, pusher.address) == (["start", "move"], ("10.0.0.2", 7))
    clock.now += MOVE_S + 1
    member.dialled_in(ONE.identity, asking(ONE, 0), "10.0.0.2")
    assert (pusher.asked[-1], fakes(pushers)) == ("give up", [])


def test_a_removed_worker_is_reached_no_more(member: Membership, pushers: Pushers) -> None:
    member.dialled_in(ONE.identity, asking(ONE, 8443), "10.0.0.1")
    (pusher,) = fakes(pushers)
    assert member.remove("one")
    assert (pusher.asked[-1], fakes(pushers)) == ("give up", [])
    member.dialled_in(ONE.identity, asking(ONE, 8443), "10.0.0.1")
    assert fakes(pushers) == []


def test_a_worker_that_is_removed_as_it_dials_in_is_reached_no_more(
    member: Membership, pushers: Pushers, joined: JoinedWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach = pushers.reach

    def removed_first(*arguments: Any) -> None:
        joined.remove("one")
        reach(*arguments)

    monkeypatch.setattr(pushers, "reach", removed_first)
    member.dialled_in(ONE.identity, asking(ONE, 8443), "10.0.0.1")
    assert fakes(pushers) == []
