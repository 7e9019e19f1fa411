"""Words handed on to another program: which of them are known, and which keep the command local."""

import shlex

import pytest

from distbuild.command.model import CompileCommand, Local, LocalReason
from distbuild.command.parse import parse

HARMLESS = [
    "gcc -Wp,-DA=1,-UB,-Wall",
    "gcc -Xpreprocessor -fopenmp",
    "gcc -Wa,--noexecstack,-mtune=generic64",
    "gcc -Wa,-I,dir,-Idir,--defsym,x=1",
    "gcc -Xassembler --compress-debug-sections=zlib",
    "gcc --for-assembler=--noexecstack",
    "clang -Xclang -Wno-x",
    "clang -Xclang -target-feature -Xclang +avx2",
    "clang -Xclang -mllvm -Xclang -inline-threshold=2",
    "clang -mllvm -inline-threshold=2",
    "clang -mllvm -sample-profile-inline-size",
]


@pytest.mark.parametrize("line", HARMLESS)
def test_known_words_are_distributed(line: str) -> None:
    command = parse([*shlex.split(line), "-c", "x.c"], "/w", lambda _: None)
    assert isinstance(command, CompileCommand)


@pytest.mark.parametrize("words", ["-Wa,-gdwarf-2", "-Wa,-I,dir,--gdwarf-5", "-Xassembler -g"])
@pytest.mark.parametrize("source", ["x.S", "x.s", "-x assembler-with-cpp x.c"])
def test_line_numbers_of_assembler_sources_need_the_original_paths(words: str, source: str) -> None:
    command = parse(["gcc", *words.split(), "-c", *source.split()], "/w", lambda _: None)
    assert isinstance(command, CompileCommand)
    assert command.needs_original_paths


UNSUPPORTED, CODE = LocalReason.UNSUPPORTED_OPTION, LocalReason.RUNS_OTHER_CODE
LOCAL = {
    "gcc -Wa,-a": UNSUPPORTED,
    "gcc -Wa,-ahl=x.lst": UNSUPPORTED,
    "clang -mllvm --help": LocalReason.INFORMATION,
    "clang -mllvm -version": LocalReason.INFORMATION,
    "clang -Xclang -mllvm -Xclang -help-list": LocalReason.INFORMATION,
    "gcc -Wa,-MD,x.d": UNSUPPORTED,
    "gcc -Wa,--MD=x.d": UNSUPPORTED,
    "gcc -Wa,-g": UNSUPPORTED,
    "gcc -Wa,-gdwarf-5,-al": UNSUPPORTED,
    "gcc -Xassembler -gdwarf-2": UNSUPPORTED,
    "gcc -Wa,-o,x": UNSUPPORTED,
    "gcc -Wa,other.s": UNSUPPORTED,
    "gcc -Wa,-I": UNSUPPORTED,
    "gcc -Wa,--noexecstack,@file": UNSUPPORTED,
    "gcc -Xassembler -I -Xassembler dir": UNSUPPORTED,
    "gcc -Xassembler -al": UNSUPPORTED,
    "gcc --for-assembler -al": UNSUPPORTED,
    "gcc -Wp,-MT,x": UNSUPPORTED,
    "gcc -Wp,-include,x.h": UNSUPPORTED,
    "gcc -Wp,-dM": UNSUPPORTED,
    "gcc -Xpreprocessor -MD": UNSUPPORTED,
    "gcc -Xpreprocessor -Idir": UNSUPPORTED,
    "clang -Xclang -ast-dump": UNSUPPORTED,
    "clang -Xclang +avx2": UNSUPPORTED,
    "clang -Xclang -target-cpu -Xclang /x": UNSUPPORTED,
    "clang -Xclang -target-cpu -O2 -Xclang native": UNSUPPORTED,
    "clang -Xclang -mllvm -Xclang -load=x.so": CODE,
    "clang -mllvm -sample-profile-file=x": UNSUPPORTED,
    "clang -mllvm -pass-remarks-output=x": UNSUPPORTED,
    "clang -mllvm -info-output-file=x": UNSUPPORTED,
    "clang -mllvm -cgscc-inline-replay=x": UNSUPPORTED,
    "clang -mllvm -dot-cfg-dir=x": UNSUPPORTED,
}


@pytest.mark.parametrize("line", LOCAL)
def test_other_words_stay_local(line: str) -> None:
    found = parse([*shlex.split(line), "-c", "x.c"], "/w", lambda _: None)
    assert isinstance(found, Local)
    assert found.reason is LOCAL[line]


def test_a_value_for_clangs_inside_might_name_a_file() -> None:
    words = ["clang", "-mllvm", "-new=x", "-Xclang", "-debug-info-kind=limited", "-c", "x.c"]
    command = parse(words, "/w", lambda _: None)
    assert isinstance(command, CompileCommand)
    assert command.guessed == ("-new=x", "-debug-info-kind=limited")
