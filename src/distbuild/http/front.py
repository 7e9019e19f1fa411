"""What is served, and one way in to it."""

import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from distbuild.http.request import Admits
from distbuild.http.site import Later
from distbuild.http.transport import Plain

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


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
