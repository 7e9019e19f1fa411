"""Who may join a syncer, and as whom: wrong codes, hostile build machines, a hostile syncer."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from distbuild import certificates
from distbuild.certificates import Authority
from distbuild.credentials import Credentials, load_credentials, push_token, server_name
from distbuild.joining import (
    MAX_REQUEST_BYTES,
    SECRET_BYTES,
    Code,
    JoinReply,
    JoinRequest,
    parse_code,
    pin_of,
)
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import RenewRequest, decode, encode
from distbuild.push.worker_client import WorkerClient
from tests.support.cluster import Cluster, Done, wait_until
from tests.support.hostile_syncer import HostileSyncer
from tests.support.hostile_worker import HostileWorker
from tests.support.joining import JoinedFarm, post, raw_join, reply_of

Maker = Callable[[Path, str], HostileWorker]
NEW_CODE = "make another on the dev box: dist_build.exe setup --invite\n"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JoinedFarm]:
    """A dev box whose syncer runs; no worker process."""
    made = JoinedFarm(tmp_path_factory.mktemp("joined"))
    try:
        made.serve()
        yield made
        made.stop()
    finally:
        made.kill()


def with_another_secret(code: str) -> str:
    return Code(bytes(SECRET_BYTES), parse_code(code).pin).text


def expire(farm: JoinedFarm) -> None:
    """All codes were made twenty minutes ago."""
    path = farm.syncer.home / "certs" / "join_codes.json"
    codes = json.loads(path.read_text())
    path.write_text(json.dumps([{**code, "expires": time.time() - 300} for code in codes]))


def refusal(done: Done) -> str:
    """The one line of a daemon that may not join."""
    assert done.exit_code == 1
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines(keepends=True)
    return line


# --- codes -------------------------------------------------------------------------------------


def test_a_wrong_code_is_refused(farm: JoinedFarm) -> None:
    said = refusal(farm.daemon("wrong", with_another_secret(farm.invite())))
    assert said.endswith(f"(401): there is no such code: copy all of it, or {NEW_CODE}")
    assert not (farm.root / "wrong" / "certs").exists()


def test_an_expired_code_is_refused(farm: JoinedFarm) -> None:
    code = farm.invite()
    expire(farm)
    said = refusal(farm.daemon("expired", code))
    assert said.endswith(f"this code has expired (codes are valid for 15 minutes); {NEW_CODE}")


def test_a_code_joins_one_worker(farm: JoinedFarm) -> None:
    code = farm.invite()
    assert farm.daemon("first", code).exit_code == 0
    said = refusal(farm.daemon("second", code))
    assert said.endswith(f"this code was used before; {NEW_CODE}")


@pytest.mark.parametrize("tries", [60, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_many_tries_are_refused_and_stop_being_looked_at(tmp_path: Path, tries: int) -> None:
    farm = JoinedFarm(tmp_path)
    try:
        farm.serve()
        code = farm.invite()
        secrets = (bytes([n % 256, n // 256]) * 8 for n in range(1, tries + 1))
        bodies = [encode(JoinRequest(s[:SECRET_BYTES], b"", "evil")) for s in secrets]
        answers = [post(f"{farm.url}/api/v1/join", body) for body in bodies]
        codes = [status for status, _ in answers]
        assert set(codes) == {401, 429}
        # 20 a minute; so many tries may take some minutes.
        assert codes.count(401) <= max(20, tries // 2)
        assert codes[:20] == [401] * 20
        assert codes[20] == 429
        said = refusal(farm.daemon("late", code))
        assert "too many wrong codes; wait a minute, then try again with the same code" in said
        farm.stop()
    finally:
        farm.kill()


@contextmanager
def posing(tmp_path: Path) -> Iterator[HostileSyncer]:
    """A server with another installation's certificate, which notes each request."""
    certificates.make_installation(tmp_path / "other", ["dev"])
    server = Joiner(lambda _: b"")
    with server.serving(tmp_path / "other"):
        yield server


