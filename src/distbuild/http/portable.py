"""Runs a WSGI app over TLS, on every system, until SIGTERM, SIGINT or SIGHUP.

granian forks: the parent only waits, the app and all its state live in the child. The child ends in
order when it is told to or when its parent dies: ``stop`` is set, so that long polls answer;
requests in flight end; then the app's own ``join`` runs.
"""

import logging
import multiprocessing
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from granian import _signals
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.log import LogLevels
from granian.server import Server

from distbuild.http.listen import BACKLOG, listen_port
from distbuild.protocol.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from _typeshed.wsgi import WSGIApplication

    Handler = Callable[[int, FrameType | None], None]
    Served = WSGIApplication | tuple[WSGIApplication, Callable[[], None]]
    MakeApp = Callable[[threading.Event], Served]

#: Each blocked long poll holds a thread.
MAX_REQUESTS = 1024
#: A child whose parent was killed has this long to end in order.
ORPHAN_GRACE_S = 10.0
#: How often the main thread is told to stop until it does, and how often the parent is looked at
#: where the system has no pidfd.
POLL_S = 0.2

_ENDED_IN_ORDER = b"ended"
_MAX_REPORT_BYTES = 4096
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Of granian's own words: a guess that does not apply to long polls, and what we say ourselves.
_NOISE = ("Configuration allows spawning", "Unexpected exit from worker")

_log = logging.getLogger(__name__)


def serve(make_app: "MakeApp", *, bind: str, port: int, cert: Path, key: Path, name: str) -> None:
    """Serve until told to stop; returns after an orderly end.

    ``make_app(stop)`` is called in the serving process, in its main thread; it returns the app, or
    the app and a ``join`` that is called there after the last request. ConfigError, raised here or
    by ``make_app``, reaches the caller; if the serving process dies, SystemExit(1).
    """
    address = _check_address(bind, port)
    _use_fork()
    server = Server(
        name,
        address=address,
        port=port,
        interface=Interfaces.WSGI,
        workers=1,
        blocking_threads=MAX_REQUESTS,
        backpressure=MAX_REQUESTS,
        backlog=BACKLOG,
        http=HTTPModes.http1,
        websockets=False,
        log_level=LogLevels.warning,
        log_dictconfig=_LOG_TO_ROOT,
        ssl_cert=_check_name(cert),
        ssl_key=_check_name(key),
        ssl_protocol_min=SSLProtocols.tls13,
    )
    logging.getLogger("_granian").addFilter(_is_worth_saying)
    _stop_on_hang_up(server)
    _run(server, make_app, name)


def _run(server: Any, make_app: "MakeApp", name: str) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    child = _Child(make_app, parent_pid=os.getpid(), report_fd=writer)
    try:
        server.serve(child.serve, target_loader=child.load, wrap_loader=False)
    except SystemExit:
        _log.debug("granian reports that the serving process ended by itself")
    finally:
        os.close(writer)
        report = _read_report(reader)
    if report == _ENDED_IN_ORDER:
        return
    if report:
        raise ConfigError(os.fsdecode(report))
    _log.error("%s: the serving process ended unexpectedly", name)
    raise SystemExit(1)


def _read_report(reader: int) -> bytes:
    try:
        return os.read(reader, _MAX_REPORT_BYTES)
    except BlockingIOError:
        return b""
    finally:
        os.close(reader)


