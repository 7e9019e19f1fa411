"""The option table held against what the installed compilers say of themselves."""

import functools
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from distbuild.command.model import Family, LocalReason, Role
from distbuild.command.options import Effect, Option, ValueForm
from distbuild.command.tables.gcc import PLAIN, ROWS, option_table
from tests.support.tools import need

pytestmark = pytest.mark.compiler

CLASSES = ("common", "c", "c++", "objc", "objc++", "target")
#: What gcc's help says of a path: a placeholder, or the word for what is read or written.
PATHS = re.compile(r"<(?:file|dir|path)[^>]*>|\b(?:file|directory|filename)\b", re.IGNORECASE)
#: Reported like names of files, and none: what a diagnostic or the object says, what the linker
#: does, where the probe of the built-in search directories looks; what only a crash writes to.
NO_NAMES = frozenset(
    "-fdiagnostics-format= -finput-charset= -fmemory-profile= -fopenmp-targets="
    " -fsanitize-undefined-strip-path-components= -fbinutils-version= -fuse-ld="
    " --gcc-toolchain= -fuse-cuid= -fbasic-block-sections="
    " -fbuild-session-timestamp= -fprofile-info-section= -fcrash-diagnostics-dir=".split()
)
#: gcc's driver knows them; its ``--help`` lists only what its compilers take.
GCC_DRIVER = "-B -L -R -T -Tbss -Tdata -Ttext -Xassembler -Xlinker -Xpreprocessor -e -h -l".split()
GCC_DRIVER += "-specs -u -wrapper -x -z --entry --for-assembler --for-linker --language".split()
GCC_DRIVER += "--library-directory --prefix --print-file-name --specs --sysroot".split()
#: clang has them, and ``--autocomplete`` does not name them.
CLANG_HIDDEN = "-arch -framework -force_load -multiply_defined --assert --define-macro".split()
CLANG_HIDDEN += "--include-directory --include-directory-after --language --output --std".split()
CLANG_HIDDEN += (
    "--sysroot --stdlib --rtlib --undefine-macro --prefix -target -working-directory".split()
)

#: clang 14 takes the next word for their value, clang 19 only what stands in the same word.
NO_LONGER_APART = {"-Tbss", "-Tdata", "-Ttext"}
NO_LONGER_APART |= {row.spelling for row in ROWS if row.spelling.startswith("-fxray-")}
#: Rightly guesses: what they name may be a file.
MAY_NAME_A_FILE = (
    "-fexperimental-sanitize-metadata-ignorelist=v -mllvm=v -mxcoff-build-id=v".split()
)
MAY_NAME_A_FILE += "-mzos-hlq-clang=v -mzos-hlq-csslib=v -mzos-hlq-le=v -mzos-sys-include=v".split()


#: Rows that not every version knows: the first and the last major version, 0 for none.
VERSIONS = {
    "-fdeps-format=": (14, 0),
    "-fmodules": (15, 0),
    "-enable-trivial-auto-var-init-zero-knowing-it-will-be-removed-from-clang": (0, 17),
}


def said(*words: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, errors="replace", cwd=cwd, check=False
    )
    return done.stdout + done.stderr


@functools.cache
def version(program: str) -> int:
    return int(said(need(program), "-dumpversion").partition(".")[0])


def is_newer(program: str) -> bool:
    """Whether it is a clang after the 14th."""
    return program == "clang" and version("clang") > 14


def is_of_version(spelling: str, program: str) -> bool:
    """Whether the compiler that is installed knows the option."""
    first, last = VERSIONS.get(spelling, (0, 0))
    return first <= version(program) <= (last or 1000)


@functools.cache
def gcc_help(what: str) -> dict[str, str]:
    """Spelling to text of ``gcc --help=what``. ``-fx=<file>`` and ``-fx=`` are "-fx="."""
    found: dict[str, str] = {}
    for line in said(need("gcc"), f"--help={what}").splitlines():
        if match := re.match(r"  (-[^\s<\[]+)(.*)", line):
            name = match[1]
            found[name] = found.get(name, "") + match[2]
        elif found and line.startswith(" " * 20):
            found[name] += " " + line.strip()
    return found


@functools.cache
def clang_options() -> dict[str, str]:
    """Spelling to help of what ``clang --autocomplete`` names, but for the words of cl.exe."""
    lines = said(need("clang"), "--autocomplete=-").splitlines()
    pairs = (line.partition("\t") for line in lines if line.startswith("-"))
    return {name.strip(): text for name, _, text in pairs if ":" not in name}


def clang_takes_next_word(names: Iterable[str], cwd: Path) -> Iterator[str]:
    """Those options that make clang ask for the next word; one process each."""
    for name in names:
        if f"argument to '{name}' is missing" in said(need("clang"), "-###", "-c", "x.c", name):
            yield name


