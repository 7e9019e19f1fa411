"""What the threads of a server wait for: clients, connections, and what is due. Linux."""

import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import Sequence

from distbuild.http.site import Connection


class Events:
    """Of one ``listener``. Each event is told to one thread."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._poll = select.epoll()
        #: Written when something is due; the other one stays set once all is to end.
        self.ready = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.ending = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Edge-triggered, so that one thread is woken by one event, and not all of them.
        self._poll.register(listener, select.EPOLLIN | select.EPOLLET)
        self._poll.register(self.ready, select.EPOLLIN | select.EPOLLET)
        self._poll.register(self.ending, select.EPOLLIN)
        #: Those that wait: for a request or the rest of one, or with a generator.
        self.watched: dict[int, Connection] = {}
        #: What a thread has to do next: a connection just accepted, or one whose wait is over.
        self._due: deque[Connection] = deque()

    def wait(self) -> list[tuple[int, int]]:
        """The next event, with its descriptor first."""
        return self._poll.poll(maxevents=1)

    def watch(self, connection: Connection, events: int) -> None:
        """Have one thread told, once, of the next of ``events``, or of the end."""
        self._watch(connection, events | select.EPOLLRDHUP | select.EPOLLONESHOT)

    def watch_room(self, connection: Connection) -> None:
        """Have one thread told, once, that more can be sent, or that it never can. A client that
        only says that it asks nothing more still takes its answer."""
        self._watch(connection, select.EPOLLOUT | select.EPOLLONESHOT)

    def _watch(self, connection: Connection, events: int) -> None:
        descriptor = connection.transport.fileno()
        if connection.is_watched:
            self._poll.modify(descriptor, events)
            return
        connection.is_watched = True
        self.watched[descriptor] = connection
        self._poll.register(descriptor, events)

    def forget(self, connection: Connection) -> None:
        """It is about to be closed: before its number is free for another connection."""
        if connection.is_watched:
            self.watched.pop(connection.transport.fileno(), None)

    def enqueue(self, connection: Connection, *, wake: bool) -> None:
        """Somebody has to go on with it; ``wake``: and is to be told."""
        self._due.append(connection)
        if wake:
            os.eventfd_write(self.ready, 1)

    def dequeue(self) -> Connection | None:
        """The oldest of what is due; another thread is woken for the rest."""
        try:
            connection = self._due.popleft()
        except IndexError:
            return None
        if self._due:
            os.eventfd_write(self.ready, 1)
        return connection

    def end_listening(self) -> None:
        """Accept nothing more."""
        with contextlib.suppress(OSError):
            self._poll.unregister(self._listener)
        self._listener.close()

    def end(self) -> None:
        """Tell all threads that it is over."""
        os.eventfd_write(self.ending, 1)

    def left(self) -> list[Connection]:
        """After the last thread: those that somebody still had to go on with."""
        return [*self.watched.values(), *self._due]

    def close(self) -> None:
        """After the last connection."""
        self._poll.close()
        os.close(self.ready)
        os.close(self.ending)


#: So many strangers at a time are waited for until they take what their sockets had no room for:
#: an answer is kept in memory meanwhile, and whoever may ask is not to wait behind them.
MAX_STRANGERS = 100


class PendingSends:
    """Of the connections that these ``events`` are told of."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._strangers: set[Connection] = set()

    def send(self, connection: Connection, data: bytes, files: Sequence[int] = ()) -> bool:
        """Send, with the descriptors ``files``. Whether all of it is on its way. If not, the
        connection belongs to nobody now, and some thread is told once there is room for more.
        Raises OSError; the connection is then as it was, and is to be closed."""
        return connection.transport.offer(data, files) or self._wait(connection)

    def go_on(self, connection: Connection) -> bool:
        """Send what is left of an answer, if anything; otherwise as ``send``."""
        if not connection.transport.push():
            return self._wait(connection)
        connection.is_sending = False
        self._strangers.discard(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        self._strangers.discard(connection)

    def _wait(self, connection: Connection) -> bool:
        if connection.is_known or not connection.is_sending:  # a stranger has so long for all of it
            connection.silent_since = time.monotonic()
        if not connection.is_known:
            if not connection.is_sending and len(self._strangers) >= MAX_STRANGERS:
                raise ConnectionAbortedError("too many strangers take nothing")
            self._strangers.add(connection)
        connection.is_sending = True
        with connection.lock:
            if connection.is_gone:
                raise ConnectionResetError("the client is gone")
            self._events.watch_room(connection)
            connection.is_running = connection.is_waiting = False
        return False
