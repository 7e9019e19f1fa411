"""Counts the bytes of TCP connections that it passes on."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class CountingProxy:
    """Listens on a loopback port of its own; ``target`` may be set any time before the first use.

    ``sent`` are bytes from the connecting side to the target, ``received`` the other way: payload
    of TCP, without the headers of its packets.
    """

    def __init__(self) -> None:
        self.target = 0
        self.sent = 0
        self.received = 0
        self._lock = threading.Lock()
        self._links: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._closing = False
        self.port: int = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def counted(self) -> tuple[int, int]:
        """(sent, received) by now."""
        with self._lock:
            return self.sent, self.received

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if self._closing:
                near.close()
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._links |= {near, far}
            for source, sink, out in ((near, far, True), (far, near, False)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                thread = threading.Thread(target=self._pass, args=(source, sink, out), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass(self, source: socket.socket, sink: socket.socket, out: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._lock:  # counted before the peer can answer it
                    if out:
                        self.sent += len(data)
                    else:
                        self.received += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
            return
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut every connection, stop listening and wait for the threads."""
        self._closing = True
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        self._server.close()
        with self._lock:
            links = list(self._links)
        for link in links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=5.0)
        for link in links:
            link.close()


@contextlib.contextmanager
def counting() -> Iterator[CountingProxy]:
    """A proxy that is closed at the end."""
    proxy = CountingProxy()
    try:
        yield proxy
    finally:
        proxy.close()
