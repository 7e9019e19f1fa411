"""Command lines of clang-cl that nobody would write, for hypothesis."""

import re
import subprocess

from hypothesis import strategies as st

from distbuild.command.cl.rows import _CORE, _ROWS
from distbuild.command.model import Family, LocalReason, Role
from distbuild.command.options import Option, ValueForm
from tests.support.differential import Line

_LEFT_OUT = frozenset(
    (
        LocalReason.INFORMATION,
        LocalReason.RUNS_OTHER_CODE,
        LocalReason.PREPROCESS_ONLY,
        LocalReason.LINK,
    )
)
_SOURCES = [
    *"src/main.c src/second.c src/empty.c src/main.cpp src/once.c src/pragma.c".split(),
    *("src/with space.c", "src/quote'd.c", "src/größe.c", "src/per%cent.c", "src/dotted.name.c"),
]
_VALUES = {
    Role.INPUT_FILE: ["forced.h", "include/forced_too.h", "absent.h", "include"],
    Role.INPUT_DIR: ["include", "sys", "absent", ".", "..", "in clude", "include/nested", "/usr"],
    Role.OUTPUT_FILE: ["build/out", "build/", "out put/a b.obj", "absent/x", "x.out", ""],
    Role.NONE: ["", "1", "0", "4", "c++17", "c11", "NAME=3", "LIB", "WARN", "BROKEN", "fast", "é"],
}
_FLAG = re.compile(r"^\s+(/[\w:+-]+|-[fgm][\w-]+)(?=\s)", re.MULTILINE)
#: They ask, stop, or write to where no compile does.
_NEVER = re.compile(r"/(?:\?|help|E|EP|P|link)$|-fcrash|-fsyntax|-ftime-report|-fmodule|-flto")


def flags(compiler: str) -> list[str]:
    """The options without a value that the installed compiler itself reports."""
    said = subprocess.run([compiler, "/?"], capture_output=True, text=True, check=True).stdout
    return sorted({flag for flag in _FLAG.findall(said) if not _NEVER.match(flag)})


def _known() -> list[Option]:
    return [
        row
        for row in (*_ROWS, *_CORE)
        if row.only in (None, Family.CLANG_CL)
        and row.verdict not in _LEFT_OUT
        and not _NEVER.match("/" + row.spelling[1:])
    ]


@st.composite
def _row_words(draw: st.DrawFn) -> list[str]:
    row = draw(st.sampled_from(_known()))
    name = draw(st.sampled_from("/-")) + row.spelling[1:]
    if row.shape is ValueForm.FLAG:
        return [name]
    value = draw(st.sampled_from(_VALUES[row.role]))
    if row.shape is ValueForm.EITHER and value and draw(st.booleans()):
        return [name, value]
    return [name + value] if row.shape in (ValueForm.JOINED, ValueForm.EITHER) else [name, value]


@st.composite
def lines(draw: st.DrawFn, compiler: str, plain: list[str]) -> Line:
    """One command line; ``plain``: options that the compiler reports."""
    more = st.sampled_from(plain).map(lambda flag: [flag])
    chosen = draw(st.lists(st.one_of(_row_words(), more, more), max_size=5))
    source = draw(st.sampled_from(_SOURCES))
    mode = draw(st.sampled_from([["/c"], ["-c"], ["/c", "/Z7"], ["/c", "/showIncludes"]]))
    output = draw(st.sampled_from([[], ["/Fobuild/"], ["/Foout put/a.obj"], ["-o", "build/x"]]))
    at = draw(st.integers(0, len(chosen)))
    before = [word for option in chosen[:at] for word in option]
    after = [word for option in chosen[at:] for word in option]
    # What has a time in it never equals itself.
    return Line((compiler, "/Brepro", *before, *mode, source, *output, *after))