class Joiner(HostileSyncer):
    """Answers requests to join as ``reply`` says, and counts all requests."""

    def __init__(self, reply: Callable[[JoinRequest], bytes]) -> None:
        super().__init__("evil")
        self._reply = reply
        self.requests = 0

    def answer(self, route: str, body: bytes) -> bytes:
        self.requests += 1
        assert route == "join"
        return self._reply(decode(body, JoinRequest))


def test_a_man_in_the_middle_gets_nothing(farm: JoinedFarm, tmp_path: Path) -> None:
    with posing(tmp_path) as server:
        said = refusal(farm.daemon("middle", farm.invite(), url=server.url))
        assert server.requests == 0  # type: ignore[attr-defined]
    assert "does not have the certificate that this code is for, and was sent nothing" in said
    assert "check the address, and copy all of the code" in said
    assert not (farm.root / "middle" / "certs").exists()


# --- a hostile build machine --------------------------------------------------------------------


def csr(
    *extensions: x509.ExtensionType,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
) -> bytes:
    """A certificate signing request with a name and these extensions."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "syncer.dist-build")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    signer = key or ec.generate_private_key(ec.SECP256R1())
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


def forged() -> bytes:
    """A request whose signature does not fit: one byte of it is another."""
    parsed = x509.load_pem_x509_csr(csr())
    der = bytearray(parsed.public_bytes(Encoding.DER))
    der[-1] ^= 1
    lines = base64.encodebytes(bytes(der)).decode()
    head, tail = (f"-----{word} CERTIFICATE REQUEST-----\n" for word in ("BEGIN", "END"))
    return f"{head}{lines}{tail}".encode()


CSRS = {
    "empty": b"",
    "no PEM": b"\0" * 100,
    "huge": b"-" * (MAX_REQUEST_BYTES + 1),
    "a CA": csr(x509.BasicConstraints(ca=True, path_length=None)),
    "another name": csr(x509.SubjectAlternativeName([x509.DNSName("syncer.dist-build")])),
    "RSA": csr(key=rsa.generate_private_key(65537, 2048)),
    "another curve": csr(key=ec.generate_private_key(ec.SECP384R1())),
    "forged": forged(),
}


@pytest.mark.parametrize("kind", CSRS)
def test_another_certificate_request_is_refused(farm: JoinedFarm, kind: str) -> None:
    code = farm.invite()
    status, body = raw_join(farm.url, code, request=CSRS[kind])
    assert status == 400, body
    assert body.count(b"\n") == 1
    # The code was not used up by it.
    name = f"after-{kind.replace(' ', '-')}"
    assert raw_join(farm.url, code, request=csr(), name=name)[0] == 200


def test_the_name_in_a_certificate_request_is_ignored(farm: JoinedFarm) -> None:
    status, body = raw_join(farm.url, farm.invite(), request=csr(), name="named")
    assert status == 200
    certificate = x509.load_pem_x509_certificate(reply_of(body).certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (name,) = names.get_values_for_type(x509.DNSName)
    assert name.endswith(".worker.dist-build")
    assert name in certificate.subject.rfc4514_string()
    assert "syncer" not in certificate.subject.rfc4514_string()
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize(
    "name",
    ["", "x" * 64, "x" * 60_000, "a b", "a\r\nb", "a\n", "..", "-a", "a:1", "é", "a\0", 7, None],
)
def test_another_name_is_refused(farm: JoinedFarm, name: object) -> None:
    status, body = raw_join(farm.url, farm.invite(), request=csr(), name=name)
    assert status == 400
    assert body.count(b"\n") == 1


def test_the_name_of_another_worker_is_refused(farm: JoinedFarm) -> None:
    assert raw_join(farm.url, farm.invite(), request=csr(), name="mine")[0] == 200
    status, body = raw_join(farm.url, farm.invite(), request=csr(), name="mine")
    assert status == 409
    assert body == (
        b"a worker named mine has joined already; on the dev box: dist_build.exe workers remove"
        b" mine, or join with another --name\n"
    )


@pytest.mark.parametrize(
    "fields",
    [{"secret": b""}, {"secret": bytes(SECRET_BYTES + 1)}, {"secret": "text"}, {"version": 99}],
    ids=str,
)
def test_another_message_is_refused(farm: JoinedFarm, fields: dict[str, object]) -> None:
    status, body = raw_join(farm.url, farm.invite(), request=csr(), **fields)
    assert status in (400, 409)
    assert body.count(b"\n") == 1


@pytest.mark.parametrize("body", [b"", b"\xc1", b"[]", b"\x81" * 50_000, b"x" * 1_000_000])
def test_no_message_is_refused(farm: JoinedFarm, body: bytes) -> None:
    # Over 64 KiB a body is not read without a token: the connection may end while it is sent.
    assert post(f"{farm.url}/api/v1/join", body)[0] in (0, 400, 401)


# --- a worker that has joined -------------------------------------------------------------------


def joined(farm: JoinedFarm, name: str) -> tuple[Path, Credentials]:
    """A worker's directory of certificates and its credentials."""
    assert farm.daemon(name, farm.invite()).exit_code == 0
    certs = farm.root / name / "certs"
    return certs, load_credentials(certs, "worker")


