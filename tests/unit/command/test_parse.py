"""Command lines as values: argv => CompileCommand, or the reason why it stays local."""

import functools
import shlex

import pytest

from distbuild.command.model import (
    Argument,
    CompileCommand,
    Dependencies,
    Family,
    Local,
    LocalReason,
    Role,
)
from distbuild.command.parse import parse, render

CWD = "/home/u/app"
C, OUT, DIR, FILE = Argument("-c"), Role.OUTPUT_FILE, Role.INPUT_DIR, Role.INPUT_FILE
FILES = {f"{CWD}/args": b"-DX='a b' @more", f"{CWD}/more": b"x.c -c"}
FILES |= {f"{CWD}/empty": b"", f"{CWD}/units": b"-fmodule-file=m=m.pcm\n"}


def _source(name: str) -> Argument:
    return Argument("", name, role=Role.SOURCE)


def _command(*arguments: Argument, **more) -> CompileCommand:
    """`gcc ARGUMENTS` in CWD, compiling x.c to x.o, but for what ``more`` says."""
    fields = {
        "family": Family.GCC,
        "compiler": "gcc",
        "arguments": arguments,
        "cwd": CWD,
        "source": "x.c",
        "language": "c",
        "output": "x.o",
        "search_dirs": (),
        "input_files": (),
        "dependencies": None,
        "output_dirs": (CWD,),
        "tied_by": "",
    }
    return CompileCommand(**{**fields, **more})


def _parse(line: str) -> CompileCommand | Local:
    return parse(shlex.split(line), CWD, FILES.get)


