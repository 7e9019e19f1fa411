"""Unix stream sockets: listening where only the owner may connect, who is there, and answers.

Linux. Knows no request and no app.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from distbuild.protocol.errors import ConfigError

BACKLOG = 1024
#: A client that takes nothing of its answer for so long (seconds) is given up.
SEND_TIMEOUT_S = 10.0
_CREDENTIALS = struct.Struct("3i")
_READ_BYTES = 256 * 1024


def listen(path: Path) -> socket.socket:
    """A listening socket that only its owner may connect to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # By way of the directory's descriptor: an address has 108 bytes, a path may have more.
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            listener.bind(f"/proc/self/fd/{directory}/{path.name}")
            path.chmod(0o600)  # before anybody can connect: it does not listen yet
            listener.listen(BACKLOG)
        finally:
            os.close(directory)
    except OSError as error:
        listener.close()
        raise ConfigError(f"{path}: cannot listen: {error.strerror}") from error
    return listener


def is_same_user(connection: socket.socket) -> bool:
    """Whether the kernel says that the other end is a process of this very user."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(data)[1] == os.getuid())


def has_ended(connection: socket.socket) -> bool:
    """Whether nothing more will come. An event may be of an earlier connection of this number."""
    try:
        while connection.recv(_READ_BYTES, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def send_answer(connection: socket.socket, head: Sequence[str], parts: Iterable[bytes]) -> None:
    """Send as it comes, without a length of our own: the connection's end is the answer's."""
    text = "\r\n".join(["HTTP/1.1 " + head[0], *head[1:], "Connection: close", "", ""])
    data = text.encode("latin-1", "replace")
    for part in parts:
        _send_all(connection, data + part)
        data = b""
    if data:
        _send_all(connection, data)


def _send_all(connection: socket.socket, data: bytes) -> None:
    """Mostly one system call; only what the other end does not take at once waits."""
    with contextlib.suppress(BlockingIOError):
        sent = connection.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        data = data[sent:]
    if data:
        connection.settimeout(SEND_TIMEOUT_S)
        try:
            connection.sendall(data)
        finally:
            connection.settimeout(None)
