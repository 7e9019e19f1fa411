"""A cl.exe command at another place, and what it wrote there in the dev box's terms."""

import json

import pytest

from distbuild.command.cl.parse import parse
from distbuild.command.cl.relocate import Unmapper, move, move_environment, rooted, wanted_listing
from distbuild.command.model import CompileCommand, Family, PathStyle

TREE = "C:\\d b\\sandbox\\me"
OUT = "C:\\d b\\sandbox\\.jobs\\7"
UNMAPPER = Unmapper(TREE)


def command(*words: str, cwd: str = "/C/Proj") -> CompileCommand:
    parsed = parse(["cl.exe", *words], cwd, lambda _: None, Family.CL, PathStyle.WINDOWS)
    assert isinstance(parsed, CompileCommand), parsed
    return parsed


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("x.h", "x.h"),
        ("..\\x.h", "..\\x.h"),
        ("C:\\inc", f"{TREE}\\C\\inc"),
        ("d:/inc", f"{TREE}\\D/inc"),
        ("/Kits/inc", f"{TREE}\\C\\./Kits/inc"),
        ("\\Kits", f"{TREE}\\C\\.\\Kits"),
        ("\\\\server\\share\\x", f"{TREE}\\UNC\\server\\share\\x"),
        ("C:x.h", f"{TREE}\\C\\Proj\\x.h"),
    ],
)
def test_only_absolute_paths_move_and_each_comes_back(name: str, moved: str) -> None:
    assert rooted(name, "/C/Proj", TREE) == moved
    if name not in ("C:x.h", "d:/inc"):  # nobody can tell how these were spelled
        assert (
            UNMAPPER.text(f"In {moved}\\y.h: {moved}".encode())
            == f"In {name}\\y.h: {name}".encode()
        )


def test_what_has_no_drive_is_on_that_of_the_cwd() -> None:
    assert rooted("/inc", "/UNC/server/share/x", TREE) == f"{TREE}\\UNC\\server\\share\\./inc"
    text = f"{TREE}\\UNC\\server\\share\\./inc/x.h".encode()
    assert UNMAPPER.text(text) == b"/inc/x.h"


def test_the_command_writes_nothing_in_the_tree() -> None:
    words = ["/nologo", "/I", "C:\\inc", "/Iinc", "/c", "/Fobuild/", "/FIC:\\pre.h", "src\\x.cpp"]
    moved = move(command(*words, "/sourceDependencies", "x.json"), TREE, OUT)
    assert moved.words == [
        f"/Fo{OUT}\\x.obj",
        f"/sourceDependencies{OUT}\\inputs.json",
        "/nologo",
        "/I",
        f"{TREE}\\C\\inc",
        "/Iinc",
        "/c",
        f"/FI{TREE}\\C\\pre.h",
        "src\\x.cpp",
    ]
    assert moved.cwd == f"{TREE}\\C\\Proj"


def test_a_source_with_its_language_moves_too() -> None:
    words = move(command("/c", "/TpC:\\x.c"), TREE, OUT).words
    assert words[-1] == f"/Tp{TREE}\\C\\x.c"


def test_a_command_that_needs_the_original_paths_is_refused() -> None:
    with pytest.raises(ValueError, match="original paths"):
        move(command("/c", "/Z7", "x.c"), TREE, OUT)


def test_a_wanted_listing_is_known() -> None:
    assert wanted_listing(command("/c", "/sourceDependencies", "x.json", "x.c")) == "x.json"
    assert wanted_listing(command("/c", "x.c")) is None


def test_the_environments_directories_move() -> None:
    env = {"INCLUDE": "C:\\a;\\b;c", "PATH": "C:\\a;\\b", "TZ": "UTC0"}
    assert move_environment(env, "/C/Proj", TREE) == {
        "INCLUDE": f"{TREE}\\C\\a;{TREE}\\C\\.\\b;c",
        "PATH": "C:\\a;\\b",
        "TZ": "UTC0",
    }


def test_case_does_not_matter_and_other_places_stay() -> None:
    text = b"c:\\D B\\SANDBOX\\me\\c\\proj\\x.h and C:\\d b\\sandbox\\mean\\C\\x"
    assert UNMAPPER.text(text) == b"c:\\proj\\x.h and C:\\d b\\sandbox\\mean\\C\\x"


def listing(*names: str, **more: object) -> bytes:
    return json.dumps({"Data": {"Source": names[0], "Includes": names[1:], **more}}).encode()


def test_a_listing_comes_back_in_both_ways() -> None:
    source, header = f"{TREE}\\C\\Proj\\x.c".lower(), f"{TREE}\\UNC\\server\\share\\x.h".lower()
    assert UNMAPPER.inputs(listing(source, header)) == ("C:\\proj\\x.c", "\\\\server\\share\\x.h")
    mapped = json.loads(UNMAPPER.json(listing(source, header)))["Data"]
    assert mapped == {"Source": "c:\\proj\\x.c", "Includes": ["\\\\server\\share\\x.h"]}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "garbage"),
        (b"[]", "garbage"),
        (b'{"Data": {"Source": "x"}}', "garbage"),
        (listing("C:\\elsewhere\\x.h"), "not mirrored"),
        (listing(f"{TREE}\\C\\x.c", PCH="C:\\x.pch"), "more than sources"),
        (listing(f"{TREE}\\C\\x.c", ImportedModules=[{"Name": "m"}]), "more than sources"),
    ],
)
def test_a_listing_that_cannot_be_believed_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        UNMAPPER.inputs(data)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_an_object_that_names_the_place_is_seen(encoding: str) -> None:
    assert UNMAPPER.is_in(b"\0\1" + f"{TREE}\\c\\X.H".upper().encode(encoding) + b"\0")
    assert not UNMAPPER.is_in(b"\0\1" + "C:\\proj\\x.h".encode(encoding))
