"""An epoll wrapper that gives each event to one thread of the loop, a queue of connections to
proceed with, and the buffered writes of slow clients (Linux)."""

import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import Sequence

from distbuild.http.site import BLOCKED, HELD, IDLE, SUSPENDED, Connection, ConnectionState

#: The states in which only the client's end is awaited on the socket.
UNTIL_END = frozenset({SUSPENDED, HELD})


def awaited_events() -> dict[ConnectionState, int]:
    """The events that a parked connection is watched for, by its state.

    While a response is being sent, the connection's read end is not watched: a client that has
    closed only its sending side still reads its response. A function, since Windows, which imports
    this module, has no such constants.
    """
    end = select.EPOLLRDHUP | select.EPOLLONESHOT
    return {
        IDLE: select.EPOLLIN | end,
        SUSPENDED: end,
        BLOCKED: select.EPOLLOUT | select.EPOLLONESHOT,
        HELD: end,
    }


class Events:
    """The events of one ``listener`` and its connections. Each is reported to one thread."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._poll = select.epoll()
        self._awaited = awaited_events()
        #: ``ready`` is written when a connection is enqueued; ``ending`` stays set after ``end``.
        self.ready = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.ending = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Edge-triggered, so that one event wakes one thread, and not all of them.
        self._poll.register(listener, select.EPOLLIN | select.EPOLLET)
        self._poll.register(self.ready, select.EPOLLIN | select.EPOLLET)
        self._poll.register(self.ending, select.EPOLLIN)
        #: Registered connections by descriptor: they are or were parked.
        self.watched: dict[int, Connection] = {}
        #: Connections to proceed with: just accepted, or their awaited event has fired.
        self._due: deque[Connection] = deque()

    def wait(self) -> list[tuple[int, int]]:
        """Block until the next event: a list of one (descriptor, events) pair."""
        return self._poll.poll(maxevents=1)

    def park(self, connection: Connection, state: ConnectionState) -> None:
        """Release the owner's claim, and report the next event of the state to one thread. Raises
        IllegalTransition or OSError; the caller then still owns the connection."""
        with connection.lock:
            before = connection.state
            connection.become(state)
            try:
                self._arm(connection, self._awaited[state])
            except BaseException:
                connection.state = before
                raise

    def claim(self, connection: Connection) -> ConnectionState | None:
        """Claim a connection whose event was reported; the state it was parked in. None: the caller
        does not own it. A stale event may be of an earlier connection with its descriptor."""
        with connection.lock:
            connection.armed = 0  # a thread that owns it will see the event when it parks it
            before = connection.state
            if before in UNTIL_END and not connection.transport.has_ended():
                self._arm(connection, self._awaited[before])
                return None
            return before if connection.claim_locked() else None

    def _arm(self, connection: Connection, events: int) -> None:
        if connection.armed == events:
            return
        descriptor = connection.transport.fileno()
        if connection.armed is None:
            connection.armed = 0
            self.watched[descriptor] = connection
            self._poll.register(descriptor, events)
        else:
            self._poll.modify(descriptor, events)
        connection.armed = events

    def forget(self, connection: Connection) -> None:
        """To be called before a connection is closed, while its descriptor is not reused."""
        if connection.armed is not None:
            self.watched.pop(connection.transport.fileno(), None)

    def enqueue(self, connection: Connection, *, wake: bool) -> None:
        """Queue a connection for the next free thread; ``wake``: wake one."""
        self._due.append(connection)
        if wake:
            os.eventfd_write(self.ready, 1)

    def dequeue(self) -> Connection | None:
        """The oldest connection in the queue; wakes another thread for the rest."""
        try:
            connection = self._due.popleft()
        except IndexError:
            return None
        if self._due:
            os.eventfd_write(self.ready, 1)
        return connection

    def end_listening(self) -> None:
        """Close the listener."""
        with contextlib.suppress(OSError):
            self._poll.unregister(self._listener)
        self._listener.close()

    def end(self) -> None:
        """Make all threads return."""
        os.eventfd_write(self.ending, 1)

    def close(self) -> None:
        """Close the descriptors, after the last connection."""
        self._poll.close()
        os.close(self.ready)
        os.close(self.ending)


#: Limit of buffered writes to clients without a known token: each keeps a response in memory.
MAX_STRANGERS = 100


class PendingSends:
    """Buffered writes of connections whose sockets were not writable; ``events`` watches them."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._strangers: set[Connection] = set()

    def send(self, connection: Connection, data: bytes, files: Sequence[int] = ()) -> bool:
        """Send ``data`` with the descriptors ``files``; whether all of it is sent. If not, the
        caller's claim on the connection is released, and a thread gets the event that it is
        writable. Raises OSError; the caller then keeps its claim and has to close it."""
        return connection.transport.send_some(data, files) or self._wait(connection)

    def go_on(self, connection: Connection) -> bool:
        """Send the rest of a response, if any; otherwise as ``send``."""
        if not connection.transport.push():
            return self._wait(connection)
        self._strangers.discard(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """To be called for a connection that is being closed."""
        self._strangers.discard(connection)

    def _wait(self, connection: Connection) -> bool:
        waits_on = connection in self._strangers
        if not waits_on:  # a stranger has one limit for all of its response
            connection.silent_since = time.monotonic()
        if not (connection.is_known or waits_on):
            if len(self._strangers) >= MAX_STRANGERS:
                raise ConnectionAbortedError("too many strangers take nothing")
            self._strangers.add(connection)
        self._events.park(connection, BLOCKED)
        return False