PASSED = functools.partial(Argument, "-Xclang", separate=True)
READS_MODULE = {
    "family": Family.CLANG,
    "compiler": "clang++",
    "input_files": ("m.pcm",),
    "unlisted_files": ("m.pcm",),
}
COMMANDS = {
    "gcc -c x.c": _command(C, _source("x.c")),
    "gcc -MD -fmodules-ts -fmodule-mapper=o/m -fdeps-format=p1689r5 -xc++ -o x.o -c x.c": _command(
        Argument("-MD"),
        Argument("-fmodules-ts"),
        Argument("-fmodule-mapper=", "o/m", role=Role.MODULE_MAPPER),
        Argument("-fdeps-format=", "p1689r5"),
        Argument("-x", "c++"),
        Argument("-o", "x.o", separate=True, role=OUT),
        C,
        _source("x.c"),
        language="c++",
        dependencies=Dependencies(True, "x.d"),
        tied_by="-fmodules-ts",
    ),
    "clang++ @units -fmodule-output=x.pcm -c x.cc": _command(
        Argument("-fmodule-file=m=", "m.pcm", role=Role.UNLISTED_FILE, same_as="-fmodule-file="),
        Argument("-fmodule-output=", "x.pcm", role=OUT),
        C,
        _source("x.cc"),
        source="x.cc",
        language="c++",
        tied_by="-fmodule-file=m=m.pcm",
        **READS_MODULE,
    ),
    "clang++ -fmodule-file=m.pcm -c x.cppm": _command(
        Argument("-fmodule-file=", "m.pcm", role=Role.UNLISTED_FILE),
        C,
        _source("x.cppm"),
        source="x.cppm",
        language="c++-module",
        tied_by="-fmodule-file=m.pcm",
        **READS_MODULE,
    ),
    "clang++ -x c++-module -c x.c": _command(
        Argument("-x", "c++-module", separate=True),
        C,
        _source("x.c"),
        family=Family.CLANG,
        compiler="clang++",
        language="c++-module",
        tied_by="the language c++-module",
    ),
    "clang -Xclang -include-pch -Xclang p.pch -Xclang -include -Xclang h -c x.c": _command(
        PASSED("-include-pch"),
        PASSED("p.pch", role=Role.UNLISTED_FILE),
        PASSED("-include"),
        PASSED("h", role=Role.INPUT_FILE),
        C,
        _source("x.c"),
        family=Family.CLANG,
        compiler="clang",
        input_files=("p.pch", "h"),
        unlisted_files=("p.pch",),
        tied_by="-include-pch",
    ),
    "clang++ -Xclang -emit-pch -x c++-header -o h.pch -c h.cc": _command(
        PASSED("-emit-pch"),
        Argument("-x", "c++-header", separate=True),
        Argument("-o", "h.pch", separate=True, role=OUT),
        C,
        _source("h.cc"),
        family=Family.CLANG,
        compiler="clang++",
        source="h.cc",
        output="h.pch",
        language="c++",
        tied_by="the paths in a precompiled header",
    ),
    "clang++ -x c++-module -c x.cc -o x.o -fmodule-output=n.pcm @units": _command(
        Argument("-x", "c++-module", separate=True),
        C,
        _source("x.cc"),
        Argument("-o", "x.o", separate=True, role=OUT),
        Argument("-fmodule-output=", "n.pcm", role=OUT),
        Argument("-fmodule-file=m=", "m.pcm", role=Role.UNLISTED_FILE, same_as="-fmodule-file="),
        source="x.cc",
        language="c++-module",
        tied_by="-fmodule-output=n.pcm",
        **READS_MODULE,
    ),
    "clang @empty -c x.c": _command(C, _source("x.c"), family=Family.CLANG, compiler="clang"),
    "gcc -fdebug-prefix-map=/=/root -c x.c": _command(
        Argument("-fdebug-prefix-map=", "/=/root", role=Role.PREFIX_MAP),
        C,
        _source("x.c"),
        tied_by="a path that is mapped twice",
    ),
    "/usr/bin/x86_64-linux-gnu-g++-12 -xc++ -c lib/x.c -oobj/x.o": _command(
        Argument("-x", "c++"),
        C,
        _source("lib/x.c"),
        Argument("-o", "obj/x.o", role=OUT),
        compiler="/usr/bin/x86_64-linux-gnu-g++-12",
        source="lib/x.c",
        language="c++",
        output="obj/x.o",
        output_dirs=(f"{CWD}/obj",),
    ),
    "gcc -I a -I/b -isystem c -iquoted -include e.h -imacros /f.h --sysroot=/s -c x.c": _command(
        Argument("-I", "a", separate=True, role=DIR),
        Argument("-I", "/b", role=DIR),
        Argument("-isystem", "c", separate=True, role=DIR),
        Argument("-iquote", "d", role=DIR),
        Argument("-include", "e.h", separate=True, role=FILE),
        Argument("-imacros", "/f.h", separate=True, role=FILE),
        Argument("--sysroot=", "/s", role=DIR, same_as="--sysroot"),
        C,
        _source("x.c"),
        search_dirs=("a", "/b", "c", "d", "/s"),
        input_files=("e.h", "/f.h"),
    ),
    "gcc -MMD -MP -MF ../d/x.dep -MT t -c x.c -o /o/x.o -O2 -Wall": _command(
        Argument("-MMD"),
        Argument("-MP"),
        Argument("-MF", "../d/x.dep", separate=True, role=OUT),
        Argument("-MT", "t", separate=True),
        C,
        _source("x.c"),
        Argument("-o", "/o/x.o", separate=True, role=OUT),
        Argument("-O2"),
        Argument("-Wall"),
        output="/o/x.o",
        dependencies=Dependencies(system=False, path="../d/x.dep"),
        output_dirs=(f"{CWD}/../d", "/o"),
    ),
    "clang++ -MD -c a.b.cc": _command(
        Argument("-MD"),
        C,
        _source("a.b.cc"),
        family=Family.CLANG,
        compiler="clang++",
        source="a.b.cc",
        language="c++",
        output="a.b.o",
        dependencies=Dependencies(system=True, path="a.b.d"),
    ),
    "gcc -Wp,-MD,.deps/x.d -c x.c -o obj/x": _command(
        Argument("-Wp,", "-MD,.deps/x.d"),
        C,
        _source("x.c"),
        Argument("-o", "obj/x", separate=True, role=OUT),
        output="obj/x",
        dependencies=Dependencies(system=True, path=".deps/x.d"),
        output_dirs=(f"{CWD}/.deps", f"{CWD}/obj"),
    ),
    "gcc @args": _command(Argument("-D", "X=a b"), _source("x.c"), C),
    "gcc -S x.c": _command(Argument("-S"), _source("x.c"), output="x.s"),
    "gcc -c -x c++ -x none x.c": _command(
        C,
        Argument("-x", "c++", separate=True),
        Argument("-x", "none", separate=True),
        _source("x.c"),
    ),
    "clang -c -- x.c": _command(
        C, Argument("--"), _source("x.c"), family=Family.CLANG, compiler="clang"
    ),
    "gcc -gsplit-dwarf -c x.c -o o/x.o": _command(
        Argument("-gsplit-dwarf"),
        C,
        _source("x.c"),
        Argument("-o", "o/x.o", separate=True, role=OUT),
        output="o/x.o",
        output_dirs=(CWD, f"{CWD}/o"),
        tied_by="-gsplit-dwarf",
    ),
    "gcc -isystem=/inc --sysroot /s -c x.c": _command(
        Argument("-isystem", "=/inc", role=DIR),
        Argument("--sysroot", "/s", separate=True, role=DIR),
        C,
        _source("x.c"),
        search_dirs=("/s/inc", "/s"),
        tied_by="-isystem=/inc",
    ),
    "gcc -ffile-prefix-map=/home/u=. -c x.c": _command(
        Argument("-ffile-prefix-map=", "/home/u=.", role=Role.PREFIX_MAP), C, _source("x.c")
    ),
    "gcc -c x.c --param max-inline=1 --param=a=b -Xlinker -z -L /l -lm -l m -u s": _command(
        C,
        _source("x.c"),
        Argument("--param", "max-inline=1", separate=True),
        Argument("--param=", "a=b"),
        Argument("-Xlinker", "-z", separate=True),
        Argument("-L", "/l", separate=True),
        Argument("-l", "m"),
        Argument("-l", "m", separate=True),
        Argument("-u", "s", separate=True),
    ),
}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_distributable_command(line):
    assert _parse(line) == COMMANDS[line]


