"""An epoll event loop with a few threads that serves one listening socket, in syncer and worker
(Linux; ``http.threaded`` elsewhere).

The site's handlers answer frequent requests. Waiting requests hold no thread: a handler is a
generator that yields the ``OneShot`` it waits for, and is closed when its connection ends. The WSGI
app answers all other requests in a thread pool. Knows nothing of what handlers and app do.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from distbuild.http.listen import Acceptor
from distbuild.http.poller import UNTIL_END, Events, PendingSends
from distbuild.http.request import Request, environ_of
from distbuild.http.response import INTERIM, Response, call
from distbuild.http.site import (
    BLOCKED,
    HANDLING,
    HELD,
    IDLE,
    READING,
    RESPONDING,
    SUSPENDED,
    Call,
    Connection,
    ConnectionState,
    Front,
    Site,
)
from distbuild.http.transport import SEND_TIMEOUT_S
from distbuild.one_shot import OneShot

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

#: WSGI environment key: whether the kernel says that the request comes from this process's user.
SAME_USER = "distbuild.same_user"


class AppPool:
    """A thread pool that runs the WSGI app. ``answered`` is called with each connection after its
    response was sent or failed."""

    def __init__(
        self,
        app: "WSGIApplication",
        outbox: PendingSends,
        answered: Callable[[Connection], None],
        threads: int,
        name: str,
    ) -> None:
        self._app = app
        self._pending_sends = outbox
        self._answered = answered
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def take(self, connection: Connection, request: Request) -> None:
        """Queue a request for the app."""
        self._pool.submit(self._answer, connection, request)

    def close(self) -> None:
        """Cancel queued requests; running ones are not awaited."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, connection: Connection, request: Request) -> None:
        """Answer a request; a blocking send only to clients with a known token."""
        transport = connection.transport
        send = transport.send if connection.is_known else transport.send_some
        try:
            environ = environ_of(request, transport.scheme)
            environ[SAME_USER] = transport.is_same_user()
            if request.problem:
                send(Response({}, b"", request.problem).encode(keeps=False))
            else:
                call(self._app, environ, send, keeps=connection.keeps)
            if not self._pending_sends.go_on(connection):
                return
        except Exception as error:
            if not isinstance(error, OSError):
                log.exception("a request failed")
            log.debug("no answer: %s", error)
            connection.keeps = False
        self._answered(connection)


DRAIN_POLL_S = 0.01
#: The states that a client may be in for a limited time.
_LIMITED = frozenset({IDLE, BLOCKED})
#: ``next``: a callback that a server's thread runs before it waits again.
_own = threading.local()


