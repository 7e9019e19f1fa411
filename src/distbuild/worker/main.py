"""The worker's entry point: builds the worker from its parts and serves its HTTP interface."""

import argparse
import logging
import math
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import flask

import distbuild
from distbuild.compiler.identity import Identifier
from distbuild.config import Config, Home, find_home, listening_url, load_config, syncer_urls
from distbuild.credentials import Credentials, load_credentials
from distbuild.http import run, threaded
from distbuild.http.client import Connections
from distbuild.http.listen import listen_port
from distbuild.http.site import Front, Site
from distbuild.http.transport import Tls, server_context
from distbuild.logs import announce, set_up_logging
from distbuild.mirror.digest_cache import DigestCache
from distbuild.protocol.errors import ConfigError, InfrastructureError
from distbuild.protocol.messages import MAX_BODY_BYTES, worker_label
from distbuild.protocol.names import worker_name
from distbuild.system.paths import WINDOWS, from_system
from distbuild.worker.agent import Agent, Run, Workshop
from distbuild.worker.client import HttpSyncer
from distbuild.worker.compilers import InstalledCompilers
from distbuild.worker.job import JobRunner
from distbuild.worker.join import add_arguments, run_join
from distbuild.worker.process.here import Watcher, limit_descendants
from distbuild.worker.routes import Confined, WorkerStatus, make_app
from distbuild.worker.sandbox import landlock, worker_files
from distbuild.worker.sandbox.base import Sandbox
from distbuild.worker.sandbox.plain import PlainSandbox
from distbuild.worker.slots import Slots, Tally
from distbuild.worker.tree.store import OwnFiles, Store
from distbuild.worker.tree.trees import Trees

log = logging.getLogger(__name__)

#: How long a stopping worker waits for a long poll that is in flight.
FAREWELL_S = 2.0
_SLOTS_PER_JOB_AHEAD = 4
_CONFIG_ERROR = 2
#: Threads that read requests and send responses; the app has threads of its own.
SERVER_THREADS = 2
MAX_CONNECTIONS = 1024
#: A connection without a request is closed after this time (seconds).
PATIENCE_S = 60.0
#: How often the store's size is looked at (seconds), how long after an eviction the next one may
#: come, how long after it one comes anyway, and after how long a client's files go.
CLEAN_S = 60.0
EVICT_S = 600.0
EVICT_ANYWAY_S = 24 * 3600.0
UNUSED_S = 24 * 3600.0
#: Minimum for the threads that start compilers and for those that collect results: some may block
#: on the disk.
MIN_THREADS = 4


def main() -> int:
    """The command line of the daemon; returns the exit code."""
    parser = argparse.ArgumentParser(description="dist_build worker: compiles for other machines")
    parser.add_argument("--home", help="default: $DIST_BUILD_HOME or ~/dist_build")
    parser.add_argument("-v", "--verbose", action="store_true", help="log everything")
    parser.add_argument(
        "--version", action="version", version=f"dist_build {distbuild.__version__}"
    )
    commands = parser.add_subparsers(dest="command", metavar="join")
    add_arguments(commands.add_parser("join", help="become a worker of a syncer, and serve"))
    options = parser.parse_args()
    if options.command == "join":
        code = run_join(options.home, options)
        if code or options.no_start:
            return code
    return run_worker(options.home, verbose=options.verbose)


def run_worker(home_option: str | None, *, verbose: bool) -> int:
    """Run a worker until it is stopped; returns the process's exit code."""
    try:
        home = find_home(home_option)
        config = load_config(home)
        credentials = load_credentials(home.certs, "worker")
        home.prepare()
        if home.notice:
            print(f"daemon: {home.notice}", file=sys.stderr)  # noqa: T201 - the user's one line
        set_up_logging(home.logs, "daemon", verbose=verbose)
        if warning := credentials.warning():
            log.warning("%s", warning)
        _serve(lambda stop: start(home, config, credentials, stop), config, credentials)
    except ConfigError as error:
        print(f"daemon: {error}", file=sys.stderr)  # noqa: T201 - the user's one line
        return _CONFIG_ERROR
    return 0


Start = Callable[[threading.Event], tuple[flask.Flask, Callable[[], None]]]