NEED_ORIGINAL_PATHS = [
    "gcc -gbtf -c x.c",
    "gcc -g -gctf2 -c x.c",
    "gcc -c x.i",
    "gcc -c x.c --coverage",
    "gcc -c x.c -fprofile-arcs -ftest-coverage",
    "gcc -c x.c -save-temps=obj",
    "gcc -c x.c -fstack-usage",
    "gcc -c x.c -fdump-tree-all",
    "gcc -c x.c -dumpdir d/ -o x.o",
    "gcc -c x.c -aux-info protos",
    "gcc -c x.c -flto=auto",
    "gcc -c x.c -fsanitize=address",
    "gcc -c x.c -ffile-prefix-map==x",
    "gcc -c x.c -I../../../../etc",
    "gcc -c ../../../../x.c",
    "clang -c x.S",
    "clang -c x.c -fdebug-prefix-map=/a=b",
    "clang -c x.c -ftime-trace",
    "clang -c x.c --serialize-diagnostics x.dia",
    "clang -c x.c -fsanitize-ignorelist=list",
]


@pytest.mark.parametrize("line", NEED_ORIGINAL_PATHS)
def test_a_command_that_is_exact_only_at_its_own_paths(line):
    command = _parse(line)

    assert isinstance(command, CompileCommand)
    assert command.needs_original_paths


