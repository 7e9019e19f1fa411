"""The workers of a syncer: those that ``hosts`` names, and those that have joined.

A worker joins with a code, gets an identity, and is refused as soon as it is removed. Knows no HTTP
and no job.
"""

import dataclasses
import hashlib
import logging
import os
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from distbuild import certificates
from distbuild.config import Home
from distbuild.credentials import (
    IDENTITY,
    Credentials,
    push_token,
    server_name,
)
from distbuild.farm.farm import Farm
from distbuild.joining import (
    NAME_PATTERN,
    NEW_CODE,
    Codes,
    JoinReply,
    JoinRequest,
    Verdict,
)
from distbuild.protocol.errors import ConfigError, DistBuildError
from distbuild.protocol.messages import LeaseRequest
from distbuild.protocol.names import identity_of
from distbuild.push.pusher import Pusher
from distbuild.push.worker_client import WorkerClient
from distbuild.system.state_file import replace_private

log = logging.getLogger(__name__)

#: After so many wrong codes in ``WRONG_S`` seconds no code is looked at any more.
MAX_WRONG = 20
WRONG_S = 60.0
#: A worker that names another address more often than once in this time (seconds) has to wait.
MOVE_S = 5.0
MAX_JOINED = 1000
_REFUSALS: dict[Verdict, str] = {
    "wrong": "there is no such code: copy all of it, or make another",
    "expired": "this code has expired (codes are valid for 15 minutes); make another",
    "used": "this code was used before; make another",
}


