"""What a cl command line is, by the rules of Windows and by those of POSIX."""

import pytest

from distbuild.command.cl.parse import parse, split
from distbuild.command.model import CompileCommand, Family, Local, LocalReason, PathStyle

CWD = "/D/work dir"


def windows(*words: str, family: Family = Family.CL) -> CompileCommand | Local:
    return parse(["cl.exe", *words], CWD, lambda _: None, family, PathStyle.WINDOWS)


def compiled(*words: str, family: Family = Family.CL) -> CompileCommand:
    command = windows(*words, family=family)
    assert isinstance(command, CompileCommand), command
    return command


def reason(*words: str, family: Family = Family.CL) -> LocalReason:
    command = windows(*words, family=family)
    assert isinstance(command, Local), command
    return command.reason


def test_the_users_own_command() -> None:
    ucrt = "/Program Files (x86)/Windows Kits/10/Include/10.0.19041.0/ucrt"
    command = compiled("/I", ucrt, "/c", "/Fobuild/", "/EHsc", "tests/hello.c")

    assert command.source == "tests/hello.c"
    assert command.output == "build/hello.obj"
    assert command.absolute(command.output) == f"{CWD}/build/hello.obj"
    assert [command.absolute(d) for d in command.search_dirs] == [f"/D{ucrt}"]
    assert command.output_dirs == (f"{CWD}/build",)
    assert not command.needs_original_paths
    assert command.argv()[1:] == ["/I", ucrt, "/c", "/Fobuild/", "/EHsc", "tests/hello.c"]


@pytest.mark.parametrize(
    ("value", "output"),
    [
        ("", "hello.obj"),
        ("build\\", "build\\hello.obj"),
        ("C:\\out\\", "C:\\out\\hello.obj"),
        ("build\\x", "build\\x.obj"),
        ("x.o", "x.o"),
        ("a.b\\", "a.b\\hello.obj"),
        ("C:x", "C:x.obj"),
    ],
)
def test_an_output_is_named_by_the_rules_of_windows(value: str, output: str) -> None:
    assert compiled("/c", f"/Fo{value}", "src\\hello.c").output == output
    if value:
        assert compiled("/c", f"/Fo:{value}", "src\\hello.c").output == output


def test_every_spelling_of_a_directory_is_understood() -> None:
    command = compiled(
        "-c", "-I..\\inc", "/I", "C:\\a b\\", "/external:I", "\\rooted", "/Id:rel", "x.cpp"
    )

    assert [command.absolute(d) for d in command.search_dirs] == [
        f"{CWD}/../inc",
        "/C/a b/",
        "/D/rooted",
        f"{CWD}/rel",
    ]


@pytest.mark.parametrize(
    ("words", "language"),
    [
        (("x.c",), "c"),
        (("X.C",), "c"),
        (("x.CPP",), "c++"),
        (("/TP", "x.c"), "c++"),
        (("/TC", "x.cpp"), "c"),
        (("/Tcx.y",), "c"),
        (("/Tp", "x.c"), "c++"),
    ],
)
def test_the_language_is_that_of_the_suffix_or_the_option(words: tuple[str, ...], language) -> None:
    assert compiled("/c", *words).language == language


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("x.c",), LocalReason.LINK),
        (("/c", "x.c", "/link", "/out:a"), LocalReason.LINK),
        (("/c",), LocalReason.NO_SOURCE),
        (("/E", "x.c"), LocalReason.PREPROCESS_ONLY),
        (("/c", "/P", "x.c"), LocalReason.PREPROCESS_ONLY),
        (("/?",), LocalReason.INFORMATION),
        (("/c", "x.c", "y.c"), LocalReason.SEVERAL_SOURCES),
        (("/c", "/Zi", "x.c"), LocalReason.DEBUG_DATABASE),
        (("/c", "/ZI", "x.c"), LocalReason.DEBUG_DATABASE),
        (("/c", "/Yustdafx.h", "x.c"), LocalReason.PRECOMPILED_HEADER),
        (("/c", "/Fpx.pch", "x.c"), LocalReason.PRECOMPILED_HEADER),
        (("/c", "/clr", "x.c"), LocalReason.UNSUPPORTED_OPTION),
        (("/c", "/analyze", "x.c"), LocalReason.UNSUPPORTED_OPTION),
        (("/c", "/nonsense", "x.c"), LocalReason.SEVERAL_SOURCES),
        (("/c", "-nonsense", "x.c"), LocalReason.UNSUPPORTED_OPTION),
        (("/c", "/Fonul", "x.c"), LocalReason.OUTPUT_SPECIAL),
        (("/c", "/Fobuild\\CON.obj", "x.c"), LocalReason.OUTPUT_SPECIAL),
        (("/c", "/sourceDependencies", "-", "x.c"), LocalReason.STDOUT),
        (("/c", "/interface", "x.ixx"), LocalReason.MODULES),
        (("/c", "x.rc"), LocalReason.UNKNOWN_LANGUAGE),
    ],
)
def test_what_stays_local_says_why(words: tuple[str, ...], expected: LocalReason) -> None:
    assert reason(*words) is expected


