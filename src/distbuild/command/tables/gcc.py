"""The table of each driver family: all rows, and what holds for words without one.

The rows know every option of gcc 12 and clang 14 that takes a value, names a file or a directory,
or adds an output. Sources: ``gcc --help=CLASS``, ``clang --autocomplete=-``, the manuals, and for
the doubtful ones what the compilers do. Options of other languages (Ada, D, Fortran, Go) are left
out where none of ours could be mistaken for them; like any unknown option they stay local.
"""

import functools

from distbuild.command.model import Family
from distbuild.command.options import Option, OptionTable, ValueForm
from distbuild.command.tables import rows_families, rows_long, rows_short
from distbuild.command.tables.values import PLAIN_VALUES

#: Options of these families without a row take no further word and are plain. One with a value is
#: a guess: the value might be a file's name.
PLAIN = ("-O", "-W", "-f", "-g", "-m")

ROWS: tuple[Option, ...] = (
    *rows_long.ROWS,
    *rows_short.ROWS,
    *rows_families.ROWS,
    *(Option(spelling, ValueForm.JOINED) for spelling in PLAIN_VALUES),
)


@functools.cache
def option_table(family: Family) -> OptionTable:
    """The table of one driver family."""
    return OptionTable(ROWS, PLAIN, family)
