"""Which files a command may write: those that it names, and by-products, whose names it implies.

By-products are those of -save-temps, -gsplit-dwarf, dumps, ... gcc makes their names of the
output's name, clang of the source's or the output's; measured with gcc 12 and clang 14. The syncer
and the worker follow this one rule: what a worker delivers is what its command may write. Unaware
of the disk: the caller lists directories, and says which of two names one directory has.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator

from distbuild.command.model import ASSEMBLER_LANGUAGES, CompileCommand, Family, Local, LocalReason

_COVERAGE = (".gcno",)
_STATISTICS = (".stats",)
_TEMPORARY = (".i", ".ii", ".mi", ".mii", ".s", ".bc", ".tmp.bc")
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
#: Most names of dumps have the source's suffix in the middle.
_SUFFIX = r"(?:\.[^./]+)?"
#: ``out.c.252t.optimized``: a number with the kind of pass, and its name.
_DUMP = _SUFFIX + r"\.\d{3}[a-z]\.[^/]+"
#: Options whose by-products have many names, by how the option begins.
_MANY = {
    "-d": _DUMP,
    "-fdump-": _DUMP,
    "--dump": _DUMP,
    "-fdump-ada-spec": r"_[^./]+\.ads",
    "-fdump-analyzer": _SUFFIX + r"\.[a-z-]+(?:\.\d+)?\.(?:txt|dot|json\.gz)",
    "-fdump-final-insns": _SUFFIX + r"\.gkd",
    # ``out.c.opt-record.json.gz`` of gcc; ``out.opt.yaml`` and ``out.opt.bitstream`` of clang.
    "-fsave-optimization-record": _SUFFIX + r"\.opt(?:-record)?\.[^/]+",
    # The second compile of -fcompare-debug, with its own dumps and temporary files.
    "-fcompare-debug": _SUFFIX + r"\.gk(?:d|\.[^/]+)",
}
_NAMING = ("-dumpbase", "-dumpdir", "--dumpbase", "--dumpdir")
#: clang-cl hands the value of this one on as an option.
_TO_CLANG = "-clang:"
#: With these a successful compile leaves no object. gcc and clang name none then; cl's does.
_WRITES_NOTHING = ("-fsyntax-only", "-Zs")


def by_products(command: CompileCommand, listed: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """Absolute paths at which there may be a by-product, perhaps some more.

    ``listed`` gives the names in a directory.
    """
    suffixes, many = _kinds(command)
    if not (suffixes or many):
        return
    stems, pattern = _stems(command), by_product_names(command)
    for directory in command.output_dirs:
        yield from (f"{directory}/{stem}{suffix}" for stem in stems for suffix in suffixes)
        if many:
            names = (name for name in listed(directory) if pattern.fullmatch(name))
            yield from (f"{directory}/{name}" for name in names)


def by_product_names(command: CompileCommand) -> re.Pattern[str]:
    """What the whole name of a by-product looks like."""
    suffixes, many = _kinds(command)
    ends = [*map(re.escape, sorted(suffixes)), *sorted(many)]
    if not ends:
        return _NO_NAME
    stems = "|".join(map(re.escape, _stems(command)))
    return re.compile(f"(?:{stems})(?:{'|'.join(ends)})")


class Writable:
    """Which files ``command`` may write.

    ``is_same(DIRECTORY, NAMED)``: whether a path's directory is the one that the command calls
    ``NAMED`` (absolute).
    """

    def __init__(self, command: CompileCommand, is_same: Callable[[str, str], bool]) -> None:
        self._command = command
        self._ask_same = is_same
        self._known: dict[tuple[str, str], bool] = {}
        # By the name of the file, the directories in which the command names one.
        self._named: dict[str, list[str]] = {}
        for place in map(command.absolute, command.output_files()):
            directory, _, name = place.rpartition("/")
            self._named.setdefault(name, []).append(directory)

    def has(self, path: str) -> bool:
        """Whether the file at ``path`` is one of them."""
        directory, _, name = path.rpartition("/")
        for named in self._named.get(name, ()):
            if named == directory or self._is_same(directory, named):
                return True
        if not by_product_names(self._command).fullmatch(name):
            return False
        return any(self._is_same(directory, named) for named in self._command.output_dirs)

    def _is_same(self, directory: str, named: str) -> bool:
        known = self._known.get((directory, named))
        if known is None:
            known = self._known[directory, named] = self._ask_same(directory, named)
        return known


def object_of(command: CompileCommand) -> str:
    """The file that a successful compile has written, as the command names it; "": none."""
    if any(argument.meaning in _WRITES_NOTHING for argument in command.arguments):
        return ""
    return command.output


_NO_NAME = re.compile(r"(?!)")


def _kinds(command: CompileCommand) -> tuple[set[str], set[str]]:
    """The suffixes of its by-products, and the patterns of those that have many names."""
    suffixes, many = set[str](), set[str]()
    if not command.needs_original_paths:
        return suffixes, many  # so is every option that makes one
    for argument in command.arguments:
        option = argument.option if argument.meaning != _TO_CLANG else argument.value or ""
        if option.startswith("-"):
            suffixes.update(_SUFFIXES.get(option.rstrip("="), ()))
            if not option.startswith(_NAMING):
                many.update(p for begin, p in _MANY.items() if option.startswith(begin))
    return suffixes, many


def _stems(command: CompileCommand) -> list[str]:
    """How their names begin."""
    dumps = {a.meaning: a.value or "" for a in command.arguments if a.meaning in _NAMING}
    prefix = posixpath.basename(dumps.get("-dumpdir", ""))
    names = (command.output, command.source, dumps.get("-dumpbase", ""))
    bases = {command.style.base(name) for name in names}
    stems = {base.rpartition(".")[0] or base for base in bases if base}
    return sorted({*stems, *(prefix + stem for stem in stems)})


#: clang: temporary files that are renamed; so are its main output and serialized diagnostics.
_RENAMED = (".i", ".ii", ".mi", ".mii", ".s", ".bc", ".ll")
_ASSEMBLERS = ("-fintegrated-as", "-integrated-as", "-fno-integrated-as", "-no-integrated-as")
_SAVES_TEMPS = ("-save-temps", "--save-temps")


def is_rewritten(command: CompileCommand, path: str, *, empty: bool = False) -> bool:
    """Whether the compiler opens an old file at ``path``, which it has written, and truncates it.

    GNU as and objcopy (.dwo) remove the old one, unless it is ``empty`` (``-o $(mktemp)``). The cl
    family is taken to remove it always.
    """
    if command.family.speaks_cl:
        return False
    name = path.rpartition("/")[2]
    if command.dependencies is not None and name == _base(command.dependencies.path):
        return True
    is_main = name == _base(command.output)
    if command.family is Family.GCC:
        if is_main:
            return empty or any(argument.meaning == "-S" for argument in command.arguments)
        return empty or not name.endswith(".dwo")
    if is_main:
        return _is_assembled_by_clang(command) or (empty and _is_assembled_by_gnu_as(command))
    return not (name.endswith(_RENAMED) or _is_serialized(command, name))


def _is_assembled_by_clang(command: CompileCommand) -> bool:
    """Whether the object comes from clang's assembler alone, which knows no temporary files."""
    options = [argument.meaning for argument in command.arguments]
    if "-fno-temp-file" in options:
        return True
    assembles = command.language in ASSEMBLER_LANGUAGES or any(
        option.rstrip("=") in _SAVES_TEMPS for option in options
    )
    return assembles and not _is_assembled_by_gnu_as(command) and "-c" in options


