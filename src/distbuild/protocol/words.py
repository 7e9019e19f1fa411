"""Words of the operating system, bytes on the wire and ``str`` inside, many at a time.

One by one, ``os.fsdecode`` and ``os.fsencode`` cost a call or two of Python for each word of each
command.
"""

import os
from collections.abc import Sequence


def decoded(words: Sequence[bytes]) -> list[str]:
    """``os.fsdecode`` of each."""
    if not words:
        return []
    # No word of a command line, no path and no variable holds a NUL; a message may.
    parts = os.fsdecode(b"\0".join(words)).split("\0")
    return parts if len(parts) == len(words) else [os.fsdecode(word) for word in words]


def encoded(words: Sequence[str]) -> list[bytes]:
    """``os.fsencode`` of each."""
    if not words:
        return []
    parts = os.fsencode("\0".join(words)).split(b"\0")
    return parts if len(parts) == len(words) else [os.fsencode(word) for word in words]
