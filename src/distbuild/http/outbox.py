"""Answers on their way to clients that are slow to take them. No thread waits for any of them.

Knows no request. A client that takes nothing is looked for elsewhere: see ``silent_since``.
"""

import time
from collections.abc import Sequence

from distbuild.http.poller import Events
from distbuild.http.site import Connection

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
