"""Makes a private CA for one dist_build installation, both roles' certificates and their tokens.

    python gen_self_signed_certs.py [OUT] [--force]

    OUT/ca/      ca.pem, ca.key: the CA. Its key is only needed to make further certificates.
    OUT/dev/     for the dev box (wrapper and syncer)
    OUT/worker/  for the build machines (daemon)

OUT defaults to $DIST_BUILD_HOME/certs, and that to ~/dist_build/certs. What exists is kept unless
--force is given. The side that verifies a token holds only its SHA-256.
"""

import argparse
import hashlib
import os
import secrets
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
#: Some TLS stacks refuse leaf certificates that are valid for longer than this.
LEAF_DAYS = 825
#: Certificates are valid also on machines whose clocks are a little behind.
SLACK = timedelta(minutes=5)

CA_FILES = ("ca.pem", "ca.key")
ROLE_FILES = {
    "dev": ("ca.pem", "cert.pem", "key.pem", "token", "dev.token.sha256", "worker.token.sha256"),
    "worker": ("ca.pem", "cert.pem", "key.pem", "token", "dev.token.sha256"),
}
ROLE_NAMES = {"dev": "syncer.dist-build", "worker": "worker.dist-build"}


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
        _builder(name, name, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def make_leaf(authority: Authority, dns_name: str) -> tuple[bytes, bytes]:
    """A certificate for a role and its key, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate.subject
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    certificate = (
        _builder(_name(dns_name), issuer, key, LEAF_DAYS)
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
    return certificate.public_bytes(Encoding.PEM), _key_pem(key)


def write_installation(directory: Path) -> None:
    """Write all files of an installation below an empty directory."""
    authority = make_authority()
    tokens = {role: secrets.token_hex(32) for role in ROLE_NAMES}
    _write(directory / "ca" / "ca.pem", authority.pem)
    _write(directory / "ca" / "ca.key", _key_pem(authority.key))
    for role, dns_name in ROLE_NAMES.items():
        certificate, key = make_leaf(authority, dns_name)
        contents = {
            "ca.pem": authority.pem,
            "cert.pem": certificate,
            "key.pem": key,
            "token": _line(tokens[role]),
        }
        for other, token in tokens.items():
            contents[f"{other}.token.sha256"] = _line(hashlib.sha256(token.encode()).hexdigest())
        for name in ROLE_FILES[role]:
            _write(directory / role / name, contents[name])


def is_complete(directory: Path) -> bool:
    """Whether all files of an installation exist and are not empty."""
    named = {"ca": CA_FILES, **ROLE_FILES}
    paths = [directory / part / name for part, names in named.items() for name in names]
    return all(path.is_file() and path.stat().st_size > 0 for path in paths)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    public = key.public_key()
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


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(data)


def _obstacle(out: Path, *, force: bool) -> str:
    """Why ``out`` must not be replaced; "" when it may be."""
    if not os.path.lexists(out):
        return ""
    if not out.is_dir():
        return f"{out} exists and is not a directory"
    names = {path.name for path in out.iterdir()}
    if not names:
        return ""
    if not force:
        return f"{out} exists but is not complete; move it away, or use --force to replace it"
    if not names & {"ca", "dev", "worker"}:
        return f"{out} holds other things than certificates; name another directory"
    return ""


def _replace(out: Path) -> None:
    """Make all files beside ``out``, then rename: an interrupted run leaves ``out`` as it was."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".certs-") as directory:
        made, old = Path(directory, "certs"), Path(directory, "old")
        made.mkdir(mode=0o700)
        write_installation(made)
        try:
            if out.exists():
                out.rename(old)
            made.rename(out)
        except BaseException:
            if old.exists() and not out.exists():
                old.rename(out)
            raise


def _end_in_order(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _say_what_to_do(out: Path) -> None:
    worker = out / "worker"
    there = (
        "%DIST_BUILD_HOME%\\certs\\worker" if os.name == "nt" else "$DIST_BUILD_HOME/certs/worker"
    )
    print(f"dev box:       keep {out / 'dev'} (wrapper and syncer read it)")
    print(f"build machine: copy {worker} to {there} there, and nothing else")
    if os.name != "nt":
        print(
            "               ssh BUILD1 'mkdir -p -m 700 dist_build/certs' &&"
            f" scp -rp {shlex.quote(str(worker))} BUILD1:dist_build/certs/"
        )


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gen_self_signed_certs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("out", nargs="?", metavar="OUT")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    options = parser.parse_args(words)
    if options.out == "":
        parser.error("OUT is empty")
    return options


def main(words: Sequence[str]) -> int:
    """Make the installation unless it is complete; returns the exit code."""
    options = _parse(words)
    home = os.environ.get("DIST_BUILD_HOME") or os.path.join(os.path.expanduser("~"), "dist_build")
    out = Path(os.path.abspath(options.out or os.path.join(home, "certs")))
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has fewer
            signal.signal(getattr(signal, name), _end_in_order)
    try:
        if not options.force and is_complete(out):
            print(f"{out} exists already; --force makes a new CA, certificates and tokens")
        elif obstacle := _obstacle(out, force=options.force):
            print(f"gen_self_signed_certs: {obstacle}", file=sys.stderr)
            return 1
        else:
            _replace(out)
            print(
                f"made a CA (valid {CA_DAYS} days), certificates ({LEAF_DAYS} days)"
                f" and tokens in {out}"
            )
    except OSError as error:
        print(f"gen_self_signed_certs: {error.filename or out}: {error.strerror}", file=sys.stderr)
        return 1
    _say_what_to_do(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
