"""Where clients come in: each becomes a connection, or is turned away. Asks nobody anything."""

import errno
import logging
import socket
import threading
from collections.abc import Iterator, Sized

from distbuild.http.request import BodyBudget, RequestReader
from distbuild.http.site import Connection, Front

log = logging.getLogger(__name__)

#: Pause (seconds) when no descriptor is left for another connection.
RETRY_S = 0.1
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class Acceptor:
    """Of a ``front``. ``inside`` are those that came in and have not left."""

    def __init__(self, front: Front, inside: Sized, is_ending: threading.Event) -> None:
        self._front = front
        self._allowance = BodyBudget()
        self._inside = inside
        self._is_ending = is_ending

    def come_in(self, *, waits: bool = True) -> Iterator[Connection]:
        """All that wait, since no second event tells of them. ``waits``: until there are
        descriptors for them. Raises OSError when nobody can be accepted any more."""
        while True:
            try:
                accepted = self._front.listener.accept()[0]
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if waits and error.errno in _NO_DESCRIPTOR and not self._is_ending.wait(RETRY_S):
                    log.warning("a client waits: %s", error.strerror)
                    continue
                raise
            connection = self._welcome(accepted)
            if connection is not None:
                yield connection

    def _welcome(self, accepted: socket.socket) -> Connection | None:
        if len(self._inside) >= self._front.max_connections:
            log.warning("more than %d connections", self._front.max_connections)
            accepted.close()
            return None
        try:
            transport = self._front.transport(accepted)
        except OSError as error:  # gone already; the others that wait are to be accepted
            log.debug("a client vanished: %s", error)
            accepted.close()
            return None
        reader = RequestReader(self._front.max_body, self._front.admits, self._allowance)
        return Connection(transport, reader)
