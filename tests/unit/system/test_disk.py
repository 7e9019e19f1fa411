"""The calls on files: those of ``os`` on POSIX, and what Windows' need around them."""

import os
from collections.abc import Callable

import pytest

from distbuild.system import disk
from distbuild.system.windows import files


@pytest.mark.skipif(os.name != "posix", reason="POSIX has the calls as they are")
def test_on_posix_the_calls_are_those_of_os() -> None:
    for name in ("stat", "lstat", "fstat", "scandir", "readlink", "unlink", "link", "listdir"):
        assert getattr(disk, name) is getattr(os, name)
    assert disk.rename is os.replace
    assert disk.isdir is os.path.isdir
    assert not disk.is_respelled("/tmp")
    assert disk.as_on_disk("/a/B") == "/a/B"


def failing(times: int, code: int) -> Callable[[], str]:
    """Fails as often with Windows' error, then succeeds."""
    left = [times]

    def call() -> str:
        if left[0]:
            left[0] -= 1
            error = PermissionError(13, "in use")
            error.winerror = code  # type: ignore[attr-defined]
            raise error
        return "done"

    return call


@pytest.mark.parametrize("code", [5, 32, 33])
def test_what_passes_is_waited_for(code: int) -> None:
    assert disk.patiently(failing(2, code), pauses=(0, 0)) == "done"


def test_what_does_not_pass_is_raised_in_the_end() -> None:
    with pytest.raises(PermissionError):
        disk.patiently(failing(3, 32), pauses=(0, 0))


@pytest.mark.parametrize(("code", "passing"), [(2, frozenset({32})), (5, frozenset({32, 33}))])
def test_other_errors_are_raised_at_once(code: int, passing: frozenset[int]) -> None:
    call = failing(1, code)
    with pytest.raises(PermissionError):
        disk.patiently(call, passing, pauses=(0, 0))
    assert call() == "done"


@pytest.mark.parametrize(
    ("target", "inside"),
    [
        ("..\\inc", "../inc"),
        ("C:\\inc", "/C/inc"),
        ("\\\\?\\C:\\inc", "/C/inc"),
        ("\\\\server\\share\\inc", "/UNC/server/share/inc"),
    ],
)
def test_targets_of_windows_links_come_in_internal_form(target: str, inside: str) -> None:
    assert files.inside_target(target) == inside


def test_a_volume_that_has_no_path_is_nothing_to_follow() -> None:
    with pytest.raises(FileNotFoundError):
        files.inside_target("\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\")


def test_abbreviated_names_are_known_by_what_the_disk_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not disk.has_short_name("/C/PROGRA~1")
    monkeypatch.setattr(disk, "WINDOWS", True)
    names = {"/C/PROGRA~1": "/C/Program Files", "/C/a~1": "/C/A~1"}
    monkeypatch.setattr(disk, "as_on_disk", lambda path: names.get(path, path))
    assert disk.has_short_name("/C/PROGRA~1/x")
    assert disk.has_short_name("/C/a/../PROGRA~1")
    assert not disk.has_short_name("/C/a~1/b~")
    assert not disk.has_short_name("/C/Program Files")


def test_windows_way_to_a_real_path_follows_links(
    tmp_path: "os.PathLike[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    top = os.path.realpath(tmp_path)
    os.makedirs(f"{top}/a/b")
    os.symlink("a", f"{top}/one")
    os.symlink(f"{top}/one/b", f"{top}/two")
    os.symlink("loop", f"{top}/loop")
    monkeypatch.setattr(disk, "as_on_disk", lambda path: path)
    for path in ("two/../x.h", "one/./b//x.h", "absent/x.h", "two", "a/../one"):
        assert disk._real_on_windows(f"{top}/{path}") == os.path.realpath(f"{top}/{path}")
    assert disk._real_on_windows("/") == "/"
    assert disk._real_on_windows(f"{top}/loop/x").endswith("/loop/x")
