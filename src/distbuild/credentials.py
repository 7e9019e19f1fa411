"""Loads and checks one role's certificates and tokens, and makes a client's TLS context of them.

A client accepts only a certificate of this installation's CA for the role that it expects, so no
host name or address is part of any certificate. Knows no routes and no messages.
"""

import contextlib
import functools
import hashlib
import hmac
import os
import re
import secrets
import shlex
import ssl
import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from distbuild.protocol.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

Role = Literal["dev", "worker"]
Server = Literal["syncer", "worker"]

#: The DNS name in the certificate of a role's server.
ROLE_NAMES: Final[dict[Role, str]] = {"dev": "syncer.dist-build", "worker": "worker.dist-build"}
SERVER_NAMES: Final[dict[Server, str]] = {
    "syncer": "syncer.dist-build",
    "worker": "worker.dist-build",
}
#: The roles whose tokens each role accepts.
ACCEPTED_ROLES: Final[dict[Role, tuple[Role, ...]]] = {"dev": ("worker",), "worker": ("dev",)}
#: The name of the one token that all holders of a role share which have no identity of their own.
SHARED = "shared"
#: The identity of a worker that has joined: chosen by the syncer that signed its key.
IDENTITY = re.compile(r"[0-9a-f]{32}")

#: Certificates that expire within this time are warned of.
WARN_BEFORE = timedelta(days=30)
MIN_TOKEN_LENGTH = 32
_SECRET_DIGITS = 64
_SECRET = re.compile(rb"[0-9a-f]{64}")
#: Precedes the token in an Authorization header (RFC 6750).
SCHEME = "Bearer "


@dataclass(frozen=True, slots=True)
class Credentials:
    """The certificates and tokens of one role."""

    role: Role
    ca: Path
    cert: Path
    key: Path
    #: The token that this role sends to others.
    token: str = field(repr=False)
    #: SHA-256 (raw) of the tokens that this role accepts, by the sender's role and the holder's
    #: name.
    accepted: dict[Role, dict[str, bytes]] = field(repr=False)
    #: The identity of a worker that has joined; "" for all others.
    identity: str = ""
    #: When the first of the certificates expires; None: they were not checked.
    expires: datetime | None = None

    def warning(self, now: datetime | None = None) -> str:
        """One line if the certificates expire soon, with what to do; "": they do not."""
        if self.expires is None:
            return ""
        left = self.expires - (now or datetime.now(UTC))
        if left >= WARN_BEFORE:
            return ""
        where = _Place(self.cert.parent.parent, self.role)
        when = f"on {self.expires:%Y-%m-%d}, in {left.days} days"
        return f"{where.path}: the certificates expire {when}; {where.advice()}"

    def verify_token(self, header_value: str | None, role: Role) -> bool:
        """Whether an Authorization header carries ``role``'s token; constant time."""
        return self.holder(header_value, role) is not None

    def holder(self, header_value: str | None, role: Role) -> str | None:
        """The name of the holder whose token an Authorization header carries, or None."""
        for name, digest in self.accepted.get(role, {}).items():
            if carries(header_value, digest):
                return name
        return None

    def accept_workers(self, digests: dict[str, bytes]) -> None:
        """Accept the tokens of these workers that have joined, by identity, and of no others."""
        shared = {SHARED: self.accepted["worker"][SHARED]}
        self.accepted["worker"] = shared | digests  # in one step, for threads that check a token


def server_name(server: Server, identity: str = "") -> str:
    """The DNS name in a server's certificate; ``identity``: that of a worker that has joined."""
    return f"{identity}.{SERVER_NAMES[server]}" if identity else SERVER_NAMES[server]


def push_token(dev_token: str, identity: str) -> str:
    """The token that a syncer shows to one worker that has joined: no other worker accepts it."""
    return hmac.new(dev_token.encode(), f"push to {identity}".encode(), "sha256").hexdigest()


def carries(header_value: str | None, digest: bytes) -> bool:
    """Whether an Authorization header carries the token with this SHA-256; constant time."""
    if header_value is None or not header_value.startswith(SCHEME):
        return False
    return hmac.compare_digest(_digest_of(header_value), digest)


@functools.lru_cache(maxsize=100)
def _digest_of(header_value: str) -> bytes:
    """The SHA-256 of the token in a header, which each request of a client repeats."""
    shown = header_value[len(SCHEME) :].strip().encode("utf-8", "surrogatepass")
    return hashlib.sha256(shown).digest()


