"""Sets up a dev box by command, and joins workers to it, as real processes below one directory."""

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import requests
from urllib3.exceptions import InsecureRequestWarning

from distbuild.joining import JoinReply, parse_code
from distbuild.protocol.messages import decode
from tests.support.cluster import (
    Cluster,
    Done,
    Process,
    free_ports,
    run_here,
    wait_until,
    wrapper_command,
)


class JoinedFarm(Cluster):
    """A dev box made by ``setup``; its workers join by the line that ``setup`` prints.

    ``programs``: the directory of an installed package's; None: those of the sources.
    ``options``: further ones of ``setup``.
    """

    def __init__(self, root: Path, programs: Path | None = None, *options: str) -> None:
        # Not the inherited construction: no certificate and no configuration is made by a test.
        (port,) = free_ports(1)
        self.root = root
        self.url = f"https://127.0.0.1:{port}"
        self.daemons = []
        self._programs = programs
        self.syncer = Process("syncer", root / "syncer", port, "syncer.py")
        if programs is not None:
            self.syncer.program = programs / "dist_build-syncer"
        done = self.client(
            "setup", "--no-service", "--port", str(port), "--address", "127.0.0.1", *options
        )
        assert done.exit_code == 0, done.stderr.decode()
        self.said = done.stdout.decode()

    def client(self, *words: str) -> Done:
        """A subcommand, with this dev box's home."""
        return run_here([*self.wrapper(), *words], self.root, DIST_BUILD_HOME=str(self.syncer.home))

    def wrapper(self) -> list[str]:
        """The words that start the wrapper."""
        return wrapper_command() if self._programs is None else [str(self._programs / "dist_build")]

    def _worker(self, name: str, port: int) -> Process:
        process = Process(name, self.root / name, port, "daemon.py")
        if self._programs is not None:
            process.program = self._programs / "dist_build-daemon"
        return process

    def serve(self) -> None:
        """Start the syncer."""
        self.syncer.start()
        wait_until(self.syncer.answers, "the syncer answers")

    def invite(self) -> str:
        """Another code."""
        done = self.client("setup", "--invite", "--address", "127.0.0.1")
        assert done.exit_code == 0, done.stderr.decode()
        return code_in(done.stdout.decode())

    def daemon(self, name: str, code: str, *options: str, url: str = "") -> Done:
        """``daemon.py join`` with a home of this name, which does not start a daemon."""
        home = self.root / name
        # Tests may run as root, where the daemon wants to be sure that this is meant.
        home.mkdir(exist_ok=True)
        if not (home / "config.json").exists():
            keys = {"bind": "127.0.0.1", "allow_root": True, "allow_unconfined": True}
            (home / "config.json").write_text(json.dumps(keys))
        words = [*self._worker(name, 0).command(), "--home", str(home), "join"]
        options = ("--name", name, "--no-start", *options)
        return run_here([*words, url or self.url, code, *options], self.root)

    def join(self, name: str, *options: str) -> Process:
        """Join and start a worker; returns at once."""
        (port,) = free_ports(1)
        done = self.daemon(name, self.invite(), "--port", str(port), "--num-cores", "2", *options)
        assert done.exit_code == 0, done.stderr.decode()
        process = self._worker(name, port)
        process.start()
        self.daemons.append(process)
        return process

    def states(self) -> dict[str, str]:
        """The state of each worker, by name."""
        return {name: w["state"] for name, w in self.syncer.status()["workers"].items()}


def code_in(text: str) -> str:
    """The code in the line that ``setup`` prints."""
    found = re.search(r"join https://\S+ (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return found[1]


def raw_join(url: str, code: str, **fields: Any) -> tuple[int, bytes]:
    """A request to join with fields that no honest worker sends: status and body."""
    message = {"secret": parse_code(code).secret, "request": b"", "name": "evil", "version": 3}
    body = msgspec.msgpack.encode({**message, **fields})
    return post(f"{url}/api/v1/join", body)


def post(url: str, body: bytes, headers: Sequence[str] = ()) -> tuple[int, bytes]:
    """A POST of any bytes to whoever answers: status (0: none) and body."""
    named = dict(header.split(": ", 1) for header in headers)
    with warnings.catch_warnings(action="ignore", category=InsecureRequestWarning):
        try:
            answer = requests.post(url, body, headers=named, verify=False, timeout=60)
        except requests.ConnectionError:
            return 0, b""
    return answer.status_code, answer.content


def reply_of(body: bytes) -> JoinReply:
    """The syncer's reply to a request that it granted."""
    return decode(body, JoinReply)
