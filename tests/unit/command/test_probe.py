"""What compilers are asked, and how their answers are read."""

import pytest

from distbuild.command.model import CompileCommand, Local, LocalReason
from distbuild.command.parse import parse
from distbuild.command.probe import (
    allowed_environment,
    assembler_obstacle,
    environment_obstacle,
    parse_implicit_include,
    parse_search_dirs,
    search_probe,
    target_obstacle,
    telling_environment,
)

STDERR = """Using built-in specs.
ignoring nonexistent directory "/usr/local/include/x86_64-linux-gnu"
#include "..." search starts here:
 quoted
#include <...> search starts here:
 /usr/lib/gcc/x86_64-linux-gnu/12/include
 /opt/with space/include
 /Library/Frameworks (framework directory)
 /usr/include
End of search list.
 /no/more
"""


@pytest.mark.parametrize(
    ("line", "probe"),
    [
        ("gcc -O2 -Ix -c x.c", ("-x", "c")),
        ("g++ -c x.c", ("-x", "c++")),
        ("gcc -c x.ii", ("-x", "c++")),
        ("gcc -c x.i", ("-x", "c")),
        ("gcc -c x.S -m32", ("-x", "assembler-with-cpp", "-m32")),
        (
            "clang++ -stdlib=libc++ --target=arm -nostdinc++ --sysroot /s -isysroot/t -c a.cc",
            (
                *("-x", "c++", "-stdlib=libc++", "--target=arm", "-nostdinc++"),
                *("--sysroot", "/s", "-isysroot/t"),
            ),
        ),
        ("clang -target arm -nobuiltininc -c a.c", ("-x", "c", "-target", "arm", "-nobuiltininc")),
    ],
)
def test_the_probe_holds_what_moves_the_search_path(line, probe):
    command = parse(line.split(), "/w", lambda _: None)

    assert isinstance(command, CompileCommand)
    assert search_probe(command) == probe


def test_search_directories_are_read_in_order():
    assert parse_search_dirs(STDERR) == (
        "/usr/lib/gcc/x86_64-linux-gnu/12/include",
        "/opt/with space/include",
        "/Library/Frameworks",
        "/usr/include",
    )


def test_no_search_list_means_no_directories():
    assert parse_search_dirs("cc1: error: unrecognized\n") == ()


def test_the_implicit_include_is_the_header_below_the_main_file():
    text = '# 0 "<stdin>"\n# 0 "<command-line>"\n# 1 "/usr/include/stdc-predef.h" 1 3 4\n'

    assert parse_implicit_include(text) == "/usr/include/stdc-predef.h"
    assert parse_implicit_include('# 1 "<built-in>" 1 3\n# 1 "<stdin>" 2\n') is None


@pytest.mark.parametrize(
    ("pwd", "told", "reaches"),
    [
        ("/proc/self/cwd", True, True),
        ("/proc/self/fd/3", True, False),
        ("/process", False, False),
        ("/home/u", False, False),
    ],
)
def test_a_directory_that_only_the_process_can_name_is_told(pwd, told, reaches):
    env = {"PWD": pwd}

    assert telling_environment(env) == (env if told else {})
    assert allowed_environment(env) == (env if reaches else {})


def test_only_the_listed_variables_reach_the_compiler():
    env = {"LC_CTYPE": "C", "LANG": "de", "CPATH": "a", "PATH": "/bin", "SECRET": "x", "TZ": "UTC"}

    assert allowed_environment(env) == {"LC_CTYPE": "C", "LANG": "de", "CPATH": "a", "TZ": "UTC"}


@pytest.mark.parametrize(
    ("env", "obstacle"),
    [
        ({"PATH": "/bin"}, None),
        ({"PWD": "/proc/self/cwd"}, None),
        ({"PWD": "/proc/4/cwd"}, Local(LocalReason.UNSUPPORTED_OPTION, "PWD")),
        ({"GCC_EXEC_PREFIX": ""}, Local(LocalReason.RUNS_OTHER_CODE, "GCC_EXEC_PREFIX")),
        (
            {"MACOSX_DEPLOYMENT_TARGET": "11.3"},
            Local(LocalReason.UNSUPPORTED_OPTION, "MACOSX_DEPLOYMENT_TARGET"),
        ),
        (
            {"DEPENDENCIES_OUTPUT": "x"},
            Local(LocalReason.UNSUPPORTED_OPTION, "DEPENDENCIES_OUTPUT"),
        ),
    ],
)
def test_variables_that_are_not_modelled_keep_a_compile_local(env, obstacle):
    assert environment_obstacle(env) == obstacle


@pytest.mark.parametrize(
    ("line", "env", "obstacle"),
    [
        ("clang --target=x86_64-pc-windows-msvc", {"INCLUDE": "/i"}, "INCLUDE"),
        ("clang -target i686-win32", {"VCToolsInstallDir": "/v"}, "VCToolsInstallDir"),
        ("/b/x86_64-pc-windows-msvc-clang", {"EXTERNAL_INCLUDE": "/i"}, "EXTERNAL_INCLUDE"),
        ("clang -target x86_64-pc-windows-msvc", {"INCLUDE": "", "PATH": "/bin"}, None),
        ("clang -target arm64-apple-ios", {"INCLUDE": "/i"}, None),
        ("gcc", {"INCLUDE": "/i"}, None),
        ("clang-cl /c", {"INCLUDE": "/i"}, None),
    ],
)
def test_what_clang_reads_for_windows_only_keeps_such_a_compile_local(line, env, obstacle):
    words = [*line.split(), "-c", "x.c"]
    command = parse(words, "/w", lambda _: None)

    assert isinstance(command, CompileCommand)
    expected = obstacle and Local(LocalReason.UNSUPPORTED_OPTION, obstacle)
    assert target_obstacle(command, words[0], env) == expected


@pytest.mark.parametrize(
    ("words", "stays"),
    [
        ("clang -no-integrated-as -c x.c", False),
        ("clang --target=aarch64-linux-gnu -c x.c", False),
        ("clang --target=aarch64-linux-gnu -no-integrated-as -c x.c", True),
        ("clang -target aarch64-linux-gnu -fno-integrated-as -c x.c", True),
        ("aarch64-linux-gnu-clang -no-integrated-as -c x.c", True),
        ("gcc -c x.c", False),
    ],
)
def test_another_machines_assembler_is_not_in_a_clangs_identity(words: str, stays: bool):
    command = parse(words.split(), "/w", lambda _: None)
    assert isinstance(command, CompileCommand)
    assert (assembler_obstacle(command, words.split()[0]) is not None) is stays
