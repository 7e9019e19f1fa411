"""Where the app answers what no handler does: in threads of its own, which may wait."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from distbuild.http.outbox import PendingSends
from distbuild.http.request import Request, environ_of
from distbuild.http.response import Response, call
from distbuild.http.site import Connection

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

#: In the environment of a request: the kernel says that it comes from this very user.
SAME_USER = "distbuild.same_user"


class AppPool:
    """``answered`` is told of each connection whose answer has gone, or failed to."""

    def __init__(
        self,
        app: "WSGIApplication",
        outbox: PendingSends,
        answered: Callable[[Connection], None],
        threads: int,
        name: str,
    ) -> None:
        self._app = app
        self._outbox = outbox
        self._answered = answered
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def take(self, connection: Connection, request: Request) -> None:
        """Have the app answer a request."""
        self._pool.submit(self._answer, connection, request)

    def close(self) -> None:
        """Answer nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, connection: Connection, request: Request) -> None:
        """Wait for nobody who is not known."""
        transport = connection.transport
        send = transport.send if connection.is_known else transport.offer
        environ = environ_of(request, transport.scheme)
        environ[SAME_USER] = transport.is_same_user()
        try:
            if request.problem:
                send(Response({}, b"", request.problem).encode(keeps=False))
            else:
                call(self._app, environ, send, keeps=connection.keeps)
            if not self._outbox.go_on(connection):
                return
        except Exception as error:
            if not isinstance(error, OSError):
                log.exception("a request failed")
            log.debug("no answer: %s", error)
            connection.keeps = False
        self._answered(connection)