@pytest.fixture
def worker(farm: JoinedFarm) -> Iterator[Maker]:
    """Makes a worker with these certificates, under this name."""
    made: list[HostileWorker] = []

    def make(certs: Path, name: str) -> HostileWorker:
        made.append(HostileWorker(farm.url, certs, name))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_worker_cannot_use_the_name_of_another(farm: JoinedFarm, worker: Maker) -> None:
    mine, credentials = joined(farm, "thief")
    _, other = joined(farm, "victim")
    evil = worker(mine, f"{credentials.identity}.1")
    assert evil.lease().jobs == []
    for name in (f"{other.identity}.1", other.identity, "elsewhere.1"):
        assert evil.post("lease", evil.asking(worker=name))[0] == 403
        assert evil.post("renew", RenewRequest(name, [], 0.0))[0] == 403


def test_the_common_token_is_for_no_worker_that_has_joined(certs_dir: Path, tmp_path: Path) -> None:
    """Certificates by the script have a worker's part, which several machines may share."""
    cluster = Cluster(tmp_path, certs_dir, [])
    try:
        identity = "0123456789abcdef" * 2
        registry = [{"identity": identity, "name": "w", "token": "0" * 64, "joined": 0.0}]
        path = cluster.syncer.home / "certs" / "joined_workers.json"
        path.write_text(json.dumps(registry))
        cluster.start()
        evil = HostileWorker(cluster.url, certs_dir)
        assert evil.post("lease", evil.asking())[0] == 200
        assert evil.post("lease", evil.asking(worker=f"{identity}.1"))[0] == 403
        evil.close()
        cluster.stop()
    finally:
        cluster.kill()


def test_the_name_shown_is_that_with_which_it_joined(farm: JoinedFarm, worker: Maker) -> None:
    certs, credentials = joined(farm, "plain")
    evil = worker(certs, f"{credentials.identity}.1")
    evil.lease(label="victim:8443")
    assert "plain" in farm.states()
    assert "victim:8443" not in farm.states()
    assert farm.client("workers", "remove", "plain").exit_code == 0


@pytest.mark.parametrize("port", [-1, 65536, "22"])
def test_another_port_is_refused(farm: JoinedFarm, worker: Maker, port: object) -> None:
    certs, credentials = joined(farm, f"port{str(port).strip('-')}")
    evil = worker(certs, f"{credentials.identity}.1")
    body = msgspec.msgpack.encode(
        {**msgspec.to_builtins(evil.asking(), builtin_types=[bytes]), "port": port}
    )
    assert evil.post("lease", body)[0] == 400


