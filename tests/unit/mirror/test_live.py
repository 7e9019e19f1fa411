# mypy: disable-error-code=func-returns-value
"""The manifest against the disk, after whatever happens to files, with and without notification."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distbuild.mirror import digest_cache
from distbuild.mirror import root_listing as survey_module
from distbuild.mirror.manifest import DIRECTORY, WITHHELD
from distbuild.mirror.roots import Kind
from distbuild.protocol.messages import FileEntry
from distbuild.protocol.names import HOME_MARKER
from tests.support.mirrored import LARGE, Mirror
from tests.support.tools import absent


@pytest.fixture(params=["inotify", "none"])
def mirror(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mirror]:
    base = base_of(tmp_path)
    made = Mirror(base, str(base / "home"), request.param)
    yield made
    made.mirroring.stop()


def base_of(tmp_path: Path) -> Path:
    base = Path(os.path.realpath(tmp_path)) / "base"
    base.mkdir()
    return base


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def move(source: Path, target: Path) -> None:
    source.rename(target)


def again(directory: Path, names: str, text: str) -> None:
    """Make a directory anew, with the inodes that the old one had where the disk does so."""
    if directory.exists():
        shutil.rmtree(directory)
    for name in names:
        write(directory / f"{name}.h", text)


#: More than Python can call functions inside each other, were each link followed inside the last.
LONG_CHAIN = 150

Step = Callable[[Path], object]

#: What is done to the files, one step after the other; after each the mirror has to agree.
#: ``r`` is the directory that jobs name, ``o`` lies outside it.
STEPS: dict[str, list[Step]] = {
    "create and edit": [
        lambda b: write(b / "r/x.h", "1"),
        lambda b: write(b / "r/x.h", "2"),
        lambda b: write(b / "r/x.h", "a longer text"),
        lambda b: (b / "r/x.h").unlink(),
        lambda b: write(b / "r/x.h", "3"),
    ],
    "withheld and ignored": [
        lambda b: write(b / "r/x.c", "1"),
        lambda b: write(b / "r/x.o", "1"),
        lambda b: move(b / "r/x.o", b / "r/x.h"),
        lambda b: move(b / "r/x.h", b / "r/x.o"),
        lambda b: write(b / "r/big.h", "x" * (LARGE + 1)),
        lambda b: write(b / "r/big.h", "x"),
        lambda b: write(b / "r/tool", "\x7fELF"),
    ],
    "rename over": [
        lambda b: write(b / "r/x.h", "1"),
        lambda b: move(write(b / "r/new.h", "2"), b / "r/x.h"),
        lambda b: move(write(b / "o/new.h", "3"), b / "r/x.h"),
        lambda b: move(b / "r/x.h", b / "o/away.h"),
    ],
    "modes and times": [
        lambda b: write(b / "r/x.h", "1"),
        lambda b: (b / "r/x.h").chmod(0o755),
        lambda b: os.utime(b / "r/x.h", ns=(1, 1)),
    ],
    "hard link": [
        lambda b: os.link(write(b / "o/x.h", "1"), b / "r/x.h"),
        lambda b: write(b / "r/x.h", "2"),
        lambda b: (b / "o/x.h").unlink(),
    ],
    "deep directories": [
        lambda b: write(b / "r/a/b/c/x.h", "1"),
        lambda b: write(b / "r/a/b/c/x.h", "2"),
        lambda b: (b / "r/a/empty").mkdir(),
        lambda b: shutil.rmtree(b / "r/a/b"),
        lambda b: write(b / "r/a/b/y.h", "3"),
        lambda b: shutil.rmtree(b / "r/a"),
    ],
    "remove and recreate at once": [
        lambda b: write(b / "r/a/b/x.h", "1"),
        lambda b: (shutil.rmtree(b / "r/a"), write(b / "r/a/b/y.h", "2")),
        lambda b: write(b / "r/a/b/y.h", "3"),
        lambda b: write(b / "r/a/b/z.h", "3"),
    ],
    "kinds": [
        lambda b: write(b / "r/x", "1"),
        lambda b: ((b / "r/x").unlink(), write(b / "r/x/y.h", "1")),
        lambda b: (shutil.rmtree(b / "r/x"), (b / "r/x").symlink_to("nowhere")),
        lambda b: ((b / "r/x").unlink(), os.mkfifo(b / "r/x")),
        lambda b: ((b / "r/x").unlink(), write(b / "r/x", "2")),
    ],
    "move directories about": [
        lambda b: write(b / "r/a/b/x.h", "1"),
        lambda b: move(b / "r/a", b / "r/c"),
        lambda b: write(b / "r/c/b/x.h", "2"),
        lambda b: move(b / "r/c", b / "o/c"),
        lambda b: write(b / "o/c/b/x.h", "3"),
        lambda b: move(b / "o/c", b / "r/d"),
        lambda b: write(b / "r/d/b/x.h", "4"),
        lambda b: (move(b / "r/d", b / "r/e"), write(b / "r/d/b/x.h", "5")),
        lambda b: write(b / "r/d/b/x.h", "6"),
        lambda b: write(b / "r/e/b/x.h", "6"),
    ],
    "swap two directories": [
        lambda b: (write(b / "r/a/x.h", "a"), write(b / "r/b/y.h", "b")),
        lambda b: (
            move(b / "r/a", b / "r/t"),
            move(b / "r/b", b / "r/a"),
            move(b / "r/t", b / "r/b"),
        ),
        lambda b: (write(b / "r/a/x.h", "1"), write(b / "r/b/x.h", "2")),
    ],
    "links inside": [
        lambda b: (write(b / "r/v1/x.h", "1"), write(b / "r/v2/x.h", "2")),
        lambda b: (b / "r/now").symlink_to("v1"),
        lambda b: switch(b / "r/now", "v2"),
        lambda b: write(b / "r/v2/x.h", "3"),
        lambda b: switch(b / "r/now", "loop"),
        lambda b: (b / "r/loop").symlink_to("now"),
    ],
    "links to directories outside": [
        lambda b: (write(b / "o/v1/x.h", "1"), write(b / "o/v2/x.h", "2")),
        lambda b: (b / "r/now").symlink_to("../o/v1"),
        lambda b: write(b / "o/v1/y.h", "1"),
        lambda b: switch(b / "r/now", str(b / "o/v2")),
        lambda b: write(b / "o/v2/x.h", "3"),
        lambda b: shutil.rmtree(b / "o/v2"),
        lambda b: write(b / "o/v2/z.h", "4"),
        lambda b: write(b / "o/v2/z.h", "5"),
        lambda b: (move(b / "o", b / "p"), write(b / "o/v2/q.h", "6")),
        lambda b: write(b / "o/v2/q.h", "7"),
    ],
    "links to files outside": [
        lambda b: (b / "r/x.h").symlink_to(write(b / "o/x.h", "1")),
        lambda b: write(b / "o/x.h", "2"),
        lambda b: (b / "o/x.h").unlink(),
        lambda b: write(b / "o/x.h", "3"),
        lambda b: move(write(b / "o/new.h", "4"), b / "o/x.h"),
        lambda b: (move(b / "o", b / "p"), write(b / "o/x.h", "5")),
        lambda b: write(b / "o/x.h", "6"),
    ],
    "links that lead nowhere yet": [
        lambda b: (b / "r/x.h").symlink_to("../o/later/x.h"),
        lambda b: (b / "r/d").symlink_to("../o/later/d"),
        lambda b: write(b / "o/later/x.h", "1"),
        lambda b: write(b / "o/later/d/y.h", "1"),
        lambda b: write(b / "o/later/d/y.h", "2"),
    ],
    "links over links": [
        lambda b: (write(b / "o/v1/x.h", "1"), write(b / "q/v2/x.h", "2")),
        lambda b: ((b / "o/now").symlink_to("v1"), (b / "r/d").symlink_to("../o/now")),
        lambda b: switch(b / "o/now", "../q/v2"),
        lambda b: write(b / "q/v2/x.h", "3"),
    ],
    "the directory itself goes and comes": [
        lambda b: write(b / "r/a/x.h", "1"),
        lambda b: shutil.rmtree(b / "r"),
        lambda b: write(b / "r/a/x.h", "2"),
        lambda b: write(b / "r/a/x.h", "3"),
        lambda b: (shutil.rmtree(b / "r"), write(b / "r/y.h", "4")),
        lambda b: write(b / "r/y.h", "5"),
        lambda b: move(b / "r", b / "gone"),
        lambda b: move(b / "gone", b / "r"),
        lambda b: write(b / "r/y.h", "6"),
    ],
    "closed directories": [
        lambda b: write(b / "r/.git/config", "1"),
        lambda b: write(b / "r/.git/objects/aa/x.h", "1"),
        lambda b: move(b / "r/.git", b / "r/git"),
        lambda b: move(b / "r/git", b / "r/.git"),
    ],
    "a home of ours": [
        lambda b: (b / "r/home").mkdir(),
        lambda b: write(b / "r/home/config.h", ""),
        lambda b: (b / "r/home" / HOME_MARKER).touch(),
        lambda b: write(b / "r/home/state/digests", "1"),
        lambda b: write(b / "r/home/sandbox/me/x.h", "1"),
        lambda b: (b / "r/home/sandbox/more").mkdir(),
        lambda b: write(b / "r/home/y.h", "1"),
        lambda b: write(b / "r/home/sandbox/me/x.h", "2"),
        lambda b: (b / "r/home" / HOME_MARKER).unlink(),
        lambda b: write(b / "r/home/y.h", "3"),
    ],
    "links to files of one directory": [
        lambda b: [write(b / f"o/gen/{n}.h", n) for n in "abc"],
        lambda b: [(b / f"r/{n}.h").symlink_to(b / f"o/gen/{n}.h") for n in "abc"],
        lambda b: write(b / "o/gen/a.h", "2"),
        lambda b: again(b / "o/gen", "abc", "3"),
        lambda b: write(b / "o/gen/a.h", "4"),
        lambda b: write(b / "o/gen/b.h", "5"),
        lambda b: shutil.rmtree(b / "o"),
        lambda b: again(b / "o/gen", "ab", "6"),
        lambda b: write(b / "o/gen/b.h", "7"),
        lambda b: write(b / "o/gen/c.h", "8"),
        lambda b: move(b / "o", b / "away"),
        lambda b: again(b / "o/gen", "abc", "9"),
        lambda b: write(b / "o/gen/c.h", "10"),
        lambda b: shutil.rmtree(b / "o"),
        lambda b: move(b / "away", b / "o"),
        lambda b: write(b / "o/gen/c.h", "11"),
        lambda b: (b / "o/gen/a.h").unlink(),
        lambda b: write(b / "o/gen/a.h/x.h", "12"),
        lambda b: write(b / "o/gen/a.h/x.h", "13"),
        lambda b: switch(b / "o/gen/b.h", "c.h"),
        lambda b: write(b / "o/gen/c.h", "14"),
        lambda b: again(b / "o/gen", "abc", "15"),
        lambda b: write(b / "o/gen/a.h", "16"),
        lambda b: switch(b / "r/a.h", f"{b}/o/gen/b.h"),
        lambda b: write(b / "o/gen/b.h", "17"),
        lambda b: (b / "r/b.h").unlink(),
        lambda b: again(b / "o/gen", "bc", "18"),
    ],
    "links through a link to their directory": [
        lambda b: [again(b / f"o/{v}", "abc", v) for v in ("v1", "v2")],
        lambda b: (b / "o/now").symlink_to("v1"),
        lambda b: [(b / f"r/{n}.h").symlink_to(f"../o/now/{n}.h") for n in "abc"],
        lambda b: write(b / "o/v1/a.h", "1"),
        lambda b: write(b / "o/v2/a.h", "2"),
        lambda b: switch(b / "o/now", "v2"),
        lambda b: write(b / "o/v2/a.h", "3"),
        lambda b: write(b / "o/v1/a.h", "4"),
        lambda b: switch(b / "o/now", "nowhere"),
        lambda b: move(b / "o/v2", b / "o/nowhere"),
        lambda b: write(b / "o/nowhere/c.h", "5"),
    ],
    "a link on the way to a file is switched": [
        lambda b: [write(b / "r/y.h", "1"), write(b / "o/files/f.h", "2"), (b / "o/on").mkdir()],
        lambda b: (b / "o/on/m.h").symlink_to(b / "r/y.h"),
        lambda b: (b / "r/l.h").symlink_to(b / "o/on/m.h"),
        lambda b: (b / "r/l.h").unlink(),
        lambda b: (b / "r/l.h").symlink_to(b / "o/on/m.h"),
        lambda b: switch(b / "o/on/m.h", f"{b}/o/files/f.h"),
        lambda b: write(b / "o/files/f.h", "3"),
    ],
    "written at once under a new name": [
        lambda b: write(b / "r/x.h", "1"),
        lambda b: [os.link(b / "r/x.h", b / "r/y.h"), write(b / "r/y.h", "2")],
        lambda b: [os.link(b / "r/x.h", b / "r/z.c"), write(b / "r/z.c", "3")],
        lambda b: write(b / "r/w.h", "1"),
        lambda b: [(b / "r/y.h").unlink(), os.link(b / "r/w.h", b / "r/y.h")],
        lambda b: write(b / "r/y.h", "22"),
        lambda b: write(b / "r/x.h", "4"),
    ],
    "a link in the place of a root that leads nowhere": [
        lambda b: write(b / "o/d/x.h", "1"),
        lambda b: (b / "r/l").symlink_to("../o/d"),
        lambda b: [shutil.rmtree(b / "o/d"), (b / "o/d").symlink_to("nowhere")],
        lambda b: switch(b / "o/d", "nowhere else"),
        lambda b: (b / "o/d").unlink(),
        lambda b: write(b / "o/d/x.h", "2"),
    ],
    "a file in the place of a required directory": [
        lambda b: (b / "r").rmdir(),
        lambda b: write(b / "r", "1"),
        lambda b: write(b / "r", "22"),
        lambda b: move(write(b / "o/new", "333"), b / "r"),
        lambda b: (b / "r").unlink(),
        lambda b: write(b / "r/x.h", "4"),
    ],
    "odd names": [
        lambda b: write(b / "r/caf\udce9/$x: .h", "1"),
        lambda b: write(b / "r/caf\udce9/\udcff.h", "1"),
        lambda b: (b / "r/caf\udce9/l").symlink_to(b"../\xff".decode("utf-8", "surrogateescape")),
    ],
}


def switch(link: Path, target: str) -> None:
    temporary = link.with_name("switching")
    temporary.symlink_to(target)
    temporary.rename(link)


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
def test_the_mirror_follows(mirror: Mirror, steps: list[Step]) -> None:
    for name in ("r", "o"):
        (mirror.base / name).mkdir()
    mirror.job(mirror.base / "r")
    for number, step in enumerate(steps):
        step(mirror.base)
        try:
            mirror.job(mirror.base / "r")
        except AssertionError as error:
            raise AssertionError(f"step {number}: {error}") from error


def test_a_file_that_nothing_leads_to_any_more_does_not_come_back(mirror: Mirror) -> None:
    link, file = mirror.base / "r/l.h", mirror.base / "o/a/x.h"
    write(file, "1")
    write(mirror.base / "r/y.h", "1")
    link.symlink_to(file)
    mirror.job(mirror.base / "r")
    assert mirror.mirroring.manifest.get(str(file)) is not None
    link.unlink()
    mirror.job(mirror.base / "r")
    shutil.rmtree(file.parent)
    mirror.job(mirror.base / "r")
    write(file, "2")
    mirror.job(mirror.base / "r")
    assert mirror.mirroring.manifest.get(str(file)) is None


@pytest.mark.parametrize("at_once", [True, False])
def test_a_linked_file_whose_directory_is_made_anew(mirror: Mirror, at_once: bool) -> None:
    """Generators do that; ext4 then gives both the inodes that they had."""
    write(mirror.base / "r/y.h", "1")
    (mirror.base / "r/l.h").symlink_to(mirror.base / "o/gen/a.h")
    for number in range(8):
        if not at_once:
            shutil.rmtree(mirror.base / "o/gen", ignore_errors=True)
            mirror.job(mirror.base / "r")
        again(mirror.base / "o/gen", "a", f"a{number}")
        mirror.job(mirror.base / "r")
        write(mirror.base / "o/gen/a.h", f"b{number}")
        mirror.job(mirror.base / "r")


@pytest.mark.parametrize("seed", range(8))
def test_the_mirror_follows_random_changes(mirror: Mirror, seed: int) -> None:
    dice = random.Random(seed)
    tops = [mirror.base / "r", mirror.base / "o"]
    for top in tops:
        top.mkdir()
    mirror.job(mirror.base / "r")
    log: list[str] = []
    for _ in range(30):
        for _ in range(dice.randint(1, 3)):
            log += [change_something(dice, tops)]
        try:
            mirror.job(mirror.base / "r")
        except AssertionError as error:
            raise AssertionError(f"{error}\nafter\n" + "\n".join(log)) from error


def change_something(dice: random.Random, tops: list[Path]) -> str:
    """One random operation below two directories; returns what it was."""
    there = [p for top in tops for p in [top, *top.rglob("*")]]
    directories = [p for p in there if p.is_dir() and not p.is_symlink()]
    at = dice.choice(directories) / dice.choice(["a", "b", "x.h", "y.h"])
    other = dice.choice(there)
    what = dice.choice(["write", "write", "mkdir", "remove", "move", "link"])
    try:
        if what == "write":
            if not at.is_symlink():
                at.write_text(str(dice.random()))
        elif what == "mkdir":
            at.mkdir()
            (at / "x.h").write_text(str(dice.random()))
        elif what == "remove":
            if other in tops:
                return ""
            shutil.rmtree(other) if other in directories else other.unlink()
        elif what == "move":
            if other in tops:
                return ""
            other.rename(at)
        else:
            at.symlink_to(dice.choice([str(other), os.path.relpath(other, at.parent)]))
    except OSError as error:
        return f"{what} {at} {other}: {error}"
    return f"{what} {at} {other}"


# --- which directories -----------------------------------------------------------------------


def test_a_named_directory_that_appears_later_is_taken_in(mirror: Mirror) -> None:
    base = mirror.base
    mirror.job(base / "r/not/yet", base / "link")
    write(base / "r/not/yet/x.h", "1")
    mirror.job(base / "r/not/yet", base / "link")
    write(base / "o/y.h", "1")
    (base / "link").symlink_to("o")
    mirror.job(base / "r/not/yet", base / "link")
    write(base / "o/y.h", "2")
    mirror.job(base / "r/not/yet", base / "link")
    assert isinstance(mirror.mirroring.manifest.get(f"{base}/o/y.h"), FileEntry)


def test_what_stands_in_the_place_of_a_directory_and_cannot_be_mirrored(mirror: Mirror) -> None:
    place = mirror.base / "way/inc"
    place.parent.mkdir()
    mirror.job(place)
    for make in (os.mkfifo, lambda path: write(path, "1"), os.mkfifo):
        assert mirror.mirroring.closed([str(place)]) is None
        make(place)
        mirror.job(place)
        assert (mirror.mirroring.closed([str(place)]) is None) == place.is_file()
        place.unlink()
        mirror.job(place)
        assert mirror.mirroring.closed([str(place)]) is None
    write(place, "")
    for text, is_closed in (("pamh of clang", True), ("a typing error", False), ("hmap", True)):
        write(place, text)
        mirror.job(place)
        assert (mirror.mirroring.closed([str(place)]) is not None) == is_closed
    mirror.mirroring.require(["/dev/null"])
    assert mirror.mirroring.closed(["/dev/null"]) is None


def test_an_ancestor_that_moved_takes_its_directories_along(mirror: Mirror) -> None:
    base = mirror.base
    named = base / "top/mid/inc"
    write(named / "x.h", "1")
    write(base / "other/mid/inc/x.h", "2")
    mirror.job(named)
    move(base / "top", base / "away")
    move(base / "other", base / "top")
    mirror.job(named)
    write(named / "x.h", "3")
    mirror.job(named)
    write(named / "new/y.h", "3")
    mirror.job(named)


def test_an_ancestor_that_was_seen_absent_comes_back(mirror: Mirror) -> None:
    base = mirror.base
    named = base / "top/mid/inc"
    write(named / "sub/x.h", "1")
    mirror.job(named)
    move(base / "top", base / "away")
    mirror.job(named)
    write(named / "sub/x.h", "2")
    mirror.job(named)
    write(named / "sub/x.h", "3")
    mirror.job(named)
    write(named / "y.h", "4")
    mirror.job(named)


def test_a_directory_first_named_after_its_root_was_replaced(mirror: Mirror) -> None:
    base = mirror.base
    write(base / "top/inc/sub/x.h", "1")
    mirror.job(base / "top/inc")
    move(base / "top", base / "away")
    write(base / "top/inc/sub/x.h", "2")
    mirror.job(base / "top/inc/sub")
    write(base / "top/inc/sub/x.h", "3")
    mirror.job(base / "top/inc/sub")


def test_a_link_on_the_way_is_switched(mirror: Mirror) -> None:
    base = mirror.base
    for version in ("v1", "v2"):
        write(base / version / "inc/x.h", version)
    (base / "now").symlink_to("v1")
    mirror.job(base / "now/inc")
    switch(base / "now", "v2")
    mirror.job(base / "now/inc")
    write(base / "v2/inc/x.h", "3")
    mirror.job(base / "now/inc")


@pytest.mark.parametrize("spelled", ["p/cur", "p/cur/../inc"])
def test_a_link_that_leads_nowhere_goes_before_its_target_is_there_again(
    mirror: Mirror, spelled: str
) -> None:
    base = mirror.base
    (base / "p").mkdir()
    write(base / "gen/inc/x.h", "1")
    (base / "p/cur").symlink_to("../gen/inc")
    named = (base / spelled, base / "gen")
    mirror.job(*named)
    shutil.rmtree(base / "gen/inc")
    mirror.job(*named)
    (base / "p/cur").unlink()
    mirror.job(*named)
    write(base / "gen/inc/x.h", "2")
    mirror.job(*named)
    assert mirror.mirroring.manifest.resolve(str(base / spelled)) is None


def test_a_link_in_a_chain_goes_before_its_target_is_there(mirror: Mirror) -> None:
    base = mirror.base
    file, middle, first = base / "r/y.h", base / "o/on/m.h", base / "r/l.h"
    write(file, "1")
    middle.parent.mkdir(parents=True)
    middle.symlink_to(file)
    first.symlink_to(middle)
    mirror.job(base / "r")
    for gone in (file, middle):
        gone.unlink()
        mirror.job(base / "r")
    write(file, "2")
    mirror.job(base / "r")
    assert mirror.mirroring.manifest.resolve(str(first)) is None
    middle.symlink_to(file)
    mirror.job(base / "r")
    assert mirror.mirroring.manifest.resolve(str(first)) == str(file)


def test_a_link_that_leads_to_the_same_by_another_way(mirror: Mirror) -> None:
    base = mirror.base
    for name in ("d", "e"):
        write(base / f"o/{name}/x.h", name)
    (base / "o/on").mkdir()
    (base / "o/on/now").symlink_to("was")
    (base / "o/on/was").symlink_to("../d")
    write(base / "r/y.h")
    (base / "r/l").symlink_to(base / "o/on/now")
    mirror.job(base / "r")
    switch(base / "o/on/now", "../d")
    mirror.job(base / "r")
    switch(base / "o/on/was", "../e")
    mirror.job(base / "r")
    assert mirror.mirroring.manifest.resolve(f"{base}/r/l/x.h") == f"{base}/o/d/x.h"


def test_a_step_back_from_a_directory_that_is_gone(mirror: Mirror) -> None:
    base = mirror.base
    named = (base / "p/a/../b", base / "p/c")
    (base / "p/a").mkdir(parents=True)
    (base / "p/c").mkdir()
    mirror.job(*named)
    (base / "p/a").rmdir()
    mirror.job(*named)
    (base / "p/b").mkdir()
    mirror.job(*named)
    assert mirror.mirroring.manifest.get(str(base / "p/a")) is None


def test_roots_in_roots_and_in_closed_directories(mirror: Mirror) -> None:
    base = mirror.base
    inner, deep = base / "r/.git/inc", base / "r/sub/deep"
    write(inner / "x.h", "1")
    write(deep / "x.h", "1")
    mirror.job(deep)
    mirror.job(inner)
    mirror.job(base / "r")
    for path in (inner / "x.h", deep / "x.h", base / "r/x.h", inner / "n/y.h", deep / "n/y.h"):
        write(path, "2")
        mirror.job(base / "r")
    move(base / "r/sub", base / "r/gone")
    mirror.job(base / "r")
    move(base / "r/gone", base / "r/sub")
    mirror.job(base / "r")
    write(deep / "x.h", "3")
    mirror.job(base / "r")


def test_a_root_in_a_root_is_replaced_with_its_parent(mirror: Mirror) -> None:
    base = mirror.base
    write(base / "r/sub/deep/x.h", "1")
    write(base / "o/sub/deep/y.h", "2")
    mirror.job(base / "r/sub/deep")
    mirror.job(base / "r")
    move(base / "r/sub", base / "gone")
    move(base / "o/sub", base / "r/sub")
    mirror.job(base / "r")
    shutil.rmtree(base / "r/sub")
    (base / "r/sub").mkdir()
    mirror.job(base / "r")
    write(base / "r/sub/deep/z.h", "3")
    mirror.job(base / "r")
    write(base / "r/sub/deep/z.h", "4")
    mirror.job(base / "r")


def test_of_a_broad_directory_only_the_top_is_mirrored(mirror: Mirror) -> None:
    home = mirror.base / "home"
    write(home / "x.h", "1")
    write(home / "project/deep/x.h", "1")
    mirror.job(home)
    assert mirror.mirroring.roots.shallow() == [str(home)]
    assert mirror.mirroring.manifest.get(f"{home}/project") == DIRECTORY
    assert mirror.mirroring.manifest.get(f"{home}/project/deep") is None
    write(home / "x.h", "2")
    write(home / "project/y.h", "2")
    (home / "new").mkdir()
    mirror.job(home)
    mirror.job(home / "project")
    write(home / "project/y.h", "3")
    mirror.job(home)
    shutil.rmtree(home / "project")
    mirror.job(home)
    shutil.rmtree(home)
    write(home / "x.h", "4")
    mirror.job(home)
    write(home / "x.h", "5")
    mirror.job(home)


def test_a_broad_directory_is_replaced_while_nobody_looks(mirror: Mirror) -> None:
    """The new directory may have the old one's inode number: only events tell."""
    home = mirror.base / "home"
    write(home / "x.h", "1")
    mirror.job(home)
    for n in range(5):
        shutil.rmtree(home)
        write(home / f"{n}.h", "2")
        mirror.job(home)
        write(home / f"{n}.h", "3")
        mirror.job(home)


