"""What a worker may have mirrored by saying that it lacks it."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from distbuild.command.model import Family
from distbuild.farm.executor import Task
from distbuild.syncer.derivable import Derivable
from tests.support.preparing import Box


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    base = Path(os.path.realpath(tmp_path)) / "base"
    base.mkdir()
    made = Box(base)
    for name in ("src/part.c", "inc/sub/part.c", "o/part.c", "o/named.c", "o/defined.c", "p/q.c"):
        made.write(name, "")
    made.write("inc/lead.h", '#include "../o/named.c"\n#include "/etc/hostname"\n')
    made.write("o/lead.h", '#include "part.c"\n')
    made.write("home/project/a.c", "")
    made.write("home/.ssh/part.c", "")
    (base / "src/link.c").symlink_to("../o/part.c")
    (base / "inc/dir").symlink_to("../p")
    made.write("q.c", "")
    made.write("inc/q.c", "")
    yield made
    made.stop()


def task_of(box: Box, *options: str) -> Task:
    submission = box.submission(*options)
    known = box.preparer.understand(submission)
    task = box.preparer.prepare(submission, known)  # type: ignore[arg-type]
    assert isinstance(task, Task)
    return task


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("{base}/src/part.c", True),
        ("{base}/inc/sub/part.c", True),
        ("{base}/inc/../src/part.c", True),
        ("{base}/src/link.c", True),  # the developer's own link
        ("{base}/o/named.c", True),  # by a text that was read
        ("{base}/o/defined.c", True),  # by the command
        ("{base}/o/part.c", False),
        ("{base}/src/../o/part.c", False),
        ("{base}/inc/dir/../q.c", False),  # not inc/q.c
        ("{base}/home/project/a.c", False),
        ("{base}/home/.ssh/part.c", False),
        ("/etc/shadow", False),
        ("/etc/passwd", False),
        ("/proc/self/environ", False),
        ("src/part.c", False),
        ("", False),
        ("{base}/src/part.c\0", False),
        ("{base}/src/\ud800", False),
        ("{base}/src/" + "x/" * 3000, False),
    ],
)
def test_a_path_has_to_be_derivable(box: Box, path: str, expected: bool) -> None:
    task = task_of(box, "-DPART=../o/defined.c")
    derivable = Derivable(task, box.mirroring, [f"{box.base}/inc/lead.h"])
    assert derivable.allows(path.format(base=box.base)) == expected


def test_a_text_that_the_mirror_does_not_hold_is_not_read(box: Box) -> None:
    derivable = Derivable(task_of(box), box.mirroring, [f"{box.base}/o/lead.h"])
    assert not derivable.allows(f"{box.base}/o/part.c")


def test_below_the_home_only_what_is_directly_in_it_is_searched(box: Box) -> None:
    box.write("home/x.h", "")
    derivable = Derivable(task_of(box, f"-I{box.base}/home"), box.mirroring, [])
    assert derivable.allows(f"{box.base}/home/x.h")
    assert not derivable.allows(f"{box.base}/home/project/a.c")
    assert not derivable.allows(f"{box.base}/home/.netrc")


@pytest.mark.parametrize(
    ("family", "path", "expected"),
    [
        (Family.CLANG, "clang/14/share/asan_ignorelist.txt", True),
        (Family.GCC, "clang/14/share/asan_ignorelist.txt", False),
        (Family.CLANG, "clang/14/share/deeper/list.txt", False),
        (Family.CLANG, "clang/14/lib/list.txt", False),
        (Family.CLANG, "share/list.txt", False),
    ],
)
def test_clangs_own_lists_are_derivable(
    box: Box, family: Family, path: str, expected: bool
) -> None:
    box.write("clang/14/include/stddef.h", "")
    box.write(path, "")
    known = task_of(box)
    command = msgspec.structs.replace(known.command, family=family)
    own = (f"{box.base}/clang/14/include",)
    task = msgspec.structs.replace(known, command=command, builtin_dirs=own)
    assert Derivable(task, box.mirroring, []).allows(f"{box.base}/{path}") == expected
