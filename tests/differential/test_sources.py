"""The sources of four real projects, compiled with gcc and with clang: each equals the local one.

Unlike ``test_projects`` these need no build system, so they also run in the matrix's systems.
"""

from pathlib import Path

import pytest

from bench.common import Skipped
from bench.corpora import PROJECTS, commands_of
from tests.support.cluster import Cluster
from tests.support.recorded import Command, compare_all
from tests.support.tools import absent, need

pytestmark = [pytest.mark.compiler, pytest.mark.exhaustive, pytest.mark.timeout(1800)]
COMPILERS = {
    "gcc": {"gcc": "gcc", "g++": "g++"},
    "clang": {"gcc": "clang", "g++": "clang++"},
}


@pytest.mark.parametrize("family", COMPILERS)
@pytest.mark.parametrize("name", PROJECTS)
def test_each_source_of_a_project_equals_the_local_one(
    farm: Cluster, tmp_path: Path, name: str, family: str
) -> None:
    compiler = need(COMPILERS[family][PROJECTS[name].compiler])
    try:
        listed = commands_of(name, tmp_path)
    except Skipped as why:
        absent(str(why))
        raise
    commands = [Command(each.cwd, (compiler, *each.words[1:])) for each in listed]

    found = compare_all(farm, commands)

    assert found.different == [], found
    assert found.same == len(commands), found
    assert not found.local
    for command in commands:
        assert Path(command.argv[-1]).stat().st_size, f"{command} makes no object"
