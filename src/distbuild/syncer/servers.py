"""Serves the syncer: HTTPS for workers, a Unix socket for this machine's wrappers, and HTTP on the
loopback address for its user's browser."""

import contextlib
import hashlib
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from distbuild.config import Config, Home, syncer_port
from distbuild.credentials import Credentials, own_secret
from distbuild.http import run, threaded
from distbuild.http.listen import listen_port, listen_unix
from distbuild.http.site import Front, Site
from distbuild.http.transport import Plain, Tls, server_context
from distbuild.protocol.messages import MAX_RESULTS_BYTES
from distbuild.syncer.browser_access import HEADERS, Access
from distbuild.syncer.routes import Gate, make_handlers
from distbuild.syncer.service import Service

if TYPE_CHECKING:
    from distbuild.syncer.live_feed import LiveFeed

#: The largest request on the socket: a command line with its environment.
MAX_SOCKET_BODY_BYTES = 32 * 1024 * 1024
#: A connection without a request is closed after this time (seconds).
PATIENCE_S = 60.0
#: Few, see ``Front.threads``; one of them never runs a wrapper's request, see ``Front.guests``.
NETWORK_THREADS = 2
LOCAL_THREADS = 3
DASHBOARD, LOOPBACK = "dashboard", "127.0.0.1"
#: Connections to the dashboard: other local users cannot take the syncer's descriptors.
MAX_BROWSERS = 64
#: Threads that make the dashboard's documents.
BROWSER_THREADS = 4

#: Starts the syncer; returns its service and a callback to run at the end.
Start = Callable[[threading.Event], tuple[Service, Callable[[], None]]]


def serve_syncer(start: Start, home: Home, config: Config, credentials: Credentials) -> None:
    """Serve until stopped by a signal. Raises ConfigError."""
    user = hashlib.sha256(own_secret(home.user_token).encode()).digest()
    # Without a Unix socket, even this machine's wrappers can only use HTTPS.
    remote = config.remote_compiles or not run.is_supported()
    gate = Gate(credentials, user, remote=remote)
    listener = _loopback(config)
    access = None if listener is None else Access(listener.getsockname()[1])

    def make_site(stop: threading.Event) -> Site:
        service, end = start(stop)
        # Imported only now, so that the first scan runs while Flask is loaded.
        from distbuild.syncer.flask_app import make_app

        handlers = make_handlers(service, gate)
        app = make_app(service, gate, handlers, access)
        if access is None:
            return Site(app, handlers, end)
        dashboard, feed = _dashboard(service, access)

        def end_all() -> None:
            feed.stop()
            end()

        return Site(app, handlers, end_all, others={DASHBOARD: dashboard})

    if not run.is_supported():
        threaded.serve(make_site, _port(config, credentials, gate))
        return
    fronts = {"https": _network(config, credentials, gate), "socket": _local(home)}
    if listener is not None and access is not None:
        fronts[DASHBOARD] = _browsers(listener, access)
    try:
        run.serve(make_site, fronts)
    finally:
        home.socket.unlink(missing_ok=True)


def _dashboard(service: Service, access: Access) -> tuple[Site, "LiveFeed"]:
    """The dashboard's site, and the feed of its open pages."""
    from distbuild.syncer.dashboard import make_dashboard, make_stream
    from distbuild.syncer.live_feed import LiveFeed

    feed = LiveFeed(service, HEADERS)
    streams = make_stream(access, feed.stream)
    return Site(make_dashboard(service, access), {}, lambda: None, streams), feed


def _loopback(config: Config) -> socket.socket | None:
    """The dashboard's listening socket; None: there is no dashboard, as without the event loop."""
    if config.dashboard_port is None or not run.is_supported():
        return None
    return listen_port(LOOPBACK, config.dashboard_port)


def _browsers(listener: socket.socket, access: Access) -> Front:
    return Front(
        listener,
        Plain,
        threads=1,
        admits=access.knows,
        max_body=0,
        max_connections=MAX_BROWSERS,
        patience_s=PATIENCE_S,
        max_slow=BROWSER_THREADS,
    )


def _network(config: Config, credentials: Credentials, gate: Gate) -> Front:
    context = server_context(credentials.cert, credentials.key)
    return Front(
        listen_port(config.bind, syncer_port(config)),
        partial(Tls, context=context),
        threads=NETWORK_THREADS,
        admits=lambda headers: gate.knows(headers.get("authorization")),
        max_body=MAX_RESULTS_BYTES,
        # Network clients, even without a token, cannot use up the wrappers' share of descriptors.
        max_connections=_raise_limit() // 2,
        patience_s=PATIENCE_S,
        foreign_threads=LOCAL_THREADS,
    )


def _local(home: Home) -> Front:
    def beat() -> None:
        with contextlib.suppress(OSError):
            home.silent.unlink()

    return Front(
        listen_unix(home.socket),
        Plain,
        threads=LOCAL_THREADS,
        admits=lambda _: True,
        max_body=MAX_SOCKET_BODY_BYTES,
        max_connections=sys.maxsize,
        beat=beat,
        # One network thread stays free to renew leases even if outputs go to a slow disk.
        foreign_threads=NETWORK_THREADS - 1,
    )


def _port(config: Config, credentials: Credentials, gate: Gate) -> threaded.Port:
    return threaded.Port(
        config.bind,
        syncer_port(config),
        credentials.cert,
        credentials.key,
        admits=lambda headers: gate.knows(headers.get("authorization")),
        max_body=MAX_RESULTS_BYTES,
    )


def _raise_limit() -> int:
    """Raise the limit of descriptors to the hard limit; returns that."""
    import resource  # does not exist on Windows, where this is not called

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
