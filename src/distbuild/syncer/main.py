"""The syncer's entry point: builds its parts from the configuration and serves until stopped."""

import argparse
import functools
import gc
import logging
import os
import posixpath
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import IO

from distbuild import __version__
from distbuild.cache.objects import ObjectCache
from distbuild.compiler.identity import Identifier
from distbuild.config import Config, Home, find_home, listening_url, load_config, syncer_port
from distbuild.credentials import Credentials, load_credentials, own_secret
from distbuild.farm.farm import Farm
from distbuild.farm.local_slots import LocalSlots, Relief
from distbuild.history.store import History
from distbuild.logs import announce, set_up_logging
from distbuild.mirror import policy, scan
from distbuild.mirror.digest_cache import DigestCache, rules_of
from distbuild.mirror.live import Mirroring
from distbuild.mirror.scan import Scanner
from distbuild.mirror.search_dirs import RootMemory
from distbuild.mirror.watching import watcher_maker
from distbuild.protocol.errors import ConfigError
from distbuild.push.bundles import BlobSource
from distbuild.push.pusher import Pusher
from distbuild.push.worker_client import WorkerClient
from distbuild.syncer.compile import Compiles
from distbuild.syncer.compilers import Compilers
from distbuild.syncer.local_callers import LocalCallers
from distbuild.syncer.membership import JoinedWorkers, Membership, Pushers
from distbuild.syncer.prepare import Preparer
from distbuild.syncer.servers import serve_syncer
from distbuild.syncer.service import Parts, Service
from distbuild.syncer.worker_status import slots_of
from distbuild.system import disk
from distbuild.system.paths import from_system
from distbuild.system.process import hold

log = logging.getLogger(__name__)


def main() -> int:
    """The command line of the syncer; returns the exit code: 2 when the set-up is wrong."""
    about = "the dist_build syncer: run this on the dev box"
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--home", help="configuration and state (default: $DIST_BUILD_HOME)")
    parser.add_argument("-v", "--verbose", action="store_true", help="log everything, also here")
    parser.add_argument("--version", action="version", version=f"dist_build {__version__}")
    options = parser.parse_args()
    try:
        run(find_home(options.home), verbose=options.verbose)
    except ConfigError as error:
        print(f"syncer: {error}", file=sys.stderr)  # noqa: T201 - the user's one line
        return 2
    return 0


def run(home: Home, *, verbose: bool) -> None:
    """Serve until stopped by a signal. Raises ConfigError when the set-up does not allow it."""
    config = load_config(home)
    credentials = load_credentials(home.certs, "dev")
    home.prepare()
    if home.notice:
        print(f"syncer: {home.notice}", file=sys.stderr)  # noqa: T201 - the user's one line
    set_up_logging(home.logs, "syncer", verbose=verbose)
    if warning := credentials.warning():
        log.warning("%s", warning)
    client_id = read_client_id(home)
    lock = claim(home)

    def start(stop: threading.Event) -> tuple[Service, Callable[[], None]]:
        syncer = SyncerProcess(home, config, credentials, client_id)
        syncer.start(stop)
        announce(_first_words(home, config, syncer.worker_names))
        return syncer.service, syncer.stop

    serve_syncer(start, home, config, credentials)
    lock.close()


def _first_words(home: Home, config: Config, workers: Sequence[str]) -> str:
    """The line that announces the running syncer and the user's next step."""
    where = f"syncer: {listening_url(config, syncer_port(config))}, home {home.path}"
    if not workers:
        return f"{where}, workers: none; dist_build.exe setup --invite prints how to add one"
    return (
        f"{where}, workers: {', '.join(workers)}; put dist_build.exe before the compiler"
        ' (make -j8 CC="dist_build.exe gcc"); dist_build.exe doctor checks the set-up'
    )


def claim(home: Home) -> IO[bytes]:
    """Lock the home while the file is open, also in a forked process. Raises ConfigError.

    Two syncers with one client id would each take the other's trees on the workers for stale.
    """
    try:
        return hold(home.state / "syncer.lock")
    except OSError:
        raise ConfigError(
            f"{home.path}: another syncer runs with this home; stop it, or use another --home"
        ) from None


