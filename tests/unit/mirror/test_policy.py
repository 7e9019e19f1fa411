import pytest

from distbuild.mirror.policy import Handling, handling, is_binary, is_broad, is_secret

MIRROR, WITHHOLD, IGNORE = Handling.MIRROR, Handling.WITHHOLD, Handling.IGNORE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.h", MIRROR),
        ("a.hpp", MIRROR),
        ("a.inc", MIRROR),
        ("a.def", MIRROR),
        ("a.ipp", MIRROR),
        ("a.tcc", MIRROR),
        ("a.modulemap", MIRROR),
        ("iostream", MIRROR),
        (".h", MIRROR),
        ("strange<>name()&!@#-*.h.inc", MIRROR),
        ("caf\udce9.h", MIRROR),
        ("a.so.h", IGNORE),
        ("a.c", WITHHOLD),
        ("a.C", WITHHOLD),
        ("a.CPP", WITHHOLD),
        ("a.S", WITHHOLD),
        ("a.h.gch", WITHHOLD),
        ("a.json", WITHHOLD),
        ("a.o", IGNORE),
        ("a.d", IGNORE),
        (".a.o.cmd", IGNORE),  # Kbuild
        ("a.loT", IGNORE),  # libtool
        ("liba.so.1.2", IGNORE),
        ("a.h~", IGNORE),
        (".#a.h", IGNORE),
        (".ninja_log", IGNORE),
        (".dist_build.x9_1", IGNORE),
        (".dist_build_home", MIRROR),
    ],
)
def test_handling_goes_by_name(name: str, expected: Handling) -> None:
    assert handling(name) is expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [(b"\x7fELF\x02\x01\x01\0", True), (b"!<arch>\n", True), (b"#pragma ", False), (b"", False)],
)
def test_binary_goes_by_the_first_bytes(head: bytes, expected: bool) -> None:
    assert is_binary(head) is expected


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("/", True),
        ("/usr", True),
        ("/usr/include", False),
        ("/home", True),
        ("/home/me", True),
        ("/home/me/project", False),
        ("/home/mel", False),
        ("/data", True),
        ("/data/homes", True),
        ("/data/homes/you", False),
    ],
)
def test_a_users_home_and_what_is_above_is_broad(directory: str, expected: bool) -> None:
    home = "/data/homes/me" if directory.startswith("/data") else "/home/me"
    assert is_broad(directory, home) is expected


def test_without_a_home_only_the_systems_own_directories_are_broad() -> None:
    assert [is_broad(d, "") for d in ("/usr", "/home/me")] == [True, False]


@pytest.mark.parametrize(
    "path",
    "/ /C /D /UNC /UNC/s /UNC/s/share /C/Users /C/Users/Me /C/WINDOWS /D/ProgramData".split(),
)
def test_drives_and_windows_own_directories_are_broad(path: str) -> None:
    assert is_broad(path, "/C/Users/me", windows=True)


@pytest.mark.parametrize(
    "path", ["/C/Proj", "/UNC/s/share/proj", "/C/Users/Me/proj", "/C/Program Files/Kits", "/CC"]
)
def test_projects_on_windows_are_not(path: str) -> None:
    assert not is_broad(path, "/C/Users/me", windows=True)


def test_a_directory_of_one_letter_is_no_drive_elsewhere() -> None:
    assert not is_broad("/C", "/home/me", windows=False)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/me/.netrc", True),
        ("/home/me/.ssh/id_rsa", True),
        ("/home/other/.gnupg/x", True),
        ("/root/.aws/credentials", True),
        ("/home/me/.cache/build/x.h", False),
        ("/home/me/project/.hidden.h", False),
        ("/home/me/project/x.h", False),
        ("/home/mean/.netrc", False),
        ("/usr/include/x.h", False),
    ],
)
def test_what_is_nobody_elses(path: str, expected: bool) -> None:
    assert is_secret(path, "/home/me") == expected


def test_without_a_home_directories_of_keys_are_secret_all_the_same() -> None:
    assert is_secret("/home/me/.ssh/id_rsa", "")
    assert not is_secret("/.netrc", "")