def test_a_closed_directory_that_is_named_itself(mirror: Mirror) -> None:
    closed = mirror.base / "r/.cache"
    write(closed / "x.h", "1")
    mirror.job(closed)
    for n in range(3):
        shutil.rmtree(closed)
        write(closed / f"sub/{n}.h", "2")
        mirror.job(closed)
        write(closed / f"sub/{n}.h", "3")
        mirror.job(closed)


@pytest.mark.parametrize("where", ["at first", "later"])
def test_of_a_huge_tree_only_the_top_is_mirrored(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(survey_module, "MAX_TREE_ENTRIES", 20)
    base, root = mirror.base, mirror.base / "r"
    write(root / "x.h", "1")
    write(root / ".git/inc/x.h", "1")
    if where == "later":
        mirror.job(root, root / ".git/inc")
    for n in range(10):
        for name in ("x.h", "y.h", "z.h"):
            write(base / f"o/many/d{n}/{name}", "1")
    move(base / "o/many", root / "many")
    mirror.job(root, root / ".git/inc")
    assert str(root) in mirror.mirroring.roots.shallow()
    write(root / "x.h", "2")
    write(root / ".git/inc/x.h", "2")
    mirror.job(root, root / ".git/inc")
    mirror.job(root / "many/d1")
    write(root / "many/d1/x.h", "2")
    mirror.job(root)


def test_a_deferred_directory_is_mirrored_once_it_is_named(mirror: Mirror) -> None:
    deferred = mirror.base / "d"
    write(deferred / "a/x.h", "1")
    mirror.mirroring.defer(str(deferred))
    mirror.mirroring.defer("/nowhere")
    assert mirror.mirroring.settle() == 0
    assert mirror.mirroring.changes("me", "", 0).roots == []
    write(deferred / "a/x.h", "2")
    mirror.mirroring.settle()
    mirror.job(deferred)
    root = mirror.mirroring.roots.get(str(deferred))
    assert root is not None
    assert root.kind is Kind.DEEP
    write(deferred / "a/x.h", "3")
    mirror.job(deferred)


def test_what_changes_in_a_deferred_directory_is_mirrored(tmp_path: Path) -> None:
    mirror = Mirror(base_of(tmp_path), "", "inotify")
    base = mirror.base
    try:
        write(base / "d/a/x.h", "1")
        mirror.mirroring.defer(str(base / "d"))
        write(base / "d/a/x.h", "2")
        mirror.mirroring.settle()
        held = set(mirror.mirroring.manifest.below(str(base)))
        assert held == {f"{base}/d", f"{base}/d/a", f"{base}/d/a/x.h"}
    finally:
        mirror.mirroring.stop()


# --- files by name ---------------------------------------------------------------------------


def test_wanted_files_are_mirrored_and_followed(mirror: Mirror) -> None:
    base = mirror.base
    source, foreign = base / "r/x.c", base / "o/y.o"
    write(source, "1")
    write(foreign, "1")
    (base / "link.c").symlink_to("o/y.o")
    mirror.job(base / "r")
    assert mirror.mirroring.manifest.get(str(source)) == WITHHELD
    assert mirror.mirroring.want(str(source))
    assert not mirror.mirroring.want(str(source))
    assert mirror.mirroring.want(str(base / "link.c"))
    assert not mirror.mirroring.want("/nowhere/x.h")
    assert not mirror.mirroring.want(str(base / "r"))
    mirror.job(base / "r")
    for text in ("2", "3"):
        write(source, text)
        write(foreign, text)
        mirror.job(base / "r")
    foreign.unlink()
    mirror.job(base / "r")
    write(foreign, "4")
    mirror.job(base / "r")
    assert isinstance(mirror.mirroring.manifest.get(str(foreign)), FileEntry)


def test_of_a_wanted_files_directory_the_top_is_mirrored_until_a_job_names_it(
    mirror: Mirror,
) -> None:
    base, get = mirror.base, mirror.mirroring.manifest.get
    for name in ("o/x.h", "o/beside.h", "o/sub/y.h"):
        write(base / name, "1")
    (base / "r").mkdir()
    mirror.job(base / "r")
    assert mirror.mirroring.want(f"{base}/o/x.h")
    mirror.job(base / "r")
    assert isinstance(get(f"{base}/o/beside.h"), FileEntry)
    assert (get(f"{base}/o/sub"), get(f"{base}/o/sub/y.h")) == (DIRECTORY, None)
    assert (mirror.mirroring.roots.shallow(), mirror.mirroring.roots.wide()) == ([f"{base}/o"], [])
    write(base / "o/new.h", "1")
    mirror.job(base / "r")
    assert isinstance(get(f"{base}/o/new.h"), FileEntry)
    mirror.job(base / "o")
    assert isinstance(get(f"{base}/o/sub/y.h"), FileEntry)
    assert mirror.mirroring.roots.shallow() == []


@pytest.mark.parametrize(
    "name",
    [
        "home/.netrc",
        "home/.ssh/key.h",
        "o/.aws/key.h",
        "ours/certs/dev/token",
        "ours/state/x.h",
        "home/link.h",
        "home/inside/x.h",
    ],
)
def test_no_keys_are_mirrored_whatever_asks_for_them(mirror: Mirror, name: str) -> None:
    base = mirror.base
    for secret in ("home/.netrc", "home/.ssh/key.h", "o/.aws/key.h", "ours/certs/dev/token"):
        write(base / secret, "1")
    write(base / "ours/state/x.h", "1")
    (base / "ours" / HOME_MARKER).touch()
    (base / "home/link.h").symlink_to(".ssh/key.h")
    (base / "home/inside").symlink_to("../ours/state")
    mirror.mirroring.require([f"{base}/home"])
    assert not mirror.mirroring.want(f"{base}/{name}")
    manifest = mirror.mirroring.manifest
    held = [p for p in manifest.below("/") if isinstance(manifest.get(p), FileEntry)]
    assert held == []


def test_a_directory_of_keys_that_a_job_names_is_mirrored(mirror: Mirror) -> None:
    path = mirror.base / "home/.ssh/x.h"
    write(path, "1")
    mirror.mirroring.require([str(path.parent)])
    assert isinstance(mirror.mirroring.manifest.get(str(path)), FileEntry)


def test_a_wanted_file_whose_ancestor_moved(mirror: Mirror) -> None:
    base = mirror.base
    write(base / "o/deep/y.c", "1")
    (base / "r").mkdir()
    mirror.job(base / "r")
    mirror.mirroring.want(f"{base}/o/deep/y.c")
    move(base / "o", base / "p")
    write(base / "o/deep/y.c", "2")
    mirror.job(base / "r")
    write(base / "o/deep/y.c", "3")
    mirror.job(base / "r")


def test_a_rechecked_file_is_read_again_however_unchanged_it_looks(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distbuild.mirror.digest_cache.time.time_ns", lambda: 2**62)
    path = str(write(mirror.base / "r/x.h", "12345"))
    mirror.job(mirror.base / "r")
    before = mirror.scanner.hashed_bytes
    mirror.mirroring.recheck([path])
    assert mirror.scanner.hashed_bytes == before + 5


# --- lost events -----------------------------------------------------------------------------


def test_after_lost_events_everything_is_listed_again(tmp_path: Path) -> None:
    mirror = Mirror(base_of(tmp_path), "", "inotify")
    base = mirror.base
    try:
        write(base / "r/a/x.h", "1")
        (base / "r/l.h").symlink_to(write(base / "o/l.h", "1"))
        mirror.job(base / "r")
        lose_events(mirror)
        move(base / "r/a", base / "r/b")
        write(base / "r/a/x.h", "2")
        write(base / "o/l.h", "2")
        assert mirror.mirroring._watcher.barrier()
        find_events_again(mirror)
        mirror.mirroring._pending.overflowed()
        mirror.job(base / "r")
        assert mirror.mirroring.rescans == 1
        for path in ("r/a/x.h", "r/b/x.h", "r/a/y.h", "r/b/y.h", "o/l.h"):
            write(base / path, "3")
            mirror.job(base / "r")
    finally:
        mirror.mirroring.stop()


def lose_events(mirror: Mirror) -> None:
    watcher = mirror.mirroring._watcher
    watcher._dispatch = lambda *event: None  # type: ignore[attr-defined]


def find_events_again(mirror: Mirror) -> None:
    del mirror.mirroring._watcher._dispatch  # type: ignore[attr-defined]


def test_an_uncertain_barrier_counts_as_lost_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror(base_of(tmp_path), "", "inotify")
    base = mirror.base
    try:
        write(base / "r/x.h", "1")
        mirror.job(base / "r")
        monkeypatch.setattr(mirror.mirroring._watcher, "barrier", lambda: False)
        lose_events(mirror)
        write(base / "r/x.h", "2")
        mirror.job(base / "r")
    finally:
        mirror.mirroring.stop()


def test_an_unwatchable_directory_is_listed_for_each_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror(base_of(tmp_path), "", "inotify")
    base = mirror.base
    watcher = mirror.mirroring._watcher
    add = watcher.add
    monkeypatch.setattr(watcher, "add", lambda d: not d.endswith("/unwatched") and add(d))
    try:
        write(base / "r/unwatched/x.h", "1")
        mirror.job(base / "r")
        root = mirror.mirroring.roots.get(f"{base}/r")
        assert root is not None
        assert root.polled
        write(base / "r/unwatched/x.h", "2")
        mirror.job(base / "r")
    finally:
        mirror.mirroring.stop()


def test_one_listing_serves_all_jobs_that_asked_before_it_began(tmp_path: Path) -> None:
    mirror = Mirror(base_of(tmp_path), "", "none")
    live = mirror.mirroring
    try:
        write(mirror.base / "r/x.h", "1")
        mirror.job(mirror.base / "r")
        asked = next(live._moments)
        live.settle()
        listed = mirror.scanner.listed
        live._list_polled(asked)
        assert mirror.scanner.listed == listed
        live._list_polled(next(live._moments))
        assert mirror.scanner.listed > listed
    finally:
        live.stop()


def test_what_was_named_is_told_from_what_was_remembered(mirror: Mirror) -> None:
    base = mirror.base
    for name in ("a", "b", "c"):
        write(base / name / "x.h")
    (base / "a/l").symlink_to("../c")
    mirror.mirroring.require([str(base / "b"), str(base / "a")], named=False)
    assert mirror.mirroring.required() == []
    mirror.job(base / "a", base / "none")
    assert mirror.mirroring.required() == [str(base / "a")]


# --- changes ---------------------------------------------------------------------------------


def test_changes_are_complete_unless_the_base_is_known(mirror: Mirror) -> None:
    write(mirror.base / "r/x.h", "1")
    mirror.job(mirror.base / "r")
    write(mirror.base / "r/x.h", "2")
    mirror.job(mirror.base / "r")
    live = mirror.mirroring
    now = live.manifest.generation
    whole = live.manifest.since(0)
    bases = [(live.epoch, 0), ("other", now), (live.epoch, now + 1), (live.epoch, -1)]
    for epoch, have in bases:
        changes = live.changes("me", epoch, have)
        assert (changes.base, changes.target, changes.entries) == (0, now, whole)
    assert [c.path for c in live.changes("me", live.epoch, now - 1).entries or ()] == [
        os.fsencode(mirror.base / "r/x.h")
    ]
    offer = live.changes("me", "", 0, offer=True)
    assert (offer.entries, offer.summary) == (None, live.manifest.summary())


def test_without_a_change_nobody_is_rung(mirror: Mirror) -> None:
    write(mirror.base / "r/x.h", "1")
    mirror.job(mirror.base / "r")
    rung = mirror.rung
    assert rung > 0
    mirror.job(mirror.base / "r")
    write(mirror.base / "r/x.o", "1")
    mirror.job(mirror.base / "r")
    assert mirror.rung == rung


def test_a_link_that_leads_to_its_directory_again_after_that_was_moved(mirror: Mirror) -> None:
    base = mirror.base
    write(base / "p/real/inc/x.h", "1")
    (base / "p/cur").symlink_to("real")
    mirror.job(base / "p/cur/inc")
    (base / "p/real").rename(base / "p/real2")
    (base / "p/cur").unlink()
    (base / "p/cur").symlink_to("real2")
    mirror.job(base / "p/cur/inc")
    (base / "p/cur").unlink()
    (base / "p/real2").rename(base / "p/cur")
    mirror.job(base / "p/cur/inc")
    write(base / "p/cur/inc/x.h", "3")
    mirror.job(base / "p/cur/inc")


def test_a_link_in_the_place_of_a_directory_stays_one(mirror: Mirror) -> None:
    base = mirror.base
    named = [f"{base}/proj/cur", f"{base}/proj/cur/../inc"]
    for name in ("proj/cur/x.h", "other/v2/x.h", "proj/inc/v.h", "other/inc/v.h"):
        write(base / name, name)
    mirror.job(*named)
    shutil.rmtree(base / "proj/cur")
    mirror.mirroring.settle()
    (base / "proj/cur").symlink_to("../other/v2")
    for _ in range(3):
        mirror.job(*named)
        assert mirror.mirroring.manifest.get(f"{base}/other/inc/v.h") is not None


@pytest.mark.parametrize("second", ["r/y.h", "o/y.h", "r/y.c"])
@pytest.mark.parametrize("is_young", [True, False])
def test_a_file_is_written_under_a_name_that_it_got_later(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, second: str, is_young: bool
) -> None:
    monkeypatch.setattr(digest_cache, "RACY_NS", 10**18 if is_young else -(10**18))
    base = mirror.base
    first = write(base / "r/x.h", "1")
    (base / "o").mkdir()
    mirror.job(base / "r", base / "o")
    os.link(first, base / second)
    mirror.job(base / "r", base / "o")
    for text in ("2", "33"):
        write(base / second, text)
        mirror.job(base / "r", base / "o")
    (base / second).unlink()
    write(first, "4")
    mirror.job(base / "r", base / "o")


# --- mounts ----------------------------------------------------------------------------------


@pytest.fixture
def mounts() -> Iterator[Callable[..., None]]:
    """Mounts by the words of mount(8), the last of which is the place; unmounted in the end."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    places: list[str] = []

    def mount(*words: str | Path) -> None:
        done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            absent(f"mount: {done.stderr.strip()}")
        places.append(str(words[-1]))

    yield mount
    for place in reversed(places):
        subprocess.run(["umount", place], check=True)


def test_what_is_mounted_above_a_root_is_watched(
    mirror: Mirror, mounts: Callable[..., None]
) -> None:
    root, linked = mirror.base / "a/b/r", mirror.base / "a/o/x.h"
    write(root / "x.h", "1")
    write(linked, "1")
    write(mirror.base / "l/y.h", "1")
    (mirror.base / "l/l.h").symlink_to(linked)
    mirror.job(root, mirror.base / "l")
    mounts("-t", "tmpfs", "none", mirror.base / "a")
    for text in ("2", "33", "444"):
        write(root / "x.h", text)
        write(linked, text)
        mirror.job(root, mirror.base / "l")


def test_a_root_in_which_files_of_other_machines_are_mounted_is_listed_for_each_job(
    tmp_path: Path, mounts: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror(base_of(tmp_path), "", "inotify")
    place = mirror.base / "r/shared"
    monkeypatch.setattr(survey_module, "is_remote", lambda d: d == str(place))
    try:
        write(mirror.base / "r/x.h")
        mirror.job(mirror.base / "r")
        root = mirror.mirroring.roots.get(f"{mirror.base}/r")
        assert root is not None
        assert not root.polled
        place.mkdir()
        mounts("-t", "tmpfs", "none", place)
        write(place / "y.h")
        mirror.job(mirror.base / "r")
        assert root.polled
    finally:
        mirror.mirroring.stop()


def test_a_file_that_is_mounted_is_looked_at(mirror: Mirror, mounts: Callable[..., None]) -> None:
    outside, inside = write(mirror.base / "o/x.h", "1"), write(mirror.base / "r/x.h", "1")
    mirror.job(inside.parent)
    mounts("--bind", outside, inside)
    for text in ("2", "33"):
        write(outside, text)
        mirror.job(inside.parent)
        write(inside, text + "4")
        mirror.job(inside.parent)


def sandbox(base: Path, number: int, sources: Path) -> Path:
    """A directory as Bazel makes them: links to the files of another one."""
    made = base / "sandbox" / str(number)
    for source in sorted(sources.iterdir()):
        link = made / "work" / source.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)
    return made


def test_sandboxes_that_come_and_go_leave_nothing_behind(mirror: Mirror) -> None:
    """What is kept depends on what is there now, not on what was there once."""
    base = mirror.base
    sources = base / "o"
    for name in "abcd":
        write(sources / f"{name}.h", f"// {name}\n")
    write(base / "r/x.h", "\n")
    for number in range(survey_module.MAX_GONE_ROOTS + 24):
        made = sandbox(base, number, sources)
        mirror.job(base / "r", made / "work")
        shutil.rmtree(made)
        mirror.job(base / "r")
    live, manifest = mirror.mirroring, mirror.mirroring.manifest
    sandboxes = {p for p in manifest.below(str(base)) if "/sandbox/" in p}
    assert len(sandboxes) <= survey_module.MAX_GONE_ROOTS
    assert len(list(live.roots)) <= survey_module.MAX_GONE_ROOTS + 2
    assert len(live._symlinks.pins.paths) <= 2 * survey_module.MAX_GONE_ROOTS + 20
    assert manifest.get(str(sources / "a.h")) is None
    assert live._symlinks._alike.links() == []
    assert live._symlinks._loose.unwatched() == []
    assert live._symlinks._loose._directories == {}
    again = sandbox(base, 0, sources)
    mirror.job(again / "work")
    assert isinstance(manifest.get(str(sources / "a.h")), FileEntry)


def test_a_long_chain_of_directories_that_link_to_the_next(mirror: Mirror) -> None:
    """Each is found only once the one before is mirrored."""
    for n in range(LONG_CHAIN):
        write(mirror.base / f"d{n}" / "x.h", f"int x{n};\n")
    for n in range(1, LONG_CHAIN):
        (mirror.base / f"d{n - 1}" / "next").symlink_to(f"../d{n}")
    mirror.job(mirror.base / "d0")
    last = str(mirror.base / f"d{LONG_CHAIN - 1}" / "x.h")
    assert isinstance(mirror.mirroring.manifest.get(last), FileEntry)


def test_a_file_that_two_links_lead_to_stays_until_both_are_gone(mirror: Mirror) -> None:
    base = mirror.base
    target = write(base / "o/a.h", "\n")
    for name in ("one.h", "two.h"):
        write(base / "r/x.h")
        (base / "r" / name).symlink_to(target)
    mirror.job(base / "r")
    (base / "r/one.h").unlink()
    mirror.job(base / "r")
    assert isinstance(mirror.mirroring.manifest.get(str(target)), FileEntry)
    write(target, "// edited\n")
    mirror.job(base / "r")
    (base / "r/two.h").unlink()
    mirror.job(base / "r")
    assert mirror.mirroring.manifest.get(str(target)) is None
    (base / "r/two.h").symlink_to(target)
    mirror.job(base / "r")
    assert isinstance(mirror.mirroring.manifest.get(str(target)), FileEntry)


def test_absent_directories_are_forgotten_after_a_while(mirror: Mirror) -> None:
    base = mirror.base
    tops = [base / f"gone/{number}" for number in range(survey_module.MAX_ABSENT + 44)]
    for top in tops:
        top.mkdir(parents=True)
    mirror.job(base, *(top / "absent" for top in tops))
    shutil.rmtree(base / "gone")
    mirror.job(base)
    live = mirror.mirroring
    assert len(live._symlinks.pins.paths) <= survey_module.MAX_ABSENT + 20
    late = write(tops[0] / "absent/a.h")  # the oldest one
    mirror.job(late.parent)
    assert isinstance(live.manifest.get(str(late)), FileEntry)


def test_a_link_to_a_file_of_an_ignored_name_leads_there(mirror: Mirror) -> None:
    place = mirror.base / "r"
    place.mkdir()
    (place / "x.h").symlink_to("x.tmp")
    (place / "y.h").symlink_to("l.tmp")
    mirror.job(place)
    held = mirror.mirroring.manifest
    for text in ("1", "2"):
        write(place / "x.tmp", text)
        mirror.job(place)
        assert held.leads_to_file(str(place / "x.h"))
    write(mirror.base / "o/r.h", "1")
    (place / "l.tmp").symlink_to("../o/r.h")
    mirror.job(place)
    assert held.leads_to_file(str(place / "y.h"))
    (place / "x.tmp").unlink()
    mirror.job(place)
    assert not held.leads_to_file(str(place / "x.h"))


def meanwhile(mirror: Mirror) -> None:
    """A job in another directory."""
    mirror.mirroring.require([str(mirror.base / "q/r")])
    mirror.mirroring.settle()


def away(base: Path, mirror: Mirror) -> None:
    move(base / "p", base / "away")
    meanwhile(mirror)
    move(base / "away", base / "p")


def replaced_by_link(base: Path, mirror: Mirror) -> None:
    move(base / "p", base / "away")
    (base / "p").symlink_to("q")
    meanwhile(mirror)
    (base / "p").unlink()
    move(base / "away", base / "p")


def unlinked(base: Path, mirror: Mirror) -> None:
    (base / "l").unlink()
    meanwhile(mirror)
    (base / "l").symlink_to("p")


@pytest.mark.parametrize("leave", [away, replaced_by_link, unlinked])
def test_a_directory_that_comes_back_is_mirrored_with_its_path(
    mirror: Mirror, leave: Callable[[Path, Mirror], None]
) -> None:
    """It is the same directory, while a part of its path was gone or was a link for a while."""
    base = mirror.base
    write(base / "p/r/x.h", "1")
    write(base / "q/r/x.h", "2")
    (base / "l").symlink_to("p")
    mirror.job(base / ("l/r" if leave is unlinked else "p/r"))
    leave(base, mirror)
    mirror.job(base / ("l/r" if leave is unlinked else "p/r"))