def _serve(start: Start, config: Config, credentials: Credentials) -> None:
    def make_site(stop: threading.Event) -> Site:
        app, finish = start(stop)
        return Site(app, {}, finish)

    def admits(headers: Mapping[str, str]) -> bool:
        return credentials.verify_token(headers.get("authorization"), "dev")

    if not run.is_supported():
        if config.port == 0:
            raise ConfigError('"port": 0 is not supported on this system')
        where = (config.bind, config.port, credentials.cert, credentials.key)
        threaded.serve(make_site, threaded.Port(*where, admits=admits, max_body=MAX_BODY_BYTES))
        return
    if config.port == 0:
        run.serve(make_site, {})
        return
    context = server_context(credentials.cert, credentials.key)
    front = Front(
        listen_port(config.bind, config.port),
        partial(Tls, context=context),
        threads=SERVER_THREADS,
        admits=admits,
        max_body=MAX_BODY_BYTES,
        max_connections=MAX_CONNECTIONS,
        patience_s=PATIENCE_S,
    )
    run.serve(make_site, {"https": front})


def start(
    home: Home, config: Config, credentials: Credentials, stop: threading.Event
) -> tuple[flask.Flask, Callable[[], None]]:
    """Start a worker's agents; returns its app, and a function that ends it after ``stop``."""
    limit_descendants()
    workshop, confined = _workshop(home, config, credentials.identity)
    urls = syncer_urls(config)
    agents = [
        Agent(
            HttpSyncer(url, Connections(credentials, "syncer", url)),
            workshop,
            stop,
            alone=len(urls) == 1,
        )
        for url in urls
    ]
    cleaner = threading.Thread(
        target=keep_clean,
        args=(workshop.trees, workshop.store, config.store_bytes, stop),
        name="clean-up",
        daemon=True,
    )
    cleaner.start()
    for agent in agents:
        agent.start()

    def finish() -> None:
        workshop.slots.close()
        for agent in agents:
            agent.leave(FAREWELL_S)
        workshop.finish()
        for agent in agents:
            agent.finish(FAREWELL_S)

    has_joined = bool(credentials.identity)
    announce(_first_words(home, config, workshop, confined, has_joined=has_joined))
    status = WorkerStatus(workshop, confined, distbuild.__version__, credentials.expires)
    return make_app(workshop.trees, workshop.store, credentials, status), finish


def _first_words(
    home: Home, config: Config, workshop: Workshop, confined: Confined, *, has_joined: bool
) -> str:
    """The start message: the worker's address and settings, and the user's next step."""
    where = listening_url(config, config.port) if config.port else "listens on no port"
    words = (
        f"daemon: {where}, home {home.path}, {workshop.slots.total}"
        f" slots, sandbox {confined.mode}, takes jobs from {', '.join(syncer_urls(config))}"
    )
    if has_joined or not config.port:
        return words
    return f'{words}; name it there in "hosts" of config.json ("{workshop.label}")'


def _workshop(home: Home, config: Config, identity: str) -> tuple[Workshop, Confined]:
    search_path = os.environ.get("PATH", os.defpath)
    try:
        store = Store(home.store)
        own_files = OwnFiles(store, enabled=config.reuse_own_files)
        trees = Trees(home.sandbox, store, own_files)
        trees.set_aside_old()
    except InfrastructureError as error:
        raise ConfigError(f"{home.path}: {error}") from error
    sandbox, confined = _sandbox(home, config, search_path, str(trees.jobs))
    identifier = Identifier(DigestCache(home.state / "programs"))
    compilers = InstalledCompilers(identifier, search_path, memory=home.state / "compilers")
    name = worker_name(identity or read_identity(home), os.urandom(8).hex())
    cores = config.num_cores or os.cpu_count() or 1
    # With one developer, jobs may wait here for the next free slot, which saves it a round trip.
    # With several, the jobs of one would keep slots from the others.
    ahead = cores // _SLOTS_PER_JOB_AHEAD if len(syncer_urls(config)) == 1 else 0
    slots = Slots[Run](cores, ahead)
    threads = max(MIN_THREADS, os.cpu_count() or 1)
    runner = JobRunner(name, compilers, sandbox, os.fsencode(from_system(str(trees.jobs))))
    return (
        Workshop(
            name=name,
            label=worker_label(socket.gethostname(), config.port),
            port=config.port,
            trees=trees,
            store=store,
            compilers=compilers,
            runner=runner,
            namespaces=sandbox.namespaces,
            slots=slots,
            tally=Tally(time.time),
            starters=ThreadPoolExecutor(threads, thread_name_prefix="start"),
            watcher=Watcher(),
            finishers=ThreadPoolExecutor(threads, thread_name_prefix="finish"),
        ),
        confined,
    )