class Server:
    """Serves a ``site`` on the listening socket of a ``front``."""

    def __init__(self, site: Site, front: Front, name: str) -> None:
        self._handlers = {"POST": site.handlers, "GET": site.streams}
        self._front = front
        self._listener = front.listener
        self._events = Events(front.listener)
        self._pending_sends = PendingSends(self._events)
        self._connections: set[Connection] = set()
        # A permit for each; a semaphore of ``threading`` costs several times as much.
        self._foreign_threads = deque([None] * front.foreign_threads)
        self._is_ending = threading.Event()
        #: What the owner of a connection does in its state.
        self._steps: Mapping[ConnectionState, Callable[[Connection], bool]] = {
            READING: self._read,
            HANDLING: self._go_on,
            RESPONDING: self._send_rest,
        }
        self._acceptor = Acceptor(front, self._connections, self._is_ending)
        self._app_pool = AppPool(
            site.app, self._pending_sends, self._answered, front.max_slow, f"{name} slow"
        )
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name} {n}", daemon=True)
            for n in range(front.threads)
        ]
        if front.patience_s:
            sweeper = threading.Thread(
                target=self._keep_sweeping, name=f"{name} sweeper", daemon=True
            )
            self._threads.append(sweeper)
        if front.beat is not None:
            beater = threading.Thread(target=self._keep_beating, name=f"{name} beat", daemon=True)
            self._threads.append(beater)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, drain_s: float = 0.0) -> None:
        """Stop accepting, wait at most ``drain_s`` seconds for pending responses, and close every
        connection, except those that a thread still works on: it closes them. Idempotent."""
        if self._is_ending.is_set():
            return
        self._events.end_listening()
        deadline = time.monotonic() + drain_s
        while any(c.is_busy() for c in list(self._connections)) and time.monotonic() < deadline:
            time.sleep(DRAIN_POLL_S)
        self._is_ending.set()
        self._events.end()
        for thread in self._threads:
            thread.join(SEND_TIMEOUT_S)
        for connection in list(self._connections):
            if connection.claim():
                self._finish(connection)
        while (queued := self._events.dequeue()) is not None:
            self._finish(queued)
        self._app_pool.close()
        self._events.close()

    def _serve(self) -> None:
        """The loop of each thread: one event at a time."""
        _own.next = None
        events = self._events
        while True:
            for descriptor, _ in events.wait():
                if descriptor == events.ending:
                    return
                try:
                    self._happened(descriptor)
                except Exception:
                    log.exception("a request failed")
                while _own.next is not None:
                    go_on, _own.next = _own.next, None
                    go_on()

    def _happened(self, descriptor: int) -> None:
        connection = self._events.watched.get(descriptor)
        if connection is not None:
            self._woken(connection)
        elif descriptor == self._events.ready:
            self._proceed_with_next()
        elif descriptor == self._listener.fileno():
            self._accept()

    def _woken(self, connection: Connection) -> None:
        """Handle an event of a connection: readable, writable or ended."""
        parked = self._events.claim(connection)
        if parked in UNTIL_END:  # the client has closed it
            self._finish(connection)
        elif parked is not None:
            self._proceed(connection)

    def _keep_sweeping(self) -> None:
        while not self._is_ending.wait(self._front.sweep_s):
            self._sweep(time.monotonic() - self._front.patience_s)

    def _sweep(self, oldest: float) -> None:
        """Close connections that send no whole request, or read no response, since ``oldest``."""
        for connection in list(self._events.watched.values()):
            if connection.silent_since < oldest and connection.claim(_LIMITED):
                self._finish(connection)

    def _keep_beating(self) -> None:
        while not self._is_ending.wait(self._front.beat_s):
            self._beat(time.monotonic() - self._front.beat_s)

    def _beat(self, oldest: float) -> None:
        """Send an interim response to clients that wait since ``oldest`` or longer, and accept new
        ones: each other thread may be busy with a large directory."""
        with contextlib.suppress(OSError):  # the listener is closed
            for connection in self._acceptor.accept_ready(waits=False):
                self._connections.add(connection)
                self._events.enqueue(connection, wake=True)
        for connection in list(self._connections):
            if connection.silent_since <= oldest:
                connection.hint(INTERIM)
        if self._front.beat is not None:
            self._front.beat()

    # --- requests -------------------------------------------------------------------------------

    def _accept(self) -> None:
        for connection in self._acceptor.accept_ready():
            self._connections.add(connection)
            self._events.enqueue(connection, wake=False)
        self._proceed_with_next()

    def _proceed_with_next(self) -> None:
        """Proceed with the oldest connection in the queue."""
        connection = self._events.dequeue()
        if connection is not None:
            self._proceed(connection)

    def _proceed(self, connection: Connection) -> None:
        """Process a connection, as its owner, until it is parked, closed or given to the app."""
        try:
            while self._steps[connection.state](connection):
                pass
        except Exception:
            log.exception("a request failed")
            self._finish(connection)

    def _read(self, connection: Connection) -> bool:
        """Read once for each event: the kernel reports remaining data again. This and the following
        steps return whether this thread still owns the connection."""
        if _receive(connection) is False:
            self._finish(connection)
            return False
        if connection.reader.is_admitted():
            connection.silent_since = time.monotonic()
        return self._next(connection)

    def _next(self, connection: Connection) -> bool:
        """Start on the next request."""
        request = connection.reader.next()
        if request is None:
            connection.transport.expect(connection.reader.missing())
            self._events.park(connection, IDLE)
            return False
        connection.keeps = (
            self._knows(connection, request)  # also decides how the response is sent
            and request.keeps
            and connection.transport.keeps_alive
            and not self._is_ending.is_set()
        )
        handler = self._handlers.get(request.method, {}).get(request.target)
        if handler is None:
            connection.begin_response()
            self._app_pool.take(connection, request)
            return False
        connection.become(HANDLING)
        headers, same_user = request.headers, connection.transport.is_same_user()
        given = (headers.get("authorization"), request.body, same_user)
        connection.later = handler(Call(*given, peer=connection.peer, headers=headers))
        return True

    def _knows(self, connection: Connection, request: Request) -> bool:
        """Whether the client has a known token; checked again only if the header changes."""
        shown = request.headers.get("authorization", "")
        if shown != connection.shown:
            connection.shown = shown
            connection.is_known = self._front.admits(request.headers)
        return connection.is_known

    def _answered(self, connection: Connection) -> None:
        """Continue after the app's response, which may end later than the server's threads."""
        if connection.keeps and not self._is_ending.is_set():
            self._proceed(connection)
        else:
            self._finish(connection)

    def _is_kept(self, connection: Connection) -> bool:
        """After a response: make the connection ready for the next request, or close it. A handler
        may also have ended without a response."""
        if not connection.keeps or connection.state is not RESPONDING:
            self._finish(connection)
            return False
        connection.silent_since = time.monotonic()
        connection.become(READING)
        return self._next(connection)

    # --- waiting handlers -----------------------------------------------------------------------

    def _go_on(self, connection: Connection) -> bool:
        """Run the generator up to the next event that it has to wait for."""
        later = connection.later or iter(())  # None: the app's response was buffered
        while True:
            try:
                step = next(later)
            except StopIteration:
                connection.later = None
                return self._is_kept(connection)
            if not isinstance(step, OneShot):
                if not self._respond(connection, step):
                    return False
            elif not step.is_set():
                break
        has_response = connection.state is RESPONDING
        self._events.park(connection, HELD if has_response else SUSPENDED)
        step.then(lambda: self._resume(connection))
        return False

    def _respond(self, connection: Connection, step: Response | bytes) -> bool:
        """Send a handler's response, or a part of a stream; a second response is an
        IllegalTransition."""
        files: Sequence[int] = ()
        if isinstance(step, Response):
            connection.begin_response()
            connection.keeps &= not step.is_stream
            files, step = step.files, step.encode(keeps=connection.keeps)
        try:
            return self._pending_sends.send(connection, step, files)
        except OSError as error:
            self._vanished(connection, error)
            return False

    def _send_rest(self, connection: Connection) -> bool:
        """Send more of a buffered response, if any; then go on after it."""
        try:
            if not self._pending_sends.go_on(connection):
                return False
        except OSError as error:
            self._vanished(connection, error)
            return False
        return self._go_on(connection)

    def _vanished(self, connection: Connection, error: OSError) -> None:
        log.debug("a client vanished: %s", error)
        self._finish(connection)

    def _resume(self, connection: Connection) -> None:
        """Called by the thread that fired the awaited event. If that is a server's thread, it
        resumes the connection itself, after its present work."""
        if not connection.claim():
            return
        # Only a server's thread has ``next``, and may take a permit.
        if getattr(_own, "next", _own) is None and self._foreign_threads:
            try:
                self._foreign_threads.pop()
            except IndexError:  # another thread has just taken the last one
                pass
            else:
                _own.next = lambda: self._proceed_in_foreign_thread(connection)
                return
        self._events.enqueue(connection, wake=True)

    def _proceed_in_foreign_thread(self, connection: Connection) -> None:
        try:
            self._proceed(connection)
        finally:
            self._foreign_threads.append(None)

    def _finish(self, connection: Connection) -> None:
        """Close a connection, as its owner, and its handler."""
        try:
            if connection.later is not None:
                connection.later.close()
        except Exception:
            log.exception("a request failed")
        self._events.forget(connection)
        self._pending_sends.forget(connection)
        connection.reader.close()
        self._connections.discard(connection)
        connection.close()


def _receive(connection: Connection) -> bool | None:
    """Read available bytes; False at the end of the connection or after an error."""
    try:
        return connection.transport.receive(connection.reader)
    except OSError as error:
        log.debug("a client vanished: %s", error)
        return False
