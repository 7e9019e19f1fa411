"""Determines which files a command may write: named outputs, and by-products with implied names.

By-products come from -save-temps, -gsplit-dwarf, dumps, ... gcc derives their names from the
output's name, clang from the source's or the output's; measured with gcc 12 and clang 14. Syncer
and worker share this rule: a worker delivers only files that its command may write. Knows no disk:
the caller lists directories and compares them.
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
    "-fdeps-format": (".ddi",),
    "-fmodule-output": (".pcm",),
    "-fstack-usage": (".su",),
    "-ftest-coverage": _COVERAGE,
    "-ftime-trace": (".json",),
    "-gsplit-dwarf": (".dwo",),
    "-save-stats": _STATISTICS,
    "--save-stats": _STATISTICS,
    "-save-temps": _TEMPORARY,
    "--save-temps": _TEMPORARY,
}
#: Most dump names contain the source's suffix.
_SUFFIX = r"(?:\.[^./]+)?"
#: ``out.c.252t.optimized``: the pass's number and kind, and its name.
_DUMP = _SUFFIX + r"\.\d{3}[a-z]\.[^/]+"
#: Option prefix -> pattern, for options whose by-products have many names.
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
#: clang-cl passes the value of this option to clang as an option.
_TO_CLANG = "-clang:"
#: Options that write no object. ``output`` is then "" for gcc and clang, but not for cl.
_WRITES_NOTHING = ("-fsyntax-only", "-Zs")


def by_products(command: CompileCommand, listed: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """Absolute paths of possible by-products, perhaps a superset.

    ``listed`` returns the names in a directory.
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
    """Matches the whole file name of a by-product; nothing if there are none."""
    suffixes, many = _kinds(command)
    ends = [*map(re.escape, sorted(suffixes)), *sorted(many)]
    if not ends:
        return _NO_NAME
    stems = "|".join(map(re.escape, _stems(command)))
    return re.compile(f"(?:{stems})(?:{'|'.join(ends)})")


class Writable:
    """The set of files that ``command`` may write.

    ``is_same(DIRECTORY, NAMED)``: whether a path's directory is the one that the command spells
    ``NAMED`` (absolute).
    """

    def __init__(self, command: CompileCommand, is_same: Callable[[str, str], bool]) -> None:
        self._command = command
        self._ask_same = is_same
        self._known: dict[tuple[str, str], bool] = {}
        # File name -> directories in which the command names such a file.
        self._named: dict[str, list[str]] = {}
        for place in map(command.absolute, command.output_files()):
            directory, _, name = place.rpartition("/")
            self._named.setdefault(name, []).append(directory)

    def has(self, path: str) -> bool:
        """Whether the command may write the file at ``path``."""
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
    """The file that a successful compile writes, as the command names it; "" if none."""
    if command.family.speaks_cl and any(a.meaning in _WRITES_NOTHING for a in command.arguments):
        return ""
    return command.output


_NO_NAME = re.compile(r"(?!)")


def _kinds(command: CompileCommand) -> tuple[set[str], set[str]]:
    """The suffixes of by-products, and the patterns of those with many names."""
    suffixes, many = set[str](), set[str]()
    if not command.needs_original_paths:
        return suffixes, many  # every option with by-products does
    for argument in command.arguments:
        option = argument.option if argument.meaning != _TO_CLANG else argument.value or ""
        if option.startswith("-"):
            suffixes.update(_SUFFIXES.get(option.rstrip("="), ()))
            if not option.startswith(_NAMING):
                many.update(p for begin, p in _MANY.items() if option.startswith(begin))
    return suffixes, many


def _stems(command: CompileCommand) -> list[str]:
    """Possible beginnings of the by-products' names."""
    dumps = {a.meaning: a.value or "" for a in command.arguments if a.meaning in _NAMING}
    prefix = posixpath.basename(dumps.get("-dumpdir", ""))
    names = (command.output, command.source, dumps.get("-dumpbase", ""))
    bases = {command.style.base(name) for name in names}
    stems = {base.rpartition(".")[0] or base for base in bases if base}
    return sorted({*stems, *(prefix + stem for stem in stems)})


#: clang writes these, its main output and serialized diagnostics as renamed temporary files.
_RENAMED = (".i", ".ii", ".mi", ".mii", ".s", ".bc", ".ll")
_ASSEMBLERS = ("-fintegrated-as", "-integrated-as", "-fno-integrated-as", "-no-integrated-as")
_SAVES_TEMPS = ("-save-temps", "--save-temps")


def is_rewritten(command: CompileCommand, path: str, *, empty: bool = False) -> bool:
    """Whether the compiler truncates an existing output at ``path`` instead of replacing it.

    GNU as and objcopy (.dwo) remove the old file unless it is ``empty`` (``-o $(mktemp)``). gcc
    removes a compiled module. The cl family is assumed always to remove it.
    """
    name = path.rpartition("/")[2]
    if command.family.speaks_cl or (command.module_root and name.endswith(".gcm")):
        return False
    if command.dependencies is not None and name == _base(command.dependencies.path):
        return True
    is_main = name == _base(command.output)
    if command.family is Family.GCC:
        if is_main:
            return empty or "-S" in [a.same_as or a.option for a in command.arguments]
        return empty or not name.endswith(".dwo")
    if is_main:
        return _is_assembled_by_clang(command) or (empty and _is_assembled_by_gnu_as(command))
    return not (name.endswith(_RENAMED) or _is_serialized(command, name))


def _is_assembled_by_clang(command: CompileCommand) -> bool:
    """Whether clang's own assembler writes the object directly, without a temporary file."""
    options = [argument.meaning for argument in command.arguments]
    if "-fno-temp-file" in options:
        return True
    assembles = command.language in ASSEMBLER_LANGUAGES or any(
        option.rstrip("=") in _SAVES_TEMPS for option in options
    )
    return assembles and not _is_assembled_by_gnu_as(command) and "-c" in options


def _is_assembled_by_gnu_as(command: CompileCommand) -> bool:
    """Whether clang runs an external assembler."""
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
#: A name with a suffix: perhaps an output that does not exist yet.
_SUFFIXED = re.compile(r"[^/]+\.[A-Za-z]\w*")


def unknown_file(command: CompileCommand, exists: Callable[[str], bool]) -> Local | None:
    """Why the command stays local: one of its unknown options may read or write a file.

    ``exists`` is called with absolute paths.
    """
    for word in command.guessed:
        for name in names(word):
            path = command.absolute(name)
            new = _SUFFIXED.fullmatch(name) or ("/" in name and exists(posixpath.dirname(path)))
            if new or exists(path):
                return Local(LocalReason.NAMES_A_FILE, word)
    return None


def names(word: str) -> Iterator[str]:
    """Possible file names in an argument: its value, and the parts of a list or pair."""
    _, equals, value = word.partition("=")
    if not equals:
        value = word[word.find("/") :] if "/" in word else ""
    yield from dict.fromkeys(name for name in (value, *_SEPARATORS.split(value)) if name)
