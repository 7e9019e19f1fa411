"""What the object cache promises, case by case: when an equal command is a hit, and when not. Each
result is the local compiler's."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.caching_box import CachingBox, done_of, is_hit
from tests.support.cluster import Done, run_here
from tests.support.tools import need

ARGV = ("gcc", "-g", "-c", "src/x.c", "-Iearly", "-Iinc", "-Ilink", "-o", "x.o", "-MD")
TEXT = '#include "x.h"\n#if __has_include("may.h")\nint may;\n#endif\nint x = X;\n'
HIT, MISS = True, False


class Case(NamedTuple):
    """Something that happens between two builds; ``more``, ``env``: of the second one."""

    edit: Callable[[Path], object]
    is_hit: bool
    more: tuple[str, ...] = ()
    env: dict[str, str] = {}


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(text)


def retarget(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("second")


def revert(root: Path) -> None:
    write(root, "inc/x.h", "#define X 2\n")
    write(root, "inc/x.h", "#define X 1\n")


def switch_branch(root: Path) -> None:
    shutil.rmtree(root / "inc")
    write(root, "inc/x.h", "#define X 1\n")


def nothing(_: Path) -> None:
    pass


CASES = {
    "nothing happens": Case(nothing, HIT),
    "a header appears earlier in the path": Case(
        lambda root: write(root, "early/x.h", "#define X 2\n"), MISS
    ),
    "a header appears beside the source": Case(
        lambda root: write(root, "src/x.h", "#define X 2\n"), MISS
    ),
    "the operand of __has_include appears": Case(lambda root: write(root, "early/may.h", ""), MISS),
    "an unrelated header appears": Case(lambda root: write(root, "early/y.h", ""), HIT),
    "a search directory comes to exist, with the header": Case(
        lambda root: write(root, "new/x.h", "#define X 2\n"), MISS, ("-Inew",)
    ),
    "a symlink is switched": Case(retarget, MISS),
    "a header is edited": Case(lambda root: write(root, "inc/x.h", "#define X 2\n"), MISS),
    "a header is deleted": Case(lambda root: (root / "inc/x.h").unlink(), MISS),
    "a header is touched, but equal": Case(lambda root: os.utime(root / "inc/x.h", (1, 1)), HIT),
    "a header is edited and reverted": Case(revert, HIT),
    "a directory is removed and made again": Case(switch_branch, HIT),
    "the source is edited": Case(lambda root: write(root, "src/x.c", TEXT + "int y;\n"), MISS),
    "the source is touched, but equal": Case(lambda root: os.utime(root / "src/x.c", (1, 1)), HIT),
    "CPATH names a directory": Case(nothing, MISS, env={"CPATH": "second"}),
    "another variable changes": Case(nothing, HIT, env={"EDITOR": "vi"}),
    "-D options change their order": Case(nothing, MISS, ("-DB", "-DA")),
}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CachingBox]:
    started = CachingBox(tmp_path_factory.mktemp("box"))
    yield started
    started.stop()


def project(root: Path) -> Path:
    for name in ("early", "first", "second"):
        (root / name).mkdir(parents=True)
    write(root, "src/x.c", TEXT)
    write(root, "inc/x.h", "#define X 1\n")
    write(root, "second/may.h", "")
    (root / "link").symlink_to("first")
    return root


def build(box: CachingBox, root: Path, argv: Sequence[str], env: dict[str, str]) -> bool:
    """One build, which gives what the local compiler does; returns whether it was a hit."""
    (root / "x.o").unlink(missing_ok=True)
    local = run_here(argv, root, **env)
    files = {str(path): path.read_bytes() for path in root.glob("x.[od]")}
    reply = box.compile(argv, root, env)
    box.settle()
    if local.exit_code == 0:
        assert done_of(reply) == Done(0, local.stdout, local.stderr, files)
    return is_hit(reply)


@pytest.mark.parametrize("name", CASES)
def test_the_second_build_is_a_hit_where_it_may_be(
    box: CachingBox, tmp_path: Path, name: str
) -> None:
    need("gcc")
    case, root = CASES[name], project(tmp_path / "one")
    assert not build(box, root, [*ARGV, *sorted(case.more)], {})
    assert build(box, root, [*ARGV, *sorted(case.more)], {})
    case.edit(root)
    assert build(box, root, [*ARGV, *case.more], case.env) == case.is_hit
    if (root / "inc/x.h").exists():
        assert build(box, root, [*ARGV, *case.more], case.env)


def test_a_second_checkout_has_results_of_its_own(box: CachingBox, tmp_path: Path) -> None:
    need("gcc")
    one, two = project(tmp_path / "one"), project(tmp_path / "two")
    assert [build(box, root, ARGV, {}) for root in (one, two, one, two)] == [MISS, MISS, HIT, HIT]


def test_another_compiler_has_results_of_its_own(box: CachingBox, tmp_path: Path) -> None:
    need("gcc")
    need("g++")
    root = project(tmp_path / "one")
    other = ["g++", "-xc", *ARGV[1:]]
    found = [build(box, root, argv, {}) for argv in (ARGV, other, ARGV, other)]
    assert found == [MISS, MISS, HIT, HIT]