def _is_assembled_by_gnu_as(command: CompileCommand) -> bool:
    """Whether clang leaves it to another assembler."""
    options = (argument.meaning for argument in reversed(command.arguments))
    return next((o for o in options if o in _ASSEMBLERS), "").startswith(("-no-", "-fno-"))


def _is_serialized(command: CompileCommand, name: str) -> bool:
    return any(
        argument.meaning.endswith("-serialize-diagnostics") and _base(argument.value or "") == name
        for argument in command.arguments
    )


def _base(path: str) -> str:
    return path.rpartition("/")[2]


_SEPARATORS = re.compile("[=,:;]")
#: A name with a suffix, though nothing is there: an output, perhaps.
_SUFFIXED = re.compile(r"[^/]+\.[A-Za-z]\w*")


def unknown_file(command: CompileCommand, exists: Callable[[str], bool]) -> Local | None:
    """Why the command stays local: an unknown option of it may read or write a file.

    ``exists`` is asked for absolute paths.
    """
    for word in command.guessed:
        for name in names(word):
            path = command.absolute(name)
            new = _SUFFIXED.fullmatch(name) or ("/" in name and exists(posixpath.dirname(path)))
            if new or exists(path):
                return Local(LocalReason.NAMES_A_FILE, word)
    return None


def names(word: str) -> Iterator[str]:
    """What may be a name in an option's word: its value, and the parts of a list or a pair."""
    _, equals, value = word.partition("=")
    if not equals:
        value = word[word.find("/") :] if "/" in word else ""
    yield from dict.fromkeys(name for name in (value, *_SEPARATORS.split(value)) if name)
