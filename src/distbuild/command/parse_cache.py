"""A cache in front of ``parse`` for commands that differ only in their source and output names.

The first such command is parsed; for the others the names are replaced in its result. Used by
syncer and worker. Knows no option's meaning.
"""

import posixpath
import re
from collections.abc import Callable, Sequence

import msgspec

from distbuild.command.decide import decide, is_mapper_file, renamed
from distbuild.command.driver import family_of
from distbuild.command.model import CompileCommand, Family, Local, Role
from distbuild.command.parse import parse, scan

#: Options whose separate value names an output or a make target.
_NAMING = frozenset(("-o", "-MF", "-MT", "-MQ"))
#: The option whose value, in the same word, is such a name too.
_MAPPER = "-fmodule-mapper="
#: Names without special meaning: no option, response file, standard output, device, file of a
#: process, directory or sysroot; without a ".." component or a newline.
_ORDINARY = re.compile(r"(?!/[/.]*(?:dev|proc)/)(?![-@=$])(?!(?:.*/)?\.\.(?:/|\Z)).*[^/\n]")
_SOURCE = re.compile(r"[^-@\n].*(\.(?:c|cc|cpp|cxx|c\+\+|C|S|m|mm))")
#: Patterns kept; a build has a few dozens, so more do not come from one build.
MAX_KNOWN = 1000
#: Whole commands kept: after an edit the same command is issued again.
MAX_WHOLE = 4000


class _Pattern(msgspec.Struct, frozen=True):
    """A parsed command and the places of its names: (index in argv, index in ``arguments``)."""

    command: CompileCommand
    last: dict[str, str | None]
    places: tuple[tuple[int, int], ...]


class Recall:
    """``parse`` with a cache of so many patterns and whole commands at most. Thread-safe."""

    def __init__(self, most_known: int = MAX_KNOWN, most_whole: int = MAX_WHOLE) -> None:
        self._most_known = most_known
        self._most_whole = most_whole
        self._known: dict[object, _Pattern] = {}
        self._whole: dict[object, CompileCommand] = {}

    def parse(
        self,
        argv: Sequence[str],
        cwd: str,
        read_file: Callable[[str], bytes | None],
        family: Family | None = None,
    ) -> CompileCommand | Local:
        """As ``parse.parse``."""
        whole = (cwd, family, *argv)
        if command := self._whole.get(whole):
            return command
        names = _names(argv)
        if names is None:
            return parse(argv, cwd, read_file, family)
        found = self._recalled(names, argv, cwd, read_file, family)
        if isinstance(found, CompileCommand) and not found.family.speaks_cl:
            if len(self._whole) >= self._most_whole:
                self._whole.clear()
            self._whole[whole] = found
        return found

    def _recalled(
        self,
        names: "_Positions",
        argv: Sequence[str],
        cwd: str,
        read_file: Callable[[str], bytes | None],
        family: Family | None,
    ) -> CompileCommand | Local:
        """Applies the cached pattern for ``argv``, or parses ``argv`` and caches its pattern."""
        key = names.key(argv, cwd, family)
        pattern = self._known.get(key)
        if pattern is not None:
            return _applied(pattern, argv)
        speaks = family or family_of(argv[0])
        if speaks is not None and speaks.speaks_cl:
            return parse(argv, cwd, read_file, family)
        found = scan(argv, cwd, read_file, family)
        if isinstance(found, Local):
            return found
        command = decide(found, argv[0], cwd)
        if isinstance(command, CompileCommand):
            self._learn(key, command, found.last, names)
        return command

    def _learn(
        self, key: object, command: CompileCommand, last: dict[str, str | None], names: "_Positions"
    ) -> None:
        places = names.places(command)
        if places is None:
            return
        if len(self._known) >= self._most_known:
            self._known.clear()
        self._known[key] = _Pattern(command, last, places)


class _Positions(msgspec.Struct, frozen=True):
    """Indexes in argv of the apparent source and of the apparent output names."""

    source: int
    suffix: str
    others: frozenset[int]

    def key(self, argv: Sequence[str], cwd: str, family: Family | None) -> object:
        """Cache key, equal for commands that differ only at these indexes."""
        words: list[str | None] = list(argv)
        for at in (self.source, *self.others):
            words[at] = _MAPPER if argv[at].startswith(_MAPPER) else None
        return (cwd, family, self.suffix, *words)

    def places(self, command: CompileCommand) -> tuple[tuple[int, int], ...] | None:
        """(index in argv, index in ``arguments``) of each name; None if one is no name."""
        found = []
        at = 0
        for index, argument in enumerate(command.arguments):
            at += len(argument.tokens())
            naming = argument.separate and argument.option in _NAMING
            is_name = (naming or argument.option == _MAPPER) and at in self.others
            if is_name or (argument.role is Role.SOURCE and at == self.source):
                found.append((at, index))
        once = sum(argument.option == "-MF" for argument in command.arguments) <= 1
        in_root = posixpath.normpath(command.cwd).strip("/") == ""
        seen = len(found) == len(self.others) + 1
        return tuple(found) if seen and once and not in_root else None


def _names(argv: Sequence[str]) -> _Positions | None:
    """The names in ``argv``; None without an apparent source, or if a name is not ordinary."""
    source, suffix, others = 0, "", []
    before = ""
    for at, word in enumerate(argv):
        is_value = before in _NAMING
        before = word
        if word.startswith(_MAPPER) and not is_value:
            word = word.removeprefix(_MAPPER)
            if not is_mapper_file(word):
                return None
            is_value = True
        if at == 0 or (word.startswith("-") and not is_value):
            continue
        match = None if is_value else _SOURCE.fullmatch(word)
        if word.startswith("@"):
            return None
        if is_value:
            others.append(at)
        elif match:
            source, suffix = at, match[1]
        else:
            continue
        if not _ORDINARY.fullmatch(word):
            return None
    return _Positions(source, suffix, frozenset(others)) if source else None


def _applied(pattern: _Pattern, argv: Sequence[str]) -> CompileCommand | Local:
    arguments = list(pattern.command.arguments)
    last = dict(pattern.last)
    source = pattern.command.source
    for word, index in pattern.places:
        old = arguments[index]
        name = argv[word] if old.separate else argv[word].removeprefix(old.option)
        arguments[index] = msgspec.structs.replace(old, value=name)
        if old.role is Role.SOURCE:
            source = name
        else:
            last[old.option] = name
    return renamed(pattern.command, tuple(arguments), last, source)