class SyncerProcess:
    """The parts of one syncer, connected to each other; starts and stops their threads."""

    def __init__(
        self, home: Home, config: Config, credentials: Credentials, client_id: str
    ) -> None:
        self._cache = DigestCache(home.state / "digests.msgpack", rules_of(policy, scan))
        scanner = Scanner(self._cache, config.max_file_bytes)
        self._mirroring = Mirroring(scanner, watcher_maker(home.state), _user_home(), self._notify)
        self._saving = threading.Lock()
        self._memory = RootMemory(home.state / "roots.msgpack")
        source = BlobSource(self._mirroring.manifest)
        scanner.hashed = source.hashed
        joined = JoinedWorkers(home.joined_workers, credentials)
        #: Of the configured workers and of those that have joined.
        self.worker_names = [*config.hosts, *(worker.name for worker in joined)]
        if self.worker_names:
            scanner.found = source.ahead.found
        self._farm = Farm(expected=bool(self.worker_names), job_timeout_s=config.job_timeout_s)
        self._pushers: Iterable[Pusher] = ()
        compilers = Compilers(Identifier(DigestCache(home.state / "compilers.msgpack")))
        preparer = Preparer(compilers, self._mirroring)
        self._objects = _object_cache(home, config, self._mirroring, scanner)
        compiles = Compiles(preparer, self._farm, self._mirroring, scanner, self._objects)

        def pusher_of(client: WorkerClient) -> Pusher:
            return Pusher(client, client_id, self._mirroring, source, self._farm)

        configured = [pusher_of(WorkerClient(credentials, host)) for host in config.hosts]
        pushers = self._pushers = Pushers(configured, pusher_of)
        membership = Membership(home, credentials, joined, pushers, self._farm)
        self._config = config
        slots = LocalSlots(config.local_slots or os.cpu_count() or 1)
        self._relief = Relief(self._farm, slots) if config.local_slots else None
        here = LocalCallers(compiles, slots)
        state = disk.realpath(from_system(str(home.state)))
        self._history = _history(home, config, lambda: slots_of(self._pushers))
        parts = (source, compiles, compilers, self._pushers, here, membership, self._history)
        self.service = Service(Parts(client_id, state, self._farm, self._mirroring, *parts))

    def start(self, stop: threading.Event) -> None:
        """Mirror what the configuration and the last run name, and start the pushers."""
        threading.Thread(target=self._warm, name="first scan", daemon=True).start()
        threading.Thread(target=self._end, args=(stop,), name="end", daemon=True).start()
        for pusher in self._pushers:
            pusher.start()
        if self._relief is not None:
            self._relief.start()

    def stop(self) -> None:
        """Save the state and stop all parts; waiting jobs were answered when ``stop`` was set."""
        self._save()
        if self._relief is not None:
            self._relief.stop()
        for pusher in self._pushers:
            pusher.stop()
        self._mirroring.stop()
        if self._objects is not None:
            self._objects.stop()
        if self._history is not None:
            self._history.stop()

    def _end(self, stop: threading.Event) -> None:
        # The digests of the first scan are saved only after FIRST_LOOK_S: the workers come first.
        pause, saved = FIRST_LOOK_S, time.monotonic()
        while not stop.wait(pause):
            pause = LOOK_S
            if self._cache.unsaved >= MANY or time.monotonic() - saved >= SAVE_S:
                began, saved = time.thread_time(), time.monotonic()
                self._save()
                pause = max(LOOK_S, SAVE_SHARE * (time.thread_time() - began))
        self._farm.stop()

    def _warm(self) -> None:
        started = time.monotonic()
        _spare_the_collector()
        for directory in self._config.copied_already:
            self._mirroring.defer(directory)
        for directory in self._config.dirs:
            if not disk.isdir(directory):
                log.warning('%s: named by "dirs" in config.json, but no such directory', directory)
        self._mirroring.require(self._config.dirs)
        remembered = self._memory.load()
        is_secret = self._mirroring.is_secret
        self._mirroring.require(
            (d for d in remembered if not is_secret(disk.realpath(d))), named=False
        )
        for file in self._memory.files:
            self._mirroring.want(file)
        self._mirroring.ready.set()
        self._notify()
        gc.collect()
        _spare_the_collector()
        log.info("first scan: %.2f s", time.monotonic() - started)

    def _save(self) -> None:
        if not self._mirroring.ready.is_set():
            return  # the saved state still has more than is known so far
        with self._saving:
            try:
                self._memory.save(self._mirroring.required(), self._mirroring.wanted())
                # Cached: one look-up serves all files of a directory.
                held = functools.cache(self._mirroring.roots.holds_files_of)
                mirrored = self._mirroring.manifest.get
                self._cache.save(
                    # A file that only a symlink leads to is in no root.
                    lambda path: held(posixpath.dirname(path)) or mirrored(path) is not None
                )
            except OSError as error:
                log.warning("state is not saved: %s", error)

    def _notify(self) -> None:
        for pusher in self._pushers:
            pusher.notify()


def _object_cache(
    home: Home, config: Config, mirroring: Mirroring, scanner: Scanner
) -> ObjectCache | None:
    """The object cache; None: the configuration wants none, or its file cannot be used."""
    if not config.cache_bytes:
        return None
    try:
        parts = config.cache_bytes, mirroring, scanner, config.verify_hits
        return ObjectCache(home.objects, *parts)
    except (sqlite3.Error, OSError) as error:
        log.warning("%s: there is no object cache: %s", home.objects, error)
        return None


def _history(home: Home, config: Config, slots: Callable[[], int]) -> History | None:
    """The history of builds; None: the configuration wants none, or its file cannot be used."""
    if not config.history_bytes:
        return None
    try:
        return History(home.history, config.history_bytes, slots)
    except (sqlite3.Error, OSError) as error:
        log.warning("%s: builds are not recorded: %s", home.history, error)
        return None


def _spare_the_collector() -> None:
    """Exclude the manifest's tens of thousands of entries and the imported modules from garbage
    collection: walking them for every few hundred new objects costs more than a job."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


GC_THRESHOLDS = (20_000, 50, 100)
#: How often the digests are saved (seconds): after a crash, files changed since are hashed again.
#: If ``MANY`` are unsaved, they are saved at the next look; a single compile leaves one.
SAVE_S = 300.0
LOOK_S = 30.0
FIRST_LOOK_S = 5.0
MANY = 200
#: The pause after a save, as a multiple of the processor time that it took: saving large mirrors
#: takes no more than a thousandth of a processor.
SAVE_SHARE = 1000.0


def _user_home() -> str:
    return disk.realpath(from_system(os.path.expanduser("~")))


def read_client_id(home: Home) -> str:
    """The id of this installation's tree on the workers; secret, since it gives access to it."""
    return own_secret(home.state / "client_id")