class JoinRefused(DistBuildError):
    """A build machine may not join; the text is one line that says what to do."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class JoinedWorker(msgspec.Struct, frozen=True):
    """A worker that has joined. ``token``: the SHA-256 of its token; ``joined``: Unix time."""

    identity: str
    name: str
    token: str
    joined: float


class JoinedWorkers:
    """The workers that have joined, in a file; the credentials accept their tokens and no others.

    Raises ConfigError for a damaged file.
    """

    def __init__(self, path: Path, credentials: Credentials) -> None:
        self._path = path
        self._credentials = credentials
        self._lock = threading.Lock()
        self._workers = {worker.identity: worker for worker in _read(path)}
        self._publish()

    def __iter__(self) -> Iterator[JoinedWorker]:
        return iter(tuple(self._workers.values()))

    def get(self, identity: str) -> JoinedWorker | None:
        """The worker with this identity; None: it never joined, or was removed."""
        return self._workers.get(identity)

    def add(self, worker: JoinedWorker) -> None:
        """Raises JoinRefused for a name that is taken, and OSError."""
        with self._lock:
            if any(other.name == worker.name for other in self):
                raise JoinRefused(HTTPStatus.CONFLICT, _taken(worker.name))
            if len(self._workers) >= MAX_JOINED:
                text = f"{MAX_JOINED} workers have joined; dist_build.exe workers remove one"
                raise JoinRefused(HTTPStatus.CONFLICT, text)
            self._save({**self._workers, worker.identity: worker})

    def has_name(self, name: str) -> bool:
        """Whether a worker of this name has joined."""
        return any(worker.name == name for worker in self)

    def remove(self, name: str) -> JoinedWorker | None:
        """Remove the worker of this name; None: there is none. Raises OSError."""
        with self._lock:
            removed = next((worker for worker in self if worker.name == name), None)
            if removed is not None:
                self._save({i: w for i, w in self._workers.items() if w is not removed})
            return removed

    def _save(self, workers: dict[str, JoinedWorker]) -> None:
        replace_private(self._path, msgspec.json.encode(list(workers.values())))
        self._workers = workers
        self._publish()

    def _publish(self) -> None:
        self._credentials.accept_workers({w.identity: bytes.fromhex(w.token) for w in self})


def _taken(name: str) -> str:
    return (
        f"a worker named {name} has joined already; on the dev box: dist_build.exe workers remove"
        f" {name}, or join with another --name"
    )


def _read(path: Path) -> list[JoinedWorker]:
    try:
        workers = msgspec.json.decode(path.read_bytes(), type=list[JoinedWorker])
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        workers = None
    if workers is None or not all(map(_is_sound, workers)):
        raise ConfigError(f"{path}: damaged; restore it, or remove it and have all workers join")
    return workers


def _is_sound(worker: JoinedWorker) -> bool:
    return bool(
        IDENTITY.fullmatch(worker.identity)
        and re.search(NAME_PATTERN, worker.name)
        and re.fullmatch("[0-9a-f]{64}", worker.token)
    )


class Pushers:
    """The pushers of the configured workers and of those that have joined and can be reached.

    ``now`` is a monotonic clock in seconds.
    """

    def __init__(
        self,
        configured: Sequence[Pusher],
        make: Callable[[WorkerClient], Pusher],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._now = now
        self._lock = threading.Lock()
        self._all = tuple(configured)
        # Of the workers that have joined, by identity; and the time (monotonic) of the last change.
        self._joined: dict[str, Pusher] = {}
        self._changed: dict[str, float] = {}

    def __iter__(self) -> Iterator[Pusher]:
        return iter(self._all)

    def reach(
        self, identity: str, address: tuple[str, int] | None, client: Callable[[], WorkerClient]
    ) -> None:
        """Push to a worker that has joined, at this address; None: it cannot be reached.

        ``client`` makes one for the first time. Cheap if nothing has changed, and limited to one
        change in ``MOVE_S``, since each may start a thread.
        """
        known = self._joined.get(identity)
        if (None if known is None else known.address) == address:
            return
        with self._lock:
            now = self._now()
            if now - self._changed.get(identity, -MOVE_S) < MOVE_S:
                return
            self._changed[identity] = now
            known = self._joined.get(identity)
            if address is None:
                self._give_up(identity)
            elif known is not None:
                known.move(address)
            else:
                pusher = self._joined[identity] = self._make(client())
                self._all = (*self._all, pusher)
                pusher.start()

    def drop(self, identity: str) -> None:
        """Push to this worker no more."""
        with self._lock:
            self._changed.pop(identity, None)
            self._give_up(identity)

    def _give_up(self, identity: str) -> None:
        pusher = self._joined.pop(identity, None)
        if pusher is not None:
            self._all = tuple(each for each in self._all if each is not pusher)
            pusher.give_up()

    def of(self, identity: str) -> Pusher | None:
        """The pusher of a worker that has joined; None: it cannot be reached."""
        return self._joined.get(identity)


class Membership:
    """Admits, lists and removes the workers that join."""

    def __init__(
        self,
        home: Home,
        credentials: Credentials,
        joined: JoinedWorkers,
        pushers: Pushers,
        farm: Farm,
    ) -> None:
        self._ca = home.certs / "ca"
        self._credentials = credentials
        self._codes = Codes(home.join_codes)
        self._joined = joined
        self._pushers = pushers
        self._farm = farm
        self._wrong: deque[float] = deque(maxlen=MAX_WRONG)

    def join(self, request: JoinRequest) -> JoinReply:
        """Give a build machine an identity. Raises JoinRefused, ConfigError and ProtocolError."""
        self._check_code(request.secret)
        if self._joined.has_name(request.name):
            raise JoinRefused(HTTPStatus.CONFLICT, _taken(request.name))
        key = certificates.requested_key(request.request)
        authority = certificates.load_authority(self._ca)
        self._refuse_unless_valid(self._codes.use(request.secret))
        identity, token = os.urandom(16).hex(), secrets.token_hex(32)
        worker = JoinedWorker(identity, request.name, _sha256(token), time.time())
        try:
            self._joined.add(worker)
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}") from error
        log.info("%s has joined as a worker", request.name)
        return JoinReply(
            ca=authority.pem,
            certificate=certificates.sign(authority, key, server_name("worker", identity)),
            token=token,
            syncer_digest=_sha256(push_token(self._credentials.token, identity)),
        )

    def _check_code(self, secret: bytes) -> None:
        now = time.monotonic()
        if len(self._wrong) == MAX_WRONG and now - self._wrong[0] < WRONG_S:
            text = "too many wrong codes; wait a minute, then try again with the same code"
            raise JoinRefused(HTTPStatus.TOO_MANY_REQUESTS, text)
        verdict = self._codes.look(secret)
        if verdict == "wrong":
            log.warning("a machine has tried to join with a wrong code")
            self._wrong.append(now)
        self._refuse_unless_valid(verdict)

    @staticmethod
    def _refuse_unless_valid(verdict: Verdict) -> None:
        if verdict != "valid":
            raise JoinRefused(HTTPStatus.UNAUTHORIZED, f"{_REFUSALS[verdict]} {NEW_CODE}")

    def dialled_in(self, identity: str, request: LeaseRequest, peer: str) -> LeaseRequest:
        """A worker that has joined requests jobs from the address ``peer``: push to it there.
        Returns the request with the worker's name for people."""
        worker = self._joined.get(identity)
        if worker is None:
            return request
        address = (peer, request.port) if request.port and peer else None
        self._pushers.reach(identity, address, lambda: self._client(worker, address))
        pusher = self._pushers.of(identity)
        if pusher is not None and not pusher.up:
            pusher.worker = request.worker  # so that both are shown as one worker
        if self._joined.get(identity) is None:
            self._pushers.drop(identity)  # it was removed meanwhile
        return msgspec.structs.replace(request, label=worker.name)

    def _client(self, worker: JoinedWorker, address: tuple[str, int] | None) -> WorkerClient:
        token = push_token(self._credentials.token, worker.identity)
        credentials = dataclasses.replace(self._credentials, token=token)
        return WorkerClient(credentials, worker.name, worker.identity, address)

    def workers(self) -> list[dict[str, Any]]:
        """The workers that have joined: ``name``, ``address`` ("": it only requests jobs),
        ``joined`` (Unix time), ``asked_s`` (seconds since it requested jobs; None: not lately)."""
        heard = {identity_of(name): seen.silent_s for name, seen in self._farm.workers().items()}
        return [
            {
                "name": worker.name,
                "address": _shown(self._pushers.of(worker.identity)),
                "joined": worker.joined,
                "asked_s": heard.get(worker.identity),
            }
            for worker in sorted(self._joined, key=lambda worker: worker.name)
        ]

    def remove(self, name: str) -> bool:
        """Refuse a worker's token and certificate from now on; False: there is no such worker.
        Raises ConfigError."""
        try:
            removed = self._joined.remove(name)
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}") from error
        if removed is None:
            return False
        self._pushers.drop(removed.identity)
        for worker in self._farm.workers():
            if identity_of(worker) == removed.identity:
                self._farm.expel(worker)
        log.info("%s was removed", name)
        return True


def _shown(pusher: Pusher | None) -> str:
    if pusher is None:
        return ""
    host, port = pusher.address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
