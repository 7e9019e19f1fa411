"""Parses the commands of a build: many are one command with another source and other outputs.

Duty: recognise those, and put the names in. Unaware of what any option means: ``parse`` has found
out for the first of them.
"""

import posixpath
import re
from collections.abc import Callable, Sequence

import msgspec

from distbuild.command.decide import decide, renamed
from distbuild.command.driver import family_of
from distbuild.command.model import CompileCommand, Family, Local, Role
from distbuild.command.parse import parse, scan

#: Options whose values, as words of their own, name what is written.
_NAMING = frozenset(("-o", "-MF", "-MT", "-MQ"))
#: Names that are nothing but names: no option, response file, standard output, device, file of a
#: process, directory, sysroot or way up; in one line.
_ORDINARY = re.compile(r"(?!/[/.]*(?:dev|proc)/)(?![-@=$])(?!(?:.*/)?\.\.(?:/|\Z)).*[^/\n]")
_SOURCE = re.compile(r"[^-@\n].*(\.(?:c|cc|cpp|cxx|c\+\+|C|S|m|mm))")
#: A build has a few dozens of them; what is more, is not a build's.
MAX_KNOWN = 1000
#: Commands that are remembered as a whole: whoever edits a file gives the same command again.
MAX_WHOLE = 4000


class _Pattern(msgspec.Struct, frozen=True):
    """A parsed command, and where its names are: (index of the word, index of the argument)."""

    command: CompileCommand
    last: dict[str, str | None]
    places: tuple[tuple[int, int], ...]


class Recall:
    """``parse``, with a memory. Any thread may ask."""

    def __init__(self) -> None:
        self._known: dict[object, _Pattern] = {}
        self._whole: dict[object, CompileCommand] = {}

    def parse(
        self,
        argv: Sequence[str],
        cwd: str,
        read_file: Callable[[str], bytes | None],
        family: Family | None = None,
    ) -> CompileCommand | Local:
        """See ``parse.parse``."""
        whole = (cwd, family, *argv)
        if command := self._whole.get(whole):
            return command
        names = _names(argv)
        if names is None:
            return parse(argv, cwd, read_file, family)
        found = self._recalled(names, argv, cwd, read_file, family)
        if isinstance(found, CompileCommand) and not found.family.speaks_cl:
            if len(self._whole) >= MAX_WHOLE:
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
        """The command of the pattern that it follows, which is learned if it is new."""
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
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[key] = _Pattern(command, last, places)


class _Positions(msgspec.Struct, frozen=True):
    """Indexes of the words of a command that seem to be its source, and names of its outputs."""

    source: int
    suffix: str
    others: frozenset[int]

    def key(self, argv: Sequence[str], cwd: str, family: Family | None) -> object:
        """What it has in common with those that differ in these words only."""
        words: list[str | None] = list(argv)
        for at in (self.source, *self.others):
            words[at] = None
        return (cwd, family, self.suffix, *words)

    def places(self, command: CompileCommand) -> tuple[tuple[int, int], ...] | None:
        """Where the names are among the arguments; None: one is not what it seemed to be."""
        found = []
        at = 0
        for index, argument in enumerate(command.arguments):
            at += len(argument.tokens())
            is_name = argument.separate and argument.option in _NAMING and at in self.others
            if is_name or (argument.role is Role.SOURCE and at == self.source):
                found.append((at, index))
        once = sum(argument.option == "-MF" for argument in command.arguments) <= 1
        in_root = posixpath.normpath(command.cwd).strip("/") == ""
        seen = len(found) == len(self.others) + 1
        return tuple(found) if seen and once and not in_root else None


def _names(argv: Sequence[str]) -> _Positions | None:
    """None: it is not a command of one source and of names that are nothing else."""
    source, suffix, others = 0, "", []
    before = ""
    for at, word in enumerate(argv):
        is_value = before in _NAMING
        before = word
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
        old, name = arguments[index], argv[word]
        arguments[index] = msgspec.structs.replace(old, value=name)
        if old.role is Role.SOURCE:
            source = name
        else:
            last[old.option] = name
    return renamed(pattern.command, tuple(arguments), last, source)
