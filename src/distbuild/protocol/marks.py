"""Inputs by eight bytes each: a path with the digest of what was read there.

The headers of a project are read by each of its files. By the marks of a job's inputs a syncer
sees that it has looked at all of them before, and need not unpack their list. They guard against
a file that has changed, not against a worker that lies: it could send any object.
"""

import functools
import hashlib
import struct
from collections.abc import Iterable, Sequence

from distbuild.protocol.coding import Digest
from distbuild.protocol.messages import InputFile

MARK_BYTES = 8
#: A worker's jobs read the same headers again and again.
_REMEMBERED = 50_000


@functools.lru_cache(maxsize=_REMEMBERED)
def mark(path: bytes, digest: Digest) -> int:
    """64 bits of a BLAKE2b over both; the digest's length is fixed, so no two pairs run
    together."""
    return int.from_bytes(hashlib.blake2b(digest + path, digest_size=MARK_BYTES).digest(), "little")


def pack_marks(inputs: Iterable[InputFile]) -> bytes:
    """The marks of inputs, in their order."""
    marks = [mark(item.path, item.digest) for item in inputs]
    return struct.pack(f"<{len(marks)}Q", *marks)


def unpack_marks(data: bytes) -> Sequence[int]:
    """What ``pack_marks`` packed; of anything else, none."""
    if len(data) % MARK_BYTES:
        return ()
    return struct.unpack(f"<{len(data) // MARK_BYTES}Q", data)
