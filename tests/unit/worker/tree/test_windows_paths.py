"""Files that lie too deep in a tree for compilers on Windows."""

from distbuild.system.windows.names import fold
from distbuild.worker.tree.paths import LongPaths

DEEP = b"/C/Proj/Inc/" + b"d" * 200 + b"/x.h"


def test_a_file_below_a_searched_directory_is_found_in_any_spelling() -> None:
    paths = LongPaths(60, fold)
    paths.note(DEEP, is_file=True)
    assert paths.below(["/C/other", "/C/PROJ/inc/"]) == fold(DEEP.decode())
    assert paths.below(["/C/Proj/In", "/C/Proj/Include"]) == ""
    assert paths.below([]) == ""


def test_what_is_short_enough_or_no_file_or_gone_is_none() -> None:
    paths = LongPaths(20, fold)
    paths.note(DEEP, is_file=True)
    assert paths.below(["/C"]) == ""
    paths = LongPaths(60, fold)
    paths.note(DEEP, is_file=False)
    assert paths.below(["/C"]) == ""
    paths.note(DEEP, is_file=True)
    paths.note(DEEP.upper(), is_file=False)
    assert paths.below(["/C"]) == ""
