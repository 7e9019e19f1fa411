"""Serves a site behind several fronts until SIGTERM, SIGINT or SIGHUP. Linux."""

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

#: What was asked for before the end is answered within this time (seconds).
DRAIN_S = 10.0


def is_supported() -> bool:
    """Whether this system has what the loop is made of."""
    return hasattr(select, "epoll") and hasattr(os, "eventfd")


def serve(make_site: Callable[[threading.Event], Site], fronts: Mapping[str, Front]) -> None:
    """Serve behind ``fronts``, by name, until told to stop; returns after an orderly end.

    ``make_site`` gets what is set when the end is near, so that long polls answer. Called in the
    main thread.
    """
    stop = threading.Event()
    end = _End()
    site = make_site(stop)
    servers = [Server(site, front, name) for name, front in fronts.items()]
    for server in servers:
        server.start()
    end.wait()
    stop.set()
    for server in servers:
        server.stop(DRAIN_S)
    site.end()


class _End:
    """The signals that mean the end, from now on."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._is_told = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup's word is kept
            signal.signal(signal.SIGHUP, self._tell)

    def _tell(self, number: int, frame: "FrameType | None") -> None:
        del number, frame
        self._is_told = True

    def wait(self) -> None:
        """Wait for one. The kernel may give it to any thread, and a handler waits for this one to
        wake up: so it waits for what the signal itself writes."""
        while not self._is_told:
            os.read(self._reader, 64)
