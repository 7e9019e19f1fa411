"""Credentials, tokens and sessions: who is believed, and what is said when nobody can be."""

import contextlib
import errno
import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import certifi
import pytest
import requests

from distbuild.credentials import ROLE_NAMES, Credentials, Role, Server, load_credentials
from distbuild.protocol.errors import ConfigError
from distbuild.wrapper.syncer_client import make_session

SCRIPT = Path(__file__).parents[2] / "src" / "certs" / "gen_self_signed_certs.sh"


@pytest.fixture(scope="module")
def other_certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another installation's."""
    certs = tmp_path_factory.mktemp("other") / "certs"
    subprocess.run([SCRIPT, certs], check=True, capture_output=True)
    return certs


@pytest.fixture
def own_copy(certs_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(certs_dir, tmp_path / "certs"))


class _Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20

    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = f"{self.client_address[1]} {self.headers['Authorization']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, role_dir: Path, maximum: ssl.TLSVersion) -> None:
        super().__init__(("127.0.0.1", 0), _Echo)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(role_dir / "cert.pem", role_dir / "key.pem")
        self._context.maximum_version = maximum
        self.connections = 0

    def finish_request(self, request, client_address) -> None:
        self.connections += 1
        with (
            contextlib.suppress(OSError),
            self._context.wrap_socket(request, server_side=True) as wrapped,
        ):
            super().finish_request(wrapped, client_address)

    def shutdown_request(self, request) -> None:
        with contextlib.suppress(OSError):
            super().shutdown_request(request)


@contextlib.contextmanager
def serving(
    role_dir: Path, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> Iterator[tuple[str, _Server]]:
    with _Server(role_dir, maximum) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}", server
        finally:
            server.shutdown()
            thread.join()


def get(session: requests.Session, url: str) -> str:
    with session, session.get(url, timeout=10) as reply:
        reply.raise_for_status()
        return reply.text


# --- sessions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "server_role", "expect"),
    [("dev", "worker", "worker"), ("dev", "dev", "syncer"), ("worker", "dev", "syncer")],
)
def test_server_of_the_expected_role_is_accepted_under_any_address(
    certs_dir: Path, client: Role, server_role: Role, expect: Server
) -> None:
    credentials = load_credentials(certs_dir, client)
    with serving(certs_dir / server_role) as (url, _):
        reply = get(make_session(credentials, expect), url)
    assert reply.split(" ", 1)[1] == f"Bearer {credentials.token}"


@pytest.mark.parametrize(("server_role", "expect"), [("worker", "syncer"), ("dev", "worker")])
def test_server_of_another_role_is_refused(
    certs_dir: Path, server_role: Role, expect: Server
) -> None:
    session = make_session(load_credentials(certs_dir, "dev"), expect)
    with serving(certs_dir / server_role) as (url, _), pytest.raises(requests.exceptions.SSLError):
        get(session, url)


def test_server_of_another_ca_is_refused(certs_dir: Path, other_certs: Path) -> None:
    session = make_session(load_credentials(certs_dir, "dev"), "worker")
    with serving(other_certs / "worker") as (url, _), pytest.raises(requests.exceptions.SSLError):
        get(session, url)


def test_caller_cannot_switch_verification_off(certs_dir: Path, other_certs: Path) -> None:
    with serving(other_certs / "worker") as (url, _):
        for verify in (False, str(other_certs / "ca" / "ca.pem")):
            with make_session(load_credentials(certs_dir, "dev"), "worker") as session:
                with pytest.raises(requests.exceptions.SSLError):
                    session.get(url, timeout=10, verify=verify)
                session.verify = verify
                with pytest.raises(requests.exceptions.SSLError):
                    session.get(url, timeout=10)