class _Child:
    """The serving process: what is done before granian's loop starts and after it has ended."""

    def __init__(self, make_app: "MakeApp", *, parent_pid: int, report_fd: int) -> None:
        self._make_app = make_app
        self._parent_pid = parent_pid
        self._report_fd = report_fd
        self._stop = threading.Event()
        #: A signal has reached granian. ``stop`` is set by another thread, perhaps later.
        self._is_told = False
        self._join: Callable[[], None] | None = None

    def load(self) -> "WSGIApplication":
        """Build the app; called by granian in the forked process' main thread."""
        self._hear_the_first_signal_only()
        self._watch()
        try:
            served = self._make_app(self._stop)
        except ConfigError as error:
            self._report(os.fsencode(str(error))[:_MAX_REPORT_BYTES])
            raise SystemExit(2) from None
        app, self._join = served if isinstance(served, tuple) else (served, None)
        return app

    def serve(self, *arguments: Any, **more: Any) -> None:
        """Be granian's worker.

        ``join`` runs before this returns: later the interpreter shuts down, and from Python 3.13 on
        its executors take no work by then.
        """
        try:
            Server._spawn_wsgi_worker(*arguments, **more)
        finally:
            self._finish()

    def _finish(self) -> None:
        """Runs when granian's loop has ended, whether in order or not."""
        self._stop.set()
        if self._join is not None:
            self._join()
        if self._is_told:
            self._report(_ENDED_IN_ORDER)

    def _report(self, text: bytes) -> None:
        os.write(self._report_fd, text)

    def _hear_the_first_signal_only(self) -> None:
        """granian's handler may hang when it is called twice, and Ctrl-C calls it twice: the
        terminal tells parent and child, and the parent then tells the child again."""
        install: Any = _signals.set_main_signals

        def install_once_only(handler: "Handler", reload_handler: "Handler | None" = None) -> None:
            def once(signum: int, frame: "FrameType | None") -> None:
                if not self._is_told:
                    self._is_told = True
                    handler(signum, frame)

            install(once, reload_handler)

        _signals.set_main_signals = install_once_only

    def _watch(self) -> None:
        """granian's handlers only wait for the requests, so hear of signals beside them."""
        signals, wake_up = os.pipe()
        os.set_blocking(wake_up, False)
        signal.set_wakeup_fd(wake_up, warn_on_full_buffer=False)
        watcher = threading.Thread(
            target=self._wait_for_end,
            args=(signals, signal.getsignal(signal.SIGTERM)),
            name="stop-watcher",
            daemon=True,
        )
        watcher.start()

    def _wait_for_end(self, signals: int, inherited: object) -> None:
        parent = _Parent(self._parent_pid)
        while parent.is_alive() and not self._is_told_to_stop(signals, parent):
            pass
        self._stop.set()
        while parent.is_alive():
            self._tell_main_thread(inherited)
            parent.wait(timeout_s=POLL_S)
        for _ in range(round(ORPHAN_GRACE_S / POLL_S)):
            self._tell_main_thread(inherited)
            select.select([], [], [], POLL_S)
        os._exit(1)

    def _tell_main_thread(self, inherited: object) -> None:
        """Signal the main thread; called again and again until it has heard.

        Where two signals come together, the kernel may give both to another thread, and Python's
        handler then waits for the main thread to wake up for some other reason. A signal that came
        before granian had its handlers went to the parent's.
        """
        main = threading.main_thread().ident
        is_installed = signal.getsignal(signal.SIGTERM) is not inherited
        if is_installed and main is not None and not self._is_told:
            signal.pthread_kill(main, signal.SIGTERM)

    @staticmethod
    def _is_told_to_stop(signals: int, parent: "_Parent") -> bool:
        """Wait until something happens; whether it was a signal that means stop."""
        return parent.wait(signals) and bool(set(os.read(signals, 64)) & set(_STOP_SIGNALS))


class _Parent:
    """The process that started us: a pidfd where the system has them, else its id, polled."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        try:
            self._fds = [os.pidfd_open(pid)]
        except (AttributeError, OSError):
            self._fds = []

    def is_alive(self) -> bool:
        return os.getppid() == self._pid

    def wait(self, *others: int, timeout_s: float | None = None) -> bool:
        """Wait for the parent's end or for ``others``; whether one of those can be read."""
        timeout_s = timeout_s if self._fds else POLL_S
        readable, _, _ = select.select([*self._fds, *others], [], [], timeout_s)
        return any(fd in readable for fd in others)


def _check_name(path: Path) -> Path:
    """granian takes names in UTF-8 only, and would end with a traceback."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{path}: the name has to be UTF-8; use another home") from None
    return path


def _check_address(bind: str, port: int) -> str:
    """The numeric address of ``bind``; raises ConfigError if it cannot be listened on.

    granian shares ports (SO_REUSEPORT), so that a second server would take half of the first one's
    connections in silence; an ordinary bind is refused.
    """
    with listen_port(bind, port) as probe:
        return str(probe.getsockname()[0])


def _use_fork() -> None:
    """The app's maker is a closure, which only a forked process can call."""
    if "fork" in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method("fork", force=True)


def _stop_on_hang_up(server: Any) -> None:
    """granian would start a second serving process on SIGHUP; nohup's "ignore" is kept."""
    if sys.platform == "win32":
        return
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    handler = signal.SIG_IGN if ignored else server.signal_handler_interrupt
    server.on_startup(lambda: signal.signal(signal.SIGHUP, handler))


def _is_worth_saying(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NOISE)


#: What granian logs goes where our own lines go.
_LOG_TO_ROOT: dict[str, Any] = {
    "formatters": {},
    "handlers": {},
    "loggers": {"_granian": {"level": "WARNING", "propagate": True}},
}
