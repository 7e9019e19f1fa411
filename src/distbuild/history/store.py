"""Keeps the jobs of past builds in one SQLite file, up to a size and an age.

Records are written in batches by a thread of their own. At worst they are lost: no build waits for
them, and an error here fails none. Thread-safe.
"""

import contextlib
import logging
import sqlite3
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from distbuild.history.builds import (
    Histogram,
    JobRecord,
    Key,
    OpenBuilds,
    shown_brief,
    shown_job,
)
from distbuild.system.database import open_database, replace_database

log = logging.getLogger(__name__)

#: Raised when the tables or the meaning of their columns change: older files are replaced.
VERSION = 1
#: Older builds are forgotten.
MAX_AGE_S = 14 * 24 * 3600.0
#: Records are written together with those that come so soon after them (seconds), or when they are
#: asked for.
GATHER_S = 5.0
#: Records that wait to be written; further ones are dropped.
MAX_WAITING = 50_000
#: The slowest jobs of a build, which are compared with the same source's earlier ones.
SLOWEST = 20
EARLIER = 10
#: Names of durations that are no phases: the compiler's own time, and from begin to end.
COMPILER, IN_ALL = "compiler", "in all"
_SCHEMA = f"""
CREATE TABLE builds (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    began REAL NOT NULL,  -- Unix time
    ended REAL NOT NULL,
    slots INTEGER NOT NULL,  -- the most that the farm had meanwhile
    outcomes BLOB NOT NULL,  -- MessagePack: jobs by outcome
    reasons BLOB NOT NULL  -- MessagePack: local jobs by reason
);
CREATE TABLE jobs (
    build INTEGER NOT NULL,
    source BLOB NOT NULL,
    ran REAL NOT NULL,  -- seconds
    record BLOB NOT NULL
);
CREATE INDEX by_build ON jobs (build);
CREATE INDEX by_source ON jobs (source, build);
PRAGMA user_version = {VERSION};
"""


#: See ``History.durations``.
Durations = dict[str, tuple[list[tuple[float, int]], float]]


class RunningJob(msgspec.Struct, frozen=True):
    """A job that has begun; ``History.end`` takes it."""

    key: Key
    build: int
    began: float


class _Build(msgspec.Struct):
    name: str
    began: float
    ended: float
    slots: int = 0
    outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    reasons: Counter[str] = msgspec.field(default_factory=Counter)


_SELECT = "SELECT number, name, began, ended, slots, outcomes, reasons FROM builds"
_decode_record = msgspec.msgpack.Decoder(JobRecord).decode
_decode_counts = msgspec.msgpack.Decoder(dict[str, int]).decode


