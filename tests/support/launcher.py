"""The native launcher in a directory of its own, and a syncer's socket that answers as told."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from distbuild.protocol.messages import SubmitRequest, decode

SOURCE = Path(__file__).parents[2] / "src" / "launcher" / "dist_build.c"
Env = Mapping[str, str]
NOTHING: Env = MappingProxyType({})
WARNINGS = "-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror".split()
CLIENT = """#!/bin/sh
printf '%s\\0' "${0##*/}" "$@"
exit 42
"""


def compile_launcher(compiler: str, target: Path, *options: str) -> Path:
    """The launcher, built by ``compiler`` without a warning."""
    words = [compiler, "-std=c11", "-O2", *WARNINGS, *options]
    subprocess.run([*words, SOURCE, "-o", target], check=True)
    return target


def program(path: Path, text: str) -> Path:
    """An executable script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def done(
    code: int = 0,
    out: bytes = b"",
    err: bytes = b"",
    worker: str = "w1",
    outputs: bytes = b"",
    **more: str,
) -> bytes:
    """The syncer's answer to a command that a worker has compiled; ``outputs`` is their list,
    ``more`` other fields."""
    fields = {"Exit": code, "Outputs": len(outputs), "Stdout": len(out), "Worker": worker, **more}
    return _answer("done", outputs + out + err, **fields)


def local(real: bytes, why: bytes = b"link: -o", *, silent: int = 1) -> bytes:
    """The syncer's answer to a command that is to be run here."""
    return _answer("local", real + why, Silent=int(silent), Program=len(real))


def _answer(kind: str, body: bytes, **fields: object) -> bytes:
    more = "".join(f"Dist-Build-{name}: {value}\r\n" for name, value in fields.items())
    head = f"HTTP/1.1 200 OK\r\nDist-Build: {kind}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass
class FakeSyncer:
    """Answers every connection with ``chunks``; then hangs up, or waits for the other end to."""

    chunks: Sequence[bytes]
    reads: bool = True
    #: Descriptors that go with the first chunk.
    files: Sequence[int] = ()
    heads: list[bytes] = field(default_factory=list)
    requests: list[SubmitRequest] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    #: The launcher's end of a connection is gone.
    closed: threading.Event = field(default_factory=threading.Event)

    def serve(self, listener: socket.socket) -> None:
        """Until the listener is shut down."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(ConnectionError):
                    if self.reads:
                        self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
        self.heads.append(head)
        self.requests.append(decode(body, SubmitRequest))
        self.asked.set()
        for number, chunk in enumerate(self.chunks):
            if self.files and number == 0:
                socket.send_fds(connection, [chunk], self.files)
            else:
                connection.sendall(chunk)
        if self.chunks and self.chunks[-1] == b"":
            return  # told to hang up
        assert connection.recv(1) == b""
        self.closed.set()


@dataclass(frozen=True)
class Launcher:
    """``dist_build.exe`` in ``directory``, with a client that prints its words; exit code 42."""

    directory: Path

    @property
    def exe(self) -> Path:
        """The program that the build calls."""
        return self.directory / "dist_build.exe"

    @property
    def home(self) -> Path:
        """Where it expects the syncer's socket."""
        return self.directory / "home"

    @classmethod
    def install(cls, built: Path, directory: Path) -> "Launcher":
        """A copy of the built one with the client beside it."""
        launcher = cls(directory)
        launcher.home.mkdir(parents=True)
        shutil.copy(built, launcher.exe)
        program(directory / "dist_build_client", CLIENT)
        return launcher

    def environment(self, env: Env = NOTHING) -> dict[str, str]:
        """A small environment; ``env`` comes on top."""
        return {"PATH": "/bin:/usr/bin", "DIST_BUILD_HOME": str(self.home), **env}

    def start(
        self,
        *words: str | bytes,
        cwd: Path | None = None,
        name: Path | None = None,
        env: Env = NOTHING,
    ) -> "subprocess.Popen[bytes]":
        """The launcher, or the link ``name`` to it, with these words."""
        return subprocess.Popen(
            [name or self.exe, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd or self.directory,
            env=self.environment(env),
        )

    def run(
        self,
        *words: str | bytes,
        cwd: Path | None = None,
        name: Path | None = None,
        env: Env = NOTHING,
    ) -> tuple[int, bytes, bytes]:
        """Exit code, stdout and stderr."""
        with self.start(*words, cwd=cwd, name=name, env=env) as process:
            out, err = process.communicate()
        return process.returncode, out, err

    @contextlib.contextmanager
    def syncer(
        self,
        *chunks: bytes,
        home: Path | None = None,
        reads: bool = True,
        files: Sequence[int] = (),
    ) -> Iterator[FakeSyncer]:
        """A syncer at the socket that gives this answer."""
        fake = FakeSyncer(chunks, reads, files)
        directory = os.open(home or self.home, os.O_PATH)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{directory}/syncer.sock")
            os.close(directory)
            listener.listen()
            thread = threading.Thread(target=fake.serve, args=[listener])
            thread.start()
            try:
                yield fake
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join()
