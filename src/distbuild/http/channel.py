"""TLS's client side with memory between it and its socket. Knows no request.

What is sent goes out in one system call, a large body in a few. ``ssl.SSLSocket`` makes one for
each 16 KiB, and the receiver is woken by the first of them.
"""

import contextlib
import socket
import ssl

_READ_BYTES = 256 * 1024
#: So much is encrypted and sent at a time: the other end works on it meanwhile.
_SEND_BYTES = 512 * 1024
#: More than a record of TLS 1.3 holds (RFC 8446, 5.1): each is read as a whole.
_RECORD_BYTES = 17 * 1024


class Channel:
    """A connection on which TLS has begun. Every method raises OSError."""

    def __init__(self, bare: socket.socket, context: ssl.SSLContext, name: str) -> None:
        """Shake hands; ``bare`` is the channel's from then on."""
        self._socket = bare
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if not self._take_in():
                    raise ConnectionResetError(
                        "the connection ended during TLS's handshake"
                    ) from None
            else:
                break
            finally:
                self._flush()  # also the word of what is wrong

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def settimeout(self, timeout_s: float) -> None:
        """How long to wait for what comes next, or for room to send."""
        self._socket.settimeout(timeout_s)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        left = memoryview(data)
        while left:
            self._tls.write(left[:_SEND_BYTES])
            left = left[_SEND_BYTES:]
            self._flush()

    def receive(self) -> bytes:
        """Wait for what comes next; b"" at the end."""
        while True:
            if not self.pending() and not self._take_in():
                return b""
            try:
                return self._tls.read(_RECORD_BYTES)
            except ssl.SSLWantReadError:
                self._flush()
                if not self._take_in():  # the rest of a record
                    return b""
            except ssl.SSLZeroReturnError:
                return b""

    def pending(self) -> bool:
        """Whether something came that was not received yet."""
        return bool(self._incoming.pending or self._tls.pending())

    def close(self) -> None:
        """End the connection, with a word of it where the other end takes one."""
        with contextlib.suppress(OSError):
            self._tls.unwrap()
        with contextlib.suppress(OSError):
            self._socket.setblocking(False)
            self._flush()
        self._socket.close()

    def _take_in(self) -> bool:
        data = self._socket.recv(_READ_BYTES)
        self._incoming.write(data)
        return bool(data)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._socket.sendall(self._outgoing.read())
