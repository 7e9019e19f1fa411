"""Who may have a syncer compile: its own user, and nobody who has the shared dev token."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import requests

from distbuild.credentials import load_credentials
from distbuild.protocol import messages
from distbuild.wrapper.syncer_client import make_session, use_socket
from tests.support.cluster import SRC, Cluster

ROUTES = ["/api/v1/jobs", "/api/v1/explain", "/api/v1/install", "/api/v1/clean"]
SECRET = "SECRET_OF_THE_SYNCER_S_USER"


@pytest.fixture(scope="module", params=[False, True], ids=["local", "remote"])
def syncer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certs_dir: Path
) -> Iterator[Cluster]:
    """A syncer without workers; with ``remote_compiles`` or without."""
    keys = {"remote_compiles": True} if request.param else {}
    made = Cluster(tmp_path_factory.mktemp("syncer"), certs_dir, [], keys)
    try:
        yield made.start()
        made.stop()
    finally:
        made.kill()


def is_remote(cluster: Cluster) -> bool:
    return "remote_compiles" in (cluster.syncer.home / "config.json").read_text()


def tokens(cluster: Cluster, certs: Path) -> dict[str, str]:
    user = (cluster.syncer.home / "state/user_token").read_text().strip()
    roles = {role: load_credentials(certs, role).token for role in ("dev", "worker")}
    return {"none": "", "user": user, "wrong": "0" * 64, **roles}


def ask(cluster: Cluster, certs: Path, route: str, token: str, path: Path) -> requests.Response:
    """As another machine that has this installation's certificates."""
    argv = [b"gcc", b"-c", b"-x", b"c", bytes(path)]
    body = messages.encode(messages.SubmitRequest(argv, bytes(path.parent), {"PATH": b"/usr/bin"}))
    with make_session(load_credentials(certs, "dev"), "syncer", token=token) as session:
        return session.post(cluster.url + route, data=body, timeout=600)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shown", ["none", "wrong", "dev", "worker"])
def test_nobody_else_is_let_in(
    syncer: Cluster, certs_dir: Path, route: str, shown: str, tmp_path: Path
) -> None:
    secret = tmp_path / "id_rsa"
    secret.write_text(SECRET)
    answer = ask(syncer, certs_dir, route, tokens(syncer, certs_dir)[shown], secret)
    assert answer.status_code == (401 if is_remote(syncer) else 403)
    assert SECRET not in answer.text


@pytest.mark.parametrize("route", ROUTES)
def test_the_user_is_let_in_over_tls_where_that_is_configured(
    syncer: Cluster, certs_dir: Path, route: str, tmp_path: Path
) -> None:
    answer = ask(syncer, certs_dir, route, tokens(syncer, certs_dir)["user"], tmp_path / "x.c")
    assert answer.status_code == (200 if is_remote(syncer) else 403)


@pytest.mark.parametrize("route", ROUTES)
def test_the_user_needs_no_token_on_the_socket(
    syncer: Cluster, certs_dir: Path, route: str
) -> None:
    body = messages.encode(messages.SubmitRequest([b"true"], b"/", {}))
    with make_session(load_credentials(certs_dir, "dev"), "syncer", token="") as session:
        use_socket(session, syncer.url, syncer.syncer.home / "syncer.sock")
        answer = session.post(syncer.url + route, data=body, timeout=600)
    assert answer.status_code == 200


def test_the_token_is_for_its_owner_alone(syncer: Cluster) -> None:
    path = syncer.syncer.home / "state/user_token"
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_secret_is_in_the_status_or_the_log(syncer: Cluster, certs_dir: Path) -> None:
    shown = str(syncer.syncer.status()) + syncer.syncer.output()
    client = (syncer.syncer.home / "state/client_id").read_text().strip()
    secrets = [client, *filter(None, tokens(syncer, certs_dir).values())]
    assert not [secret for secret in secrets if secret in shown]
    assert msgspec.json.decode(msgspec.json.encode(syncer.syncer.status()))["client"]


@pytest.mark.parametrize(
    "words",
    [["doctor"], ["install"], ["clean"], ["cache", "clear"], ["explain", "--", "gcc", "-c", "x.c"]],
)
def test_the_python_client_goes_over_the_socket(
    syncer: Cluster, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "x.c").write_text("int x;\n")
    done = client(syncer, words, tmp_path)
    assert "answers 40" not in done.stdout + done.stderr, done
    assert "no syncer" not in done.stdout + done.stderr, done


def test_a_compile_of_the_python_client_is_the_syncer_s(syncer: Cluster, tmp_path: Path) -> None:
    (tmp_path / "x.c").write_text("int x;\n")
    done = client(syncer, ["gcc", "-c", "x.c"], tmp_path)
    assert (done.returncode, (tmp_path / "x.o").exists()) == (0, True)
    # Asked, and answered: there is no worker.
    assert "no_worker" in done.stderr, done


def client(cluster: Cluster, words: list[str], cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(SRC / "dist_build.py"), *words],
        cwd=cwd,
        env=cluster.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