def test_environment_cannot_change_whom_we_believe_or_ask(
    certs_dir: Path, other_certs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(other_certs / "ca" / "ca.pem"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    credentials = load_credentials(certs_dir, "dev")
    with serving(certs_dir / "worker") as (url, _):
        assert get(make_session(credentials, "worker"), url)
    with serving(other_certs / "worker") as (url, _), pytest.raises(requests.exceptions.SSLError):
        get(make_session(credentials, "worker"), url)


def test_public_cas_are_not_loaded(certs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    real = ssl.SSLContext.load_verify_locations

    def record(self, cafile=None, capath=None, cadata=None):
        loaded.append(cafile)
        return real(self, cafile, capath, cadata)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", record)
    with serving(certs_dir / "worker") as (url, _):
        get(make_session(load_credentials(certs_dir, "dev"), "worker"), url)
    assert loaded == [str(certs_dir / "dev" / "ca.pem")]
    assert certifi.where() not in loaded


def test_older_tls_is_refused(certs_dir: Path) -> None:
    session = make_session(load_credentials(certs_dir, "dev"), "worker")
    with (
        serving(certs_dir / "worker", ssl.TLSVersion.TLSv1_2) as (url, _),
        pytest.raises(requests.exceptions.SSLError),
    ):
        get(session, url)


def test_plain_http_never_sees_the_token(certs_dir: Path) -> None:
    session = make_session(load_credentials(certs_dir, "dev"), "worker")
    with pytest.raises(requests.exceptions.InvalidSchema):
        get(session, "http://127.0.0.1:9/")


def test_redirect_is_not_followed(certs_dir: Path) -> None:
    session = make_session(load_credentials(certs_dir, "dev"), "worker")
    with (
        serving(certs_dir / "worker") as (url, _),
        pytest.raises(requests.exceptions.TooManyRedirects),
    ):
        get(session, f"{url}/away")


def test_connection_is_kept_open(certs_dir: Path) -> None:
    with serving(certs_dir / "worker") as (url, server):
        with make_session(load_credentials(certs_dir, "dev"), "worker", pool_size=2) as session:
            assert len({session.get(url, timeout=10).text for _ in range(3)}) == 1
        assert server.connections == 1


# --- tokens ------------------------------------------------------------------------------------


def test_each_side_accepts_exactly_the_roles_it_has_to(certs_dir: Path) -> None:
    dev, worker = load_credentials(certs_dir, "dev"), load_credentials(certs_dir, "worker")

    def accepted(verifier: Credentials, shown: Credentials) -> list[str]:
        roles: list[Role] = ["dev", "worker"]
        return [role for role in roles if verifier.verify_token(f"Bearer {shown.token}", role)]

    assert accepted(dev, dev) == []
    assert accepted(dev, worker) == ["worker"]
    assert accepted(worker, dev) == ["dev"]
    assert accepted(worker, worker) == []


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic {}", "bearer{}", "{}", "Bearer {}x", "Bearer é"],
)
def test_anything_but_the_token_is_refused(certs_dir: Path, header: str | None) -> None:
    worker, token = load_credentials(certs_dir, "worker"), load_credentials(certs_dir, "dev").token
    assert not worker.verify_token(header and header.format(token), "dev")


def test_token_is_in_no_repr(certs_dir: Path) -> None:
    dev = load_credentials(certs_dir, "dev")
    assert dev.token not in repr(dev)


# --- loading -----------------------------------------------------------------------------------


def problem(certs: Path, role: Role = "dev", now: datetime | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_credentials(certs, role, now=now)
    message = str(caught.value)
    assert "\n" not in message
    assert "dist_build.exe setup" in message
    return message


def test_missing_certificates_name_the_command(tmp_path: Path) -> None:
    certs = tmp_path / "my certs"
    assert problem(certs).endswith(f"no such file; run: dist_build.exe setup --home {tmp_path}")
    assert problem(certs, "worker").endswith(
        "no such file; have this machine join (with --force): dist_build.exe setup --invite on the"
        f" dev box prints the command; or copy certs/worker from there to '{certs}/worker'"
    )


@pytest.mark.parametrize(
    ("role", "name"),
    [
        *(
            (role, name)
            for role in ROLE_NAMES
            for name in ("ca.pem", "cert.pem", "key.pem", "token")
        ),
        ("dev", "worker.token.sha256"),
        ("worker", "dev.token.sha256"),
    ],
)
def test_damaged_file_is_named(own_copy: Path, role: Role, name: str) -> None:
    path = own_copy / role / name
    for data in (b"", b"\xff nonsense\n"):
        path.write_bytes(data)
        assert problem(own_copy, role).startswith(f"{path}: ")
    path.unlink()
    assert problem(own_copy, role).startswith(f"{path}: no such file; ")
    path.mkdir()
    assert problem(own_copy, role).startswith(f"{path}: cannot read it (Is a directory)")


@pytest.mark.parametrize(
    ("days", "expected"), [(900, "has expired on 20"), (-1, "is not valid before 20")]
)
def test_certificate_out_of_its_time_is_refused(certs_dir: Path, days: int, expected: str) -> None:
    now = datetime.now(UTC) + timedelta(days=days)
    assert expected in problem(certs_dir, now=now)
    assert load_credentials(certs_dir, "dev", check_certificate=False).role == "dev"


@pytest.mark.parametrize("role", ["dev", "worker"])
def test_certificates_that_expire_soon_are_warned_of(certs_dir: Path, role: Role) -> None:
    credentials = load_credentials(certs_dir, role)
    assert credentials.expires is not None
    assert credentials.warning() == ""
    assert credentials.warning(credentials.expires - timedelta(days=30)) == ""
    said = credentials.warning(credentials.expires - timedelta(days=12, hours=1))
    day = f"{credentials.expires:%Y-%m-%d}"
    assert said.startswith(f"{certs_dir / role}: the certificates expire on {day}, in 12 days; ")
    assert "dist_build.exe setup" in said
    assert load_credentials(certs_dir, role, check_certificate=False).warning() == ""


def test_certificate_of_another_ca_is_refused(own_copy: Path, other_certs: Path) -> None:
    shutil.copy(other_certs / "dev" / "ca.pem", own_copy / "dev" / "ca.pem")
    assert "cert.pem: was not issued by the CA in ca.pem; " in problem(own_copy)


def test_certificate_of_another_role_is_refused(own_copy: Path) -> None:
    shutil.copy(own_copy / "worker" / "cert.pem", own_copy / "dev" / "cert.pem")
    assert "cert.pem: is for worker.dist-build, not syncer.dist-build; " in problem(own_copy)


def test_key_of_another_certificate_is_refused(own_copy: Path) -> None:
    shutil.copy(own_copy / "worker" / "key.pem", own_copy / "dev" / "key.pem")
    assert "key.pem: does not belong to cert.pem; " in problem(own_copy)


def test_advice_for_bad_certificates_replaces_them(own_copy: Path) -> None:
    (own_copy / "dev" / "key.pem").unlink()
    assert problem(own_copy).endswith(" --new-certificates")


def test_who_may_not_read_the_files_is_not_told_to_replace_them(
    own_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(ConfigError) as error:
        load_credentials(own_copy, "dev")
    said = str(error.value)
    assert said.startswith(f"{own_copy / 'dev' / 'token'}: cannot read it (Permission denied); ")
    assert f"as the user to whom {own_copy} belongs" in said
    assert "--force" not in said
