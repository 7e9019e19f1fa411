"""A worker that holds a real token, speaks the real protocol over TLS, and lies as a test tells it.

It has no sandbox and no tree: it runs the compiler of this machine to know the truth, of which a
test then changes what it likes. Bytes that are no message of ours can be sent as well.
"""

import contextlib
import functools
import hashlib
import itertools
import os
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from distbuild.command.dependency_file import parse_dependency_file
from distbuild.command.driver import family_of
from distbuild.command.model import Family
from distbuild.compiler.identity import Identifier
from distbuild.credentials import load_credentials
from distbuild.http.client import Connections
from distbuild.mirror.digest_cache import DigestCache
from distbuild.protocol.codec import pack_inputs, pack_marks, pack_output
from distbuild.protocol.messages import (
    CONTENT_TYPE,
    InputFile,
    Job,
    LeaseReply,
    LeaseRequest,
    Message,
    OutputFile,
    ResultBatch,
    ResultRequest,
    ResultsReply,
    Toolchain,
    decode,
    encode,
)

WAIT_S = 10.0
TIMEOUT_S = 30.0

#: What to say of a job, given the truth: a result, a message body as it is sent, None: nothing.
Lie = Callable[[Job, ResultRequest], ResultRequest | bytes | None]


_numbers = itertools.count(1)


def plain(message: Message, **fields: Any) -> bytes:
    """A message's bytes with fields that its type would not hold."""
    return msgspec.msgpack.encode({**msgspec.to_builtins(message, builtin_types=[bytes]), **fields})


def output(path: str | bytes, content: bytes = b"evil\n", mode: int = 0o644) -> OutputFile:
    """A file that the compiler is said to have written."""
    return OutputFile(os.fsencode(path), mode, pack_output(content))


