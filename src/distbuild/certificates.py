"""Makes an installation's CA, certificates and tokens, and signs the keys of joining workers.

Used where certificates are made (the script in src/certs, ``setup``) and by the syncer. Knows no
network.
"""

import hashlib
import os
import secrets
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from distbuild.credentials import ROLE_NAMES, Role
from distbuild.protocol.errors import ConfigError, ProtocolError

CA_DAYS = 3650
#: Some TLS stacks refuse leaf certificates that are valid for longer than this.
LEAF_DAYS = 825
#: Certificates are valid also on machines whose clocks are a little behind.
SLACK = timedelta(minutes=5)

CA_FILES = ("ca.pem", "ca.key")
ROLE_FILES: Final[dict[Role, tuple[str, ...]]] = {
    "dev": ("ca.pem", "cert.pem", "key.pem", "token", "dev.token.sha256", "worker.token.sha256"),
    "worker": ("ca.pem", "cert.pem", "key.pem", "token", "dev.token.sha256"),
}


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA's certificate and key, with which leaf certificates are signed."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)


def make_authority() -> Authority:
    """A new CA that may sign no other CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("dist_build private CA")
    certificate = (
        _builder(name, name, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def load_authority(directory: Path) -> Authority:
    """The CA in ``directory``, which has its ``CA_FILES``. Raises ConfigError."""
    try:
        certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
        key = load_pem_private_key((directory / "ca.key").read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{directory}: ca.pem or ca.key is damaged") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{directory / 'ca.key'}: expected an elliptic curve's key")
    return Authority(certificate, key)


def sign(authority: Authority, public: ec.EllipticCurvePublicKey, dns_name: str) -> bytes:
    """A certificate in PEM that names ``dns_name`` alone, for the holder of a key."""
    issuer = authority.certificate.subject
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    certificate = (
        _builder(_name(dns_name), issuer, public, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(dns_name)]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def make_request() -> tuple[bytes, bytes]:
    """A new key and a certificate signing request for it, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return _key_pem(key), builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """The key of a certificate signing request (PEM).

    Its names are ignored: the signer chooses the name. Raises ProtocolError for a key of another
    kind than ``make_request`` makes, for a wrong signature, and for any extension.
    """
    try:
        found = x509.load_pem_x509_csr(request)
        key = found.public_key()
        is_signed, extensions = found.is_signature_valid, len(found.extensions)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        raise ProtocolError("the certificate request is malformed") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ProtocolError("the certificate request has another key than one of P-256")
    if not is_signed:
        raise ProtocolError("the certificate request is not signed with its own key")
    if extensions:
        raise ProtocolError("the certificate request asks for extensions; none are granted")
    return key


def is_issued(certificate: bytes, ca: bytes, dns_name: str) -> bool:
    """Whether a certificate (DER) is one of this CA (PEM) for this name alone."""
    try:
        found = x509.load_der_x509_certificate(certificate)
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return list(names) == [x509.DNSName(dns_name)]


def names_in(certificate: bytes) -> list[str]:
    """The DNS names in a certificate (PEM). Raises ValueError."""
    found = x509.load_pem_x509_certificate(certificate)
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


def make_installation(out: Path, roles: Collection[Role]) -> None:
    """Make a CA and these roles' certificates and tokens in ``out``, in place of what is there.

    All files are made beside it, then renamed: an interrupted run leaves ``out`` as it was. Raises
    OSError.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".certs-") as directory:
        made, old = Path(directory, "certs"), Path(directory, "old")
        made.mkdir(mode=0o700)
        _write_installation(made, roles)
        try:
            if out.exists():
                out.rename(old)
            made.rename(out)
        except BaseException:
            if old.exists() and not out.exists():
                old.rename(out)
            raise


def _write_installation(directory: Path, roles: Collection[Role]) -> None:
    authority = make_authority()
    tokens = {role: secrets.token_hex(32) for role in ROLE_NAMES}
    digests = {
        f"{role}.token.sha256": _line(hashlib.sha256(token.encode()).hexdigest())
        for role, token in tokens.items()
    }
    write_private(directory / "ca" / "ca.pem", authority.pem)
    write_private(directory / "ca" / "ca.key", _key_pem(authority.key))
    for role in roles:
        key = ec.generate_private_key(ec.SECP256R1())
        contents = {
            "ca.pem": authority.pem,
            "cert.pem": sign(authority, key.public_key(), ROLE_NAMES[role]),
            "key.pem": _key_pem(key),
            "token": _line(tokens[role]),
            **digests,
        }
        for name in ROLE_FILES[role]:
            write_private(directory / role / name, contents[name])


def is_complete(directory: Path, roles: Collection[Role] = tuple(ROLE_FILES)) -> bool:
    """Whether the CA's and these roles' files all exist and are not empty."""
    paths = [directory / "ca" / name for name in CA_FILES]
    paths += [directory / role / name for role in roles for name in ROLE_FILES[role]]
    return all(path.is_file() and path.stat().st_size > 0 for path in paths)


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that its owner alone may read. Raises OSError, also if it exists."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(data)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _line(text: str) -> bytes:
    return text.encode("ascii") + b"\n"
