"""A few threads that serve one listening socket. Linux.

The site's handlers answer what is asked often. What has to wait costs no thread: a handler is a
generator that yields the ``Signal`` it waits for, and the connection's end closes it. The app
answers the rest at its desk. Knows nothing of what any of them does.
"""

import contextlib
import logging
import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from distbuild.http.listen import Acceptor
from distbuild.http.poller import Events, PendingSends
from distbuild.http.request import Request, environ_of
from distbuild.http.response import INTERIM, Response, call
from distbuild.http.site import Call, Connection, Front, Site
from distbuild.http.transport import SEND_TIMEOUT_S

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


#: How often silent connections are looked for, and a server that stops looks whether it may.
SWEEP_S = 5.0
#: Who has waited for so long is told that the server lives, and again each time (seconds). Clients
#: give up after ten (src/launcher/syncer.h).
BEAT_S = 2.5
DRAIN_POLL_S = 0.01
#: What a server's thread does before it waits again.
_own = threading.local()


class Server:
    """A ``site`` behind a ``front``."""

    def __init__(self, site: Site, front: Front, name: str) -> None:
        self._site = site
        self._front = front
        self._listener = front.listener
        self._events = Events(front.listener)
        self._outbox = PendingSends(self._events)
        self._connections: set[Connection] = set()
        self._guests = threading.BoundedSemaphore(front.guests) if front.guests else None
        self._is_ending = threading.Event()
        self._door = Acceptor(front, self._connections, self._is_ending)
        self._desk = AppPool(site.app, self._outbox, self._answered, front.max_slow, f"{name} slow")
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name} {n}", daemon=True)
            for n in range(front.threads)
        ]
        if front.patience_s:
            sweeper = threading.Thread(target=self._sweep, name=f"{name} sweeper", daemon=True)
            self._threads.append(sweeper)
        if front.beat is not None:
            beater = threading.Thread(target=self._keep_beating, name=f"{name} beat", daemon=True)
            self._threads.append(beater)

    def start(self) -> None:
        """Begin to answer."""
        for thread in self._threads:
            thread.start()

    def stop(self, drain_s: float = 0.0) -> None:
        """Accept nothing more, let what is asked be answered for ``drain_s`` seconds at the most,
        and close every connection. Again, it does nothing."""
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
        for connection in self._events.left():
            connection.is_running = connection.is_gone = True
            self._finish(connection)
        self._desk.close()
        self._events.close()

    def _serve(self) -> None:
        """One of the threads: each takes whatever comes next."""
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
        """Something came, or the end. The event may be of an earlier connection of this number."""
        if connection.is_sending:
            if connection.claim():
                self._proceed(connection)
        elif connection.later is not None:
            if connection.transport.has_ended():
                self._gone(connection)
                return
            with connection.lock:
                if not connection.is_sending:
                    self._events.watch(connection, 0)
        elif connection.claim():
            connection.is_readable = True
            self._proceed(connection)

    def _sweep(self) -> None:
        """Give up connections on which nothing whole comes, or that take no answer."""
        while not self._is_ending.wait(SWEEP_S):
            oldest = time.monotonic() - self._front.patience_s
            for connection in list(self._events.watched.values()):
                is_due = connection.is_sending or connection.later is None
                if is_due and connection.silent_since < oldest and connection.claim():
                    self._finish(connection)

    def _keep_beating(self) -> None:
        while not self._is_ending.wait(BEAT_S):
            self._beat(time.monotonic() - BEAT_S)

    def _beat(self, oldest: float) -> None:
        """Tell those who wait since then that we live, whatever our other threads do: each may be
        busy with a large directory, while new clients are not even accepted."""
        with contextlib.suppress(OSError):  # the listener is closed
            for connection in self._door.come_in(waits=False):
                self._connections.add(connection)
                self._events.enqueue(connection, wake=True)
        for connection in list(self._connections):
            if connection.silent_since <= oldest:
                connection.hint(INTERIM)
        if self._front.beat is not None:
            self._front.beat()

    # --- requests -------------------------------------------------------------------------------

    def _accept(self) -> None:
        for connection in self._door.come_in():
            self._connections.add(connection)
            self._events.enqueue(connection, wake=False)
        self._proceed_with_next()

    def _proceed_with_next(self) -> None:
        """Go on with the oldest of what is due."""
        connection = self._events.dequeue()
        if connection is not None:
            self._proceed(connection)

    def _proceed(self, connection: Connection) -> None:
        """Go on with a connection until it waits for something, or has ended."""
        try:
            if connection.is_sending and not self._send_rest(connection):
                return
            while self._go_on(connection) if connection.later else self._next(connection):
                pass
        except Exception:
            log.exception("a request failed")
            self._finish(connection)

    def _next(self, connection: Connection) -> bool:
        """Take the next request; whether to go on with the connection here and now."""
        # Of a connection that waited there is nothing whole yet: what it is told of comes first.
        request = None if connection.is_readable else connection.reader.next()
        while request is None:
            if not connection.is_readable:
                connection.transport.expect(connection.reader.missing())
                connection.is_running = False
                self._events.watch(connection, select.EPOLLIN)
                return False
            # Once for what was told: of what is left after that the kernel tells again.
            connection.is_readable = False
            if _receive(connection) is False:
                self._finish(connection)
                return False
            if connection.reader.is_admitted():
                connection.silent_since = time.monotonic()
            request = connection.reader.next()
        connection.keeps = (
            self._knows(connection, request)  # also tells how an answer is sent
            and request.keeps
            and connection.transport.keeps_alive
            and not self._is_ending.is_set()
        )
        handler = self._site.handlers.get(request.target) if request.method == "POST" else None
        if handler is None:
            connection.begin_answer()
            self._desk.take(connection, request)
            return False
        same_user = connection.transport.is_same_user()
        connection.later = handler(
            Call(request.headers.get("authorization"), request.body, same_user)
        )
        return True

    def _knows(self, connection: Connection, request: Request) -> bool:
        """Whether whoever asks shows a token; looked at when another one is shown."""
        shown = request.headers.get("authorization", "")
        if shown != connection.shown:
            connection.shown = shown
            connection.is_known = self._front.admits(request.headers)
        return connection.is_known

    def _answered(self, connection: Connection) -> None:
        """The app's answer has gone."""
        if self._is_kept(connection):
            self._proceed(connection)

    def _is_kept(self, connection: Connection) -> bool:
        """After an answer: ready for the next request, or closed."""
        if not connection.keeps:
            self._finish(connection)
        connection.silent_since = time.monotonic()
        return connection.keeps

    # --- what waits -----------------------------------------------------------------------------

    def _go_on(self, connection: Connection) -> bool:
        """Run the generator up to the next thing that it has to wait for; whether it has ended and
        the connection has not."""
        while True:
            try:
                step = next(connection.later or iter(()))
            except StopIteration:
                connection.later, connection.has_answered = None, False
                connection.is_waiting = False
                return self._is_kept(connection)
            if isinstance(step, Response):
                connection.has_answered = True
                connection.begin_answer()
                data = step.encode(keeps=connection.keeps)
                try:
                    if not self._outbox.send(connection, data, step.files):
                        return False
                except OSError as error:
                    self._vanished(connection, error)
                    return False
            elif not step.is_set():
                break
        with connection.lock:
            connection.is_running = ended = connection.is_gone
            if not ended and not connection.is_waiting:
                connection.is_waiting = True
                self._events.watch(connection, 0)
        if ended:
            self._finish(connection)
        else:
            step.then(lambda: self._resume(connection))
        return False

    def _send_rest(self, connection: Connection) -> bool:
        """There is room for more of an answer; whether that was all and the connection goes on."""
        try:
            is_sent = self._outbox.go_on(connection)
        except OSError as error:
            self._vanished(connection, error)
            return False
        return is_sent and (connection.later is not None or self._is_kept(connection))

    def _vanished(self, connection: Connection, error: OSError) -> None:
        log.debug("a client vanished: %s", error)
        self._finish(connection)

    def _resume(self, connection: Connection) -> None:
        """What was waited for has happened; called by whoever let it happen. A server's thread
        goes on with it itself, once it has done what it does."""
        if not connection.claim():
            return
        is_free = getattr(_own, "next", _own) is None
        if is_free and self._guests is not None and self._guests.acquire(blocking=False):
            _own.next = lambda: self._proceed_as_guest(connection, self._guests)
            return
        self._events.enqueue(connection, wake=True)

    def _proceed_as_guest(self, connection: Connection, guests: threading.BoundedSemaphore) -> None:
        try:
            self._proceed(connection)
        finally:
            guests.release()

    def _gone(self, connection: Connection) -> None:
        """The client has ended: so does what it waits for."""
        if connection.claim_as_gone():
            self._finish(connection)

    def _finish(self, connection: Connection) -> None:
        if connection.later is not None:
            connection.later.close()
        self._events.forget(connection)
        self._outbox.forget(connection)
        connection.reader.close()
        self._connections.discard(connection)
        connection.begin_answer()
        connection.transport.close()


def _receive(connection: Connection) -> bool | None:
    """Take in what has come; False at the end, however it ended."""
    try:
        return connection.transport.receive(connection.reader)
    except OSError as error:
        log.debug("a client vanished: %s", error)
        return False