class HostileWorker:
    """``url``: the syncer's; ``certs``: the installation's, of which it has the worker's part."""

    def __init__(
        self,
        url: str,
        certs: Path,
        name: str = "",
        compilers: Sequence[str] = ("gcc",),
        *,
        namespaces: bool = True,
    ) -> None:
        # Each has a name of its own: a worker that fails again and again gets no jobs.
        self.name = name or f"evil:{next(_numbers)}"
        self.namespaces = namespaces
        self.toolchains = [toolchain(compiler) for compiler in compilers]
        self._connections = Connections(load_credentials(certs, "worker"), "syncer", url)
        self._stop = threading.Event()
        #: Every job that it was given, and whether each of its answers was taken.
        self.jobs: list[Job] = []
        self.taken: list[bool] = []
        #: Status and body of every answer to what it said of a job.
        self.answers: list[tuple[int, bytes]] = []

    # --- one request each -----------------------------------------------------------------------

    def post(self, route: str, message: Message | bytes) -> tuple[int, bytes]:
        """Status and body of the syncer's answer to anything at all at ``/api/v1/ROUTE``."""
        body = message if isinstance(message, bytes) else encode(message)
        return self._connections.post(f"/api/v1/{route}", CONTENT_TYPE, body, TIMEOUT_S)

    def asking(self, slots: int = 1, wait_s: float = 0.0, **fields: Any) -> LeaseRequest:
        """An ordinary request for work."""
        request = LeaseRequest(
            self.name, slots, wait_s, self.toolchains, namespaces=self.namespaces
        )
        return msgspec.structs.replace(request, **fields)

    def lease(self, slots: int = 1, wait_s: float = 0.0, **fields: Any) -> LeaseReply:
        """Ask for work."""
        status, body = self.post("lease", self.asking(slots, wait_s, **fields))
        assert status == 200, body
        return decode(body, LeaseReply)

    def take(self) -> Job:
        """The next job; waits for it."""
        job = self.lease(wait_s=WAIT_S).jobs[0]
        self.jobs.append(job)
        return job

    def deliver(self, *results: ResultRequest) -> list[bool]:
        """Whether each of these was taken."""
        status, body = self.post("results", ResultBatch(list(results)))
        assert status == 200, body
        return decode(body, ResultsReply).taken

    def say_farewell(self) -> None:
        """Ask for no more jobs."""
        self.post("lease", LeaseRequest(self.name, 0, 0.0, []))

    # --- jobs -----------------------------------------------------------------------------------

    def honest(self, job: Job) -> ResultRequest:
        """The true result of ``gcc ... -c SOURCE -o OBJECT``, compiled where the sources are."""
        words = [os.fsdecode(word) for word in job.argv]
        target = words.index("-o") + 1
        with tempfile.TemporaryDirectory() as directory:
            made, listing = Path(directory, "o"), Path(directory, "d")
            argv = [*words[:target], str(made), *words[target + 1 :], "-MD", "-MF", str(listing)]
            done = subprocess.run(
                argv, cwd=os.fsdecode(job.cwd), capture_output=True, check=False, timeout=600
            )
            family = family_of(os.path.basename(words[0])) or Family.GCC
            read = parse_dependency_file(listing.read_bytes(), family) if listing.exists() else []
            content = made.read_bytes() if made.exists() else None
        cwd = os.fsdecode(job.cwd)
        inputs = [read_input(os.path.join(cwd, path)) for path in read]
        place = os.path.join(cwd, words[target])
        real = os.path.join(os.path.realpath(os.path.dirname(place)), os.path.basename(place))
        return ResultRequest(
            job.lease_id,
            self.name,
            done.returncode,
            done.stdout,
            done.stderr,
            [] if content is None else [output(real, content)],
            packed_inputs=pack_inputs(inputs) if inputs else b"",
            marks=pack_marks(inputs),
        )

    @contextlib.contextmanager
    def answering(self, lie: Lie) -> Iterator[Self]:
        """Take jobs meanwhile, and say ``lie(job, truth)`` of each."""
        self._stop.clear()
        self.lease()  # it is known to the syncer before a build begins
        thread = threading.Thread(target=self._serve, args=[lie])
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self.say_farewell()
            thread.join()

    def close(self) -> None:
        """Hang up."""
        self._connections.close()

    def _serve(self, lie: Lie) -> None:
        while not self._stop.is_set():
            for job in self.lease(wait_s=WAIT_S).jobs:
                self.jobs.append(job)
                said = lie(job, self.honest(job))
                if said is None:
                    continue
                message = ResultBatch([said]) if isinstance(said, ResultRequest) else said
                status, body = self.post("results", message)
                self.answers.append((status, body))
                if status == 200:
                    self.taken += decode(body, ResultsReply).taken


@functools.cache
def toolchain(compiler: str) -> Toolchain:
    """The compiler of this name on this machine, as a worker would advertise it."""
    path = subprocess.run(["which", compiler], capture_output=True, check=True, text=True).stdout
    with tempfile.TemporaryDirectory() as directory:
        identity = Identifier(DigestCache(Path(directory, "digests"))).identify(path.strip())
    return Toolchain(identity.digest, compiler, identity.version)


def read_input(path: str) -> InputFile:
    """A file as the compiler is said to have read it."""
    real = os.path.realpath(path)
    return InputFile(os.fsencode(real), hashlib.sha256(Path(real).read_bytes()).digest())


class HostilePort:
    """What listens where the syncer expects a worker, with a worker's certificate.

    ``answers``: by path, a status line's rest with its headers and a body, as they are sent.
    """

    def __init__(self, certs: Path, port: int, answers: Mapping[str, bytes]) -> None:
        self.port = port
        self.answers = dict(answers)
        #: The paths that were asked for.
        self.asked: list[str] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certs / "worker/cert.pem", certs / "worker/key.pem")
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                accepted, _ = self._listener.accept()
                accepted.settimeout(WAIT_S)
                with accepted, self._context.wrap_socket(accepted, server_side=True) as connection:
                    self._talk(connection)

    def _talk(self, connection: ssl.SSLSocket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            part = connection.recv(65536)
            if not part:
                return
            head += part
        path = head.split(b" ")[1].decode()
        self.asked.append(path)
        connection.sendall(b"HTTP/1.1 " + self.answers.get(path, said(b"", "404 Not Found")))


def said(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    """An answer for a HostilePort, as it is sent."""
    size = len(body) if length is None else length
    return f"{status}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode() + body
