"""The twin of the certificates' script, for systems without bash: the same files, and as good."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from distbuild.tls import Role, load_credentials
from tests.unit.test_certs import FILES, SCRIPT, run, snapshot

TWIN = SCRIPT.with_suffix(".py")


def twin(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, TWIN, *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("twin") / "my certs"
    done = twin(out)
    assert done.returncode == 0, done.stderr
    return out


def test_the_files_are_those_of_the_script(made: Path) -> None:
    assert set(snapshot(made)) == FILES
    assert run(made).stdout.startswith(f"{made} exists already")
    assert [path.name for path in made.parent.iterdir()] == [made.name]


@pytest.mark.parametrize("role", ["dev", "worker"])
def test_a_role_can_use_them(made: Path, role: Role) -> None:
    load_credentials(made, role)


def test_each_side_knows_the_others_token(made: Path) -> None:
    dev, worker = load_credentials(made, "dev"), load_credentials(made, "worker")
    assert dev.verify_token(f"Bearer {worker.token}", "worker")
    assert worker.verify_token(f"Bearer {dev.token}", "dev")


def test_strict_verification_accepts_the_chain(made: Path) -> None:
    leaves: list[Path | str] = [made / role / "cert.pem" for role in ("dev", "worker")]
    verify: list[Path | str] = [
        "openssl",
        "verify",
        "-x509_strict",
        "-CAfile",
        made / "ca" / "ca.pem",
    ]
    subprocess.run([*verify, *leaves], check=True, capture_output=True)


def test_only_the_owner_can_read_anything(made: Path) -> None:
    for path in [made, *made.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_what_the_script_made_is_kept_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "certs"
    assert run(out).returncode == 0
    before = snapshot(out)
    assert twin(out).returncode == 0
    assert snapshot(out) == before
    assert twin(out, "--force").returncode == 0
    after = snapshot(out)
    assert set(after) == FILES
    assert not set(before.values()) & set(after.values())


def test_directory_with_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    assert twin(tmp_path, "--force").returncode == 1
    assert twin(tmp_path).returncode == 1
    assert snapshot(tmp_path) == {"precious": b"x"}
