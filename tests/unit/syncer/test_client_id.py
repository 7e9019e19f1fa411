"""The id by which workers know an installation's tree: a secret of its home."""

import os
import re
from pathlib import Path

import pytest

from distbuild.config import Home
from distbuild.protocol.errors import ConfigError
from distbuild.syncer.main import read_client_id


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.prepare()
    return made


def test_it_is_made_once_and_cannot_be_guessed(home: Home, tmp_path: Path) -> None:
    made = read_client_id(home)
    assert re.fullmatch("[0-9a-f]{64}", made)
    assert read_client_id(home) == made
    other = Home(tmp_path / "other")
    other.prepare()
    assert read_client_id(other) != made


def test_only_its_owner_reads_it(home: Home) -> None:
    read_client_id(home)
    assert (home.state / "client_id").stat().st_mode & 0o777 == 0o600
    assert os.listdir(home.state) == ["client_id"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_one_that_others_could_read_is_replaced(home: Home, mode: int) -> None:
    made = read_client_id(home)
    (home.state / "client_id").chmod(mode)
    assert read_client_id(home) != made


@pytest.mark.parametrize("text", ["", "root-box-1a2b3c4d\n", "z" * 64, "a" * 63, "a" * 65, "\xe9"])
def test_one_of_another_form_is_replaced(home: Home, text: str) -> None:
    """Among them those of earlier versions, which were short and public."""
    path = home.state / "client_id"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    made = read_client_id(home)
    assert re.fullmatch("[0-9a-f]{64}", made)
    assert read_client_id(home) == made


def test_a_home_that_cannot_be_written_is_named(home: Home) -> None:
    (home.state / "client_id").mkdir()
    with pytest.raises(ConfigError, match="client_id: cannot be written"):
        read_client_id(home)
