"""Non-blocking transports for a server's connections: plain sockets and TLS. Know no request.

Only ``send`` blocks. What ``send_some`` cannot send is buffered until ``push`` sends it: it is
encrypted already, so no other bytes may precede it.
"""

import contextlib
import os
import select
import socket
import ssl
import struct
import threading
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from distbuild.protocol.errors import ConfigError

#: A client that reads nothing of its response for this time (seconds) is dropped.
SEND_TIMEOUT_S = 10.0
#: Seconds without a packet before TCP's first keep-alive probe, between probes, and their number.
#: A request that waits for three seconds on a machine that is gone ends: the other kernel answers
#: probes however busy it is. They have to fail within a renewal's five seconds.
_KEEPALIVE = (1, 1, 2)
_CREDENTIALS = struct.Struct("3i")
#: Plain numbers: Python takes longer to combine flags than to send. Windows has neither.
_NOW = int(getattr(socket, "MSG_DONTWAIT", 0))
_AT_ONCE = int(getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0))
_READ_BYTES = 256 * 1024
#: From this size on, the rest of a body is awaited as a whole.
_WAIT_BYTES = 32 * 1024
#: More than an encrypted TLS 1.3 record (RFC 8446, 5.2).
_RECORD_BYTES = 17 * 1024
_TAKES_NOTHING = "the client takes nothing"


class Sink(Protocol):
    """A receiver of bytes; see RequestReader."""

    def room(self) -> memoryview:
        """The buffer for the next bytes; never empty."""

    def filled(self, size: int) -> None:
        """Commit ``size`` bytes that were written into the buffer."""


class _Scratch(threading.local):
    """A thread's read buffer, so that no read allocates memory."""

    def __init__(self) -> None:
        self.wire = memoryview(bytearray(_READ_BYTES))


_scratch = _Scratch()


class Plain:
    """An unencrypted connection, on a Unix socket or the loopback network."""

    scheme = "http"
    #: A connection carries one request: a wrapper has no second one.
    keeps_alive = False

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        #: The buffered write, as it goes on the wire.
        self._unsent = memoryview(b"")
        #: Descriptors to pass with its first byte.
        self._files: Sequence[int] = ()

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self, sink: Sink) -> bool | None:
        """Read available bytes, perhaps not all, into ``sink``. False at the end, None if none are
        available. Raises OSError."""
        try:
            size = self._socket.recv_into(sink.room(), 0, _NOW)
        except BlockingIOError:
            return None
        if size:
            sink.filled(size)
        return size > 0

    def expect(self, size: int) -> None:
        """Announce that ``size`` bytes of a body are missing (0: of none), so that the kernel need
        not report fewer."""

    def send(self, data: bytes) -> None:
        """Send all of ``data``; blocking. Raises OSError, also if the peer reads nothing for
        SEND_TIMEOUT_S."""
        is_all = self.send_some(data)
        while not is_all:
            self._wait_for_room()
            is_all = self.push()

    def send_some(self, data: bytes, files: Sequence[int] = ()) -> bool:
        """Send as much as the socket accepts, after earlier buffered bytes, and buffer the rest;
        whether nothing is buffered. ``files``: descriptors to pass with it, once for a connection.
        Raises OSError."""
        self._files = files
        return self._put(data)

    def hint(self, data: bytes) -> None:
        """Send a few bytes that may be lost if the socket is full or closed."""
        with contextlib.suppress(OSError):
            self._socket.send(data, _AT_ONCE)

    def push(self) -> bool:
        """Send more of the buffered bytes; whether nothing is left. Raises OSError."""
        left = self._unsent
        try:
            while left:
                left = left[self._send(left) :]
        except BlockingIOError:
            pass
        self._unsent = left
        return not left

    def _put(self, data: bytes) -> bool:
        if self._unsent:
            self._unsent = memoryview(self._unsent.tobytes() + data)
            return self.push()
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return True
        self._unsent = memoryview(data)[sent:]
        return self.push()

    def _send(self, data: bytes | memoryview) -> int:
        if not self._files:
            return self._socket.send(data, _AT_ONCE)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", self._files))
        sent = self._socket.sendmsg([data], [rights], _AT_ONCE)
        self._files = ()
        return sent

    def _wait_for_room(self) -> None:
        room = select.poll()
        room.register(self._socket, select.POLLOUT)
        if not room.poll(SEND_TIMEOUT_S * 1000):
            raise TimeoutError(_TAKES_NOTHING)

    def has_ended(self) -> bool:
        """Whether the peer has closed its side; there may still be unread bytes."""
        end = select.poll()
        end.register(self._socket, select.POLLRDHUP)
        return bool(end.poll(0))

    def is_same_user(self) -> bool:
        """Whether the kernel says that the peer is a process of this process's user."""
        data = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return bool(_CREDENTIALS.unpack(data)[1] == os.getuid())

    def close(self) -> None:
        self._socket.close()


