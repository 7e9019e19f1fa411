"""One connection's state, and who has it in hand."""

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

#: Yields the signals it waits for, and once an Answer; may wait once more after that, for the end
#: of the connection.
Later = Generator[OneShot | Response, None, None]


class Connection(msgspec.Struct, eq=False):
    """Belongs to the thread that claimed it until that lets go; nobody else may read, answer or
    close it."""

    transport: Plain
    reader: RequestReader
    later: Later | None = None
    has_answered: bool = False
    #: Nothing but the answer, or its rest, may be sent any more.
    is_answering: bool = False
    #: The client takes another answer after this one.
    keeps: bool = False
    #: A thread has it in hand; it is closed when that is done.
    is_running: bool = True
    is_gone: bool = False
    #: Something may have come that was not taken yet.
    is_readable: bool = True
    is_watched: bool = False
    #: Its end is watched for, since its generator waits.
    is_waiting: bool = False
    #: Of an answer something is left that the client's socket had no room for.
    is_sending: bool = False
    #: What was shown last by whoever asks here, and whether it is a token that is known.
    shown: str | None = None
    is_known: bool = False
    silent_since: float = msgspec.field(default_factory=time.monotonic)
    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """Take it in hand; False: another thread has it."""
        with self.lock:
            is_ours, self.is_running = not self.is_running, True
            return is_ours

    def claim_as_gone(self) -> bool:
        """The same for a client that has ended; a thread that has it in hand sees it later."""
        with self.lock:
            self.is_gone = True
            is_ours, self.is_running = not self.is_running, True
            return is_ours

    def begin_answer(self) -> None:
        """From now on nobody but the thread that has it in hand sends anything."""
        with self.lock:
            self.is_answering = True

    def hint(self, data: bytes) -> None:
        """Send something short, from any thread, as long as the answer is awaited."""
        with self.lock:
            if not self.is_answering:
                self.transport.hint(data)

    def is_busy(self) -> bool:
        """Whether somebody waits for an answer."""
        if self.is_sending:
            return True
        if self.later is not None:
            return not self.has_answered
        return self.is_running


class Call(msgspec.Struct, frozen=True):
    """What a handler gets of a request."""

    authorization: str | None
    body: bytes | bytearray
    #: The kernel says that it comes from this very user.
    is_same_user: bool = False
    #: It came over the Unix socket, whoever sent it.
    is_local: bool = False


#: Answers a POST without blocking: what it waits for costs no thread.
Handler = Callable[[Call], Later]


class Site(msgspec.Struct, frozen=True):
    """What is served: ``handlers`` by path, ``app`` for the rest; ``end`` comes after the last."""

    app: "WSGIApplication"
    handlers: Mapping[str, Handler]
    end: Callable[[], None]


class Front(msgspec.Struct, frozen=True):
    """One way in. ``transport`` makes a connection of what the listener accepts."""

    listener: socket.socket
    transport: Callable[[socket.socket], Plain]
    #: Few: the kernel wakes them in turn, and each that was asleep for long starts with cold
    #: caches.
    threads: int
    #: Others get one answer a connection, which is kept in memory until they take it.
    admits: Admits
    max_body: int
    max_connections: int
    #: A connection is given up when no whole request comes in this time (seconds); 0: never.
    patience_s: float = 0.0
    #: Clients that wait are told every few seconds that the server lives, while their requests are
    #: worked on too; this is called each time. None: they are not told.
    beat: Callable[[], None] | None = None
    #: What goes on after a wait may be done by the thread of another server that let it happen, by
    #: so many at a time: to wake one of our own costs more, and it has nothing of it in its caches.
    guests: int = 0
    #: What takes long at once.
    max_slow: int = 1024
