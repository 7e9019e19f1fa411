"""Which files a command writes besides those that it names: -save-temps, -gsplit-dwarf, dumps, ...

Duty: their possible names. gcc makes them of the output's name, clang of the source's or the
output's; measured with gcc 12 and clang 14. Unaware of the disk: the caller lists directories.
"""

import posixpath
from collections.abc import Callable, Iterable, Iterator

from distbuild.command.model import CompileCommand

_COVERAGE = (".gcno",)
_STATISTICS = (".stats",)
_TEMPORARY = (".i", ".ii", ".mi", ".mii", ".s", ".bc")
_SUFFIXES = {
    "-coverage": _COVERAGE,
    "--coverage": _COVERAGE,
    "-fcallgraph-info": (".ci",),
    "-fstack-usage": (".su",),
    "-ftest-coverage": _COVERAGE,
    "-ftime-trace": (".json",),
    "-gsplit-dwarf": (".dwo",),
    "-save-stats": _STATISTICS,
    "--save-stats": _STATISTICS,
    "-save-temps": _TEMPORARY,
    "--save-temps": _TEMPORARY,
}
#: Their names are many: a number and a pass, or with the source's suffix in the middle.
_MANY = ("-d", "-fdump-", "--dump", "-fsave-optimization-record", "-fcompare-debug")
_NAMING = ("-dumpbase", "-dumpdir", "--dumpbase", "--dumpdir")


def by_products(command: CompileCommand, listed: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """Absolute paths at which there may be a by-product, perhaps some more.

    ``listed`` gives the names in a directory.
    """
    if not command.needs_original_paths:
        return  # so is every option that makes one
    suffixes, many = set[str](), False
    for argument in command.arguments:
        option = argument.option
        if option.startswith("-"):
            suffixes.update(_SUFFIXES.get(option.rstrip("="), ()))
            many |= option.startswith(_MANY) and not option.startswith(_NAMING)
    if not (suffixes or many):
        return
    stems = _stems(command)
    for directory in command.output_dirs:
        yield from (f"{directory}/{stem}{suffix}" for stem in stems for suffix in suffixes)
        if many:
            heads = tuple(f"{stem}." for stem in stems)
            yield from (f"{directory}/{n}" for n in listed(directory) if n.startswith(heads))


def _stems(command: CompileCommand) -> list[str]:
    """How their names begin."""
    dumps = {a.meaning: a.value or "" for a in command.arguments if a.meaning in _NAMING}
    prefix = posixpath.basename(dumps.get("-dumpdir", ""))
    names = (command.output, command.source, dumps.get("-dumpbase", ""))
    bases = {command.style.base(name) for name in names}
    stems = {base.rpartition(".")[0] or base for base in bases if base}
    return sorted({*stems, *(prefix + stem for stem in stems)})
