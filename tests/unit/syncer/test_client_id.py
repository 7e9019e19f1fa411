"""The name under which workers keep an installation's tree."""

import getpass
from pathlib import Path

import pytest

from distbuild.config import Home
from distbuild.syncer.main import read_client_id


def test_it_is_made_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    made = read_client_id(home)
    assert made.startswith(getpass.getuser()[:4])
    assert read_client_id(home) == made


def test_a_user_without_a_name_has_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``docker run --user 12345`` makes one."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nameless)
    home = Home(tmp_path)
    home.prepare()
    assert read_client_id(home)
