"""Opens the SQLite files of a home, which hold nothing that cannot be lost: a damaged file, or one
of another version, is replaced by an empty one."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

#: The size to which the log of a large batch is cut.
MAX_JOURNAL_BYTES = 64 * 1024 * 1024

#: Results of statements that speak of the file's surroundings and not of its content.
_OF_SURROUNDINGS = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)

#: Reads what has to be readable in a database that is opened; raises sqlite3.Error, ValueError.
Check = Callable[[sqlite3.Connection], None]


def _nothing(_: sqlite3.Connection) -> None:
    """Nothing has to be readable."""


def open_database(
    path: Path, version: int, schema: str, check: Check = _nothing
) -> tuple[sqlite3.Connection, str]:
    """The database at ``path``, and how it was damaged; "": not at all. ``schema`` makes it, and
    sets its ``user_version`` to ``version``.

    Each statement is a transaction of its own unless the caller begins one. Any thread may use it,
    one at a time. Raises sqlite3.OperationalError: locked, a full disk, no such directory.
    """
    try:
        return _connect(path, version, schema, check), ""
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in _OF_SURROUNDINGS:
            raise
        return replace_database(path, version, schema, check), str(error)
    except (sqlite3.DatabaseError, ValueError) as error:
        return replace_database(path, version, schema, check), str(error)


def replace_database(
    path: Path, version: int, schema: str, check: Check = _nothing
) -> sqlite3.Connection:
    """An empty database instead of that at ``path``, which is not open any more."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return _connect(path, version, schema, check)


def _connect(path: Path, version: int, schema: str, check: Check) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        # One process at a time has this home. The memory that several would share is not to be had
        # on network file systems.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, version):
            db.close()
            return replace_database(path, version, schema, check)
        # Nothing waits for the disk: a crash of the machine, not of this process, may damage the
        # file.
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")
        db.execute(f"PRAGMA journal_size_limit = {MAX_JOURNAL_BYTES}")
        if found == 0:
            db.executescript(schema)
        check(db)
    except BaseException:
        db.close()
        raise
    return db
