"""A worker that could not confine its compilers does not start, unless its owner allows that."""

import json
import os
from pathlib import Path

import pytest

from distbuild.config import Config, Home
from distbuild.protocol.errors import ConfigError
from distbuild.worker import main
from distbuild.worker.sandbox import landlock
from distbuild.worker.sandbox.plain import PlainSandbox

PLAIN = {"sandbox": "plain"}


def choose(
    monkeypatch: pytest.MonkeyPatch, home: Path, *, user: int, hindered: str, **keys: object
):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(landlock, "obstacle", lambda: hindered)
    config = Config(**{**PLAIN, **keys})  # type: ignore[arg-type]
    return main._sandbox(Home(home), config, "/usr/bin", str(home))


@pytest.mark.parametrize("hindered", ["", "this kernel has no Landlock"])
def test_root_without_namespaces_has_to_be_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hindered: str
) -> None:
    with pytest.raises(ConfigError, match='"allow_root": true') as refused:
        choose(monkeypatch, tmp_path, user=0, hindered=hindered, allow_unconfined=True)
    text = str(refused.value)
    assert text.startswith(f"{tmp_path}/config.json: ")
    assert "install bubblewrap" in text
    assert "\n" not in text


def test_a_kernel_that_confines_nothing_has_to_be_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for user in (0, 1000):
        with pytest.raises(ConfigError, match='"allow_unconfined": true'):
            choose(monkeypatch, tmp_path, user=user, hindered="no Landlock", allow_root=True)


def test_what_is_allowed_is_done_and_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = {"allow_root": True, "allow_unconfined": True}
    for hindered, said in (("", "confined by Landlock"), ("no Landlock", "not confined")):
        sandbox, confined = choose(monkeypatch, tmp_path, user=0, hindered=hindered, **keys)
        assert isinstance(sandbox, PlainSandbox)
        assert (confined.mode, said in confined.why) == ("plain", True)
        assert sandbox._confined == (not hindered)


def test_an_ordinary_user_needs_no_leave_where_the_kernel_confines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sandbox, _ = choose(monkeypatch, tmp_path, user=1000, hindered="")
    assert isinstance(sandbox, PlainSandbox)


def test_a_home_that_compilers_may_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="another --home"):
        choose(monkeypatch, Path("/usr/local/dist_build"), user=1000, hindered="")


def test_so_is_one_whose_parts_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "certs").symlink_to("/usr/share")
    with pytest.raises(ConfigError, match="another --home"):
        choose(monkeypatch, tmp_path, user=1000, hindered="")


def test_the_keys_are_read(tmp_path: Path) -> None:
    from distbuild.config import load_config

    (tmp_path / "config.json").write_text(json.dumps({"allow_root": True}))
    config = load_config(Home(tmp_path))
    assert (config.allow_root, config.allow_unconfined) == (True, False)
