import os
from pathlib import Path

import pytest

from distbuild.mirror.manifest import DIRECTORY
from distbuild.mirror.root_listing import ancestors
from distbuild.mirror.roots import NO_DIRECTORY, Kind, Root, Roots, Trace, identity, inside, trace
from distbuild.protocol.messages import Entry, SymlinkEntry
from distbuild.system import disk


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(os.path.realpath(tmp_path))


def below(way: Trace, base: Path) -> dict[str, Entry]:
    """The trace's entries under ``base``, by relative path."""
    prefix = f"{base}/"
    return {p.removeprefix(prefix): e for p, e in way.entries.items() if p.startswith(prefix)}


def test_a_trace_passes_every_link_and_directory(base: Path) -> None:
    (base / "real/deep").mkdir(parents=True)
    (base / "real/other").mkdir()
    (base / "real/other/x.h").touch()
    (base / "link").symlink_to("real/deep")
    (base / "again").symlink_to(base / "link")
    way = trace(f"{base}/again/../other/./x.h")
    assert way.real == f"{base}/real/other/x.h"
    assert not way.is_directory
    assert below(way, base) == {
        "again": SymlinkEntry(os.fsencode(base / "link")),
        "link": SymlinkEntry(b"real/deep"),
        "real": DIRECTORY,
        "real/deep": DIRECTORY,
        "real/other": DIRECTORY,
    }
    assert all(way.entries[str(parent)] == DIRECTORY for parent in base.parents[:-1])


@pytest.mark.parametrize("path", ["missing", "missing/../there", "file/x", "file/..", "loop", "up"])
def test_a_trace_that_breaks_off_leads_nowhere(base: Path, path: str) -> None:
    (base / "there").mkdir()
    (base / "file").touch()
    (base / "loop").symlink_to("loop")
    (base / "up").symlink_to("missing/..")
    way = trace(f"{base}/{path}")
    assert way.real is None
    assert not os.path.exists(base / path)


def test_the_way_to_a_missing_target_is_kept(base: Path) -> None:
    (base / "link").symlink_to("not/yet")
    assert below(trace(f"{base}/link"), base) == {"link": SymlinkEntry(b"not/yet")}


def test_the_root_directory_leads_to_itself() -> None:
    assert trace("/..") == Trace({}, "/", True)


def test_identity_is_of_directories_behind_links(base: Path) -> None:
    (base / "d").mkdir()
    (base / "file").touch()
    (base / "link").symlink_to("d")
    status = (base / "d").stat()
    expected = [(status.st_dev, status.st_ino)] * 2 + [NO_DIRECTORY, None]
    assert [identity(f"{base}/{n}") for n in ("d", "link", "file", "none")] == expected


@pytest.mark.parametrize(
    ("path", "directory", "expected"),
    [
        ("/a", "/a", True),
        ("/a/b", "/a", True),
        ("/ab", "/a", False),
        ("/a", "/a/b", False),
        ("/a", "/", True),
        ("/", "/", True),
    ],
)
def test_inside(path: str, directory: str, expected: bool) -> None:
    assert inside(path, directory) is expected


@pytest.mark.parametrize(
    ("path", "holder"),
    [
        ("/p", "/p"),
        ("/p/a/b/x.h", "/p"),
        ("/p/.git", "/p"),
        ("/p/.git/config", None),
        ("/p/CMakeFiles/Progress", "/p"),
        ("/p/CMakeFiles/Progress/1", None),
        ("/p/Progress/1", "/p"),
        ("/p/.git/inc", "/p/.git/inc"),
        ("/p/.git/inc/a/x.h", "/p/.git/inc"),
        ("/s/x.h", "/s"),
        ("/s/sub", "/s"),
        ("/s/sub/x.h", None),
        ("/s/deep", "/s/deep"),
        ("/s/deep/a/x.h", "/s/deep"),
        ("/d/a/b/x.h", "/d"),
        ("/q/x.h", None),
        ("/", None),
    ],
)
def test_a_path_is_held_by_the_deep_root_or_the_nearest(path: str, holder: str | None) -> None:
    roots = Roots()
    for root in (
        Root("/p", Kind.DEEP),
        Root("/p/.git/inc", Kind.DEEP),
        Root("/s", Kind.SHALLOW),
        Root("/s/deep", Kind.DEEP),
        Root("/d", Kind.DEFERRED),
    ):
        roots.add(root)
    held = roots.holding(path)
    assert (held.path if held else None) == holder


@pytest.mark.parametrize(
    "directory", ["/", "/d", "/d/sub", "/d/.git", "/other", "/top", "/top/sub"]
)
def test_a_directory_s_files_are_held_as_each_of_them_is(directory: str) -> None:
    roots = Roots()
    roots.add(Root("/d", Kind.DEEP))
    roots.add(Root("/top", Kind.SHALLOW))

    file = directory.rstrip("/") + "/x.h"
    assert roots.holds_files_of(directory) == (roots.holding(file) is not None)


def test_roots_can_be_replaced_and_discarded() -> None:
    roots = Roots()
    for root in (Root("/p", Kind.SHALLOW), Root("/p/a", Kind.DEEP), Root("/pa", Kind.DEEP)):
        roots.add(root)
    roots.add(Root("/p", Kind.DEEP))
    assert roots.nested("/p") == ["/p/a"]
    roots.discard("/pa")
    roots.discard("/pa")
    assert list(roots) == [Root("/p", Kind.DEEP), Root("/p/a", Kind.DEEP)]
    assert (len(roots), roots.get("/pa")) == (2, None)


def test_looking_upwards_ends_whatever_the_path() -> None:
    roots = Roots()
    for path in ("//x", "//", "/", "x", ""):
        assert roots.holding(path) is None
        assert len(list(ancestors(path))) <= 2
    shallow = Root("/", Kind.SHALLOW)
    roots.add(shallow)
    assert roots.holding("/x") is shallow
    assert roots.holding("/x/y") is None


def test_a_directory_that_may_not_be_searched_ends_the_trace(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its links count: it may become searchable, and the path then leads through them."""
    (base / "closed").mkdir()
    (base / "link").symlink_to("closed")

    def lstat(path: str) -> os.stat_result:
        if path.startswith(f"{base}/closed/"):
            raise PermissionError(13, "Permission denied", path)
        return os.lstat(path)

    monkeypatch.setattr(disk, "lstat", lstat)
    way = trace(f"{base}/link/x.h")
    assert (way.real, way.is_directory) == (None, False)
    assert below(way, base) == {"link": SymlinkEntry(b"closed"), "closed": DIRECTORY}


def test_the_links_of_a_chain_that_is_too_long_are_all_kept(base: Path) -> None:
    """A tree with fewer of them would end in a missing file instead of too many links."""
    for n in range(1, 43):
        (base / f"l{n}").symlink_to(f"l{n - 1}")
    way = trace(f"{base}/l42")
    assert way.real is None
    assert below(way, base).keys() == {f"l{n}" for n in range(2, 43)}
