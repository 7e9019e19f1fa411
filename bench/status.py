"""Asks a syncer's ``/status`` over a connection that stays open, so that asking costs little."""

import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.support.cluster import Process

#: Between two questions; what is found is late by up to this and the answer's own time.
POLL_S = 0.003
TIMEOUT_S = 120.0

Status = Mapping[str, Any]


class StatusClient:
    """``/status`` of a syncer."""

    def __init__(self, process: Process) -> None:
        self._process = process
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        # Without a token a connection is good for one question.
        token = (process.home / "certs" / "dev" / "token").read_text(encoding="ascii").strip()
        self._headers = {"Authorization": f"Bearer {token}"}
        self._link = http.client.HTTPSConnection(
            "127.0.0.1", process.port, timeout=10, context=context
        )

    def get(self) -> Status:
        """The document; connects anew once where the other side has closed."""
        for attempt in (1, 2):
            try:
                self._link.request("GET", "/status", headers=self._headers)
                return dict(json.loads(self._link.getresponse().read()))
            except (http.client.HTTPException, OSError):
                self._link.close()
                if attempt == 2:
                    raise
        raise AssertionError

    def wait_for(
        self, holds: Callable[[Status], bool], what: str, *, pause_s: float = POLL_S
    ) -> Status:
        """The first answer that ``holds``; AssertionError with the last one after some minutes.

        ``pause_s``: between two questions, each of which costs the process a millisecond.
        """
        deadline = time.monotonic() + TIMEOUT_S
        status: Status = {}
        while time.monotonic() < deadline:
            with contextlib.suppress(http.client.HTTPException, OSError):
                status = self.get()
                if holds(status):
                    return status
            popen = self._process.popen
            assert popen is None or popen.poll() is None, self._process.output()
            time.sleep(pause_s)
        raise AssertionError(f"not within {TIMEOUT_S:.0f} s: {what}; /status: {_brief(status)}")

    def close(self) -> None:
        self._link.close()


@contextlib.contextmanager
def asking(process: Process) -> Iterator[StatusClient]:
    """A client that is closed at the end."""
    client = StatusClient(process)
    try:
        yield client
    finally:
        client.close()


def generation(status: Status) -> int:
    """Of the mirror on the dev box."""
    return int(status["mirror"]["generation"])


def synced(status: Status, workers: int) -> bool:
    """Whether so many workers have what the mirror has."""
    have = [w.get("mirrored_generation") for w in status["workers"].values()]
    return have.count(generation(status)) == workers


def counted(status: Status, counter: str) -> int | None:
    """The sum of a counter over all workers; None where the syncer does not keep it."""
    values = [worker.get(counter) for worker in status["workers"].values()]
    known = [int(value) for value in values if value is not None]
    return sum(known) if known else None


def _brief(status: Status) -> str:
    """The mirror and each worker's state, to show why a wait failed."""
    workers = status.get("workers", {})
    keys = ("state", "error", "mirrored_generation")
    shown = {host: {k: worker.get(k) for k in keys} for host, worker in workers.items()}
    return json.dumps({"mirror": status.get("mirror"), "workers": shown})
