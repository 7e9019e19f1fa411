"""``setup`` in a home of its own: certificates, configuration, service, and the line it prints."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from distbuild.certificates import make_installation, names_in
from distbuild.config import Home, load_config
from distbuild.credentials import load_credentials
from distbuild.joining import parse_code, pin_of
from distbuild.protocol.errors import ConfigError
from distbuild.wrapper import setup

SYSTEMCTL = """#!/bin/sh
echo "$*" >>CALLS
[ "$2" != "$REFUSED" ]
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A user's machine without anything of dist_build, and without systemd."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return Home(tmp_path / "dist_build")


@pytest.fixture
def calls(tmp_path: Path, home: Home) -> Path:
    """A file with the words of each call of systemctl, which exists now."""
    del home
    calls = tmp_path / "calls"
    program = tmp_path / "bin" / "systemctl"
    program.write_text(SYSTEMCTL.replace("CALLS", shlex.quote(str(calls))))
    program.chmod(0o755)
    return calls


def said(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """The lines of a call that succeeds."""
    assert setup.run(words) == 0
    return capsys.readouterr().out.splitlines()


def test_the_line_has_a_code_for_this_syncer(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    *_, line = said(capsys, "--address", "10.0.0.1", "--port", "5999")
    words = shlex.split(line)
    assert words[-3:-1] == ["join", "https://10.0.0.1:5999"]
    certificate = x509.load_pem_x509_certificate((home.certs / "dev" / "cert.pem").read_bytes())
    assert parse_code(words[-1]).pin == pin_of(certificate.public_bytes(Encoding.DER))
    assert load_config(home).syncer == "https://localhost:5999"


def test_an_address_of_ipv6_is_in_brackets(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    del home
    assert "join https://[fd00::1]:5000 " in said(capsys, "--address", "fd00::1")[-1]


def test_without_systemd_it_says_how_to_start(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(capsys, "--address", "a")
    (start,) = [line for line in lines if line.startswith("start the syncer")]
    assert start.endswith(f"syncer.py --home {home.path}")
    assert sys.executable in start


def test_the_syncer_is_a_service_where_systemd_serves_users(
    home: Home, calls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(capsys, "--address", "a")
    assert not any(line.startswith("start the syncer") for line in lines)
    unit = tmp_path / ".config" / "systemd" / "user" / "dist_build-syncer.service"
    assert f"syncer.py --home {home.path}\n" in unit.read_text()
    assert calls.read_text().splitlines() == [
        "--user show-environment",
        "--user daemon-reload",
        "--user enable --now dist_build-syncer.service",
    ]
    calls.unlink()
    assert f"removed: {unit}" in said(capsys, "--undo")
    assert calls.read_text().splitlines() == [
        "--user disable --now dist_build-syncer.service",
        "--user daemon-reload",
    ]
    assert not unit.exists()
    assert not home.path.exists()


def test_a_unit_of_the_user_stays(
    home: Home, calls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del home, calls
    unit = tmp_path / ".config" / "systemd" / "user" / "dist_build-syncer.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("mine\n")
    said(capsys, "--address", "a")
    said(capsys, "--undo")
    assert unit.read_text() == "mine\n"


def test_a_service_that_does_not_start_is_said(
    home: Home, calls: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del home, calls
    monkeypatch.setenv("REFUSED", "enable")
    lines = said(capsys, "--address", "a")
    assert any("systemctl --user cannot start dist_build-syncer.service" in x for x in lines)
    assert any(line.startswith("start the syncer") for line in lines)


def test_certificates_of_the_script_stay(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    make_installation(home.certs, ["dev", "worker"])
    before = {path: path.read_bytes() for path in home.certs.rglob("*.pem")}
    said(capsys, "--address", "a")
    assert {path: path.read_bytes() for path in home.certs.rglob("*.pem")} == before
    said(capsys, "--undo")
    assert {path: path.read_bytes() for path in home.certs.rglob("*.pem")} == before


@pytest.mark.parametrize("is_shared", [True, False])
def test_new_certificates_replace_all_of_a_kind(
    home: Home, capsys: pytest.CaptureFixture[str], is_shared: bool
) -> None:
    make_installation(home.certs, ["dev", "worker"] if is_shared else ["dev"])
    before = (home.certs / "ca" / "ca.pem").read_bytes()
    said(capsys, "--address", "a", "--new-certificates")
    assert (home.certs / "ca" / "ca.pem").read_bytes() != before
    assert (home.certs / "worker").exists() == is_shared
    load_credentials(home.certs, "dev")
    if is_shared:
        load_credentials(home.certs, "worker")
        pem = (home.certs / "worker" / "cert.pem").read_bytes()
        assert names_in(pem) == ["worker.dist-build"]


def test_only_the_machine_with_the_ca_invites(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "--address", "a")
    (home.certs / "ca" / "ca.key").unlink()
    with pytest.raises(ConfigError, match=r"ca.key: no such file: only the machine on which"):
        setup.run(["--invite"])


@pytest.mark.parametrize("words", [["--frob"], ["extra"], ["--port", "x"], ["--port", "65536"]])
def test_other_words_are_answered_with_the_usage(home: Home, words: list[str]) -> None:
    assert setup.run(words) == 2
    assert not home.path.exists()


def test_a_wrong_configuration_is_said_and_kept(home: Home) -> None:
    home.path.mkdir()
    home.config_path.write_text(json.dumps({"hostz": []}))
    with pytest.raises(ConfigError, match="unknown key 'hostz'"):
        setup.run(["--address", "a"])
    assert json.loads(home.config_path.read_text()) == {"hostz": []}