def test_a_removed_worker_is_refused_on_the_connection_that_it_has(
    farm: JoinedFarm, worker: Maker
) -> None:
    certs, credentials = joined(farm, "doomed")
    evil = worker(certs, f"{credentials.identity}.1")
    assert evil.post("lease", evil.asking())[0] == 200
    polled: list[tuple[int, bytes]] = []
    poll = threading.Thread(
        target=lambda: polled.append(evil.post("lease", evil.asking(wait_s=10.0)))
    )
    poll.start()
    wait_until(lambda: "doomed" in farm.states(), "it waits for jobs")
    assert farm.client("workers", "remove", "doomed").exit_code == 0
    poll.join()
    assert [status for status, _ in polled] == [401]
    for route, message in (
        ("lease", evil.asking()),
        ("renew", RenewRequest(evil.name, [], 0.0)),
        ("results", b"\x81\xa7results\x90"),
        ("mirror/pull", b"\x82\xa5epoch\xa0\xa4have\x00"),
        ("mirror/blobs", b"\x81\xa7digests\x90"),
    ):
        status, body = evil.post(route, message)
        assert status == 401
        assert body.startswith(b"a worker token is needed; a removed worker has to join again")
    assert "doomed" not in farm.states()


def test_a_certificate_is_good_for_one_worker(farm: JoinedFarm) -> None:
    """A syncer that pushes to one worker accepts no other's certificate, removed or not."""
    certs, mine = joined(farm, "one")
    _, other = joined(farm, "two")
    dev = load_credentials(farm.syncer.home / "certs", "dev")
    with serving(certs) as port:
        client = WorkerClient(dev, "one", mine.identity, ("127.0.0.1", port))
        with pytest.raises(InfrastructureError, match="501"):
            client.status()
        for identity in (other.identity, ""):
            client = WorkerClient(dev, "127.0.0.1:1", identity, ("127.0.0.1", port))
            with pytest.raises(InfrastructureError, match="certificate verify failed"):
                client.status()


@contextmanager
def serving(certs: Path) -> Iterator[int]:
    """A server with a worker's certificate; its port. It knows no GET: 501."""
    server = HostileSyncer("evil")
    with server.serving(certs, "worker"):
        yield int(server.url.rpartition(":")[2])


def test_the_syncer_shows_each_worker_another_token(farm: JoinedFarm) -> None:
    _, one = joined(farm, "shown1")
    _, two = joined(farm, "shown2")
    dev = load_credentials(farm.syncer.home / "certs", "dev")
    to_one = f"Bearer {push_token(dev.token, one.identity)}"
    assert one.verify_token(to_one, "dev")
    assert not two.verify_token(to_one, "dev")
    assert not one.verify_token(f"Bearer {dev.token}", "dev")


def test_a_worker_that_names_the_process_of_another_is_not_believed() -> None:
    mine, other = "1" * 32, "2" * 32
    client = object.__new__(WorkerClient)
    client._identity = mine
    assert client.may_be(f"{mine}.1")
    assert not client.may_be(f"{other}.1")
    assert not client.may_be("a\r\nb")


# --- a hostile syncer ---------------------------------------------------------------------------


class Liar:
    """The syncer whose code is used, with the CA of an installation."""

    def __init__(self, tmp_path: Path) -> None:
        self.certs = tmp_path / "certs"
        certificates.make_installation(self.certs, ["dev"])
        self.authority = certificates.load_authority(self.certs / "ca")

    def code(self) -> str:
        leaf = x509.load_pem_x509_certificate((self.certs / "dev" / "cert.pem").read_bytes())
        return Code(bytes(SECRET_BYTES), pin_of(leaf.public_bytes(Encoding.DER))).text

    def reply(self, request: JoinRequest) -> JoinReply:
        """An honest reply."""
        key = certificates.requested_key(request.request)
        name = server_name("worker", "a" * 32)
        certificate = certificates.sign(self.authority, key, name)
        return JoinReply(self.authority.pem, certificate, "b" * 64, "c" * 64)