LOCAL = {
    "ld -c x.c": Local(LocalReason.NOT_A_COMPILER, "ld"),
    "clang-format x.c": Local(LocalReason.NOT_A_COMPILER, "clang-format"),
    "gcc-ar x.c": Local(LocalReason.NOT_A_COMPILER, "gcc-ar"),
    "gcc": Local(LocalReason.NO_SOURCE),
    "gcc -c": Local(LocalReason.NO_SOURCE),
    "gcc x.c": Local(LocalReason.LINK),
    "clang++ --precompile x.cppm -o x.pcm": Local(LocalReason.MODULES, "--precompile"),
    "clang++ -fmodules x.cc -o x": Local(LocalReason.LINK),
    "gcc x.o y.o -o p -march=native --no-such": Local(LocalReason.LINK),
    "gcc --version": Local(LocalReason.INFORMATION, "--version"),
    "gcc -print-prog-name=as": Local(LocalReason.INFORMATION, "-print-prog-name=as"),
    "gcc -dumpmachine": Local(LocalReason.INFORMATION, "-dumpmachine"),
    "gcc -v -c x.c": Local(LocalReason.INFORMATION, "-v"),
    "gcc -### -c x.c": Local(LocalReason.INFORMATION, "-###"),
    "gcc -E x.c -march=native": Local(LocalReason.PREPROCESS_ONLY, "-E"),
    "gcc -M x.c": Local(LocalReason.DEPENDENCIES_ONLY, "-M"),
    "gcc -MM -MF d -MG x.c": Local(LocalReason.DEPENDENCIES_ONLY, "-MM"),
    "gcc -c -": Local(LocalReason.STDIN),
    "gcc -xc -c - -o x.o": Local(LocalReason.STDIN),
    "gcc -c x.c -o -": Local(LocalReason.STDOUT, "-o"),
    "gcc -c x.c -MD -MF -": Local(LocalReason.STDOUT, "-MF"),
    "gcc -c x.c -o /dev/null": Local(LocalReason.OUTPUT_SPECIAL, "/dev/null"),
    "gcc -c x.c -o /dev/shm/../null": Local(LocalReason.OUTPUT_SPECIAL, "/dev/shm/../null"),
    "gcc -c x.c -o /proc/self/cwd/x.o": Local(LocalReason.OUTPUT_SPECIAL, "/proc/self/cwd"),
    "gcc -c x.c -MD -MF //proc/1/x.d": Local(LocalReason.OUTPUT_SPECIAL, "/proc/1"),
    "gcc -c x.c -o ../../../dev/fd/3": Local(LocalReason.OUTPUT_SPECIAL, f"{CWD}/../../../dev/fd"),
    "gcc -c x.c -o x.o -dumpdir /proc/self/cwd/": Local(
        LocalReason.OUTPUT_SPECIAL, "/proc/self/cwd"
    ),
    "gcc -c -xc /dev/stdin": Local(LocalReason.SPECIAL_INPUT, "/dev/stdin"),
    "gcc -c x.c -include /dev/fd/63": Local(LocalReason.SPECIAL_INPUT, "/dev/fd/63"),
    "gcc -c x.c -I../../../proc/self/cwd": Local(
        LocalReason.SPECIAL_INPUT, f"{CWD}/../../../proc/self/cwd"
    ),
    "clang -c x.c -isystem /proc": Local(LocalReason.SPECIAL_INPUT, "/proc"),
    "gcc @/dev/fd/63": Local(LocalReason.RESPONSE_FILE, "@/dev/fd/63"),
    "clang-cl /c x.c /FI/proc/self/cwd/f.h": Local(LocalReason.SPECIAL_INPUT, "/proc/self/cwd/f.h"),
    "clang-cl @/dev/stdin": Local(LocalReason.RESPONSE_FILE, "@/dev/stdin"),
    "clang-cl /c x.c /Fo/proc/self/cwd/x.obj": Local(
        LocalReason.OUTPUT_SPECIAL, "/proc/self/cwd/x.obj"
    ),
    "gcc -c x.c -MD -MF x.o -o ./x.o": Local(LocalReason.OUTPUT_SPECIAL, "x.o"),
    "gcc -c x.c -MD -MF x.o": Local(LocalReason.OUTPUT_SPECIAL, "x.o"),
    "gcc -c x.c -MD -MF x.c": Local(LocalReason.OUTPUT_SPECIAL, "x.c"),
    "gcc -c x.c -aux-info p/../x.o": Local(LocalReason.OUTPUT_SPECIAL, "p/../x.o"),
    "gcc -c x.c -aux-info p.h -MD -MF p.h": Local(LocalReason.OUTPUT_SPECIAL, "p.h"),
    "gcc -c x.c -o x.c": Local(LocalReason.OUTPUT_SPECIAL, "x.c"),
    "clang -c x.c --serialize-diagnostics x.o": Local(LocalReason.OUTPUT_SPECIAL, "x.o"),
    "gcc -c x.c -o x.o -o y.o": Local(LocalReason.UNSUPPORTED_OPTION, "-o"),
    "clang -c x.c --output=x.o -ox.o": Local(LocalReason.UNSUPPORTED_OPTION, "-o"),
    "gcc -c x.c y.c": Local(LocalReason.SEVERAL_SOURCES, "y.c"),
    "gcc -c x.o": Local(LocalReason.UNKNOWN_LANGUAGE, "x.o"),
    "gcc -c x.f90": Local(LocalReason.UNKNOWN_LANGUAGE, "x.f90"),
    "gcc -xada -c x.c": Local(LocalReason.UNKNOWN_LANGUAGE, "ada"),
    "gcc -c x.h": Local(LocalReason.PRECOMPILED_HEADER, "x.h"),
    "g++ x.hpp": Local(LocalReason.PRECOMPILED_HEADER, "x.hpp"),
    "gcc -xc-header -c x.c": Local(LocalReason.PRECOMPILED_HEADER, "c-header"),
    "gcc -c conftest.c": Local(LocalReason.PROBE, "conftest.c"),
    "gcc -c build/meson-private/tmp1/testfile.c": Local(
        LocalReason.PROBE, "build/meson-private/tmp1/testfile.c"
    ),
    "gcc -c /b/CMakeFiles/CMakeScratch/TryCompile-a1/src.c": Local(
        LocalReason.PROBE, "/b/CMakeFiles/CMakeScratch/TryCompile-a1/src.c"
    ),
    "gfortran -c x.f90": Local(LocalReason.OTHER_LANGUAGE, "gfortran"),
    "/usr/bin/gnatmake-12 x.adb": Local(LocalReason.OTHER_LANGUAGE, "/usr/bin/gnatmake-12"),
    "gcc -S x.S": Local(LocalReason.UNSUPPORTED_OPTION, "-S"),
    "gcc -fmodules-ts -c x.cc": Local(LocalReason.MODULES, "-fmodules-ts"),
    "gcc -fmodules -c x.cc": Local(LocalReason.MODULES, "-fmodules"),
    "gcc -fmodule-only -fmodule-mapper=m -c x.cc": Local(LocalReason.MODULES, "-fmodule-only"),
    "gcc -fmodules-ts -fmodule-mapper=|m -c x.cc": Local(LocalReason.MODULES, "-fmodules-ts"),
    "gcc -fmodules-ts -fmodule-mapper=<3 -c x.cc": Local(LocalReason.MODULES, "-fmodules-ts"),
    "gcc -fmodules-ts -fmodule-mapper==s -c x.cc": Local(LocalReason.MODULES, "-fmodules-ts"),
    "gcc -fmodules-ts -fmodule-mapper=@m -c x.cc": Local(LocalReason.MODULES, "-fmodules-ts"),
    "gcc -fmodules-ts -fmodule-mapper=h:1 -c x.cc": Local(LocalReason.MODULES, "-fmodules-ts"),
    "gcc -fmodules-ts -fmodule-mapper=m?i -c x.cc": Local(LocalReason.MODULES, "-fmodules-ts"),
    "gcc -fmodules-ts -fmodule-mapper= -c x.cc": Local(LocalReason.MODULES, "-fmodules-ts"),
    "gcc -fmodules-ts -fmodule-mapper=/dev/fd/3 -c x.cc": Local(
        LocalReason.SPECIAL_INPUT, "/dev/fd/3"
    ),
    # An error of gcc, which an added -MD would hide.
    "gcc -fmodules-ts -fmodule-mapper=m -fdeps-format=p1689r5 -c x.cc": Local(
        LocalReason.MODULES, "-fmodules-ts"
    ),
    "gcc -MD -fdeps-format=p1689r5 -fdeps-file=x.ddi -fmodules-ts -E x.cc": Local(
        LocalReason.PREPROCESS_ONLY, "-E"
    ),
    "clang-scan-deps-19 -format=p1689 -- clang++ -c x.cc -o x.o": Local(
        LocalReason.PREPROCESS_ONLY, "clang-scan-deps-19"
    ),
    "clang++ -fmodules-ts -fmodule-mapper=m -c x.cc": Local(LocalReason.MODULES, "-fmodules-ts"),
    "g++ -fmodule-file=m=m.pcm -c x.cc": Local(LocalReason.MODULES, "-fmodule-file=m=m.pcm"),
    "g++ -x c++-module -c x.cc": Local(LocalReason.MODULES, "c++-module"),
    "g++ -c x.cppm": Local(LocalReason.MODULES, "x.cppm"),
    "clang++ -x c++-user-header -c x.h": Local(LocalReason.PRECOMPILED_HEADER, "c++-user-header"),
    "clang++ -fmodule-file=m=/proc/self/m.pcm -c x.cc": Local(
        LocalReason.SPECIAL_INPUT, "/proc/self/m.pcm"
    ),
    "clang++ -x c++-user-header -c x.h -o x.pcm": Local(
        LocalReason.PRECOMPILED_HEADER, "c++-user-header"
    ),
    "clang -fmodules -c x.c": Local(LocalReason.MODULES, "-fmodules"),
    "clang -fmodule-map-file=m -c x.c": Local(LocalReason.MODULES, "-fmodule-map-file=m"),
    "gcc -mcpu=native -c x.c": Local(LocalReason.NATIVE_TARGET, "-mcpu=native"),
    "gcc -fprofile-use -c x.c": Local(LocalReason.PROFILE_USE, "-fprofile-use"),
    "gcc -fprofile-use=p -c x.c": Local(LocalReason.PROFILE_USE, "-fprofile-use=p"),
    "gcc -fauto-profile -c x.c": Local(LocalReason.PROFILE_USE, "-fauto-profile"),
    "clang -fprofile-use -c x.c": Local(LocalReason.PROFILE_USE, "-fprofile-use"),
    "gcc -fplugin=p.so -c x.c": Local(LocalReason.RUNS_OTHER_CODE, "-fplugin=p.so"),
    "gcc -specs=s -c x.c": Local(LocalReason.RUNS_OTHER_CODE, "-specs=s"),
    "gcc -B /b -c x.c": Local(LocalReason.RUNS_OTHER_CODE, "-B"),
    "gcc -B/b -c x.c": Local(LocalReason.RUNS_OTHER_CODE, "-B/b"),
    "gcc -wrapper gdb,--args -c x.c": Local(LocalReason.RUNS_OTHER_CODE, "-wrapper"),
    "clang -Xclang -load -Xclang p.so -c x.c": Local(LocalReason.RUNS_OTHER_CODE, "-Xclang -load"),
    "clang -mllvm -load=p.so -c x.c": Local(LocalReason.RUNS_OTHER_CODE, "-mllvm -load=p.so"),
    "clang -Xclang -emit-pch -c x.c": Local(LocalReason.UNSUPPORTED_OPTION, "-emit-pch"),
    "clang -x c-header -c x.h": Local(LocalReason.PRECOMPILED_HEADER, "c-header"),
    "clang -x c-header -S x.h -o y": Local(LocalReason.PRECOMPILED_HEADER, "c-header"),
    "gcc -x c-header -c x.h -o x.gch": Local(LocalReason.PRECOMPILED_HEADER, "c-header"),
    "clang -Xclang -include-pch -DA -Xclang x.pch -c x.c": Local(
        LocalReason.UNSUPPORTED_OPTION, "-Xclang x.pch"
    ),
    "clang -ivfsoverlay y -c x.c": Local(LocalReason.UNSUPPORTED_OPTION, "-ivfsoverlay"),
    "gcc -iwithprefix d -iprefix p -c x.c": Local(LocalReason.UNSUPPORTED_OPTION, "-iwithprefix"),
    "gcc -fsyntax-only -MD x.c": Local(LocalReason.UNSUPPORTED_OPTION, "-MD"),
    "gcc -fsyntax-only x.S": Local(LocalReason.UNSUPPORTED_OPTION, "-fsyntax-only"),
    "gcc -fsyntax-only x.c y.c": Local(LocalReason.SEVERAL_SOURCES, "y.c"),
    "clang -arch arm64 -c x.c": Local(LocalReason.UNSUPPORTED_OPTION, "-arch"),
    "gcc -ftime-report -c x.c": Local(LocalReason.INFORMATION, "-ftime-report"),
    "clang -fproc-stat-report=p -c x.c": Local(LocalReason.INFORMATION, "-fproc-stat-report=p"),
    "clang --config c -c x.c": Local(LocalReason.RUNS_OTHER_CODE, "--config"),
    "gcc -march=native+crc -c x.c": Local(LocalReason.NATIVE_TARGET, "-march=native+crc"),
    "clang -frewrite-map-file=m -c x.c": Local(
        LocalReason.UNSUPPORTED_OPTION, "-frewrite-map-file=m"
    ),
    "gcc -fopt-info-vec=/dev/null -c x.c": Local(LocalReason.OUTPUT_SPECIAL, "/dev/null"),
    "clang -MJ - -c x.c": Local(LocalReason.STDOUT, "-MJ"),
    "gcc -Wa,-al=x.lst -c x.c": Local(LocalReason.UNSUPPORTED_OPTION, "-Wa,-al=x.lst"),
    "gcc -Wp,-I,d -c x.c": Local(LocalReason.UNSUPPORTED_OPTION, "-Wp,-I,d"),
    "gcc -Wp,-MD,a -MD -c x.c": Local(LocalReason.UNSUPPORTED_OPTION, "-Wp,-MD"),
    "gcc -MT t -c x.c": Local(LocalReason.UNSUPPORTED_OPTION, "-MT"),
    "gcc -MD -MG -c x.c": Local(LocalReason.UNSUPPORTED_OPTION, "-MG"),
    "gcc -c x.c --no-such": Local(LocalReason.UNSUPPORTED_OPTION, "--no-such"),
    "gcc -c x.c -o": Local(LocalReason.UNSUPPORTED_OPTION, "-o"),
    "gcc -c -S x.c": Local(LocalReason.UNSUPPORTED_OPTION, "-S"),
    "gcc -c -I- x.c": Local(LocalReason.UNSUPPORTED_OPTION, "-I-"),
    "gcc -c @none": Local(LocalReason.UNKNOWN_LANGUAGE, "@none"),
}


