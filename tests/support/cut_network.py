"""A way through which connections are led, and that can be cut as a cable can."""

import contextlib
import select
import socket
import threading
from typing import Self


class Cable:
    """Passes on what comes to ``port`` to another port of this machine, until it is cut.

    Then nothing passes any more, in either direction, and no connection is closed: as far as both
    ends can see, the other one is silent.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._is_cut = threading.Event()
        self._reader, self._writer = socket.socketpair()
        self._thread = threading.Thread(target=self._pass_on)
        self._thread.start()

    def cut(self) -> None:
        """From now on nothing passes."""
        self._is_cut.set()
        self._writer.send(b"x")
        self._thread.join()

    def is_cut(self) -> bool:
        """Whether nothing passes any more."""
        return self._is_cut.is_set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_cut.is_set():
            self.cut()
        for end in (self._listener, self._reader, self._writer, *self._pairs):
            end.close()

    def _pass_on(self) -> None:
        while True:
            readable, _, _ = select.select([self._listener, self._reader, *self._pairs], [], [])
            if self._is_cut.is_set():
                return
            for end in readable:
                if end is self._listener:
                    self._connect()
                elif end in self._pairs:
                    self._carry(end, self._pairs[end])

    def _connect(self) -> None:
        here, _ = self._listener.accept()
        try:
            there = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            here.close()
            return
        self._pairs |= {here: there, there: here}

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = one.recv(65536)
        with contextlib.suppress(OSError):
            if data:
                other.sendall(data)
                return
        for end in (one, other):
            self._pairs.pop(end, None)
            end.close()
