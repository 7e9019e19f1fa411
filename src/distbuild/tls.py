"""Who we are and whom we believe: certificates, tokens, and the HTTP session built from them.

A client accepts only a certificate of this installation's CA for the role that it expects, so no
host name or address is part of any certificate. Knows no routes and no messages.
"""

import hashlib
import hmac
import re
import shlex
import ssl
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import requests
from requests.adapters import HTTPAdapter

from distbuild.protocol.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

Role = Literal["dev", "worker"]
Server = Literal["syncer", "worker"]

#: The DNS name in the certificate of the server that a role runs.
ROLE_NAMES: Final[dict[Role, str]] = {"dev": "syncer.dist-build", "worker": "worker.dist-build"}
SERVER_NAMES: Final[dict[Server, str]] = {
    "syncer": "syncer.dist-build",
    "worker": "worker.dist-build",
}
#: The roles whose tokens a role has to recognise.
ACCEPTED_ROLES: Final[dict[Role, tuple[Role, ...]]] = {"dev": ("dev", "worker"), "worker": ("dev",)}

MIN_TOKEN_LENGTH = 32
_SCHEME = "Bearer "


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one role holds."""

    role: Role
    ca: Path
    cert: Path
    key: Path
    #: The token that this role shows to others.
    token: str = field(repr=False)
    #: SHA-256 (raw) of the tokens that this role accepts, by the role that shows them.
    accepted: dict[Role, bytes] = field(repr=False)

    def verify_token(self, header_value: str | None, role: Role) -> bool:
        """Whether an Authorization header carries ``role``'s token; takes the same time for all."""
        expected = self.accepted.get(role)
        if expected is None or header_value is None or not header_value.startswith(_SCHEME):
            return False
        shown = header_value[len(_SCHEME) :].strip().encode("utf-8", "surrogatepass")
        return hmac.compare_digest(hashlib.sha256(shown).digest(), expected)


def load_credentials(
    certs_dir: Path, role: Role, *, check_certificate: bool = True, now: datetime | None = None
) -> Credentials:
    """Read ``certs_dir/role``; raises ConfigError with the command to run when it is not usable.

    ``check_certificate`` False skips dates, names and signatures: a client that serves nothing
    needs only the CA and its token, and saves the import of cryptography.
    """
    where = _Place(certs_dir, role)
    credentials = Credentials(
        role=role,
        ca=where.path / "ca.pem",
        cert=where.path / "cert.pem",
        key=where.path / "key.pem",
        token=_read_token(where),
        accepted={other: _read_digest(where, other) for other in ACCEPTED_ROLES[role]},
    )
    for name in ("ca.pem", "cert.pem", "key.pem"):
        where.read(name)
    if check_certificate:
        _check_certificate(where, now or datetime.now(UTC))
    return credentials


def make_session(
    credentials: Credentials, expect: Server, *, pool_size: int = 16
) -> requests.Session:
    """A session that talks only to this installation's ``expect`` servers, whatever their address.

    At most ``pool_size`` idle connections per server are kept. Redirects, plain HTTP, proxies and
    certificate settings of the environment are refused or ignored.
    """
    session = requests.Session()
    session.trust_env = False
    session.max_redirects = 0
    session.headers["Authorization"] = _SCHEME + credentials.token
    session.adapters.clear()
    session.mount("https://", _RoleAdapter(credentials, expect, pool_size))
    return session


def make_client_context(credentials: Credentials) -> ssl.SSLContext:
    """TLS 1.3, trusting this installation's CA and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.hostname_checks_common_name = False
    try:
        context.load_verify_locations(cafile=str(credentials.ca))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{credentials.ca}: not a usable CA certificate: {error}") from error
    return context


class _RoleAdapter(HTTPAdapter):
    """Verifies the server's role instead of its address, whatever a caller passes as ``verify``."""

    def __init__(self, credentials: Credentials, expect: Server, pool_size: int) -> None:
        self._context = make_client_context(credentials)
        self._name = SERVER_NAMES[expect]
        super().__init__(pool_connections=pool_size, pool_maxsize=pool_size)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        kwargs.update(
            ssl_context=self._context, assert_hostname=self._name, server_hostname=self._name
        )
        super().init_poolmanager(*args, **kwargs)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        del verify, cert
        return super().build_connection_pool_key_attributes(request, True)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """The inherited method would add the public CAs to our context."""
        del url, verify, cert
        conn.cert_reqs = "CERT_REQUIRED"
        conn.ca_certs = None
        conn.ca_cert_dir = None


