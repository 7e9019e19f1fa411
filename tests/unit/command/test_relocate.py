"""Commands moved below a prefix: the whole argv, without running it."""

import shlex

import pytest

from distbuild.command.model import CompileCommand
from distbuild.command.parse import parse
from distbuild.command.relocate import (
    Relocated,
    dependency_target,
    observed,
    relocate,
    relocate_env,
)

MAPS = "-fdebug-prefix-map=/t= -fmacro-prefix-map=/t= -nostdinc"


def _parse(line: str) -> CompileCommand:
    command = parse(shlex.split(line), "/home/u", lambda _: None)
    assert isinstance(command, CompileCommand)
    return command


@pytest.mark.parametrize(
    ("line", "moved"),
    [
        (
            "gcc -c x.c",
            f"gcc {MAPS} -idirafter /t/usr/include -MD -MF /o/d -MQ x.o -o /o/x.o -c x.c",
        ),
        (
            "gcc -I/a -Ib -include /p.h -c /home/u/x.c -o /home/u/obj/y.o -MMD -MP",
            f"gcc {MAPS} -idirafter /t/usr/include -MMD -MF /o/d -MQ /home/u/obj/y.o"
            " -I/t/a -Ib -include /t/p.h -c /t/home/u/x.c -o /o/y.o -MP",
        ),
        (
            "gcc -c x.c -MD -MF d -MT t -ox.o -fdebug-prefix-map=/a=/b -ffile-prefix-map=c=d",
            f"gcc {MAPS} -idirafter /t/usr/include -MD -MF /o/d -c x.c -MT t -o/o/x.o"
            " -fdebug-prefix-map=/t/a=/b -ffile-prefix-map=c=d",
        ),
        (
            "clang -Wp,-MMD,d/x.d -Wp,-DX -L/l -DP=/p -c x.c -o y.o",
            f"clang {MAPS} -idirafter /t/usr/include -MMD -MF /o/d -MQ y.o"
            " -Wp,-DX -L/l -DP=/p -c x.c -o /o/y.o",
        ),
    ],
)
def test_a_moved_command(line, moved):
    output = "/o/y.o" if "y.o" in line else "/o/x.o"

    relocated = relocate(_parse(line), "/t", "/o", ["/usr/include"])

    assert relocated == Relocated(shlex.split(moved), "/t/home/u", "/o/d", output)


def test_the_implicit_include_is_named_as_the_compiler_would_look_for_it():
    relocated = relocate(_parse("gcc -c x.c"), "/t", "/o", [], "/usr/include/stdc-predef.h")

    assert relocated.argv[3:6] == ["-nostdinc", "-include", "stdc-predef.h"]


def test_the_list_of_inputs_is_never_the_output():
    relocated = relocate(_parse("gcc -c x.c -o e/d"), "/t", "/o", [])

    assert (relocated.output_path, relocated.dependency_path) == ("/o/d", "/o/dd")


def test_a_command_that_needs_its_own_paths_is_refused():
    with pytest.raises(ValueError, match="original paths"):
        relocate(_parse("gcc -gsplit-dwarf -c x.c"), "/t", "/o", [])


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("gcc -c d/x.c", "x.o"),
        ("gcc -S -MD x.c", "x.o"),
        ("gcc -S -MD x.c -o ./d/y.s", "./d/y.s"),
        ("gcc -Wp,-MD,f -c d/x.c -o y.o", "x.o"),
        ("clang -Wp,-MD,f -c d/x.c -o y.o", "y.o"),
    ],
)
def test_the_target_of_a_dependency_rule(line, target):
    assert dependency_target(_parse(line)) == target


def test_an_observed_command_lists_its_inputs():
    assert observed(_parse("gcc -gsplit-dwarf -c x.c"), "/p/d") == shlex.split(
        "gcc -MD -MF /p/d -MQ x.o -gsplit-dwarf -c x.c"
    )
    assert observed(_parse("gcc -c x.i"), "/p/d") == ["gcc", "-c", "x.i"]
    assert observed(_parse("gcc -MMD -c x.c"), "/p/d") == shlex.split("gcc -MMD -c x.c")


def test_include_variables_move_and_no_others():
    env = {"CPATH": "/a::b:/c", "C_INCLUDE_PATH": "", "LANG": "/x"}

    assert relocate_env(env, "/t") == {"CPATH": "/t/a::b:/t/c", "C_INCLUDE_PATH": "", "LANG": "/x"}