class TlsPump:
    """TLS between two memory buffers, for either side of a connection. Does no I/O: the owner moves
    the bytes of ``incoming`` and ``outgoing`` from and to a socket."""

    def __init__(self, context: ssl.SSLContext, server_name: str | None = None) -> None:
        """``server_name``: the server that a client expects; None: this is the server's side."""
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        #: The handshake is over.
        self.is_open = False
        #: The peer has sent close_notify.
        self.has_ended = False

    def shake_hands(self) -> bool:
        """Do as much of the handshake as is possible; whether it is over. Raises SSLError, after
        which ``outgoing`` has an alert."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
            self.is_open = True
        return self.is_open

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt all of ``data``."""
        self._tls.write(data)

    def unpack(self, sink: Sink) -> bool | None:
        """Decrypt all available bytes; None: none yet, False: the peer has sent close_notify.
        ``outgoing`` may then have messages of TLS's own. Raises SSLError."""
        came: bool | None = None
        incoming, tls = self.incoming, self._tls
        room, size = sink.room(), 0
        try:
            while incoming.pending or tls.pending() or not came:
                read = int(tls.read(len(room) - size, room[size:]))
                if not read:
                    self.has_ended = True
                    return bool(came)
                came, size = True, size + read
                if size == len(room):
                    sink.filled(size)
                    room, size = sink.room(), 0
        except ssl.SSLWantReadError:
            pass
        finally:
            if size:
                sink.filled(size)
        return came

    def pending(self) -> bool:
        """Whether received bytes may be left to decrypt."""
        return bool(self.incoming.pending or self._tls.pending())

    def end(self) -> None:
        """Write close_notify, unless there was no handshake."""
        if self.is_open:
            with contextlib.suppress(OSError):
                self._tls.unwrap()


class Tls(Plain):
    """The server side of TLS on a TCP connection."""

    scheme = "https"
    keeps_alive = True

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        idle_s, between_s, count = _KEEPALIVE
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, between_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)
        # Memory between TLS and the socket: one system call for all records of a result.
        self._tls = TlsPump(context)
        self._awaited = 1

    def receive(self, sink: Sink) -> bool | None:
        wire = _scratch.wire
        try:
            size = self._socket.recv_into(wire, 0, _NOW)
        except BlockingIOError:
            return None
        if not size:
            return False
        tls = self._tls
        tls.incoming.write(wire[:size])
        if not tls.is_open and not self._shake_hands():
            return None
        came = tls.unpack(sink)
        self._say()
        return came

    def expect(self, size: int) -> None:
        """See Plain. The kernel reports a large body once much of it has arrived, not each TCP
        segment; it reports the end of the connection at once."""
        # TLS may hold the beginning of a record already; encrypted bytes are never fewer.
        missing = size - self._tls.incoming.pending - _RECORD_BYTES
        awaited = min(missing, _READ_BYTES) if missing >= _WAIT_BYTES else 1
        if awaited != self._awaited:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, awaited)
            self._awaited = awaited

    def _shake_hands(self) -> bool:
        try:
            return self._tls.shake_hands()
        finally:
            self._say()  # also an alert after an error

    def send_some(self, data: bytes, files: Sequence[int] = ()) -> bool:
        """See Plain; a network passes no descriptors."""
        del files
        self._tls.write(data)
        return self._flush()

    def _say(self) -> None:
        """Send TLS's own messages. They are short: a client whose socket is full reads nothing.
        Raises OSError."""
        if self._tls.outgoing.pending and not self._flush():
            raise TimeoutError(_TAKES_NOTHING)

    def hint(self, data: bytes) -> None:
        """Send nothing: TLS's state belongs to the thread that owns the connection."""

    def _flush(self) -> bool:
        """Send TLS's output; whether nothing is buffered."""
        return self._put(self._tls.outgoing.read())

    def is_same_user(self) -> bool:
        """The kernel does not know the user at the other end of a network."""
        return False

    def close(self) -> None:
        """Close the connection, with TLS's close_notify if the socket accepts it."""
        if not self._unsent:
            self._tls.end()
            with contextlib.suppress(OSError):
                self._socket.send(self._tls.outgoing.read(), _AT_ONCE)
        super().close()


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.3 with this certificate. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # no client resumes a session
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{cert}, {key}: not usable: {error}") from error
    return context
