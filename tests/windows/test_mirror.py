"""The mirror of a Windows dev box, and the tree that a Windows worker makes of it."""

import json
from pathlib import Path

import pytest

from tests.support.cluster import SRC
from tests.support.wine import Wine, windows_path

INSIDE = Path(__file__).parent / "inside"
CASES = (
    "headers spellings respelled_directory long_paths open_on_the_worker held_on_the_dev_box"
    " bursts hard_links changes bad_names watching"
)


@pytest.mark.parametrize("what", CASES.split())
def test_the_tree_is_what_the_disk_is(wine: Wine, place: Path, what: str) -> None:
    script = windows_path(INSIDE / "mirrors.py", wine.drive)
    done = wine.python([script, windows_path(SRC, wine.drive), what], place)
    assert done.exit_code == 0, done.stderr.decode()
    assert json.loads(done.stdout) == "as expected"