def gcc_takes_next_word(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        text = said(need("gcc"), "-###", "-c", "x.c", name)
        if re.search(r"missing .*(?:after|to) .?" + re.escape(name) + r"\W?$", text, re.MULTILINE):
            yield name


def found(family: Family, word: str) -> Option | None:
    return option_table(family).find(word)


def takes_next(option: Option | None) -> bool:
    return option is not None and option.shape in (ValueForm.SEPARATE, ValueForm.EITHER)


def is_safe_without_value(family: Family, word: str) -> bool:
    """Whether it does no harm that the next word is taken for another one: all is local then."""
    option = found(family, word)
    return option is None or isinstance(option.verdict, LocalReason)


#: Driver flags, though the compilers proper take a value.
NO_DRIVER_VALUE = frozenset(
    ("-MD", "-MMD", "--write-dependencies", "--write-user-dependencies", "-gnatO")
)


@pytest.mark.parametrize("what", [f"{name},separate" for name in CLASSES])
def test_what_gcc_says_takes_the_next_word_does(what: str) -> None:
    reported = set(gcc_help(what)) - NO_DRIVER_VALUE
    wrong = [
        name
        for name in reported
        if not takes_next(found(Family.GCC, name)) and not is_safe_without_value(Family.GCC, name)
    ]
    assert sorted(wrong) == []
    assert len(reported) > 5 or what.startswith("target")


def test_what_gccs_driver_takes_the_next_word_for_does() -> None:
    taking = list(gcc_takes_next_word(GCC_DRIVER))
    assert len(taking) > 20
    assert [name for name in taking if not _agrees(Family.GCC, name)] == []


def _agrees(family: Family, name: str) -> bool:
    return takes_next(found(family, name)) or is_safe_without_value(family, name)


@pytest.mark.slow
def test_what_clang_takes_the_next_word_for_does(tmp_path: Path) -> None:
    names = {name for name in clang_options() if _may_take(name)} | set(CLANG_HIDDEN)
    taking = list(clang_takes_next_word(sorted(names), tmp_path))
    assert len(taking) > 70
    assert [name for name in taking if not _agrees(Family.CLANG, name)] == []


def _may_take(name: str) -> bool:
    """Not the hundreds of -f… and -W… of which clang's help says that they are switches."""
    if name.startswith(("-f", "-m", "-W")):
        return not name.startswith(("-fno-", "-mno-", "-W")) and _has_value(name)
    return not name.endswith("=") or name.startswith("-X")


def _has_value(name: str) -> bool:
    return (
        name.endswith("=")
        or clang_options()[name] == ""
        or bool(PATHS.search(clang_options()[name]))
    )


def test_rows_that_take_the_next_word_are_no_flags() -> None:
    """The other direction: a row must not swallow a word that the compiler leaves alone."""
    rows = [r for r in ROWS if r.shape in (ValueForm.SEPARATE, ValueForm.EITHER)]
    for family, program in ((Family.GCC, "gcc"), (Family.CLANG, "clang")):
        wrong = []
        for row in rows:
            if row.only not in (None, family) or isinstance(row.verdict, LocalReason):
                continue
            text = said(need(program), "-###", "-c", "x.c", row.spelling)
            refused = ("missing", "unrecognized", "unknown argument", "unsupported option")
            if not any(word in text for word in refused):
                wrong.append(row.spelling)
        assert set(wrong) <= (NO_LONGER_APART if is_newer(program) else set())


def names_path(name: str, text: str) -> bool:
    return name.endswith("=") and name not in NO_NAMES and bool(PATHS.search(text))


def is_known_path(family: Family, name: str) -> bool:
    """Whether the table says that the value is a path, keeps it local or has a row for it."""
    option = found(family, name + "value")
    if option is None or isinstance(option.verdict, LocalReason) or option.role is not Role.NONE:
        return True
    return option.verdict is Effect.ORIGINAL_PATHS


@pytest.mark.parametrize("what", [f"{name},joined" for name in CLASSES])
def test_what_gcc_says_names_a_file_has_a_row(what: str) -> None:
    naming = [name for name, text in gcc_help(what).items() if names_path(name, text)]
    assert [name for name in naming if not is_known_path(Family.GCC, name)] == []


def test_what_clang_says_names_a_file_has_a_row() -> None:
    naming = [name for name, text in clang_options().items() if names_path(name, text)]
    assert len(naming) > 15
    assert [name for name in naming if not is_known_path(Family.CLANG, name)] == []


def valued() -> Iterator[tuple[Family, str]]:
    for name in CLASSES:
        yield from ((Family.GCC, option) for option in gcc_help(f"{name},joined"))
    yield from ((Family.CLANG, option) for option in clang_options())


def test_no_reported_option_with_a_value_is_a_guess() -> None:
    words = {(family, re.sub("=.*", "=v", n)) for family, n in valued() if n.startswith(PLAIN)}
    wide = [w for f, w in words if "=" in w and (o := found(f, w)) is not None and o.guessed]
    assert sorted(set(wide) - set(MAY_NAME_A_FILE)) == []


def accepted(program: str, words: list[str], cwd: Path) -> str:
    (cwd / "x.c").write_text("int x;\n")
    return said(need(program), "-fsyntax-only", "x.c", *words, cwd=cwd)


@pytest.mark.parametrize(("family", "program"), [(Family.GCC, "gcc"), (Family.CLANG, "clang")])
def test_no_row_of_one_family_is_refused_by_its_compiler(
    family: Family, program: str, tmp_path: Path
) -> None:
    words = []
    for row in ROWS:
        local = isinstance(row.verdict, LocalReason)
        known = row.only is family and is_of_version(row.spelling, program)
        if known and not local and row.role is not Role.OUTPUT_FILE:
            value = "1" if row.shape is not ValueForm.FLAG else ""
            apart = row.shape is ValueForm.SEPARATE
            words += [row.spelling, value] if apart else [row.spelling + value]
    text = accepted(program, words, tmp_path)
    unknown = r"(?:unrecognized command-line option|unknown argument:?) .(-[^\s'\u2019]+)"
    refused = re.findall(unknown, text)
    assert refused == []
    assert len(words) > 15
