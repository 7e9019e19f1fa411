"""Learns from the texts that a compile read which names it looked for. Reads each text once.

An include directive makes the compiler look for its operand in several directories; so does a test
by ``__has_include``, whose operand need not exist.
"""

import hashlib
from collections.abc import Iterator, Sequence

from distbuild.farm.executor import Task
from distbuild.mirror.includes import Lookups, literal_values, lookups
from distbuild.mirror.policy import is_unusual
from distbuild.protocol.messages import Digest
from distbuild.system import disk

#: Facts about so many texts are known in memory.
MAX_TEXTS = 100_000


class NotKept(Exception):
    """The reason why a result is not kept, for the status."""


class SearchedNames:
    """The names that texts look for, by the texts' digests. For one thread."""

    def __init__(self) -> None:
        self._texts: dict[Digest, Lookups] = {}
        # The values of macros in texts; None: not only names of files.
        self._values: dict[tuple[Digest, str], tuple[str, ...] | None] = {}

    def of(self, texts: Sequence[tuple[str, Digest]], task: Task) -> set[str]:
        """The names that the texts look for. Raises NotKept."""
        names, macros = set[str](), set[str]()
        for path, digest in texts:
            found = self._texts.get(digest) or self._looked_up(path, digest)
            if found.is_opaque:
                raise NotKept("an include that is not a plain name")
            if found.is_dated and "SOURCE_DATE_EPOCH" not in task.env:
                raise NotKept("a text mentions the date")
            names.update(found.names)
            macros.update(found.macros)
        for macro in macros:
            names.update(self._values_of(macro, texts, task))
        return names

    def is_once(self, digest: Digest) -> bool:
        """Whether a text known by now is skipped after another one of the same content."""
        known = self._texts.get(digest)
        return known is None or known.is_once

    def _looked_up(self, path: str, digest: Digest) -> Lookups:
        if len(self._texts) >= MAX_TEXTS:
            self._texts.clear()
        found = self._texts[digest] = lookups(_read(path, digest), is_unusual)
        return found

    def _values_of(
        self, macro: str, texts: Sequence[tuple[str, Digest]], task: Task
    ) -> Iterator[str]:
        """The last components of the files that a macro may name. Raises NotKept."""
        for argument in task.command.arguments:
            if argument.meaning == "-D" and (argument.value or "").startswith(macro):
                raise NotKept("an include that is not a plain name")
        if len(self._values) >= MAX_TEXTS:
            self._values.clear()
        for path, digest in texts:
            known = (digest, macro)
            if known not in self._values:
                self._values[known] = literal_values(_read(path, digest), macro, is_unusual)
            values = self._values[known]
            if values is None:
                raise NotKept("an include that is not a plain name")
            yield from values


def _read(path: str, digest: Digest) -> bytes:
    """The text with this digest. Raises NotKept."""
    try:
        with disk.open_to_read(path) as file:
            text = file.read()
    except OSError:
        text = b""
    if hashlib.sha256(text).digest() != digest:
        raise NotKept("the tree changed meanwhile")
    return text
