"""Which programs only stand in front of a compiler: one list, said a second time in C."""

import re
from pathlib import Path

from distbuild.compiler import find
from distbuild.compiler.find import WRAPPERS
from tests.support.cluster import EXECUTABLE

LAUNCHER = Path(__file__).parents[3] / "src/launcher/drivers.h"


def test_the_launcher_passes_over_the_same_wrappers() -> None:
    listed = re.search(r"WRAPPERS\[\] = \{(.*?)\};", LAUNCHER.read_text(), re.DOTALL)
    assert listed is not None
    names = re.findall(r'"([^"]+)"', listed[1])
    assert len(names) == len(set(names))
    assert frozenset(names) == WRAPPERS


def test_the_own_launcher_is_where_it_is_built() -> None:
    assert find._own_launcher() == str(EXECUTABLE)
