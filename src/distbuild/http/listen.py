"""Opens a server's listening sockets (Unix or TCP), and accepts connections on them."""

import contextlib
import errno
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sized
from pathlib import Path

from distbuild.http.request import BodyBudget, RequestReader
from distbuild.http.site import Connection, Front
from distbuild.protocol.errors import ConfigError

BACKLOG = 2048


def listen_unix(path: Path) -> socket.socket:
    """A listening Unix socket that only its owner may connect to; raises ConfigError. Linux."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # Through the directory's descriptor: an address has 108 bytes, a path may have more.
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            listener.bind(f"/proc/self/fd/{directory}/{path.name}")
            path.chmod(0o600)  # before any client can connect: it does not listen yet
            listener.listen(BACKLOG)
        finally:
            os.close(directory)
    except OSError as error:
        listener.close()
        raise ConfigError(f"{path}: cannot listen: {error.strerror}") from error
    return listener


def listen_port(bind: str, port: int) -> socket.socket:
    """A non-blocking listening TCP socket at ``bind``; raises ConfigError with advice."""
    shown = f"[{bind}]:{port}" if ":" in bind else f"{bind}:{port}"
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        advice = 'set "bind" in config.json to an address of this machine'
        raise ConfigError(f"cannot listen on {shown}: {error.strerror}; {advice}") from None
    listener = socket.socket(family, kind, proto)
    try:
        if sys.platform == "win32":  # SO_REUSEADDR would share the port there
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        advice = _ADVICE.get(error.errno or 0, 'change "port" or "bind" in config.json')
        raise ConfigError(f"cannot listen on {shown}: {error.strerror}; {advice}") from None
    listener.setblocking(False)
    return listener


#: The command that lists listening processes.
_LISTENERS = "netstat -ano" if sys.platform == "win32" else "ss -ltnp"
_ADVICE = {
    errno.EADDRINUSE: f"choose another port, or stop what listens there ({_LISTENERS})",
    errno.EACCES: "choose a port above 1023",
    errno.EADDRNOTAVAIL: 'set "bind" in config.json to an address of this machine',
}


log = logging.getLogger(__name__)

#: Pause (seconds) when no descriptor is left for another connection.
RETRY_S = 0.1
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class Acceptor:
    """Accepts connections on the listener of ``front``. ``inside``: the open connections."""

    def __init__(self, front: Front, inside: Sized, is_ending: threading.Event) -> None:
        self._front = front
        self._body_budget = BodyBudget()
        self._inside = inside
        self._is_ending = is_ending

    def accept_ready(self, *, waits: bool = True) -> Iterator[Connection]:
        """Accept all pending connections, since the listener's event is edge-triggered. ``waits``:
        without a free descriptor, retry. Raises OSError when no client can be accepted any more."""
        while True:
            try:
                accepted, address = self._front.listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if waits and error.errno in _NO_DESCRIPTOR and not self._is_ending.wait(RETRY_S):
                    log.warning("a client waits: %s", error.strerror)
                    continue
                raise
            connection = self._welcome(accepted, address)
            if connection is not None:
                yield connection

    def _welcome(self, accepted: socket.socket, address: object) -> Connection | None:
        if len(self._inside) >= self._front.max_connections:
            log.warning("more than %d connections", self._front.max_connections)
            accepted.close()
            return None
        try:
            transport = self._front.transport(accepted)
        except OSError as error:  # gone already; the other pending clients are still accepted
            log.debug("a client vanished: %s", error)
            accepted.close()
            return None
        reader = RequestReader(self._front.max_body, self._front.admits, self._body_budget)
        peer = str(address[0]) if isinstance(address, tuple) else ""  # a Unix socket's has no host
        return Connection(transport, reader, peer=peer)
