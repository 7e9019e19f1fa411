"""Builds the option tables of the gcc and clang families, with the rule for options without a row.

The rows cover every option of gcc 12 and clang 14 that takes a value, names a file or a directory,
or adds an output. Sources: ``gcc --help=CLASS``, ``clang --autocomplete=-``, the manuals, and in
doubt the compilers' behaviour. Options of other languages (Ada, D, Fortran, Go) are omitted unless
they could be confused with a row; like any unknown option they keep the command local.
"""

import functools

from distbuild.command.model import Family
from distbuild.command.options import Option, OptionTable, ValueForm
from distbuild.command.tables import rows_families, rows_long, rows_short
from distbuild.command.tables.values import PLAIN_VALUES

#: Options with these prefixes and without a row are plain and take no second word. With a value
#: they are guessed: the value might be a file's name.
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