def read_identity(home: Home) -> str:
    """This installation's id, 32 hexadecimal digits; created once. Raises ConfigError."""
    path = home.state / "identity"
    try:
        known = path.read_text(encoding="ascii").strip()
        if re.fullmatch("[0-9a-f]{32}", known):
            return known
    except (OSError, UnicodeDecodeError):
        pass  # a new one is written below
    made = os.urandom(16).hex()
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(made + "\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return made


def _sandbox(home: Home, config: Config, search_path: str, jobs: str) -> tuple[Sandbox, Confined]:
    """The configured sandbox, or the best that works here. Raises ConfigError for none.

    ``jobs``: where the directories of running jobs are."""
    if not WINDOWS:
        _check_place(home)
    if config.sandbox == "plain":
        return _plain(home, config, search_path, "asked for in config.json")
    sandbox: Sandbox | None = None
    obstacle = "this system has no namespaces"
    if not WINDOWS:
        sandbox, obstacle = _namespace(home, config, search_path, jobs)
    if sandbox is not None:
        return sandbox, Confined("namespace", obstacle)
    if config.sandbox != "auto":
        raise ConfigError(f'"sandbox" is "{config.sandbox}", but {obstacle}')
    return _plain(home, config, search_path, obstacle)


def _namespace(
    home: Home, config: Config, search_path: str, jobs: str
) -> tuple[Sandbox | None, str]:
    """A sandbox with namespaces, and how it makes them; None, and why it cannot."""
    # These need POSIX.
    from distbuild.worker.sandbox import enter, prepared
    from distbuild.worker.sandbox.namespace import NamespaceSandbox, find_bwrap, probe

    prepared.end_leftovers(os.fsencode(jobs))
    bwrap = find_bwrap(search_path)
    obstacle = probe(bwrap)
    if bwrap is None or obstacle:
        return None, obstacle
    why = 'asked for in config.json ("bubblewrap")'
    if config.sandbox != "bubblewrap":
        program = enter.program((enter.SOURCE.parent, home.state), search_path)
        why = prepared.obstacle(bwrap, program)
        if program is not None and not why:
            layers = prepared.has_layers(bwrap, program, jobs)
            sandbox = NamespaceSandbox(bwrap, search_path, str(program), layers=layers)
            without = "" if layers else ", without overlays"
            return sandbox, f"bubblewrap works, and jobs share what it makes{without}"
    return NamespaceSandbox(bwrap, search_path), f"bubblewrap for each job: {why}"


def _plain(home: Home, config: Config, search_path: str, why: str) -> tuple[Sandbox, Confined]:
    """Raises ConfigError where compilers could open other files, unless the config allows it."""
    if WINDOWS:
        return PlainSandbox(search_path, confined=False), Confined("plain", why)
    if os.geteuid() == 0 and not config.allow_root:
        raise ConfigError(
            f"{home.config_path}: no namespaces here ({why}), and a worker without them does not"
            ' run as root: install bubblewrap, run it as another user, or set "allow_root": true'
        )
    hindered = landlock.obstacle()
    if hindered and not config.allow_unconfined:
        raise ConfigError(
            f"{home.config_path}: no namespaces here ({why}), and {hindered}: compilers could open"
            ' every file that this user may; install bubblewrap, or set "allow_unconfined": true'
        )
    how = f"not confined: {hindered}" if hindered else "confined by Landlock"
    return PlainSandbox(search_path, confined=not hindered), Confined("plain", f"{why}; {how}")


def _check_place(home: Home) -> None:
    """Raise ConfigError for a home below system paths, which every sandbox lets compilers read."""
    for own in (home.path, home.certs, home.sandbox, home.path / "store"):
        try:
            worker_files.check_apart(worker_files.system_paths(), os.fsencode(own))
        except InfrastructureError as error:
            raise ConfigError(
                f"{home.path}: compilers may read this place ({error}); use another --home"
            ) from error


def keep_clean(trees: Trees, store: Store, cap: int, stop: threading.Event) -> None:
    """Delete an earlier process's trees; then, until ``stop``, remove the files of clients that are
    gone, and evict unused blobs above ``cap`` bytes. Slow, for a thread of its own."""
    trees.delete_old()
    last = -math.inf
    while True:
        status, passed = store.status(), time.monotonic() - last
        is_needed = status.is_full or status.bytes > cap
        if passed >= (EVICT_S if is_needed else EVICT_ANYWAY_S):
            last = time.monotonic()
            try:
                store.evict(time.time(), 0 if status.is_full else cap)
            except InfrastructureError as error:
                log.warning("the store is not trimmed: %s", error)
        if stop.wait(CLEAN_S):
            return
        trees.clear_unused(UNUSED_S)
