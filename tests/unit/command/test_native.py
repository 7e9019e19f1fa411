"""What -march=native means: told by one compiler, said to another, with the same bytes."""

import subprocess
from pathlib import Path

import pytest

from distbuild.command import native
from distbuild.command.model import CompileCommand, Family
from distbuild.command.parse import parse
from tests.support.tools import need

SOURCE = "int sum(int *a, int n) { int s = 0; for (int i = 0; i < n; i++) s += a[i]; return s; }\n"
SPECS = "*cc1_cpu:\n%{march=native:%>march=native %:local_cpu_detect(arch)}\n\n"
GCC_SAYS = (
    'COLLECT_GCC=gcc\n cc1 -quiet /dev/null "-march=zen" -mavx --param {} -quiet -dumpbase x\n'
)
CLANG_SAYS = ' "clang" "-cc1" "-target-cpu" "zen" "-target-feature" "+avx" "-x" "c" "/dev/null"\n'


def command_of(line: str) -> CompileCommand:
    command = parse(line.split(), "/w", lambda _: None)
    assert isinstance(command, CompileCommand)
    return command


def test_only_native_processors_are_asked_for():
    assert native.is_wanted(command_of("gcc -march=native -c x.c"))
    assert native.is_wanted(command_of("gcc -mtune=native -c x.c"))
    assert not native.is_wanted(command_of("gcc -march=haswell -c x.c -DX=-march=native"))


def test_a_probe_has_what_the_answer_depends_on():
    command = command_of("gcc -O2 -g -m32 -march=native -DX -c x.c")

    assert native.probe(command) == (
        *("-m32", "-march=native", "-###", "-x", "c", "-c", "/dev/null"),
    )


def test_gcc_s_answer():
    words = native.parse_probe(GCC_SAYS.format("l1-cache-size=32"), SPECS, Family.GCC)

    assert words == ("-march=zen", "-mavx", "--param", "l1-cache-size=32")


@pytest.mark.parametrize(
    ("said", "specs"),
    [
        (GCC_SAYS.format("l1-cache-size=32"), "*cc1_cpu:\n\n"),
        (GCC_SAYS.format("l1-cache-size=32"), ""),
        (GCC_SAYS.format("-wrapper"), SPECS),
        ("", SPECS),
        (' "unfinished /dev/null', SPECS),
    ],
)
def test_an_answer_that_is_not_understood(said, specs):
    assert native.parse_probe(said, specs, Family.GCC) is None


def test_clang_s_answer_and_what_is_made_of_it():
    words = native.parse_probe(CLANG_SAYS, "", Family.CLANG)
    assert words is not None

    told = native.applied(command_of("clang -march=native -c x.c"), words, "")

    assert told.argv() == (
        ["clang", "-march=zen", "-c", "x.c", "-Xclang", "-target-feature", "-Xclang", "+avx"]
    )


@pytest.mark.parametrize(
    ("words", "family"),
    [
        (["-march=zen", "-fplugin=x"], Family.GCC),
        (["-mavx", "%(evil)"], Family.GCC),
        (["-m x"], Family.GCC),
        (["-mavx\n*cc1:"], Family.GCC),
        (["-mavx"] * 5000, Family.GCC),
        (["-target-cpu"], Family.CLANG),
        (["-load", "x.so"], Family.CLANG),
        (["-target-feature", "-load"], Family.GCC),
        (["-target-cpu", "-load"], Family.CLANG),
    ],
)
def test_words_from_the_network_are_nothing_but_a_processor(words, family):
    with pytest.raises(ValueError, match="processor"):
        native.checked(words, family)


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("compiler", "line"),
    [
        (compiler, line)
        for compiler in ("gcc", "clang")
        for line in (
            "-march=native -g -O3",
            "-g -O2 -mtune=native",
            "-O3 -mno-avx -march=native -mtune=generic -g",
            "-march=haswell -march=native -O3",
            "-march=native -flto -frandom-seed=1 -O2",
        )
    ],
)
def test_the_object_is_the_native_one(tmp_path: Path, compiler: str, line: str):
    need(compiler)
    (tmp_path / "x.c").write_text(SOURCE)
    command = command_of(f"{compiler} {line} -c x.c -o x.o")

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([compiler, *words], capture_output=True, text=True, check=False)

    def object_of(argv: list[str]) -> bytes:
        subprocess.run(argv, cwd=tmp_path, check=True)
        return (tmp_path / "x.o").read_bytes()

    said = ask(*native.probe(command)).stderr
    words = native.parse_probe(said, ask("-dumpspecs").stdout, command.family)
    assert words
    assert native.checked(words, command.family) == words
    (tmp_path / "specs").write_text(native.specs_text(words))

    told = native.applied(command, words, str(tmp_path / "specs"))

    assert object_of(told.argv()) == object_of(command.argv())
