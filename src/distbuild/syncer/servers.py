"""Serves the syncer: HTTPS for workers, a Unix socket for this machine's wrappers."""

import contextlib
import hashlib
import sys
import threading
from collections.abc import Callable
from functools import partial

from distbuild.config import Config, Home, syncer_port
from distbuild.credentials import Credentials, own_secret
from distbuild.http import run, threaded
from distbuild.http.listen import listen_port, listen_unix
from distbuild.http.site import Front, Site
from distbuild.http.transport import Plain, Tls, server_context
from distbuild.protocol.messages import MAX_RESULTS_BYTES
from distbuild.syncer.routes import Gate, make_handlers
from distbuild.syncer.service import Service

#: The largest request on the socket: a command line with its environment.
MAX_SOCKET_BODY_BYTES = 32 * 1024 * 1024
#: A connection without a request is closed after this time (seconds).
PATIENCE_S = 60.0
#: Few, see ``Front.threads``; one of them never runs a wrapper's request, see ``Front.guests``.
NETWORK_THREADS = 2
LOCAL_THREADS = 3

#: Starts the syncer; returns its service and a callback to run at the end.
Start = Callable[[threading.Event], tuple[Service, Callable[[], None]]]


def serve_syncer(start: Start, home: Home, config: Config, credentials: Credentials) -> None:
    """Serve until stopped by a signal. Raises ConfigError."""
    user = hashlib.sha256(own_secret(home.user_token).encode()).digest()
    # Without a Unix socket, even this machine's wrappers can only use HTTPS.
    remote = config.remote_compiles or not run.is_supported()
    gate = Gate(credentials, user, remote=remote)

    def make_site(stop: threading.Event) -> Site:
        service, end = start(stop)
        # Imported only now, so that the first scan runs while Flask is loaded.
        from distbuild.syncer.flask_app import make_app

        handlers = make_handlers(service, gate)
        return Site(make_app(service, gate, handlers), handlers, end)

    if run.is_supported():
        fronts = {"https": _network(config, credentials, gate), "socket": _local(home)}
        try:
            run.serve(make_site, fronts)
        finally:
            home.socket.unlink(missing_ok=True)
    else:
        threaded.serve(make_site, _port(config, credentials, gate))


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