@pytest.fixture
def liar(tmp_path: Path) -> Liar:
    return Liar(tmp_path)


def signed(
    liar: Liar, request: JoinRequest, name: str, authority: Authority | None = None
) -> bytes:
    key = certificates.requested_key(request.request)
    return certificates.sign(authority or liar.authority, key, name)


def of_another_ca(liar: Liar, request: JoinRequest) -> JoinReply:
    other = certificates.make_authority()
    certificate = signed(liar, request, server_name("worker", "a" * 32), other)
    return msgspec.structs.replace(liar.reply(request), ca=other.pem, certificate=certificate)


def of_another_key(liar: Liar, request: JoinRequest) -> JoinReply:
    _, other = certificates.make_request()
    certificate = signed(
        liar, JoinRequest(request.secret, other, "x"), server_name("worker", "a" * 32)
    )
    return msgspec.structs.replace(liar.reply(request), certificate=certificate)


def named(name: str) -> Callable[[Liar, JoinRequest], JoinReply]:
    return lambda liar, request: msgspec.structs.replace(
        liar.reply(request), certificate=signed(liar, request, name)
    )


def with_field(**fields: object) -> Callable[[Liar, JoinRequest], bytes]:
    return lambda liar, request: msgspec.msgpack.encode(
        {**msgspec.to_builtins(liar.reply(request), builtin_types=[bytes]), **fields}
    )


LIES: dict[str, Callable[[Liar, JoinRequest], JoinReply | bytes]] = {
    "nothing": lambda _, __: b"",
    "no message": lambda _, __: b"\xc1",
    "huge": lambda _, __: b"\0" * 1_000_000,
    "another CA": of_another_ca,
    "another key": of_another_key,
    "a syncer's name": named("syncer.dist-build"),
    "the common name": named("worker.dist-build"),
    "no identity": named("short.worker.dist-build"),
    "no certificate": with_field(certificate=b"x"),
    "no CA": with_field(ca=b""),
    "a short token": with_field(token="b" * 63),
    "a token with a line": with_field(token="b" * 63 + "\n"),
    "a header in the token": with_field(token="b" * 60 + "\r\nX:"),
    "no digest": with_field(syncer_digest="z" * 64),
}


@pytest.mark.parametrize("kind", LIES)
def test_a_false_reply_changes_nothing(
    farm: JoinedFarm, liar: Liar, tmp_path: Path, kind: str
) -> None:
    def reply(request: JoinRequest) -> bytes:
        said = LIES[kind](liar, request)
        return said if isinstance(said, bytes) else encode(said)

    name = f"lied-{kind.replace(' ', '-').replace(chr(39), '')}"
    with Joiner(reply).serving(liar.certs) as server:
        said = refusal(farm.daemon(name, liar.code(), url=server.url))
    assert said.startswith("daemon: ")
    certs = farm.root / name / "certs"
    assert [path for path in certs.glob("*") if path.name != ".dist_build_home"] == []
    assert "syncer" not in json.loads((farm.root / name / "config.json").read_text())


def test_an_honest_reply_of_the_same_server_is_accepted(farm: JoinedFarm, liar: Liar) -> None:
    with Joiner(lambda request: encode(liar.reply(request))).serving(liar.certs) as server:
        assert farm.daemon("honest", liar.code(), url=server.url).exit_code == 0


def test_a_refusal_prints_no_control_characters(farm: JoinedFarm, liar: Liar) -> None:
    def refuse(_: JoinRequest) -> bytes:
        raise ValueError("no\x1b[2J\r\nsecond\u202eline")

    with Joiner(refuse).serving(liar.certs) as server:
        said = refusal(farm.daemon("escaped", liar.code(), url=server.url))
    assert said.endswith("refuses (400): no [2J second line\n")