@dataclass(frozen=True, slots=True)
class _Place:
    """A role's directory, and what to tell the user about it."""

    certs_dir: Path
    role: Role

    @property
    def path(self) -> Path:
        return self.certs_dir / self.role

    def error(self, name: str, problem: str, *, replace: bool = True) -> ConfigError:
        """One line: the file, what is wrong with it, and the command that makes it right."""
        certs = shlex.quote(str(self.certs_dir))
        force = " --force" if replace else ""
        if self.role == "dev":
            advice = f"run: {_script()} {certs}{force}"
        else:
            advice = (
                f"run on the dev box: {_script()}{force}"
                f" and copy certs/worker from there to {shlex.quote(str(self.path))}"
            )
        return ConfigError(f"{self.path / name}: {problem}; {advice}")

    def read(self, name: str) -> bytes:
        try:
            data = (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise self.error(name, "no such file", replace=self.path.exists()) from None
        except OSError as error:
            problem = (
                f"cannot read it ({error.strerror}), it has to belong to the user who runs this"
            )
            raise self.error(name, problem) from error
        if not data.strip():
            raise self.error(name, "is empty")
        return data


def _script() -> str:
    name = f"gen_self_signed_certs.{'py' if sys.platform == 'win32' else 'sh'}"
    if getattr(sys, "frozen", False):
        return name
    script = str(Path(__file__).parent.parent / "certs" / name)
    return f'python "{script}"' if sys.platform == "win32" else shlex.quote(script)


def _read_token(where: _Place) -> str:
    token = where.read("token").strip().decode("ascii", "replace")
    if not re.fullmatch(rf"[!-~]{{{MIN_TOKEN_LENGTH},}}", token):
        raise where.error("token", f"expected one line of {MIN_TOKEN_LENGTH} characters or more")
    return token


def _read_digest(where: _Place, other: Role) -> bytes:
    name = f"{other}.token.sha256"
    text = where.read(name).strip().decode("ascii", "replace")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise where.error(name, "expected a SHA-256 as 64 hexadecimal digits")
    return bytes.fromhex(text)


def _check_certificate(where: _Place, now: datetime) -> None:
    ca = _parse_certificate(where, "ca.pem")
    cert = _parse_certificate(where, "cert.pem")
    _check_dates(where, "ca.pem", ca, now)
    _check_dates(where, "cert.pem", cert, now)
    _check_name(where, cert)
    _check_issuer(where, cert, ca)
    _check_key(where, cert)


def _parse_certificate(where: _Place, name: str) -> "Certificate":
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(where.read(name))
    except ValueError:
        raise where.error(name, "is not a PEM certificate") from None


def _check_dates(where: _Place, name: str, cert: "Certificate", now: datetime) -> None:
    if now > cert.not_valid_after_utc:
        raise where.error(name, f"has expired on {cert.not_valid_after_utc:%Y-%m-%d}")
    if now < cert.not_valid_before_utc:
        since = f"{cert.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        raise where.error(name, f"is not valid before {since} (is this machine's clock right?)")


def _check_name(where: _Place, cert: "Certificate") -> None:
    from cryptography import x509

    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        found = []
    expected = ROLE_NAMES[where.role]
    if expected not in found:
        raise where.error("cert.pem", f"is for {', '.join(found) or 'no name'}, not {expected}")


def _check_issuer(where: _Place, cert: "Certificate", ca: "Certificate") -> None:
    from cryptography.exceptions import InvalidSignature

    try:
        cert.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        raise where.error("cert.pem", "was not issued by the CA in ca.pem") from None


def _check_key(where: _Place, cert: "Certificate") -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(where.read("key.pem"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise where.error("key.pem", "is not a PEM private key without a password") from None
    if key.public_key() != cert.public_key():
        raise where.error("key.pem", "does not belong to cert.pem")
