"""What the texts of headers ask for beside what a compiler tells of: looked for once a job has
read them.

Not when they are mirrored: of a tree of ten thousand headers a build reads some hundred, and to
look through a text takes as long as to read and hash it.
"""

import hashlib
import threading

import msgspec

from distbuild.mirror.includes import NOTHING, Asked, asked, names_in_directives, odd_operands
from distbuild.mirror.policy import is_unusual
from distbuild.protocol.messages import Digest
from distbuild.system import disk


class IncludeFacts(msgspec.Struct, frozen=True):
    """``odd``: it includes what may lie outside the mirrored directories. ``asked``: what
    ``__has_include`` asks for."""

    odd: bool = False
    asked: Asked = NOTHING

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing more to look at."""
        return not (self.odd or self.asked.is_computed)


class Texts:
    """Facts by the texts' digests. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Digest, IncludeFacts] = {}
        self._named: dict[Digest, tuple[str, ...]] = {}

    def about(self, path: str, digest: Digest) -> IncludeFacts | None:
        """The facts of the text with this digest, which is at ``path``; None: it is not, now."""
        known = self._known.get(digest)
        if known is not None:
            return known
        data = _read(path, digest)
        if data is None:
            return None
        odd = bool(odd_operands(data, is_unusual))
        facts = IncludeFacts(odd, asked(data))
        with self._lock:
            self._known[digest] = facts
        return facts

    def named(self, path: str, digest: Digest) -> tuple[str, ...]:
        """What may be files' names in the directives of that text; as for ``about``, or nothing."""
        known = self._named.get(digest)
        if known is not None:
            return known
        names = names_in_directives(_read(path, digest) or b"")
        with self._lock:
            self._named[digest] = names
        return names


def _read(path: str, digest: Digest) -> bytes | None:
    """What is at ``path``, if it has this digest."""
    try:
        with disk.open_to_read(path) as file:
            data = file.read()
    except OSError:
        return None
    return data if hashlib.sha256(data).digest() == digest else None
