"""Compilers as a Windows worker runs them, and the certificates that are made there."""

import json
from pathlib import Path

import pytest

from distbuild.credentials import load_credentials
from tests.support.cluster import SRC
from tests.support.wine import Wine, windows_path

INSIDE = Path(__file__).parent / "inside"


@pytest.mark.parametrize(
    "what",
    ["words", "exit_code", "exception", "timeout", "output", "cancelled", "orphan", "missing"],
)
def test_a_compiler_comes_to_its_end(wine: Wine, place: Path, what: str) -> None:
    script = windows_path(INSIDE / "runs.py", wine.drive)
    done = wine.python([script, windows_path(SRC, wine.drive), what], place)
    assert done.exit_code == 0, done.stderr.decode()
    assert json.loads(done.stdout) == "as expected"


def test_certificates_made_there_are_good_here(wine: Wine, place: Path) -> None:
    script = windows_path(SRC / "certs" / "gen_self_signed_certs.py", wine.drive)
    done = wine.python([script, windows_path(place / "certs", wine.drive)], place)
    assert done.exit_code == 0, done.stderr.decode()
    load_credentials(place / "certs", "dev")
    load_credentials(place / "certs", "worker")