@pytest.mark.parametrize("line", LOCAL)
def test_a_command_that_stays_local(line):
    assert _parse(line) == LOCAL[line]


def test_no_words_are_no_compiler():
    assert parse([], CWD, FILES.get) == Local(LocalReason.NOT_A_COMPILER)


def test_the_caller_may_know_the_family_better():
    command = parse(["cc", "-c", "x.c"], CWD, FILES.get, Family.CLANG)

    assert isinstance(command, CompileCommand)
    assert command.family is Family.CLANG


@pytest.mark.parametrize(
    ("compiler", "source", "language"),
    [
        ("gcc", "x.c", "c"),
        ("g++", "x.c", "c++"),
        ("clang++-14", "x.i", "c++-cpp-output"),
        ("gcc", "x.C", "c++"),
        ("gcc", "x.CPP", "c++"),
        ("gcc", "x.c++", "c++"),
        ("gcc", "x.mm", "objective-c++"),
        ("g++", "x.S", "assembler-with-cpp"),
        ("arm-none-eabi-gcc-12.2", ".c", "c"),
    ],
)
def test_the_language_of_a_source(compiler, source, language):
    command = _parse(f"{compiler} -c {source}")

    assert isinstance(command, CompileCommand)
    assert command.language == language


@pytest.mark.parametrize("line", [line for line in COMMANDS if "@" not in line])
def test_a_command_renders_as_it_came(line):
    command = _parse(line)

    assert isinstance(command, CompileCommand)
    assert render(command) == shlex.split(line)