def own_secret(path: Path) -> str:
    """A secret of this home, made once: 64 hexadecimal digits, readable by the owner alone.

    A secret that others can read, or of another form, is replaced. Raises ConfigError.
    """
    if known := known_secret(path):
        return known
    made = secrets.token_hex(_SECRET_DIGITS // 2)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(made + "\n")
        os.replace(new, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return made


def known_secret(path: Path) -> str:
    """The secret that ``own_secret`` made; "" if it is missing, malformed or readable by others."""
    try:
        with open(path, "rb") as file:
            exposed = sys.platform != "win32" and os.fstat(file.fileno()).st_mode & 0o077
            known = file.read(_SECRET_DIGITS + 2).strip()
    except OSError:
        return ""
    return known.decode("ascii") if _SECRET.fullmatch(known) and not exposed else ""


def load_credentials(
    certs_dir: Path, role: Role, *, check_certificate: bool = True, now: datetime | None = None
) -> Credentials:
    """Read ``certs_dir/role``; raises ConfigError with the command to run when it is not usable.

    ``check_certificate`` False skips dates, names and signatures: a client that runs no server
    needs only the CA and its token, and saves the import of cryptography.
    """
    where = _Place(certs_dir, role)
    credentials = Credentials(
        role=role,
        ca=where.path / "ca.pem",
        cert=where.path / "cert.pem",
        key=where.path / "key.pem",
        token=_read_token(where),
        accepted={other: {SHARED: _read_digest(where, other)} for other in ACCEPTED_ROLES[role]},
    )
    for name in ("ca.pem", "cert.pem", "key.pem"):
        where.read(name)
    if not check_certificate:
        return credentials
    identity, expires = _check_certificate(where, now or datetime.now(UTC))
    return replace(credentials, identity=identity, expires=expires)


def make_client_context(credentials: Credentials) -> ssl.SSLContext:
    """TLS 1.3, trusting only this installation's CA. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.hostname_checks_common_name = False
    try:
        context.load_verify_locations(cafile=str(credentials.ca))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{credentials.ca}: not a usable CA certificate: {error}") from error
    return context


@dataclass(frozen=True, slots=True)
class _Place:
    """A role's directory, and the error messages about it."""

    certs_dir: Path
    role: Role

    @property
    def path(self) -> Path:
        return self.certs_dir / self.role

    def error(self, name: str, problem: str, *, replace: bool = True) -> ConfigError:
        """One line: the file, the problem, and the command that repairs it."""
        return ConfigError(f"{self.path / name}: {problem}; {self.advice(replace=replace)}")

    def advice(self, *, replace: bool = True) -> str:
        """What to do to get certificates; ``replace``: there are some."""
        if self.role == "dev":
            home = shlex.quote(str(self.certs_dir.parent))
            new = " --new-certificates" if replace else ""
            return f"run: dist_build.exe setup --home {home}{new}"
        return (
            "have this machine join (with --force): dist_build.exe setup --invite on the dev"
            f" box prints the command; or copy certs/worker from there to"
            f" {shlex.quote(str(self.path))}"
        )

    def read(self, name: str) -> bytes:
        try:
            data = (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise self.error(name, "no such file", replace=self.path.exists()) from None
        except PermissionError as error:
            raise ConfigError(
                f"{self.path / name}: cannot read it ({error.strerror}); run this as the user to"
                f" whom {self.certs_dir} belongs, or give it to the user who runs this"
            ) from error
        except OSError as error:
            raise self.error(name, f"cannot read it ({error.strerror})") from error
        if not data.strip():
            raise self.error(name, "is empty")
        return data


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


def _check_certificate(where: _Place, now: datetime) -> tuple[str, datetime]:
    """The identity of a worker that has joined, else "", and when the first certificate expires.
    Raises ConfigError."""
    ca = _parse_certificate(where, "ca.pem")
    cert = _parse_certificate(where, "cert.pem")
    _check_dates(where, "ca.pem", ca, now)
    _check_dates(where, "cert.pem", cert, now)
    identity = _check_name(where, cert)
    _check_issuer(where, cert, ca)
    _check_key(where, cert)
    return identity, min(ca.not_valid_after_utc, cert.not_valid_after_utc)


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


def _check_name(where: _Place, cert: "Certificate") -> str:
    from cryptography import x509

    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        found = []
    expected = ROLE_NAMES[where.role]
    if expected in found:
        return ""
    identity, _, role = (found[0] if len(found) == 1 else "").partition(".")
    if where.role == "worker" and role == expected and IDENTITY.fullmatch(identity):
        return identity
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
