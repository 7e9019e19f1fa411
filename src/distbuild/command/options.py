"""Looks up the option that an argument spells, and what the option means for distribution.

Knows no sources or outputs, and no file system. The rows are in ``tables`` (gcc, clang) and
``cl.rows``.
"""

import enum
from collections.abc import Iterator

import msgspec

from distbuild.command import passthrough
from distbuild.command.model import Argument, Family, Local, LocalReason, Role


class ValueForm(enum.Enum):
    """How an option carries its value."""

    FLAG = "flag"  # -c
    JOINED = "joined"  # -std=c99
    SEPARATE = "separate"  # --param name=value
    EITHER = "either"  # -Idir, -I dir
    NAMED = "named"  # -fmodule-file=name=file: the value follows the second "=", else the first
    ASSIGNED = "assigned"  # -fopt-info-vec=file: a prefix; the value follows the first "=", if any


class Effect(enum.Enum):
    """An option's effect on distribution, unless it is a reason to compile locally."""

    FINE = "fine"
    ORIGINAL_PATHS = "original_paths"  # exact only in a sandbox with these paths


class Option(msgspec.Struct, frozen=True):
    """One row of an option table. ``same_as``: the option of which this one is another spelling.

    ``guessed``: no row matches this option, or only a wide one, so its value may be anything.
    """

    spelling: str
    shape: ValueForm = ValueForm.FLAG
    role: Role = Role.NONE
    verdict: Effect | LocalReason = Effect.FINE
    same_as: str = ""
    only: Family | None = None
    guessed: bool = False

    @property
    def meaning(self) -> str:
        """The spelling under which the rest of the package knows this option."""
        return self.same_as or self.spelling

    def read(self, word: str, rest: Iterator[str]) -> Argument | None:
        """The option as spelled in ``word``, with its value, which may be the first of ``rest``;
        None if a required value is missing."""
        length = len(self.spelling)
        spelled, joined = word[:length], word[length:]
        same_as = self.meaning if self.meaning != spelled else ""
        if self.shape is ValueForm.SEPARATE or (self.shape is ValueForm.EITHER and not joined):
            value = next(rest, None)
            if value is None:
                return None
            return Argument(spelled, value, True, self.role, same_as)
        if self.shape is ValueForm.FLAG:
            return Argument(word, role=self.role, same_as=same_as)
        return Argument(spelled, joined, role=self.role, same_as=same_as)


class ScannedOptions(msgspec.Struct):
    """The options of a command, and what each means for distribution."""

    family: Family
    arguments: list[Argument] = msgspec.field(default_factory=list)
    #: Canonical option name -> its last value.
    last: dict[str, str | None] = msgspec.field(default_factory=dict)
    obstacles: list[Local] = msgspec.field(default_factory=list)
    #: Arguments of options without a row, whose value might be a file's name.
    guessed: list[str] = msgspec.field(default_factory=list)
    tied_by: str = ""

    def values(self, *roles: Role) -> tuple[str, ...]:
        """The values of the options in these roles."""
        return tuple(a.value for a in self.arguments if a.role in roles and a.value is not None)

    def record(self, option: Option, argument: Argument) -> None:
        """Add an option that was read."""
        self.arguments.append(argument)
        self.last[option.meaning] = argument.value
        spelled = argument.tokens()[0]
        if option.guessed:
            self.guessed.append(spelled)
        elif guess := passthrough.guess(argument):
            self.guessed.append(guess)
        if isinstance(option.verdict, LocalReason):
            self.obstacles.append(Local(option.verdict, spelled))
        elif option.verdict is Effect.ORIGINAL_PATHS:
            # Without a name that differs from one command to the next: see ``parse_cache``.
            is_mapper = option.role is Role.MODULE_MAPPER
            self.tied_by = self.tied_by or (argument.option if is_mapper else spelled)


class OptionTable:
    """The rows of one driver family, for lookup by argument."""

    def __init__(self, rows: tuple[Option, ...], families: tuple[str, ...], family: Family) -> None:
        """``families``: prefixes (-f, -W) whose options without a row are plain and FINE."""
        mine = [row for row in rows if row.only in (None, family)]
        joined = (ValueForm.JOINED, ValueForm.EITHER, ValueForm.ASSIGNED, ValueForm.NAMED)
        whole = (ValueForm.FLAG, ValueForm.SEPARATE, ValueForm.EITHER)
        self._exact = {row.spelling: row for row in mine if row.shape in whole}
        self._prefixes = {row.spelling: row for row in mine if row.shape in joined}
        self._longest = max(map(len, self._prefixes))
        self._families = families

    def find(self, word: str) -> Option | None:
        """The row that ``word`` (beginning with "-") belongs to; None for an unknown option.

        An exact spelling wins over a joined one, a longer joined one over a shorter.
        """
        if exact := self._exact.get(word):
            return exact
        for length in range(min(len(word), self._longest), 1, -1):
            if row := self._prefixes.get(word[:length]):
                return _specific(row, word)
        if word.startswith(self._families):
            return Option(word, guessed="=" in word or "/" in word)
        return None


def _specific(row: Option, word: str) -> Option:
    """The prefix ``row``, narrowed to the option that ``word`` spells."""
    rest = word[len(row.spelling) :]
    if row.shape is ValueForm.ASSIGNED:
        head, equals, _ = word.partition("=")
        if equals:
            return msgspec.structs.replace(row, spelling=head + "=", shape=ValueForm.JOINED)
        return msgspec.structs.replace(row, spelling=word, shape=ValueForm.FLAG, role=Role.NONE)
    if row.shape is ValueForm.NAMED:
        name, equals, _ = rest.partition("=")
        spelling = row.spelling + (name + equals if equals else "")
        return msgspec.structs.replace(
            row, spelling=spelling, shape=ValueForm.JOINED, same_as=row.meaning
        )
    wide = row.shape is ValueForm.JOINED and not row.spelling.endswith(("=", ","))
    guessed = wide and "=" in rest and isinstance(row.verdict, Effect)
    return msgspec.structs.replace(row, guessed=True) if guessed else row
