"""Files that a process keeps for its next run, written in one step and private to the user; those
that only this program reads begin with a checksum, so that a damaged one is noticed.
"""

import hashlib
import os
from pathlib import Path

_CHECK_BYTES = hashlib.sha256().digest_size


class DamagedFile(ValueError):
    """A file is not as it was written."""


def replace_private(path: Path, data: bytes) -> None:
    """Write a file in one step; its owner alone may read it. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    try:
        with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(data)
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def write_checked(path: Path, data: bytes) -> None:
    """As ``replace_private``, for ``read_checked``."""
    replace_private(path, hashlib.sha256(data).digest() + data)


def read_checked(path: Path) -> bytes:
    """What was written to a file. Raises OSError, or DamagedFile."""
    text = path.read_bytes()
    check, data = text[:_CHECK_BYTES], text[_CHECK_BYTES:]
    if hashlib.sha256(data).digest() != check:
        raise DamagedFile("it is damaged, or of another version")
    return data
