"""Syncer side: finds in the texts that a compile read which file names it looked for, so that a
kept result is not used after a file of such a name has appeared. Reads each text once.

An include directive makes the compiler look for its operand in several directories; so does a test
by ``__has_include``, whose operand need not exist.
"""

import functools
import hashlib
import operator
import os
import posixpath
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import msgspec

from distbuild.cache.lookups import (
    Lookups,
    is_for_pragmas,
    literal_values,
    lookups,
    may_make,
    may_make_pragma,
    parts_of,
)
from distbuild.farm.executor import Task
from distbuild.mirror.manifest import PRECOMPILED_SUFFIXES
from distbuild.mirror.policy import is_unusual
from distbuild.protocol.codec import mark
from distbuild.protocol.messages import Digest
from distbuild.system import disk

#: Facts about so many texts are known in memory.
MAX_TEXTS = 100_000


#: Headers there make no time and no test of parts of names.
SYSTEM = ("/usr/include/", "/usr/lib/")


class NotKept(Exception):
    """The reason why a result is not kept, for the status."""


#: What may hold for a text, each a bit of ``TextRead.traits``: see the fields of ``Lookups``.
OPAQUE, DATED, ONCE, MAKES_ONCE, IMPORTS, PLACED = (1 << bit for bit in range(6))
#: It has operands of ``Lookups.odd`` or ``climbing``; it has ``macros``; it is a precompiled
#: header.
LEAVES, MACROS, PRECOMPILED = (1 << bit for bit in range(6, 9))
COMPUTES, DEPENDS, BESIDE = (1 << bit for bit in range(9, 12))


class TextRead(msgspec.Struct, frozen=True):
    """A file that a compile read. ``names``: its own and those that its text looks for."""

    path: str
    digest: Digest
    #: Shared by all variants that read it.
    pair: tuple[str, Digest]
    directory: str
    names: frozenset[str]
    looks: Lookups
    traits: int


_traits_of = operator.attrgetter("traits")


def traits(texts: Iterable[TextRead]) -> int:
    """What holds for at least one of the texts."""
    return functools.reduce(operator.or_, map(_traits_of, texts), 0)


class SearchedNames:
    """Facts about the files that compiles read, by path and digest. For one thread."""

    def __init__(self) -> None:
        # By ``codec.mark``.
        self._texts: dict[int, TextRead] = {}
        # The values of macros in texts; None: not only names of files.
        self._values: dict[tuple[Digest, str], tuple[str, ...] | None] = {}

    def known(self, marks: Sequence[int]) -> list[TextRead] | None:
        """The facts about files, by their marks; None: some are not known yet."""
        found = list(map(self._texts.get, marks))
        return None if None in found else cast("list[TextRead]", found)

    def read(self, path: bytes, digest: Digest) -> TextRead:
        """The facts about a file. Raises NotKept."""
        known = self._texts.get(mark(path, digest))
        return known if known is not None else self._looked_up(path, digest)

    def of(self, texts: Sequence[TextRead], task: Task) -> set[str]:
        """The names that a compile which read these texts has looked for. Raises NotKept."""
        shown = traits(texts)
        if shown & OPAQUE:
            raise NotKept("an include that is not a plain name")
        if shown & DATED:
            raise NotKept("a text mentions the date")
        words = task.command.argv()
        parts = parts_of(b" ".join(map(os.fsencode, words)))
        parts = parts.union(*[text.looks.parts for text in texts])
        if may_make(parts):
            raise NotKept("texts may make a date or a test of parts")
        if shown & COMPUTES and (
            shown & DEPENDS or may_make_pragma(parts) or any(map(is_for_pragmas, words))
        ):
            raise NotKept("a macro may make a pragma that compares times")
        names = set[str]().union(*[text.names for text in texts])
        if shown & MACROS:
            for macro in {macro for text in texts for macro in text.looks.macros}:
                names.update(self._values_of(macro, texts, task))
        return names

    def _looked_up(self, path: bytes, digest: Digest) -> TextRead:
        if len(self._texts) >= MAX_TEXTS:
            self._texts.clear()
        name = sys.intern(os.fsdecode(path))
        of_system = name.startswith(SYSTEM)
        found = lookups(_read(name, digest), is_unusual, of_system=of_system)
        directory, _, own = name.rpartition("/")
        searched = map(posixpath.basename, found.operands)
        names = frozenset(map(sys.intern, (own, *searched)))
        text = TextRead(
            name,
            digest,
            (name, digest),
            sys.intern(directory or "/"),
            names,
            found,
            _traits(name, found),
        )
        self._texts[mark(path, digest)] = text
        return text

    def _values_of(self, macro: str, texts: Iterable[TextRead], task: Task) -> Iterator[str]:
        """The last components of the files that a macro may name. Raises NotKept."""
        if any(macro in word for word in task.command.argv()):  # -D, -Wp,-D and others
            raise NotKept("an include that is not a plain name")
        if len(self._values) >= MAX_TEXTS:
            self._values.clear()
        for text in texts:
            known = (text.digest, macro)
            if known not in self._values:
                content = _read(text.path, text.digest)
                self._values[known] = literal_values(content, macro, is_unusual)
            values = self._values[known]
            if values is None:
                raise NotKept("an include that is not a plain name")
            yield from map(posixpath.basename, values)


def _traits(path: str, found: Lookups) -> int:
    held = (
        (OPAQUE, found.is_opaque),
        (DATED, found.is_dated),
        (ONCE, found.is_once),
        (MAKES_ONCE, found.makes_once),
        (IMPORTS, found.imports),
        (PLACED, found.is_placed),
        (LEAVES, bool(found.odd or found.climbing)),
        (MACROS, bool(found.macros)),
        (PRECOMPILED, path.endswith(PRECOMPILED_SUFFIXES)),
        (COMPUTES, found.computes_pragmas),
        (DEPENDS, found.depends),
        (BESIDE, found.looks_beside),
    )
    return sum(bit for bit, holds in held if holds)


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
