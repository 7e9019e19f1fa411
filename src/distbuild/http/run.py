"""Runs a server process: serves a site on several fronts until SIGTERM, SIGINT or SIGHUP (Linux).

Used by the syncer and the worker; other systems use ``threaded``.
"""

import os
import select
import signal
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from distbuild.http.loop import Server
from distbuild.http.site import Front, Site

if TYPE_CHECKING:
    from types import FrameType

#: How long (seconds) pending requests may take after the signal to stop.
DRAIN_S = 10.0


def is_supported() -> bool:
    """Whether this system has epoll and eventfd, which the loop needs."""
    return hasattr(select, "epoll") and hasattr(os, "eventfd")


def serve(make_site: Callable[[threading.Event], Site], fronts: Mapping[str, Front]) -> None:
    """Serve on ``fronts``, by name, until a signal to stop; returns after an orderly shutdown.

    ``make_site`` gets an event that is set at the start of the shutdown, so that long polls return.
    To be called in the main thread.
    """
    stop = threading.Event()
    end = _End()
    site = make_site(stop)
    servers = [Server(site.others.get(n, site), front, n) for n, front in fronts.items()]
    for server in servers:
        server.start()
    end.wait()
    stop.set()
    for server in servers:
        server.stop(DRAIN_S)
    site.end()


class _End:
    """Handles the signals that mean shutdown, from its construction on."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._has_ended = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup stays in effect
            signal.signal(signal.SIGHUP, self._on_signal)

    def _on_signal(self, number: int, frame: "FrameType | None") -> None:
        del number, frame
        self._has_ended = True

    def wait(self) -> None:
        """Block until a signal arrives. The kernel may deliver it to any thread, but Python runs
        handlers only in this one: so it reads the descriptor that the signal itself writes to."""
        while not self._has_ended:
            os.read(self._reader, 64)