@pytest.mark.parametrize(
    ("options", "more"),
    [("-dumpdir d/pre-", "d"), ("-dumpbase e/x.c", "e"), ("-dumpdir f/", "f"), ("-dumpdir g", "")],
)
def test_by_products_may_go_to_a_directory_of_their_own(options, more):
    command = _parse(f"gcc -c x.c -o o/x.o {options}")
    assert isinstance(command, CompileCommand)
    here = f"{CWD}/{more}".rstrip("/")
    assert command.output_dirs == tuple(sorted({CWD, f"{CWD}/o", here}))


@pytest.mark.parametrize("cwd", ["//r", "/r/", "/r/.", "/./r"])
def test_a_working_directory_may_be_spelled_in_any_way(cwd):
    command = parse(["gcc", "-c", "x.c"], cwd, FILES.get)
    assert isinstance(command, CompileCommand)
    assert (command.output_dirs, command.cwd) == (("/r",), cwd)


@pytest.mark.parametrize("cwd", ["/", "//", "/."])
def test_in_the_root_a_relative_output_is_local(cwd: str) -> None:
    command = parse(["gcc", "-c", "o/x.c", "-o", "/o/x.o"], cwd, FILES.get)
    assert isinstance(command, CompileCommand)
    assert (command.output_dirs, command.needs_original_paths) == (("/o",), True)
    relative = parse(["gcc", "-c", "o/x.c"], cwd, FILES.get)
    assert relative == Local(LocalReason.OUTPUT_SPECIAL, "/")


def test_an_output_in_shared_memory_is_like_any_other() -> None:
    words = ["gcc", "-c", "x.c", "-MD", "-MF", "/dev/shm/x.d", "-o", "/dev/shm/x.o"]
    assert isinstance(parse(words, "/w", FILES.get), CompileCommand)


def test_what_only_checks_writes_nothing() -> None:
    command = parse("gcc -fsyntax-only x.c -o x.o".split(), "/p", lambda _: None)
    assert isinstance(command, CompileCommand)
    assert (command.output, command.output_files(), command.dependencies) == ("", (), None)


def test_directories_behind_a_prefix_are_searched() -> None:
    words = "gcc -iprefix /a/ -iwithprefix b -iprefix c -iwithprefixbefore d -Ie -c x.c".split()
    command = parse(words, "/p", lambda _: None)
    assert isinstance(command, CompileCommand)
    assert {"e", "/a/b", "cd"} <= set(command.search_dirs)