class History:
    """The builds of one syncer. ``slots``: returns how many slots the farm has now."""

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        slots: Callable[[], int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises sqlite3.Error, OSError."""
        self._path = path
        self._max_bytes = max_bytes
        self._slots = slots
        self._clock = clock
        self._database = threading.Lock()
        self._db = self._opened()
        first = self._db.execute("SELECT coalesce(max(number), 0) + 1 FROM builds").fetchone()[0]
        self._changed = threading.Condition()
        self._open = OpenBuilds(first)
        self._waiting: list[tuple[int, JobRecord]] = []
        #: Called when a job begins or ends, by its thread: it must not block.
        self.on_change: Callable[[], None] | None = None
        # Builds of this process that may still get jobs, by number.
        self._builds: dict[int, _Build] = {}
        self._durations: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._is_stopping = False
        self._has_failed = False
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def begin(self, session: int, name: str) -> RunningJob:
        """A job has come."""
        now, key = self._clock(), Key(name, 0 if name else session)
        with self._changed:
            number, is_new = self._open.begin(key, now)
            if is_new:
                self._builds[number] = _Build(name, now, now)
        self._changes()
        return RunningJob(key, number, now)

    def end(self, job: RunningJob, record: JobRecord) -> None:
        """The job has ended; costs the caller nothing."""
        with self._changed:
            self._open.end(job.key, job.build, record.began + record.took_s)
            if not self._waiting:
                self._changed.notify()  # only then: the thread gathers what comes after it
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append((job.build, record))
        self._changes()

    def _changes(self) -> None:
        if (on_change := self.on_change) is not None:
            on_change()

    def builds(self, count: int) -> list[dict[str, Any]]:
        """The last builds, the latest first, without their jobs."""
        self._write()
        rows = []
        with self._using() as db:
            rows = db.execute(f"{_SELECT} ORDER BY number DESC LIMIT ?", (count,)).fetchall()
        return [self._shown(row) for row in rows]

    def build(self, number: int) -> dict[str, Any] | None:
        """One build with its jobs, in order, and what its slowest took before; 0: the latest.
        None: there is no such build."""
        self._write()
        shown = None
        with self._using() as db:
            which = "? = 0 AND number = (SELECT max(number) FROM builds)"
            row = db.execute(
                f"{_SELECT} WHERE number = ? OR ({which})", (number, number)
            ).fetchone()
            if row is not None:
                found = db.execute("SELECT record FROM jobs WHERE build = ?", (row[0],))
                records = [_decode_record(record) for (record,) in found]
                slowest = sorted(records, key=lambda job: -job.ran_s)[:SLOWEST]
                before = {job.source: self._usual(job.source, row[0]) for job in slowest}
                records.sort(key=lambda job: job.began)
                jobs = [shown_job(record, before.get(record.source)) for record in records]
                shown = {**self._shown(row), "jobs_of_it": jobs}
        return shown

    def durations(self) -> Durations:
        """For each phase of the jobs of this process, ``COMPILER`` and ``IN_ALL``: the histogram of
        ``Histogram.up_to`` and the sum (seconds)."""
        self._write()
        with self._database:
            return {name: (h.up_to(), h.sum_s) for name, h in sorted(self._durations.items())}

    def jobs_after(self, number: int, row: int) -> list[dict[str, Any]]:
        """The jobs of a build that ended after that with the number ``row``, in order, each with
        its own number and without its command."""
        self._write()
        found = []
        with self._using() as db:
            rows = db.execute(
                "SELECT rowid, record FROM jobs WHERE build = ? AND rowid > ? ORDER BY rowid",
                (number, row),
            )
            found = [(each, _decode_record(record)) for each, record in rows]
        return [{"row": each, **shown_brief(record)} for each, record in found]

    def job(self, row: int) -> dict[str, Any] | None:
        """One job by the number that ``jobs_after`` gives, with what its source usually took; None:
        there is no such job."""
        shown = None
        with self._using() as db:
            found = db.execute("SELECT build, record FROM jobs WHERE rowid = ?", (row,)).fetchone()
            if found is not None:
                record = _decode_record(found[1])
                shown = shown_job(record, self._usual(record.source, found[0]))
        return shown

    def commands_before(self, number: int) -> int:
        """How many commands the last earlier build had that compiled this build's first source; 0:
        there is none."""
        count = 0
        with self._using() as db:
            row = db.execute(
                "SELECT b.outcomes FROM builds b JOIN jobs j ON j.build = b.number"
                " WHERE b.number < ? AND j.source = (SELECT source FROM jobs"
                "  WHERE build = ? AND source != x'' LIMIT 1) ORDER BY b.number DESC LIMIT 1",
                (number, number),
            ).fetchone()
            if row is not None:
                count = sum(_decode_counts(row[0]).values())
        return count

    def stop(self) -> None:
        """Write what waits, and close the file."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()
        with self._database, contextlib.suppress(sqlite3.Error):
            self._db.close()

    # --- the file -------------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        db, damage = open_database(self._path, VERSION, _SCHEMA)
        if damage:
            self._say_replaced(damage)
        return db

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """The database, for one thread. A file that proves damaged is replaced by an empty one.
        Raises sqlite3.OperationalError."""
        with self._database:
            try:
                yield self._db
            except sqlite3.OperationalError:
                raise
            except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
                self._say_replaced(str(error))
                self._db.close()
                self._db = replace_database(self._path, VERSION, _SCHEMA)

    def _say_replaced(self, damage: str) -> None:
        log.warning("%s: replaced by an empty history: %s", self._path, damage)

    def _usual(self, source: bytes, build: int) -> float:
        """The median of what a source took in earlier builds (seconds); 0: not known."""
        rows = self._db.execute(
            "SELECT ran FROM jobs WHERE source = ? AND build < ? AND ran > 0"
            " ORDER BY build DESC LIMIT ?",
            (source, build, EARLIER),
        ).fetchall()
        return statistics.median(ran for (ran,) in rows) if rows else 0.0

    def _shown(self, row: Sequence[Any]) -> dict[str, Any]:
        number, name, began, ended, slots, outcomes, reasons = row
        counts = _decode_counts(outcomes)
        with self._changed:
            self._open.close(self._clock())
            is_open = number in self._open.numbers()
        return {
            "number": number,
            "name": name,
            "began": began,
            "wall_s": round(ended - began, 3),
            "is_open": is_open,
            "slots": slots,
            "jobs": sum(counts.values()),
            "outcomes": counts,
            "reasons": _decode_counts(reasons),
        }

    # --- writing --------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_stopping)
                self._changed.wait_for(lambda: self._is_stopping, GATHER_S)
                is_last = self._is_stopping
            self._write()
            if is_last:
                return

    def _write(self) -> None:
        """Write what waits."""
        try:
            with self._using():
                with self._changed:
                    waiting, self._waiting = self._waiting, []
                self._count(record for _, record in waiting)
                if waiting:
                    self._insert(waiting)
                    self._has_failed = False
        except (sqlite3.Error, OSError) as error:
            if not self._has_failed:
                log.warning("%s: builds are not recorded: %s", self._path, error)
            self._has_failed = True

    def _count(self, records: Iterable[JobRecord]) -> None:
        for record in records:
            ran = {COMPILER: record.ran_s} if record.ran_s else {}
            for name, seconds in {**record.phases, **ran, IN_ALL: record.took_s}.items():
                self._durations[name].add(seconds)

    def _insert(self, waiting: Sequence[tuple[int, JobRecord]]) -> None:
        slots, db = self._slots(), self._db
        changed = {}
        for number, record in waiting:
            build = changed[number] = self._builds[number]
            build.ended = max(build.ended, record.began + record.took_s)
            build.slots = max(build.slots, slots)
            build.outcomes[record.outcome] += 1
            if record.reason:
                build.reasons[record.reason] += 1
        encode = msgspec.msgpack.encode
        db.execute("BEGIN")
        try:
            db.executemany(
                "INSERT INTO jobs VALUES (?, ?, ?, ?)",
                [(number, job.source, job.ran_s, encode(job)) for number, job in waiting],
            )
            db.executemany(
                "INSERT OR REPLACE INTO builds VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (n, b.name, b.began, b.ended, b.slots, encode(b.outcomes), encode(b.reasons))
                    for n, b in changed.items()
                ],
            )
            self._forget()
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    def _forget(self) -> None:
        """Remove builds that are too old, and the oldest while the file is too large."""
        now = self._clock()
        with self._changed:
            self._open.close(now)
            needed = self._open.numbers().union(number for number, _ in self._waiting)
            self._builds = {n: build for n, build in self._builds.items() if n in needed}
        old = self._db.execute("SELECT number FROM builds WHERE ended < ?", (now - MAX_AGE_S,))
        for (number,) in old.fetchall():
            self._remove(number)
        while self._used() > self._max_bytes:
            row = self._db.execute("SELECT number FROM builds ORDER BY number LIMIT 1").fetchone()
            if row is None or row[0] in self._builds:
                return
            self._remove(row[0])

    def _remove(self, number: int) -> None:
        self._db.execute("DELETE FROM jobs WHERE build = ?", (number,))
        self._db.execute("DELETE FROM builds WHERE number = ?", (number,))

    def _used(self) -> int:
        page, pages, free = (
            int(self._db.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
        return page * (pages - free)
