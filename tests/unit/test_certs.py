"""The programs that make the CA, the roles' certificates and their tokens."""

import hashlib
import os
import shutil
import signal
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from distbuild.credentials import Role, load_credentials

pytestmark = pytest.mark.program

SCRIPT = Path(__file__).parents[2] / "src" / "certs" / "gen_self_signed_certs.sh"
FILES = {
    "ca/ca.key",
    "ca/ca.pem",
    "dev/ca.pem",
    "dev/cert.pem",
    "dev/dev.token.sha256",
    "dev/key.pem",
    "dev/token",
    "dev/worker.token.sha256",
    "worker/ca.pem",
    "worker/cert.pem",
    "worker/dev.token.sha256",
    "worker/key.pem",
    "worker/token",
}


def run(*arguments: str | Path, cwd: str = ".", **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environ},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def snapshot(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def assert_nothing_else_in(directory: Path, *names: str) -> None:
    assert sorted(path.name for path in directory.iterdir()) == sorted(names)


def test_makes_exactly_the_files_each_role_needs(certs_dir: Path) -> None:
    assert set(snapshot(certs_dir)) == FILES


def test_only_the_owner_can_read_anything(certs_dir: Path) -> None:
    modes = {
        (path.is_dir(), stat.S_IMODE(path.stat().st_mode))
        for path in [certs_dir, *certs_dir.rglob("*")]
    }
    assert modes == {(True, 0o700), (False, 0o600)}


@pytest.mark.parametrize("role", ["dev", "worker"])
def test_a_role_can_use_them(certs_dir: Path, role: Role) -> None:
    load_credentials(certs_dir, role)


def test_each_side_knows_the_others_token(certs_dir: Path) -> None:
    dev, worker = load_credentials(certs_dir, "dev"), load_credentials(certs_dir, "worker")
    assert dev.verify_token(f"Bearer {worker.token}", "worker")
    assert worker.verify_token(f"Bearer {dev.token}", "dev")


def test_private_key_of_the_ca_is_in_no_role(certs_dir: Path) -> None:
    files = snapshot(certs_dir)
    assert [name for name, data in files.items() if data == files["ca/ca.key"]] == ["ca/ca.key"]


def test_verifying_side_holds_only_the_digest_of_the_others_token(certs_dir: Path) -> None:
    files = snapshot(certs_dir)
    for role in ("dev", "worker"):
        digest = hashlib.sha256(files[f"{role}/token"].strip()).hexdigest().encode()
        assert files[f"dev/{role}.token.sha256"].strip() == digest
    assert files["worker/dev.token.sha256"] == files["dev/dev.token.sha256"]
    assert files["dev/token"] != files["worker/token"]
    assert files["dev/token"].strip() not in b"".join(
        data for name, data in files.items() if name != "dev/token"
    )


@pytest.mark.parametrize(
    ("role", "name"), [("dev", "syncer.dist-build"), ("worker", "worker.dist-build")]
)
def test_certificate_names_its_role_and_nothing_else(certs_dir: Path, role: str, name: str) -> None:
    cert = x509.load_pem_x509_certificate((certs_dir / role / "cert.pem").read_bytes())
    of = cert.extensions.get_extension_for_class
    assert list(of(x509.SubjectAlternativeName).value) == [x509.DNSName(name)]
    assert set(of(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    assert not of(x509.BasicConstraints).value.ca
    key = cert.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert timedelta(days=365) < cert.not_valid_after_utc - datetime.now(UTC) < timedelta(days=826)


def test_strict_verification_accepts_the_chain(certs_dir: Path) -> None:
    # Two ends in memory: a handshake without a socket.
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certs_dir / "worker" / "cert.pem", certs_dir / "worker" / "key.pem")
    client_side = ssl.create_default_context(cafile=str(certs_dir / "dev" / "ca.pem"))
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname="worker.dist-build")
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version() == "TLSv1.3"


def test_second_run_changes_nothing_and_says_so(tmp_path: Path) -> None:
    assert run(tmp_path / "certs").returncode == 0
    before = snapshot(tmp_path / "certs")
    again = run(tmp_path / "certs")
    assert again.returncode == 0
    assert "exists already" in again.stdout
    assert snapshot(tmp_path / "certs") == before


def test_force_replaces_everything(tmp_path: Path) -> None:
    run(tmp_path / "certs")
    before = snapshot(tmp_path / "certs")
    assert run("--force", tmp_path / "certs").returncode == 0
    after = snapshot(tmp_path / "certs")
    assert set(after) == FILES
    assert not [name for name in FILES if before[name] == after[name]]
    assert_nothing_else_in(tmp_path, "certs")


def test_paths_with_spaces_and_quotes_work(tmp_path: Path) -> None:
    out = tmp_path / "my farm's home" / "certs"
    assert run(out).returncode == 0
    assert set(snapshot(out)) == FILES


def test_relative_path_is_taken_from_the_current_directory(tmp_path: Path) -> None:
    assert run("some/certs/", cwd=str(tmp_path)).returncode == 0
    assert set(snapshot(tmp_path / "some" / "certs")) == FILES


@pytest.mark.parametrize(
    ("variable", "below"), [("DIST_BUILD_HOME", "certs"), ("HOME", "dist_build/certs")]
)
def test_default_is_in_the_home_of_dist_build(tmp_path: Path, variable: str, below: str) -> None:
    assert run(**{variable: str(tmp_path)}).returncode == 0
    assert set(snapshot(tmp_path / below)) == FILES


def test_says_what_to_copy_where(tmp_path: Path) -> None:
    said = run(tmp_path / "certs").stdout
    assert f"copy {tmp_path}/certs/worker to $DIST_BUILD_HOME/certs/worker" in said
    assert "and nothing else" in said


def without_cryptography(tmp_path: Path, *, ready: bool) -> Path:
    """A clone whose only Python with cryptography is that of a .venv that exists, or is made."""
    clone = tmp_path / "my clone"
    (clone / "tools").mkdir(parents=True)
    shutil.copytree(SCRIPT.parent, clone / "src" / "certs")
    (clone / "src" / "distbuild").symlink_to(SCRIPT.parents[1] / "distbuild")
    made = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    (clone / "python").write_text(made)
    (clone / "python").chmod(0o755)
    (clone / "tools" / "venv.sh").write_text(
        "#!/bin/sh\necho making .venv\nmkdir -p .venv/bin && cp python .venv/bin/python\n"
        if not ready
        else "#!/bin/sh\nexit 9\n"
    )
    (clone / "tools" / "venv.sh").chmod(0o755)
    if ready:
        (clone / ".venv" / "bin").mkdir(parents=True)
        shutil.copy(clone / "python", clone / ".venv" / "bin" / "python")
    return clone


def poor_path(tmp_path: Path) -> str:
    """A PATH with what a minimal system has, and a python3 that lacks everything."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("sh", "dirname", "mkdir", "cp"):
        path = shutil.which(name)
        assert path is not None
        (directory / name).symlink_to(path)
    (directory / "python3").write_text("#!/bin/sh\nexit 1\n")
    (directory / "python3").chmod(0o755)
    return str(directory)


@pytest.mark.parametrize("ready", [True, False], ids=["has .venv", "makes .venv"])
def test_a_system_python_without_cryptography_is_passed_over(tmp_path: Path, ready: bool) -> None:
    clone = without_cryptography(tmp_path, ready=ready)
    ran = subprocess.run(
        [clone / "src" / "certs" / SCRIPT.name, tmp_path / "certs"],
        env={"PATH": poor_path(tmp_path)},
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert set(snapshot(tmp_path / "certs")) == FILES
    assert ran.stdout.startswith("made a CA")


def test_active_virtual_environment_is_used(tmp_path: Path) -> None:
    active = tmp_path / "active"
    (active / "bin").mkdir(parents=True)
    (active / "bin" / "python").write_text(
        f'#!/bin/sh\n>>{active}/used\nexec {sys.executable} "$@"\n'
    )
    (active / "bin" / "python").chmod(0o755)
    assert run(tmp_path / "certs", VIRTUAL_ENV=str(active)).returncode == 0
    assert (active / "used").exists()


def test_a_place_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = run(tmp_path / "file" / "certs")
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert f"{tmp_path}/file" in ran.stderr
    assert_nothing_else_in(tmp_path, "file")


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_interrupted_run_with_force_keeps_what_was_there(
    tmp_path: Path, step: int, number: signal.Signals
) -> None:
    run(tmp_path / "certs")
    before = snapshot(tmp_path / "certs")
    code = (
        "import os, pathlib, runpy, sys\n"
        "renamed, count = pathlib.Path.rename, 0\n"
        "def rename(path, to):\n"
        "    global count\n"
        "    count += 1\n"
        f"    if count == {step}: os.kill(os.getpid(), {int(number)})\n"
        "    return renamed(path, to)\n"
        "pathlib.Path.rename = rename\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    script = SCRIPT.with_suffix(".py")
    done = subprocess.run(
        [sys.executable, "-c", code, script, tmp_path / "certs", "--force"],
        capture_output=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode != 0
    assert snapshot(tmp_path / "certs") == before
    assert_nothing_else_in(tmp_path, "certs")


def test_incomplete_certificates_are_not_taken_for_good(tmp_path: Path) -> None:
    run(tmp_path / "certs")
    (tmp_path / "certs" / "dev" / "key.pem").unlink()
    ran = run(tmp_path / "certs")
    assert ran.returncode == 1
    assert "is not complete" in ran.stderr
    assert run(tmp_path / "certs", "--force").returncode == 0
    assert set(snapshot(tmp_path / "certs")) == FILES


def test_directory_with_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    ran = run(tmp_path, "--force")
    assert ran.returncode == 1
    assert "holds other things" in ran.stderr
    assert_nothing_else_in(tmp_path, "precious")


@pytest.mark.parametrize("arguments", [("--frce",), ("a", "b"), ("",)])
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run(*arguments, cwd=str(tmp_path)).returncode == 2
    assert_nothing_else_in(tmp_path)
