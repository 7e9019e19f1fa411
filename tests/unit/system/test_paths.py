"""The forms of paths for system calls, and the rules for Windows names; run on every system."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.system.paths import from_system, internal_form, to_system, windows_form
from distbuild.system.windows.names import fold, is_nameable, is_nameable_path

LONG = "d" * 100


@pytest.mark.skipif(os.name != "posix", reason="POSIX has one form only")
def test_posix_paths_are_passed_on_untouched() -> None:
    path = "/a/b\udcff:c"
    assert to_system(path) is path
    assert from_system(path) is path
    assert to_system(b"/a") == b"/a"


@pytest.mark.parametrize(
    ("path", "native"),
    [
        ("/C", "C:\\"),
        ("/C/Proj/x.h", "C:\\Proj\\x.h"),
        ("/C/a/../b", "C:\\a\\..\\b"),
        ("/UNC/server/share/x.h", "\\\\server\\share\\x.h"),
        (f"/C/{LONG}/{LONG}/../{LONG}/x.h", f"C:\\{LONG}\\{LONG}\\..\\{LONG}\\x.h"),
    ],
)
def test_windows_calls_get_their_own_form(path: str, native: str) -> None:
    if len(native) > 240:
        native = f"\\\\?\\C:\\{LONG}\\{LONG}\\x.h"
    assert windows_form(path) == native
    assert windows_form(path.encode()) == native.encode()


def test_a_long_path_on_a_share_is_extended_too() -> None:
    path = f"/UNC/server/share/{LONG}/{LONG}/{LONG}"
    assert windows_form(path) == f"\\\\?\\UNC\\server\\share\\{LONG}\\{LONG}\\{LONG}"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/usr/include/x.h",
        "x.h",
        "/UNC/server",
        "/C/nul",
        "/C/x.h:stream",
        "/C/a\\..\\b",
        "/C/a.",
    ],
)
def test_what_names_no_file_on_windows_is_not_found(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        windows_form(path)
    with pytest.raises(FileNotFoundError):
        windows_form(path.encode())


@pytest.mark.parametrize("text", ["C:\\Proj\\x.h", "\\\\?\\C:\\Proj\\x.h", "c:/Proj/x.h"])
def test_windows_paths_come_in_with_one_form(text: str) -> None:
    assert internal_form(text) == "/C/Proj/x.h"
    assert internal_form(text.encode()) == b"/C/Proj/x.h"


def test_names_that_are_no_unicode_survive_as_bytes() -> None:
    name = "/C/\ud800x".encode("utf-8", "surrogatepass")
    assert internal_form(windows_form(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        *"CON con.h NUL nul.tar.gz COM1 lpt9.h COM¹ CONIN$ aux AUX.H".split(),
        *"x:y a\\b a*b a?b a|b <a> . .. x.".split(),
        *("x ", "", 'q"', "tab\t", "CON .h", "nul\0"),
    ],
)
def test_names_that_open_something_else_are_refused(name: str) -> None:
    assert not is_nameable(name)
    assert not is_nameable_path(f"/C/{name}/x.h")


@pytest.mark.parametrize("name", [".x", "..x", "console.h", "com.h", "COM10", "nul_", "a b.h", "é"])
def test_ordinary_names_are_taken(name: str) -> None:
    assert is_nameable(name)
    assert is_nameable_path(f"/C/{name}/x.h")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/C/Proj/foo.h", "/C/PROJ/FOO.H"),
        ("/C/é.h", "/C/É.h"),
        ("/C/ж.h", "/C/Ж.h"),
        ("/C/ς.h", "/C/Σ.h"),
        ("/C/x.h", "/C/x.h. ."),
        ("/C/dir/x.h", "/C/dir. /x.h"),
    ],
)
def test_spellings_of_one_file_fold_to_one(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ß", "SS"),
        ("a", "ä"),
        ("\u0131", "I"),
        ("\u017f", "S"),
        ("\u00b5", "\u039c"),
        ("\ufb01", "FI"),
        ("\U00010428", "\U00010400"),
    ],
)
def test_what_the_file_system_keeps_apart_stays_apart(one: str, other: str) -> None:
    assert fold(f"/C/{one}") != fold(f"/C/{other}")


@given(st.text("aBzé./ ßΣς", max_size=12))
def test_folding_is_done_after_one_time(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize("path", ["/C/a/../b", "/C/./a", "/C/.. /b", ".."])
def test_steps_stay_what_they_are(path: str) -> None:
    assert fold(path) == path.upper()
