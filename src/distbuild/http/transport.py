"""A connection's bytes, plain or through TLS. Knows no request.

Never blocks, but in ``send``. What ``offer`` finds no room for stays here until it was pushed
out: it went through TLS already, so nothing else may leave before it.
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

#: A client that takes nothing of its answer for so long (seconds) is given up.
SEND_TIMEOUT_S = 10.0
#: Machines that vanish without a word are noticed after some times as long (seconds).
KEEPALIVE_S = 15
_CREDENTIALS = struct.Struct("3i")
#: A number: to put them together each time takes Python longer than to send. Not on Windows.
_NOW = int(getattr(socket, "MSG_DONTWAIT", 0))
_AT_ONCE = int(getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0))
_READ_BYTES = 256 * 1024
#: What is left of a body is waited for as a whole from this size on.
_WAIT_BYTES = 32 * 1024
#: More than a record of TLS 1.3 takes (RFC 8446, 5.2).
_RECORD_BYTES = 17 * 1024
_TAKES_NOTHING = "the client takes nothing"


class Sink(Protocol):
    """Takes what comes; see RequestReader."""

    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""

    def filled(self, size: int) -> None:
        """So many bytes were put into the room."""


class _Scratch(threading.local):
    """Where a thread takes in what comes, so that no memory is asked for each time."""

    def __init__(self) -> None:
        self.wire = memoryview(bytearray(_READ_BYTES))


_scratch = _Scratch()


class Plain:
    """Bytes as they are; on a Unix socket."""

    scheme = "http"
    #: A connection carries one request: a wrapper has no second one.
    keeps_alive = False

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        #: What is still to be sent, as it goes on the wire.
        self._unsent = memoryview(b"")
        #: Descriptors that go with its first byte.
        self._files: Sequence[int] = ()

    def fileno(self) -> int:
        """Its descriptor."""
        return self._socket.fileno()

    def receive(self, sink: Sink) -> bool | None:
        """Take what has come, if only a part of it. False at the end, None when there is nothing
        yet. Raises OSError."""
        try:
            size = self._socket.recv_into(sink.room(), 0, _NOW)
        except BlockingIOError:
            return None
        if size:
            sink.filled(size)
        return size > 0

    def expect(self, size: int) -> None:
        """So many bytes are still to come of a body (0: of none); fewer are not worth a look."""

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError, also when the other end takes nothing for a while."""
        is_all = self.offer(data)
        while not is_all:
            self._wait_for_room()
            is_all = self.push()

    def offer(self, data: bytes, files: Sequence[int] = ()) -> bool:
        """Send what there is room for, after what was left before, and keep the rest; whether
        nothing is left. ``files``: descriptors to send with it, once for a connection. Raises
        OSError."""
        self._files = files
        return self._put(data)

    def hint(self, data: bytes) -> None:
        """Send something short that is not missed where there is no room for it, or nobody."""
        with contextlib.suppress(OSError):
            self._socket.send(data, _AT_ONCE)

    def push(self) -> bool:
        """Send more of what is left; whether that was all. Raises OSError."""
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
        """Whether nothing more will come, whatever has."""
        end = select.poll()
        end.register(self._socket, select.POLLRDHUP)
        return bool(end.poll(0))

    def is_same_user(self) -> bool:
        """Whether the kernel says that the other end is a process of this very user."""
        data = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return bool(_CREDENTIALS.unpack(data)[1] == os.getuid())

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


class Tls(Plain):
    """TLS's server side, on a TCP connection."""

    scheme = "https"
    keeps_alive = True

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
        # Memory between TLS and the socket: one system call for all the records of a result.
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        #: The handshake is over.
        self.is_open = False
        self._awaited = 1

    def receive(self, sink: Sink) -> bool | None:
        """See Plain."""
        wire = _scratch.wire
        try:
            size = self._socket.recv_into(wire, 0, _NOW)
        except BlockingIOError:
            return None
        if not size:
            return False
        self._incoming.write(wire[:size])
        if not self.is_open and not self._shake_hands():
            return None
        came = self._unpack(sink)
        self._say()
        return came

    def _unpack(self, sink: Sink) -> bool | None:
        """Decrypt all that is there; None: nothing yet, False: the other end says farewell."""
        came: bool | None = None
        room, size = sink.room(), 0
        try:
            while self._incoming.pending or self._tls.pending() or not came:
                read = int(self._tls.read(len(room) - size, room[size:]))
                if not read:
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

    def expect(self, size: int) -> None:
        """See Plain. The kernel tells of a large body once there is much of it, not of each of the
        segments in which it comes; the end of the connection it tells at once."""
        # The beginning of a record may be inside TLS already; what is packed is never less.
        missing = size - self._incoming.pending - _RECORD_BYTES
        awaited = min(missing, _READ_BYTES) if missing >= _WAIT_BYTES else 1
        if awaited != self._awaited:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, awaited)
            self._awaited = awaited

    def _shake_hands(self) -> bool:
        try:
            self._tls.do_handshake()
            self.is_open = True
        except ssl.SSLWantReadError:
            pass
        finally:
            self._say()  # also of what is wrong
        return self.is_open

    def offer(self, data: bytes, files: Sequence[int] = ()) -> bool:
        """See Plain; descriptors do not go over a network."""
        del files
        self._tls.write(data)
        return self._flush()

    def _say(self) -> None:
        """Send TLS's own words, which are few: who has no room for them takes nothing."""
        if self._outgoing.pending and not self._flush():
            raise TimeoutError(_TAKES_NOTHING)

    def _flush(self) -> bool:
        """Offer what TLS has made; whether nothing is left."""
        return self._put(self._outgoing.read())

    def is_same_user(self) -> bool:
        """Nobody says so."""
        return False

    def close(self) -> None:
        """End the connection, with a word of it where the other end takes one."""
        if self.is_open and not self._unsent:
            with contextlib.suppress(OSError):
                self._tls.unwrap()
            with contextlib.suppress(OSError):
                self._socket.send(self._outgoing.read(), _AT_ONCE)
        super().close()


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.3 with this certificate. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # nobody resumes a session
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{cert}, {key}: not usable: {error}") from error
    return context
