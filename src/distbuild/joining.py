"""The codes and messages by which a build machine joins an installation.

``setup`` makes a code, the syncer accepts it once, and the worker learns from it which certificate
the syncer has. Knows no network.
"""

import base64
import binascii
import contextlib
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from distbuild.protocol.coding import PROTOCOL_VERSION, Message
from distbuild.protocol.errors import ConfigError
from distbuild.system.process import hold
from distbuild.system.state_file import replace_private

#: The secret that the syncer accepts once.
SECRET_BYTES = 9
#: The digest of the syncer's certificate, cut to 128 bits: a second certificate with the same one
#: cannot be found.
PIN_BYTES = 16
#: A code is valid for this time (seconds).
VALID_S = 900.0
#: For this time (seconds) a code that was used or has expired is known as such.
REMEMBERED_S = 86400.0
MAX_CODES = 1000
_GROUP = 5
#: How long (seconds) to wait for another process that reads or writes the codes.
_LOCK_S = 10.0
_RETRY_S = 0.01

#: Makes another code; for messages.
NEW_CODE: Final = "on the dev box: dist_build.exe setup --invite"
#: A worker's name, chosen where it joins.
NAME_PATTERN = r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z"
MAX_REQUEST_BYTES = 4096
JOIN_PATH = "/api/v1/join"


class JoinRequest(Message, frozen=True):
    """A build machine's request for an identity; ``request``: for a certificate, PEM."""

    secret: Annotated[bytes, msgspec.Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
    request: Annotated[bytes, msgspec.Meta(max_length=MAX_REQUEST_BYTES)]
    name: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
    version: int = PROTOCOL_VERSION


_Digits = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Pem = Annotated[bytes, msgspec.Meta(max_length=16384)]


class JoinReply(Message, frozen=True):
    """The files of a worker's ``certs/worker`` besides its key."""

    ca: _Pem
    certificate: _Pem
    #: The token that the worker shows.
    token: _Digits
    #: SHA-256 of the token that the syncer shows to this worker.
    syncer_digest: _Digits


class RemoveWorkerRequest(Message, frozen=True):
    """The name of a worker that has joined and is to be removed."""

    name: Annotated[str, msgspec.Meta(max_length=300)]


class Code(msgspec.Struct, frozen=True):
    """A secret of ``SECRET_BYTES``, and the first ``PIN_BYTES`` of a certificate's SHA-256."""

    secret: bytes
    pin: bytes

    @property
    def text(self) -> str:
        """40 letters and digits, in groups."""
        letters = base64.b32encode(self.pin + self.secret).decode()
        return "-".join(letters[i : i + _GROUP] for i in range(0, len(letters), _GROUP))


def parse_code(text: str) -> Code:
    """The code that ``Code.text`` shows; raises ConfigError."""
    try:
        data = base64.b32decode(text.replace("-", "").strip().upper())
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != PIN_BYTES + SECRET_BYTES:
        raise ConfigError(f"the code is not complete: copy all of it, or make another {NEW_CODE}")
    return Code(data[PIN_BYTES:], data[:PIN_BYTES])


def pin_of(certificate: bytes) -> bytes:
    """What a code says of a certificate (DER)."""
    return hashlib.sha256(certificate).digest()[:PIN_BYTES]


class _Issued(msgspec.Struct):
    """A code of the past day. ``expires``: Unix time (seconds)."""

    sha256: str
    expires: float
    is_used: bool = False


Verdict = Literal["valid", "wrong", "expired", "used"]


class Codes:
    """The codes of one installation: a file with the secrets' digests, for its owner alone.

    Several processes may use it at the same time. ``clock`` gives Unix time.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    def make(self, certificate: bytes) -> Code:
        """A new code for a syncer with this certificate (DER). Raises ConfigError."""
        code = Code(secrets.token_bytes(SECRET_BYTES), pin_of(certificate))
        with self._locked() as issued:
            issued.append(_Issued(_digest(code.secret), self._clock() + VALID_S))
        return code

    def look(self, secret: bytes) -> Verdict:
        """Whether ``use`` would accept a secret. Raises ConfigError."""
        with self._locked() as issued:
            return self._verdict(_found(issued, secret))

    def use(self, secret: bytes) -> Verdict:
        """Accept a secret once: "valid" the first time. Raises ConfigError."""
        with self._locked() as issued:
            code = _found(issued, secret)
            verdict = self._verdict(code)
            if code is not None and verdict == "valid":
                code.is_used = True
            return verdict

    def _verdict(self, code: _Issued | None) -> Verdict:
        if code is None:
            return "wrong"
        if code.is_used:
            return "used"
        return "valid" if self._clock() < code.expires else "expired"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[list[_Issued]]:
        """The codes that are remembered; changes are saved. Raises ConfigError."""
        try:
            with _lock(self._path.with_name(f"{self._path.name}.lock")):
                known = self._read()
                issued = [c for c in known if self._clock() < c.expires + REMEMBERED_S]
                before = msgspec.json.encode(known)
                yield issued
                after = msgspec.json.encode(issued[-MAX_CODES:])
                if after != before:
                    replace_private(self._path, after)
        except OSError as error:
            raise ConfigError(f"{self._path}: {error.strerror}") from error

    def _read(self) -> list[_Issued]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[_Issued])
        except FileNotFoundError:
            return []
        except (msgspec.DecodeError, UnicodeDecodeError):
            return []  # damaged: its codes are refused, and new ones can be made


def _digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def _found(issued: list[_Issued], secret: bytes) -> _Issued | None:
    """The code with this secret; compares with each in constant time."""
    shown = _digest(secret)
    matches = [code for code in issued if hmac.compare_digest(code.sha256.encode(), shown.encode())]
    return matches[0] if matches else None


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Wait for the lock of a file, and keep it in the context. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            lock = hold(path)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)
    with lock:
        yield