def test_a_precompiled_header_that_is_switched_off_is_none() -> None:
    assert compiled("/c", "/Yustdafx.h", "/Y-", "x.c").source == "x.c"


def test_debug_information_in_the_object_needs_the_original_paths() -> None:
    assert compiled("/c", "/Z7", "x.c").needs_original_paths
    assert not compiled("/c", "x.c").needs_original_paths


def test_source_dependencies_are_an_output_of_microsofts_compiler() -> None:
    words = ("/c", "/sourceDependencies", "deps\\x.json", "x.c")

    assert "deps\\x.json" in compiled(*words).output_files()
    assert f"{CWD}/deps" in compiled(*words).output_dirs
    assert "deps\\x.json" not in compiled(*words, family=Family.CLANG_CL).output_files()


@pytest.mark.parametrize(
    "word", ["/Users/x.c", "/workspace/x.c", "/opt/x.c", "/Data/x.c", "/Iinc/x.c"]
)
def test_a_posix_path_that_is_an_option_is_an_option(word: str) -> None:
    """As clang-cl takes it (and warns of some)."""
    command = parse(["clang-cl", "/c", word], "/w", lambda _: None, Family.CLANG_CL)

    assert isinstance(command, Local)
    assert command.reason in (LocalReason.NO_SOURCE, LocalReason.UNSUPPORTED_OPTION)


@pytest.mark.parametrize("path", ["/tmp/x.c", "/home/u/x.c", "/src/x.c", "/builds/x.c"])
def test_a_posix_path_that_is_no_option_is_a_source(path: str) -> None:
    command = parse(["clang-cl", "/c", path], "/w", lambda _: None, Family.CLANG_CL)

    assert isinstance(command, CompileCommand)
    assert command.source == path


def test_after_two_dashes_everything_is_a_source() -> None:
    command = parse(["clang-cl", "/c", "--", "/opt/x.c"], "/w", lambda _: None, Family.CLANG_CL)

    assert isinstance(command, CompileCommand)
    assert command.source == "/opt/x.c"


def test_several_sources_become_a_command_each() -> None:
    argv = ["cl", "/c", "/Tcone.x", "two.c", "/Foout\\", "/TP"]

    assert split(argv, CWD, lambda _: None, Family.CL, PathStyle.WINDOWS) == [
        ["cl", "/c", "/Tcone.x", "/Foout\\", "/TP"],
        ["cl", "/c", "two.c", "/Foout\\", "/TP"],
    ]


def test_several_sources_with_one_output_stay_together() -> None:
    argv = ["cl", "/c", "one.c", "two.c", "/Foboth.obj"]

    assert split(argv, CWD, lambda _: None, Family.CL, PathStyle.WINDOWS) == []
