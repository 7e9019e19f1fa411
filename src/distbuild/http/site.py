"""Types that a server and its application share: a connection's state with its claim by a thread,
the request that a handler gets, the site (handlers and WSGI app) and the front (listener)."""

import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING

import msgspec

from distbuild.http.request import Admits, RequestReader
from distbuild.http.response import Response
from distbuild.http.transport import Plain
from distbuild.one_shot import OneShot

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: A suspended handler. It yields the events it waits for, and one Response; it may wait again after
#: that, for the end of the connection.
Later = Generator[OneShot | Response, None, None]


class Connection(msgspec.Struct, eq=False):
    """A connection's state. Only the thread that has claimed it may read, answer or close it."""

    transport: Plain
    reader: RequestReader
    later: Later | None = None
    has_answered: bool = False
    #: The response is being sent: no interim response may be sent any more.
    is_answering: bool = False
    #: Keep-alive: another request may follow this one.
    keeps: bool = False
    #: A thread has claimed it.
    is_running: bool = True
    #: The client has closed it; the thread that has claimed it closes this end.
    is_gone: bool = False
    #: The socket may have bytes that were not read yet.
    is_readable: bool = True
    is_watched: bool = False
    #: Its generator waits, and its end is watched for.
    is_waiting: bool = False
    #: A buffered write: the rest of a response waits until the socket is writable.
    is_sending: bool = False
    #: The client's last Authorization header, and whether its token is known.
    shown: str | None = None
    is_known: bool = False
    silent_since: float = msgspec.field(default_factory=time.monotonic)
    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """Claim it for this thread; False: another thread has it."""
        with self.lock:
            is_ours, self.is_running = not self.is_running, True
            return is_ours

    def claim_as_gone(self) -> bool:
        """As ``claim``, after the client has closed it; a thread that has claimed it sees that
        later."""
        with self.lock:
            self.is_gone = True
            is_ours, self.is_running = not self.is_running, True
            return is_ours

    def begin_answer(self) -> None:
        """From now on only the thread that has claimed it may send."""
        with self.lock:
            self.is_answering = True

    def hint(self, data: bytes) -> None:
        """Send a few bytes, from any thread, unless the response has begun."""
        with self.lock:
            if not self.is_answering:
                self.transport.hint(data)

    def is_busy(self) -> bool:
        """Whether the client waits for a response."""
        if self.is_sending:
            return True
        if self.later is not None:
            return not self.has_answered
        return self.is_running


class Call(msgspec.Struct, frozen=True):
    """The parts of a request that a handler gets."""

    authorization: str | None
    body: bytes | bytearray
    #: The kernel says that it comes from this process's user.
    is_same_user: bool = False
    #: It came over the Unix socket, from any user.
    is_local: bool = False


#: Answers a POST without blocking: a waiting handler holds no thread.
Handler = Callable[[Call], Later]


class Site(msgspec.Struct, frozen=True):
    """The application: ``handlers`` by path, the WSGI ``app`` for all other requests, and ``end``,
    which is called after the last response."""

    app: "WSGIApplication"
    handlers: Mapping[str, Handler]
    end: Callable[[], None]


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
    #: Called every few seconds, when waiting clients get an interim response that shows that the
    #: server lives. None: they get none.
    beat: Callable[[], None] | None = None
    #: How many threads of other servers may at a time resume this server's connections, after they
    #: fired the awaited event: to wake a thread of this one costs more, and its caches are cold.
    foreign_threads: int = 0
    #: Number of threads for the WSGI app, whose requests may take long.
    max_slow: int = 1024
