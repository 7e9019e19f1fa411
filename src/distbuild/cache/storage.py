"""Keeps cached results in one SQLite file, up to a size; those unused for the longest go first.

A result that was damaged on disk is noticed by its checksum. A damaged file is replaced by an empty
one: at worst everything is compiled again. Thread-safe; knows no compiler.
"""

import contextlib
import hashlib
import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from distbuild.system.database import open_database, replace_database

log = logging.getLogger(__name__)

#: Raised when the tables or the meaning of their columns change: older files are replaced.
VERSION = 1
#: Once the bound is reached, this share of it is freed at a time.
FREED_SHARE = 0.05
_CHECK_BYTES = 16
_SCHEMA = f"""
CREATE TABLE results (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused: a look-up has two steps
    key BLOB NOT NULL,
    used INTEGER NOT NULL,  -- Unix time
    size INTEGER NOT NULL,
    about BLOB NOT NULL,
    checked BLOB NOT NULL  -- the checksum of key, about and body
);
CREATE INDEX by_key ON results (key);
CREATE INDEX by_use ON results (used);
CREATE TABLE bodies (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
PRAGMA user_version = {VERSION};
"""


class Stored(msgspec.Struct, frozen=True):
    """A result without its body. ``about``: the caller's description of it."""

    number: int
    about: bytes


class Storage:
    """The results in one file. Every method but ``counts`` may raise sqlite3.Error."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._used: set[int] = set()
        #: Results that went for others, and results that were damaged.
        self.evicted = self.damaged = 0
        self._size = self._count = 0
        self._db = self._opened()

    def _opened(self) -> sqlite3.Connection:
        db, damage = open_database(self._path, VERSION, _SCHEMA, self._count_all)
        if damage:
            log.warning("%s: replaced by an empty cache: %s", self._path, damage)
            self.damaged += 1
        return db

    def _count_all(self, db: sqlite3.Connection) -> None:
        count, size = db.execute("SELECT count(*), total(size) FROM results").fetchone()
        self._count, self._size = count, int(size)

    def renew(self) -> None:
        """Replace a damaged file by an empty one."""
        with self._lock:
            self.damaged += 1
            self._db.close()
            self._db = replace_database(self._path, VERSION, _SCHEMA, self._count_all)
            self._used.clear()

    def close(self) -> None:
        """Save what is left, and close the file."""
        with self._lock:
            with contextlib.suppress(sqlite3.Error):
                self._save_used()
            self._db.close()

    def counts(self) -> dict[str, int]:
        """Number of results, their total size (bytes), and how many were evicted or damaged."""
        return {
            "results": self._count,
            "bytes": self._size,
            "max_bytes": self._max_bytes,
            "evicted": self.evicted,
            "damaged": self.damaged,
        }

    def find(self, key: bytes) -> list[Stored]:
        """The results under a key, the latest first."""
        with self._lock:
            rows = self._db.execute(
                "SELECT number, about FROM results WHERE key = ? ORDER BY number DESC",
                (key,),
            ).fetchall()
        return [Stored(*row) for row in rows]

    def body(self, key: bytes, number: int, stamp: bytes) -> bytes | None:
        """A result's body; None: it is gone, damaged and now dropped, or its description has not
        this ``stamp_of``: in a file that replaced another one, numbers begin anew."""
        with self._lock:
            row = self._db.execute(
                "SELECT about, checked, body FROM results JOIN bodies USING (number)"
                " WHERE number = ? AND key = ?",
                (number, key),
            ).fetchone()
            if row is None:
                return None
            about, checked, body = row
            if stamp_of(about) != stamp:
                return None
            if checked == _checksum(key, about, body):
                self._used.add(number)
                return bytes(body)
            log.warning("%s: a damaged result is dropped", self._path)
            self.damaged += 1
            self._drop([number])
            return None

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Write what is added meanwhile in one transaction."""
        with self._lock:
            self._db.execute("BEGIN")
        try:
            yield
            with self._lock:
                self._save_used()
                self._db.execute("COMMIT")
        except BaseException:
            with self._lock, contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
                self._count_all(self._db)
            raise

    def add(self, key: bytes, about: bytes, body: bytes) -> int:
        """Keep a result; returns its number. One that is too large for the bound is not kept: 0."""
        size = len(about) + len(body)
        if size > self._max_bytes * FREED_SHARE:
            return 0
        row = (key, int(time.time()), size, about, _checksum(key, about, body))
        with self._lock:
            cursor = self._db.execute(
                "INSERT INTO results (key, used, size, about, checked) VALUES (?, ?, ?, ?, ?)", row
            )
            number = int(cursor.lastrowid or 0)
            self._db.execute("INSERT INTO bodies VALUES (?, ?)", (number, body))
            self._count, self._size = self._count + 1, self._size + size
            if self._size > self._max_bytes:
                self._trim()
        return number

    def drop(self, number: int) -> None:
        """Remove a result."""
        with self._lock:
            self._drop([number])

    def clear(self) -> None:
        """Remove all results."""
        with self._lock:
            self._db.execute("DELETE FROM results")
            self._db.execute("DELETE FROM bodies")
            self._count = self._size = 0
            self._used.clear()

    def _trim(self) -> None:
        self._save_used()
        most, gone, size = self._max_bytes * (1 - FREED_SHARE), [], self._size
        for number, freed in self._db.execute("SELECT number, size FROM results ORDER BY used"):
            if size <= most:
                break
            gone.append(number)
            size -= freed
        self._drop(gone)
        self.evicted += len(gone)

    def _drop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            row = self._db.execute("SELECT size FROM results WHERE number = ?", (number,))
            found = row.fetchone()
            if found is not None:
                self._db.execute("DELETE FROM results WHERE number = ?", (number,))
                self._db.execute("DELETE FROM bodies WHERE number = ?", (number,))
                self._count, self._size = self._count - 1, self._size - found[0]

    def _save_used(self) -> None:
        now, used = int(time.time()), [*self._used]
        self._used.clear()
        self._db.executemany(
            "UPDATE results SET used = ? WHERE number = ?", [(now, number) for number in used]
        )


def stamp_of(about: bytes) -> bytes:
    """A checksum of a description."""
    return hashlib.blake2b(about, digest_size=_CHECK_BYTES).digest()


def _checksum(key: bytes, about: bytes, body: bytes) -> bytes:
    hasher = hashlib.blake2b(key, digest_size=_CHECK_BYTES)
    hasher.update(len(about).to_bytes(8, "little"))
    hasher.update(about)
    hasher.update(body)
    return hasher.digest()
