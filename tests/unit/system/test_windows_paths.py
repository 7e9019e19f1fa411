"""Windows paths and the one tree that they are inside."""

import ntpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.system.windows.names import from_windows, is_absolute, to_windows

PART = st.text("abcXYZ01 .-é", min_size=1, max_size=8).filter(lambda text: text.strip(" .") != "")


@pytest.mark.parametrize(
    ("path", "internal"),
    [
        ("C:\\Proj\\x.h", "/C/Proj/x.h"),
        ("c:/Proj/x.h", "/C/Proj/x.h"),
        ("C:\\", "/C"),
        ("\\\\server\\share\\x.h", "/UNC/server/share/x.h"),
        ("//server/share", "/UNC/server/share"),
        ("\\\\?\\C:\\x", "/C/x"),
        ("\\\\?\\UNC\\server\\share\\x", "/UNC/server/share/x"),
        ("x.h", "/D/proj/x.h"),
        ("..\\inc\\x.h", "/D/proj/../inc/x.h"),
        ("\\x.h", "/D/x.h"),
        ("/Program Files (x86)/x.h", "/D/Program Files (x86)/x.h"),
        ("d:x.h", "/D/proj/x.h"),
        ("C:x.h", "/C/x.h"),
        ("", "/D/proj"),
    ],
)
def test_a_windows_path_has_one_place_in_the_tree(path: str, internal: str) -> None:
    assert from_windows(path, "/D/proj") == internal


def test_a_rooted_path_is_on_the_share_of_the_current_directory() -> None:
    assert from_windows("\\x", "/UNC/server/share/proj") == "/UNC/server/share/x"


@pytest.mark.parametrize("path", ["/", "/usr/include", "/c/x", "/UNC", "/UNC/server", "x"])
def test_what_is_on_no_drive_has_no_windows_path(path: str) -> None:
    with pytest.raises(ValueError, match="no drive"):
        to_windows(path)


@given(st.sampled_from(["C:", "z:", "\\\\server\\share"]), st.lists(PART, max_size=5))
def test_there_and_back_is_the_same_file(top: str, parts: list[str]) -> None:
    path = top + "\\" + "\\".join(parts)

    back = to_windows(from_windows(path))

    assert ntpath.normcase(back).rstrip("\\") == ntpath.normcase(path).rstrip("\\")


@given(st.text("ab\\/:.CD", max_size=8))
def test_absolute_is_what_ntpath_says(path: str) -> None:
    drive, rest = ntpath.splitdrive(path)
    expected = bool(drive and rest[:1] in ("\\", "/")) or drive.startswith(("\\\\", "//"))
    if not path.replace("\\", "/").startswith("//"):
        assert is_absolute(path) == (expected and drive[:1].isalpha())
