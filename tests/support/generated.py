"""Command lines that nobody would write: random options in odd places, for hypothesis."""

import re
import subprocess

from hypothesis import strategies as st

from distbuild.command.model import Family, LocalReason, Role
from distbuild.command.options import Option, ValueForm
from distbuild.command.tables.gcc import ROWS
from tests.support.differential import Line

#: They ask about the compiler, run other programs, or have nothing to do with one source.
_LEFT_OUT = frozenset(
    (LocalReason.INFORMATION, LocalReason.RUNS_OTHER_CODE, LocalReason.PREPROCESS_ONLY)
)
_SOURCES = [
    *"src/main.c src/second.c src/empty.c src/main.cpp src/old.cpp src/date.c".split(),
    *"src/asm.S src/asm.s src/pre.i src/incbin.c".split(),
    *("src/with space.c", "src/quo'te.c", "src/ünï.c", "src/100%.c", "src/dol$lar.c"),
]
_VALUES = {
    Role.INPUT_FILE: ["forced.h", "include/macros.h", "absent.h", "include", "./forced.h"],
    Role.UNLISTED_FILE: ["data.bin", "absent.txt", "forced.h"],
    Role.INPUT_DIR: ["include", "sys", "absent", ".", "..", "in clude", "include/nested", "/usr"],
    Role.OUTPUT_FILE: ["build/more.x", "build/o ut", "deps/out.d", "absent/x", "x.out"],
    Role.PREFIX_MAP: ["src=s", "include/=", "/=/root", "nothing", "=x", "a=b=c"],
    Role.MODULE_MAPPER: ["data.bin", "absent.txt", "forced.h", "include"],
    Role.NONE: ["", "1", "0", "none", "c++", "c", "x86-64", "all", "full", "TEN=1", "a,b", "é"],
    Role.SOURCE: [""],
}
_FLAG = re.compile(r"^\s+(-[fgmWO][\w+-]+)(?=\s|$)", re.MULTILINE)
#: Compilers start others with these, write for minutes, or stop.
_NEVER = re.compile(r"-f(?:dump-(?:rtl|tree|ipa)-all|self-test|time-report|report-bug|lto)")


def flags(family: Family) -> list[str]:
    """The options without a value that the installed compiler itself reports."""
    if family is Family.GCC:
        classes = ("common", "optimizers", "warnings", "target", "c", "c++")
        commands = [["gcc", f"--help={name}"] for name in classes]
    else:
        commands = [["clang", "--help"]]
    texts = [subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in commands]
    found = {flag for text in texts for flag in _FLAG.findall(text)}
    return sorted(flag for flag in found if not _NEVER.match(flag))


def _known(family: Family) -> list[Option]:
    return [
        row
        for row in ROWS
        if row.only in (None, family)
        and row.verdict not in _LEFT_OUT
        and not _NEVER.match(row.spelling)
    ]


@st.composite
def _row_words(draw: st.DrawFn, rows: list[Option]) -> list[str]:
    row = draw(st.sampled_from(rows))
    if row.shape is ValueForm.FLAG:
        return [row.spelling]
    value = draw(st.sampled_from(_VALUES[row.role]))
    joined = row.shape in (ValueForm.JOINED, ValueForm.ASSIGNED) or (
        row.shape is ValueForm.EITHER and draw(st.booleans())
    )
    equals = "=" if row.shape is ValueForm.ASSIGNED and value else ""
    return [row.spelling + equals + value] if joined else [row.spelling, value]


@st.composite
def lines(draw: st.DrawFn, family: Family, plain: list[str]) -> Line:
    """One command line of ``family``; ``plain``: options that its compiler reports."""
    words = _row_words(_known(family))
    more = st.sampled_from(plain).map(lambda flag: [flag])
    chosen = draw(st.lists(st.one_of(words, more, more), max_size=5))
    options = [word for option in chosen for word in option]
    source = draw(st.sampled_from(_SOURCES))
    mode = draw(st.sampled_from([["-c"], ["-c"], ["-c"], ["-S"], ["-c", "-MD"], ["-c", "-g"]]))
    output = draw(st.sampled_from([[], ["-o", "build/out.o"], ["-o", "build/o ut.o"]]))
    plus = {Family.GCC: ("gcc", "g++"), Family.CLANG: ("clang", "clang++")}[family]
    driver = plus[draw(st.booleans())] if source.endswith((".c", ".cpp")) else plus[0]
    at = draw(st.integers(0, len(chosen)))
    before = [word for option in chosen[:at] for word in option]
    return Line((driver, *before, *mode, source, *output, *options[len(before) :]))
