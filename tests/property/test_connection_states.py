"""Connections under any order of what a client can do: no illegal transition and no hang."""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.http.site import HELD, TRANSITIONS
from distbuild.http.transport import server_context
from distbuild.protocol.errors import IllegalTransition
from tests.support.examples import examples
from tests.support.stepped_server import (
    MAX_BODY,
    Peer,
    SteppedServer,
    Transition,
    expected_responses,
    logged_errors,
    record_transitions,
)

Do = Callable[[SteppedServer, Peer], None]

ME = b"Host: x\r\nAuthorization: me\r\n"


def post(path: str, fields: bytes = ME, body: bytes = b"12345", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = b"POST /%s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (path.encode(), fields, size)
    return head + body


def get(path: str, fields: bytes = ME) -> bytes:
    return b"GET /%s HTTP/1.1\r\n%s\r\n" % (path.encode(), fields)


def sends(data: bytes) -> Do:
    return lambda _, peer: peer.send(data)


STRANGER = b"Host: x\r\n"
NOW = post("now")
#: What a client sends, or does to its connection.
OF_CLIENT: Mapping[str, Do] = {
    "half a head": sends(NOW[:20]),
    "the rest of it": sends(NOW[20:]),
    "head": sends(NOW[:-5]),
    "body": sends(NOW[-5:]),
    "large head": sends(post("now", body=b"", length=100_000)),
    "part of a large body": sends(bytes(40_000)),
    "large request": sends(post("now", body=bytes(100_000))),
    "now": sends(NOW),
    "pipelined": sends(NOW + post("later") + get("app") + NOW),
    "last": sends(post("now", ME + b"Connection: close\r\n")),
    "later": sends(post("later")),
    "large": sends(post("large")),
    "held": sends(post("held")),
    "large-held": sends(post("large-held")),
    "silent": sends(post("silent")),
    "fail": sends(post("fail")),
    "raise": sends(post("raise")),
    "app and raise": sends(get("app") + post("raise")),
    "app": sends(get("app")),
    "broken app": sends(get("broken")),
    "stranger": sends(post("later", STRANGER)),
    "stranger, large": sends(get("large", STRANGER)),
    "no HTTP": sends(b"\x00\r\n\r\n"),
    "endless head": sends(b"GET / HTTP/1.1\r\n" + b"x" * 20_000),
    "too large": sends(post("now", body=b"12345", length=MAX_BODY + 1)),
    "stranger, too large": sends(post("now", STRANGER, length=100_000)),
    "chunked": sends(post("now", ME + b"Transfer-Encoding: chunked\r\n")),
    "expects continue": sends(post("now", ME + b"Expect: 100-continue\r\n", body=b"", length=5)),
    "upgrade": sends(get("app", ME + b"Connection: Upgrade\r\nUpgrade: websocket\r\n")),
    "TLS's first bytes": lambda _, peer: peer.begin_handshake(),
    "a record's first bytes": lambda _, peer: peer.send_bare(b"\x17\x03\x03\x01\x00abc"),
    "noise": lambda _, peer: peer.send_bare(bytes(range(255, 0, -1))),
    "read": lambda _, peer: peer.read(),
    "end of sending": lambda _, peer: peer.end_sending(),
    "reset": lambda _, peer: peer.reset(),
    "close": lambda _, peer: peer.close(),
}
#: What happens in the server meanwhile.
OF_SERVER: Mapping[str, Do] = {
    "fire": lambda served, _: served.fire(),
    "sweep": lambda served, _: served.sweep(),
    "beat": lambda served, _: served.beat(),
    "stale event": lambda served, _: served.report_stale_events(),
}
EVENTS = {**OF_CLIENT, **OF_SERVER}
#: A sequence whose swept connections were closed early, or whose bytes are no TLS.
UNPREDICTABLE = {"sweep", "reset", "close", "noise", "TLS's first bytes", "a record's first bytes"}


@pytest.fixture(scope="module")
def make(certs_dir: Path) -> Iterator[Callable[[str], SteppedServer]]:
    context = server_context(certs_dir / "dev" / "cert.pem", certs_dir / "dev" / "key.pem")
    made: list[SteppedServer] = []
    with tempfile.TemporaryDirectory() as directory:

        def make(kind: str) -> SteppedServer:
            path = Path(directory, f"{len(made)}.sock")
            made.append(SteppedServer(path, context if kind == "tls" else None))
            return made[-1]

        yield make
        for served in made:
            served.close()


@pytest.fixture(scope="module", params=["unix", "tls"])
def served(request: pytest.FixtureRequest, make: Callable[[str], SteppedServer]) -> SteppedServer:
    return make(str(request.param))


def settle(served: SteppedServer, peer: Peer) -> None:
    """Let all happen that can: events fire and the client reads, until nothing more comes."""
    idle_rounds = 0
    while idle_rounds < 3:
        before = len(peer.received)
        served.fire()
        peer.read()
        served.check()
        idle_rounds = idle_rounds + 1 if len(peer.received) == before else 0


def play(served: SteppedServer, names: Sequence[str]) -> None:
    """One connection with these events; everything is checked during it and after its end."""
    with logged_errors() as errors:
        peer = Peer(served)
        for name in names:
            EVENTS[name](served, peer)
            served.check()
        settle(served, peer)
        count = peer.received.count(b"HTTP/1.1 ") - peer.received.count(b"HTTP/1.1 102")
        expected, ends = expected_responses(peer.sent, keeps_alive=served.is_tls)
        assert count <= expected
        if "end of sending" in names and not peer.is_closed:
            assert peer.has_ended or peer.is_stuck()
        elif not (peer.is_closed or UNPREDICTABLE & set(names)):
            assert peer.has_ended == ends
            assert count == expected or (peer.was_reset and count == expected - 1)
        served.sweep()
        assert {connection.state for connection in served.server._connections} <= {HELD}
        peer.close()
        assert served.left() == []
        served.fire()
    assert not [error for error in errors if not isinstance(error, LookupError)]


@pytest.mark.exhaustive
@pytest.mark.parametrize("first", EVENTS)
def test_any_two_events(served: SteppedServer, first: str) -> None:
    for second in EVENTS:
        play(served, [first, second])


@pytest.mark.exhaustive
@pytest.mark.parametrize("first", ["later", "large", "stranger, large"])
def test_any_three_events_during_a_response(
    make: Callable[[str], SteppedServer], first: str
) -> None:
    served = make("unix")  # a handshake for each of them takes too long
    for rest in itertools.product(EVENTS, EVENTS):
        play(served, [first, *rest])


@examples(2)
@given(names=st.lists(st.sampled_from(list(EVENTS)), max_size=12))
def test_any_events(served: SteppedServer, names: list[str]) -> None:
    play(served, names)


def test_every_transition_of_the_table_happens(
    make: Callable[[str], SteppedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = record_transitions(monkeypatch)
    served = make("tls")
    for names in [
        ["now", "app", "held", "fire", "fire"],
        ["later", "fire", "large"],
        ["fail", "fire"],
        ["large-held"],
        ["no HTTP"],
    ]:
        play(served, names)
    table: set[Transition] = {(one, other) for one, all_ in TRANSITIONS.items() for other in all_}
    assert seen == table


def test_a_second_response_is_an_illegal_transition_and_ends_the_connection(
    served: SteppedServer,
) -> None:
    with logged_errors() as errors:
        peer = Peer(served)
        peer.send(post("twice"))
        peer.read()
    assert [type(error) for error in errors] == [IllegalTransition]
    assert (peer.received.count(b"HTTP/1.1 200"), peer.has_ended) == (1, True)
    peer.close()
    assert served.left() == []


@examples(0.6)
@given(
    steps=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(list(EVENTS))), max_size=15),
)
def test_connections_do_not_disturb_each_other(
    served: SteppedServer, steps: list[tuple[int, str]]
) -> None:
    with logged_errors() as errors:
        peers = [Peer(served) for _ in range(3)]
        for number, name in steps:
            EVENTS[name](served, peers[number])
            served.check()
        witness = Peer(served)
        witness.send(NOW)
        witness.read()
        assert witness.received.endswith(b"now")
        for peer in [*peers, witness]:
            peer.close()
        assert served.left() == []
    assert not [error for error in errors if not isinstance(error, LookupError)]
