"""Types that a server and its application share: a connection with the machine of its states, the
request that a handler gets, the site (handlers and WSGI app) and the front (listener)."""

import enum
import socket
import threading
import time
from collections.abc import Callable, Container, Generator, Mapping
from typing import TYPE_CHECKING

import msgspec

from distbuild.http.request import Admits, RequestReader
from distbuild.http.response import Response
from distbuild.http.transport import Plain
from distbuild.one_shot import OneShot
from distbuild.protocol.errors import IllegalTransition

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: A suspended handler. It yields the events it waits for, and one Response; it may wait again after
#: that, for the end of the connection. After the head of a stream it also yields parts of the body.
Later = Generator[OneShot | Response | bytes, None, None]


class ConnectionState(enum.IntEnum):
    """What happens with a connection.

    A connection is either parked, and the poller watches its socket, or one thread owns it: only
    that thread may read, answer, park or close it. A queued connection counts as owned.

    How far a handshake or a request has been read is no state of the connection: only the transport
    and the reader can know it, and nothing else depends on it.
    """

    #: Owned: bytes of TLS's handshake or of a request are read and parsed.
    READING = enum.auto()
    #: Parked until the socket is readable: no whole request has arrived.
    IDLE = enum.auto()
    #: Owned: a handler works on the request.
    HANDLING = enum.auto()
    #: Parked until the handler's event fires; the client's end cancels the handler.
    SUSPENDED = enum.auto()
    #: Owned: the response has begun, or the app, which may begin it at any time, has the request.
    RESPONDING = enum.auto()
    #: Parked until the socket is writable: a buffered write.
    BLOCKED = enum.auto()
    #: Parked after the response: the handler waits on, mostly for the client's end.
    HELD = enum.auto()
    #: Final.
    CLOSED = enum.auto()


#: As global names, which are faster than an attribute of an enum.
READING, IDLE, HANDLING, SUSPENDED, RESPONDING, BLOCKED, HELD, CLOSED = ConnectionState

#: All legal changes of a connection's state. A parked connection has one successor, the state of
#: the thread that claims it, and is closed from there.
TRANSITIONS: Mapping[ConnectionState, frozenset[ConnectionState]] = {
    READING: frozenset({IDLE, HANDLING, RESPONDING, CLOSED}),
    IDLE: frozenset({READING}),
    HANDLING: frozenset({SUSPENDED, RESPONDING, CLOSED}),
    SUSPENDED: frozenset({HANDLING}),
    RESPONDING: frozenset({BLOCKED, HELD, READING, CLOSED}),
    BLOCKED: frozenset({RESPONDING}),
    HELD: frozenset({RESPONDING}),
    CLOSED: frozenset(),
}
_CLAIMED = {IDLE: READING, SUSPENDED: HANDLING, BLOCKED: RESPONDING, HELD: RESPONDING}
PARKED = frozenset(_CLAIMED)
#: A client in one of these waits for no response.
_AT_REST = frozenset({IDLE, HELD, CLOSED})
#: An interim response would come between the parts of a response, or after its connection's end.
_MUTE = frozenset({RESPONDING, BLOCKED, HELD, CLOSED})


class Connection(msgspec.Struct, eq=False):
    """A connection and its state.

    The other fields are independent of the state: ``keeps`` is the client's wish from its head to
    the response's end, ``is_known`` lasts for several requests, ``armed`` is what the kernel will
    report, which lags behind the state.
    """

    transport: Plain
    reader: RequestReader
    state: ConnectionState = READING
    #: The suspended handler; None: there is none, or the app has the request.
    later: Later | None = None
    #: Keep-alive: another request may follow this one.
    keeps: bool = False
    #: The events that the poller will report, once; 0: reported already, None: not registered.
    armed: int | None = None
    #: The client's last Authorization header, and whether its token is known.
    shown: str | None = None
    is_known: bool = False
    #: The client's address; "" on a Unix socket.
    peer: str = ""
    silent_since: float = msgspec.field(default_factory=time.monotonic)
    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def become(self, state: ConnectionState) -> None:
        """Change the state. Raises IllegalTransition and changes nothing.

        For the owner. It needs the lock where other threads may act on the new state: to park the
        connection, to respond and to close.
        """
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"{state.name} of a connection that is {self.state.name}")
        self.state = state

    def begin_response(self) -> None:
        """From now on only the owner may send. Raises IllegalTransition."""
        with self.lock:
            self.become(RESPONDING)

    def claim(self, of: Container[ConnectionState] = PARKED) -> bool:
        """Own a connection that is parked in one of the states ``of``; False: it is not."""
        with self.lock:
            return self.claim_locked(of)

    def claim_locked(self, of: Container[ConnectionState] = PARKED) -> bool:
        """As ``claim``, for a thread that holds the lock."""
        is_parked = self.state in of
        if is_parked:
            self.state = _CLAIMED[self.state]
        return is_parked

    def close(self) -> None:
        """Close the socket; for the owner. Raises IllegalTransition if it is closed already."""
        with self.lock:
            self.become(CLOSED)
            self.transport.close()

    def hint(self, data: bytes) -> None:
        """Send a few bytes, from any thread, unless the response has begun."""
        with self.lock:
            if self.state not in _MUTE:
                self.transport.hint(data)

    def is_busy(self) -> bool:
        """Whether the client waits for a response."""
        return self.state not in _AT_REST


class Call(msgspec.Struct, frozen=True):
    """The parts of a request that a handler gets."""

    authorization: str | None
    body: bytes | bytearray
    #: The kernel says that it comes from this process's user.
    is_same_user: bool = False
    #: It came over the Unix socket, from any user.
    is_local: bool = False
    #: The client's address; "" over the Unix socket.
    peer: str = ""
    #: By their lower-case names.
    headers: Mapping[str, str] = {}


#: Answers a request without blocking: a waiting handler holds no thread.
Handler = Callable[[Call], Later]


class Site(msgspec.Struct, frozen=True):
    """The application: ``handlers`` of POST requests by path, the WSGI ``app`` for all others, and
    ``end``, which is called after the last response."""

    app: "WSGIApplication"
    handlers: Mapping[str, Handler]
    end: Callable[[], None]
    #: The handlers of GET requests by path.
    streams: Mapping[str, Handler] = {}
    #: The sites of fronts that serve another one, by the front's name; their ``end`` is not called.
    others: Mapping[str, "Site"] = {}


class Front(msgspec.Struct, frozen=True):
    """A listening socket with its limits. ``transport`` wraps each accepted socket."""

    listener: socket.socket
    transport: Callable[[socket.socket], Plain]
    #: Number of threads. Few: the kernel wakes them in turn, and one that has slept long starts
    #: with cold caches.
    threads: int
    #: Whether a client has a known token. Others get one response for each connection, which is
    #: kept in memory until they read it.
    admits: Admits
    max_body: int
    max_connections: int
    #: A connection without a whole request in this time (seconds) is closed; 0: never.
    patience_s: float = 0.0
    #: Interval (seconds) of the search for such connections.
    sweep_s: float = 5.0
    #: Called at each interval of ``beat_s`` seconds, when waiting clients get an interim response
    #: that shows that the server lives. None: they get none.
    beat: Callable[[], None] | None = None
    #: Clients give up after ten seconds without one (src/launcher/syncer.h).
    beat_s: float = 2.5
    #: How many threads of other servers may at a time resume this server's connections, after they
    #: fired the awaited event: to wake a thread of this one costs more, and its caches are cold.
    foreign_threads: int = 0
    #: Number of threads for the WSGI app, whose requests may take long.
    max_slow: int = 1024
