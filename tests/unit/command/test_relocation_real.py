"""Relocated compiles against local ones, with the real gcc and clang: all bytes are equal."""

import shlex

import pytest

from tests.unit.command.mirrored import Mirrored

pytestmark = pytest.mark.compiler

#: {P} stands for the project's absolute path, {I} for these.
INCLUDES = "-I../first -isystem ../system"
BOTH = (
    "-c small.c -o small.o",
    "-c main.c {I}",
    "-O2 -g -c main.c {I} -o obj/main.o -MD",
    "-O2 -g -Wall -Wextra -c main.c {I} -o obj/main.o -MMD -MP",
    "-g3 -c {P}/app/main.c -I{P}/first -isystem {P}/system -o {P}/app/obj/m.o -MD -MP",
    "-g -gz -c main.c -I ../first -isystem{P}/system -MD -MF obj/deps.d -MT target -MQ 'a b$'",
    "-c main.c -Wp,-MD,obj/w.d -I../first -isystem ../system -o obj/main.o",
    "-c main.c -Wp,-MMD,{P}/app/w.d -Wp,-D_FORTIFY_SOURCE=2 -O1 {I} -o obj/main.o",
    "-S -O1 main.c {I} -MD",
    "-S -g {P}/app/main.c {I} -o obj/main.s",
    "-c main.c {I} -include ../force/forced.h -imacros {P}/force/forced.h -g3 -MD",
    "-c main.c -iquote ../first -idirafter ../system -MD -o ./obj/main.o",
    "-c main.c -I../first -I../last -isystem ../system -idirafter {P}/later -MD -g",
    "-c main.c -I../first -I/usr/include -isystem /usr/include -isystem ../system -MD",
    "-c main.c {I} -I../no-such -I{P}/no-such -Wmissing-include-dirs -MD",
    "-Wall -c bad.c -I{P}/first -MD",
    "-Wall -c {P}/app/bad.c -I../first -MD -g",
    "-c lost.c -I{P}/first -MD",
    "-c missing.c -MD",
    "-c {P}/app/missing.c -MD",
    "-c small.c -include nosuch.h",
    "-g -c 'odd dir/q$#:é.c' -MD -MP -o 'obj/q $#:é.o'",
    "-g -c {P}'/app/odd dir/q$#:é.c' -MD -MP",
    "-x c -std=c99 -pedantic -c small.c -g -fPIC -pthread -pipe -fno-common",
    "-ffreestanding -c small.c -MD",
    "-nostdinc -c small.c -MD -g",
    "--sysroot={P} -c small.c -MD -g",
    "-fdiagnostics-color=always -Wall -c main.c -I{P}/first -isystem ../system",
    "-O2 -g -ffunction-sections -fstack-protector-strong -c main.c {I}",
    "-Wl,-O1 -shared -lm -L{P} -c small.c",
)
GCC_ONLY = (
    "-g -fdebug-prefix-map={P}=. -c main.c {I}",
    "-g -ffile-prefix-map={P}/app=A -ffile-prefix-map={P}=R -c {P}/app/main.c {I}",
    "-fmacro-prefix-map={P}/=/x/ -c {P}/app/main.c -I{P}/first -isystem ../system -g",
    "-fdiagnostics-format=json -Wall -c main.c -I{P}/first -isystem ../system",
    "-grecord-gcc-switches -g -O2 -c main.c {I}",
    "-c a.S -MD -o obj/a.o",
    "-g -c a.S -MD -o obj/a.o",
    "-g -c {P}/app/a.S",
    "-g -fmacro-prefix-map=../first/=F/ -fdebug-prefix-map={P}=D -c main.c {I}",
    "-g -ffile-prefix-map={P}=F -fmacro-prefix-map={P}/=M/ -c {P}/app/main.c {I}",
    "-g -fdebug-prefix-map={P}/app=A -fdebug-prefix-map=/=R/ -c {P}/app/main.c {I}",
    "-fopenmp -g -c main.c {I}",
)
CXX = (
    "-O2 -g -Wall -std=c++17 -c main.cc {I} -o obj/main.o -MD",
    "-g3 -c {P}/app/main.cc -I{P}/first -isystem {P}/system -o {P}/app/obj/m.o -MMD -MP",
    "-g -c main.c {I} -MD",
    "-g -O1 -c anon.cc -MD",
    "-nostdinc++ -c anon.cc -MD",
    "-nostdinc++ -isystem /usr/include/c++/12 -isystem /usr/include/x86_64-linux-gnu/c++/12"
    " -c main.cc {I} -MD",
    "-S -O2 main.cc {I}",
)
ENVIRONMENTS = (
    {"CPATH": "../first::{P}/system"},
    {"C_INCLUDE_PATH": "{P}/first:../system", "CPLUS_INCLUDE_PATH": "{P}/first:../system"},
)
CASES = [
    *((driver, line) for driver in ("gcc", "clang") for line in BOTH),
    *(("gcc", line) for line in GCC_ONLY),
    *((driver, line) for driver in ("g++", "clang++") for line in CXX),
]


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory) -> Mirrored:
    return Mirrored(tmp_path_factory.mktemp("relocation"))


def _words(line: str, mirrored: Mirrored) -> list[str]:
    project = shlex.quote(str(mirrored.project))
    return shlex.split(line.replace("{I}", INCLUDES).replace("{P}", project))


@pytest.mark.in_turn("driver")
@pytest.mark.parametrize(("driver", "line"), CASES)
def test_a_relocated_compile_equals_the_local_one(mirrored, require_tool, driver, line):
    command = mirrored.parsed([require_tool(driver), *_words(line, mirrored)])

    assert mirrored.remote(command, {}) == mirrored.local(command, {})


@pytest.mark.in_turn("env", "driver")
@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize("driver", ["gcc", "g++", "clang", "clang++"])
def test_include_variables_keep_their_place_in_the_search(mirrored, require_tool, driver, env):
    source = "main.cc" if driver.endswith("++") else "main.c"
    command = mirrored.parsed([require_tool(driver), "-g", "-Wall", "-c", source, "-MD"])
    env = {name: value.replace("{P}", str(mirrored.project)) for name, value in env.items()}

    local = mirrored.local(command, env)

    assert local.code == 0
    assert mirrored.remote(command, env) == local
