"""What rows of the option table mean for a command: long spellings, extra outputs, extra inputs."""

import shlex

import pytest
from msgspec.structs import replace

from distbuild.command.model import CompileCommand, Local
from distbuild.command.parse import parse

CWD = "/home/u/app"


def parsed(line: str) -> CompileCommand | Local:
    return parse(shlex.split(line), CWD, lambda _: None)


LONG = [
    ("--compile --output=y.o", "-c -o y.o"),
    ("--compile --include-directory=d --include-directory-after e", "-c -Id -idirafter e"),
    ("-c --define-macro A=1 --undefine-macro=B", "-c -D A=1 -UB"),
    ("-c --write-dependencies -MF d", "-c -MD -MF d"),
    ("-c --write-user-dependencies", "-c -MMD"),
    ("--assemble --imacros=m --include f", "-S -imacros m -include f"),
    ("-c --language=c++", "-c -xc++"),
    ("-c --dumpdir d/ --output y.o", "-c -dumpdir d/ -o y.o"),
]


@pytest.mark.parametrize(("long", "short"), LONG)
def test_a_long_spelling_means_what_the_short_one_means(long, short):
    found, expected = (parsed(f"gcc {words} x.c") for words in (long, short))

    assert isinstance(found, CompileCommand)
    assert isinstance(expected, CompileCommand)
    assert found.needs_original_paths == expected.needs_original_paths
    found, expected = (replace(c, arguments=(), tied_by="") for c in (found, expected))
    assert found == expected


OUTPUTS = {
    "gcc -O2 -fopt-info-vec=o/v.txt": "o/v.txt",
    "gcc -fdump-rtl-all=o/d": "o/d",
    "gcc -aux-info=o/p": "o/p",
    "gcc -fprofile-note=o/n --coverage": "o/n",
    "clang -MJ o/j": "o/j",
    "clang -foptimization-record-file=o/r": "o/r",
    "clang -fthin-link-bitcode=o/t": "o/t",
}


@pytest.mark.parametrize("line", OUTPUTS)
def test_an_extra_output(line):
    command = parsed(f"{line} -c x.c -o x.o")

    assert isinstance(command, CompileCommand)
    assert command.output_files() == ("x.o", OUTPUTS[line])
    assert command.output_dirs == (CWD, f"{CWD}/o")
    assert command.needs_original_paths


@pytest.mark.parametrize(
    ("option", "unlisted"),
    [
        ("-fxray-always-instrument=l", False),
        ("-fxray-always-instrument= l", False),
        ("-fprofile-list=l", False),
        ("-fsanitize-ignorelist=l", False),
        ("-fsanitize-coverage-allowlist=l", True),
        ("-fbasic-block-sections=list=l", True),
        ("-fprofile-instr-use=l", True),
        ("-fprofile-sample-use=l", True),
        ("-fprofile-use=l", True),
    ],
)
def test_an_extra_input(option, unlisted):
    command = parsed(f"clang {option} -c x.c")

    assert isinstance(command, CompileCommand)
    assert command.input_files == ("l",)
    assert command.unlisted_files == (("l",) if unlisted else ())
    assert command.needs_original_paths
