"""Looks up the option that an argument spells, and what the option means for distribution.

Knows no whole commands, sources or outputs, and no file system. The rows are in ``tables`` (gcc,
clang) and ``cl.rows``.
"""

import enum

import msgspec

from distbuild.command.model import Family, LocalReason, Role


class ValueForm(enum.Enum):
    """How an option carries its value."""

    FLAG = "flag"  # -c
    JOINED = "joined"  # -std=c99
    SEPARATE = "separate"  # --param name=value
    EITHER = "either"  # -Idir, -I dir
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


class OptionTable:
    """The rows of one driver family, for lookup by argument."""

    def __init__(self, rows: tuple[Option, ...], families: tuple[str, ...], family: Family) -> None:
        """``families``: prefixes (-f, -W) whose options without a row are plain and FINE."""
        mine = [row for row in rows if row.only in (None, family)]
        joined = (ValueForm.JOINED, ValueForm.EITHER, ValueForm.ASSIGNED)
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
    wide = row.shape is ValueForm.JOINED and not row.spelling.endswith(("=", ","))
    guessed = wide and "=" in rest and isinstance(row.verdict, Effect)
    return msgspec.structs.replace(row, guessed=True) if guessed else row
