"""``daemon.py join URL CODE``: makes this machine a worker of the syncer from which the code comes.

The code says which certificate the syncer has, so that nothing is sent to any other server.
"""

import argparse
import contextlib
import hmac
import http.client
import os
import re
import shutil
import socket
import ssl
import sys
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from distbuild import certificates
from distbuild.config import Home, find_home, load_config, syncer_urls
from distbuild.credentials import ROLE_NAMES, Credentials, load_credentials
from distbuild.joining import (
    JOIN_PATH,
    NAME_PATTERN,
    JoinReply,
    JoinRequest,
    parse_code,
    pin_of,
)
from distbuild.protocol.errors import ConfigError, InfrastructureError, ProtocolError
from distbuild.protocol.messages import CONTENT_TYPE, decode, encode
from distbuild.protocol.names import one_line
from distbuild.system.state_file import replace_private

#: For the connection and for each read (seconds).
TIMEOUT_S = 20.0
MAX_ANSWER_BYTES = 64 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``join``."""
    parser.add_argument("url", metavar="URL", help="of the syncer, like https://devbox:5000")
    parser.add_argument("code", metavar="CODE", help="from dist_build.exe setup on the dev box")
    parser.add_argument("--name", help="of this worker (default: the host name)")
    parser.add_argument("--port", type=int, help="to listen on (default: 8443); 0: none, pull only")
    parser.add_argument("--num-cores", type=int, help="compiles at a time (default: all cores)")
    parser.add_argument(
        "--force", action="store_true", help="also if this home is a worker already"
    )
    parser.add_argument("--no-start", action="store_true", help="join, and do not serve")


def join(home: Home, options: argparse.Namespace) -> str:
    """Write ``certs/worker`` and the configuration; returns the worker's name. Raises ConfigError,
    InfrastructureError and ProtocolError; then nothing was changed."""
    code = parse_code(options.code)
    address = _address(options.url)
    name = options.name or _host_name()
    if not re.search(NAME_PATTERN, name):
        raise ConfigError(f"{one_line(name)!r} is no name for a worker; give one with --name")
    if (home.certs / "worker").exists() and not options.force:
        raise ConfigError(
            f"{home.certs / 'worker'}: this home is a worker already; start it, or add --force"
        )
    configuration = _configuration(home, options)
    key, request = certificates.make_request()
    message = JoinRequest(code.secret, request, name)
    reply, server = _exchange(address, code.pin, message)
    home.prepare()
    _write_credentials(home, key, reply, server)
    replace_private(home.config_path, configuration)
    return str(name)


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname().partition(".")[0])[:63]


def _address(url: str) -> tuple[str, int]:
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme == "https" and parts.hostname and not parts.path.strip("/"):
            return parts.hostname, parts.port or 5000
    raise ConfigError(f"{one_line(url)!r}: expected a URL like https://devbox:5000")


def _configuration(home: Home, options: argparse.Namespace) -> bytes:
    """``config.json`` with this syncer and the options; other keys stay. Raises ConfigError."""
    found: dict[str, Any] = {}
    if home.config_path.exists():
        load_config(home)
        found = msgspec.json.decode(home.config_path.read_bytes())
    found["syncer"] = options.url.rstrip("/")
    for key in ("port", "num_cores"):
        if (value := getattr(options, key)) is not None:
            found[key] = value
    text = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    with tempfile.TemporaryDirectory() as directory:  # checked as the daemon will check it
        trial = Home(Path(directory))
        trial.config_path.write_bytes(text)
        try:
            syncer_urls(load_config(trial))
        except ConfigError as error:
            said = str(error).removeprefix(f"{trial.config_path}: ")
            raise ConfigError(f"the options make a wrong configuration: {said}") from None
    return text


def _exchange(
    address: tuple[str, int], pin: bytes, message: JoinRequest
) -> tuple[JoinReply, bytes]:
    """The syncer's reply, and its certificate (DER)."""
    where = f"https://{address[0]}:{address[1]}"
    # Its CA is not known yet: the code pins the certificate itself.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(*address, timeout=TIMEOUT_S, context=context)
    try:
        connection.connect()
        server = connection.sock.getpeercert(binary_form=True) or b""
        if not hmac.compare_digest(pin_of(server), pin):
            raise ConfigError(
                f"{where} does not have the certificate that this code is for, and was sent"
                " nothing: check the address, and copy all of the code; if both are right, another"
                " machine answers in the dev box's place"
            )
        connection.request("POST", JOIN_PATH, encode(message), {"Content-Type": CONTENT_TYPE})
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        raise InfrastructureError(
            f"{where}: {one_line(str(error)) or type(error).__name__}; is the syncer running, and"
            " its port open?"
        ) from error
    finally:
        connection.close()
    if len(body) > MAX_ANSWER_BYTES:
        raise ProtocolError(f"{where}: the answer is too long")
    if response.status != HTTPStatus.OK:
        said = one_line(body.decode(errors="replace"))
        raise InfrastructureError(f"{where} refuses ({response.status}): {said}")
    return decode(body, JoinReply), server


def _write_credentials(home: Home, key: bytes, reply: JoinReply, server: bytes) -> None:
    """Write ``certs/worker``, after the checks that the daemon makes at each start. Raises
    ConfigError and ProtocolError."""
    home.certs.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.certs, prefix=".joining-") as directory:
        made = Path(directory, "worker")
        files = {
            "ca.pem": reply.ca,
            "cert.pem": reply.certificate,
            "key.pem": key,
            "token": reply.token.encode() + b"\n",
            "dev.token.sha256": reply.syncer_digest.encode() + b"\n",
        }
        for name, data in files.items():
            certificates.write_private(made / name, data)
        _check(load_credentials(Path(directory), "worker"), server)
        place = home.certs / "worker"
        if place.exists():
            shutil.rmtree(place)
        os.rename(made, place)


def _check(made: Credentials, server: bytes) -> None:
    if not made.identity:
        raise ProtocolError("the syncer's answer has a certificate without an identity")
    if not certificates.is_issued(server, made.ca.read_bytes(), ROLE_NAMES["dev"]):
        raise ProtocolError("the syncer's own certificate is not one of the CA that it sent")


def run_join(home_option: str | None, options: argparse.Namespace) -> int:
    """Join; 0, or 1 after one line that says what to do."""
    home = find_home(home_option)
    try:
        name = join(home, options)
    except (ConfigError, InfrastructureError, ProtocolError, OSError) as error:
        said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        print(f"daemon: {said}", file=sys.stderr)  # noqa: T201 - the user's one line
        return 1
    print(f"daemon: joined {options.url} as {name}; home {home.path}", flush=True)  # noqa: T201
    return 0
