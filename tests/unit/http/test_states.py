"""The table of a connection's states, and the methods that change them."""

import itertools
import select
import socket
from collections.abc import Iterator

import pytest

from distbuild.http import poller
from distbuild.http.poller import Events
from distbuild.http.request import BodyBudget, RequestReader
from distbuild.http.site import PARKED, TRANSITIONS, Connection, ConnectionState
from distbuild.http.transport import Plain
from distbuild.protocol.errors import IllegalTransition

CLOSED, IDLE = ConnectionState.CLOSED, ConnectionState.IDLE
READING, SUSPENDED = ConnectionState.READING, ConnectionState.SUSPENDED
#: From here on the client gets its response.
MUTE = [ConnectionState.RESPONDING, ConnectionState.BLOCKED, ConnectionState.HELD, CLOSED]


class Ends:
    """A connection, its client, and a poller without threads."""

    def __init__(self) -> None:
        ours, self.client = socket.socketpair()
        self.client.setblocking(False)
        reader = RequestReader(100, lambda _: True, BodyBudget())
        self.connection = Connection(Plain(ours), reader)
        self.events = Events(socket.create_server(("127.0.0.1", 0)))

    def reported(self) -> bool:
        """Whether the poller reports an event of the connection."""
        descriptor = self.connection.transport.fileno()
        return any(fd == descriptor for fd, _ in self.events._poll.poll(0))

    def close(self) -> None:
        self.client.close()
        self.connection.transport.close()
        self.events.end_listening()
        self.events.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("before", "after"),
    list(itertools.product(ConnectionState, ConnectionState)),
    ids=lambda state: state.name,
)
def test_only_the_transitions_of_the_table_are_legal(
    ends: Ends, before: ConnectionState, after: ConnectionState
) -> None:
    ends.connection.state = before
    if after in TRANSITIONS[before]:
        ends.connection.become(after)
        assert ends.connection.state is after
    else:
        with pytest.raises(IllegalTransition, match=f"{after.name} .* {before.name}"):
            ends.connection.become(after)
        assert ends.connection.state is before


@pytest.mark.parametrize("before", list(ConnectionState), ids=lambda state: state.name)
def test_only_a_parked_connection_is_claimed(ends: Ends, before: ConnectionState) -> None:
    ends.connection.state = before
    assert ends.connection.claim() is (before in PARKED)
    if before in PARKED:
        assert {ends.connection.state} == TRANSITIONS[before]
    else:
        assert ends.connection.state is before
    assert not ends.connection.claim()


def test_a_connection_is_claimed_in_a_given_state_only(ends: Ends) -> None:
    ends.connection.state = SUSPENDED
    assert not ends.connection.claim({IDLE})
    assert ends.connection.claim({IDLE, SUSPENDED})


def test_an_owner_can_always_close(ends: Ends) -> None:
    owned = set(ConnectionState) - PARKED - {CLOSED}
    assert all(CLOSED in TRANSITIONS[state] for state in owned)
    assert poller.awaited_events().keys() == PARKED
    ends.connection.close()
    with pytest.raises(IllegalTransition):
        ends.connection.close()


@pytest.mark.parametrize("state", list(ConnectionState), ids=lambda state: state.name)
def test_nothing_is_hinted_once_the_response_has_begun(ends: Ends, state: ConnectionState) -> None:
    ends.connection.state = state
    ends.connection.hint(b"hint")
    ends.connection.transport.close()
    assert ends.client.recv(10) == (b"" if state in MUTE else b"hint")


@pytest.mark.parametrize("state", sorted(PARKED), ids=lambda state: state.name)
def test_a_connection_is_watched_for_what_its_state_awaits(
    ends: Ends, state: ConnectionState
) -> None:
    connection = ends.connection
    connection.state = next(s for s in ConnectionState if state in TRANSITIONS[s])
    ends.events.park(connection, state)
    assert ends.reported() is (state is ConnectionState.BLOCKED)
    ends.client.send(b"x")
    assert ends.reported() is (state is IDLE)
    ends.client.close()
    assert ends.reported() is (state in (SUSPENDED, ConnectionState.HELD))


def test_an_illegal_park_changes_nothing(ends: Ends) -> None:
    with pytest.raises(IllegalTransition):
        ends.events.park(ends.connection, SUSPENDED)
    assert (ends.connection.state, ends.connection.armed) == (READING, None)


def test_who_cannot_be_watched_stays_owned(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = select.epoll()
    broken.close()
    events = ends.events
    monkeypatch.setattr(events, "_poll", broken)
    with pytest.raises(ValueError, match="closed"):
        events.park(ends.connection, IDLE)
    monkeypatch.undo()
    assert ends.connection.state is READING
    events.forget(ends.connection)
    assert events.watched == {}


def test_a_stale_event_cancels_no_handler(ends: Ends) -> None:
    """And the client's end is seen after it."""
    ends.connection.state = ConnectionState.HANDLING
    ends.events.park(ends.connection, SUSPENDED)
    assert ends.events.claim(ends.connection) is None
    assert ends.connection.state is SUSPENDED
    ends.client.close()
    assert ends.reported()
    assert ends.events.claim(ends.connection) is SUSPENDED
    assert ends.connection.state is ConnectionState.HANDLING


def test_an_event_during_the_work_of_the_owner_is_reported_again(ends: Ends) -> None:
    """The client ends just when the handler's event fires: the handler is cancelled later."""
    connection, events = ends.connection, ends.events
    connection.state = ConnectionState.HANDLING
    events.park(connection, SUSPENDED)
    ends.client.close()
    assert ends.reported()
    assert connection.claim()  # by the thread that fired the event
    assert events.claim(connection) is None
    events.park(connection, SUSPENDED)
    assert ends.reported()
    assert events.claim(connection) is SUSPENDED


def test_a_handler_that_waits_again_is_not_watched_anew(ends: Ends) -> None:
    connection = ends.connection
    connection.state = ConnectionState.HANDLING
    ends.events.park(connection, SUSPENDED)
    armed = connection.armed
    assert connection.claim()
    assert connection.armed == armed != 0
