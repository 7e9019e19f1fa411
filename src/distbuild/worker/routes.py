"""The worker's HTTP routes: receive mirrored files from a syncer, report the status.

GET /status and /metrics need no token; POST /api/v1/mirror/changes, /api/v1/mirror/lacking,
/api/v1/mirror/blobs and /api/v1/clean need the dev role's token. Runs no compiler.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import flask
import msgspec
import werkzeug.exceptions

from distbuild.credentials import Credentials
from distbuild.protocol.errors import InfrastructureError, ProtocolError, Unauthorized
from distbuild.protocol.messages import (
    CONTENT_TYPE,
    MAX_BODY_BYTES,
    BlobBatch,
    Changes,
    CleanRequest,
    Message,
    decode,
    encode,
    to_plain,
)
from distbuild.worker.agent import Workshop
from distbuild.worker.tree.store import Store
from distbuild.worker.tree.trees import Trees

_BAD_REQUEST, _UNAUTHORIZED, _TOO_LARGE, _NO_STORAGE = 400, 401, 413, 507
_NOTHING = b"\x80"  # an empty MessagePack map

M = TypeVar("M", bound=Message)
Status = Callable[[], Mapping[str, Any]]


def make_app(trees: Trees, store: Store, credentials: Credentials, status: Status) -> flask.Flask:
    """The Flask app over all clients' trees and their store."""
    app = flask.Flask("daemon", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]

    @app.before_request
    def authorize() -> None:
        """Check the token before any body is read."""
        if flask.request.path not in ("/status", "/metrics"):
            header = flask.request.headers.get("Authorization")
            if not credentials.verify_token(header, "dev"):
                raise Unauthorized("wrong or missing token")

    @app.get("/status")
    def show_status() -> flask.Response:
        return flask.jsonify(status())

    @app.get("/metrics")
    def metrics() -> flask.Response:
        # Imported only now: most workers are never scraped.
        from distbuild.metrics import CONTENT_TYPE, worker_metrics

        return flask.Response(worker_metrics(status()), content_type=CONTENT_TYPE)

    _add_mirror_routes(app, trees, store)
    _translate_errors(app)
    return app


def _add_mirror_routes(app: flask.Flask, trees: Trees, store: Store) -> None:
    @app.post("/api/v1/mirror/changes")
    def take_changes() -> flask.Response:
        changes = _body(Changes)
        store.put_all(changes.bundles)
        return _answer(encode(trees.tree(changes.client).apply(changes)))

    @app.post("/api/v1/mirror/lacking")
    def tell_lacking() -> flask.Response:
        changes = _body(Changes)
        return _answer(encode(trees.tree(changes.client).lacking(changes)))

    @app.post("/api/v1/mirror/blobs")
    def take_blobs() -> flask.Response:
        store.put_all(_body(BlobBatch).bundles)
        return _answer(_NOTHING)

    @app.post("/api/v1/clean")
    def clean() -> flask.Response:
        trees.clean(_body(CleanRequest).client)
        return _answer(_NOTHING)


def _translate_errors(app: flask.Flask) -> None:
    codes = {
        Unauthorized: _UNAUTHORIZED,
        ProtocolError: _BAD_REQUEST,
        InfrastructureError: _NO_STORAGE,
    }
    for kind, code in codes.items():
        app.register_error_handler(kind, lambda error, code=code: _line(str(error), code))

    @app.errorhandler(werkzeug.exceptions.HTTPException)
    def http_error(error: werkzeug.exceptions.HTTPException) -> flask.Response:
        return _line(error.name, error.code or _BAD_REQUEST)


def _body(kind: type[M]) -> M:
    return decode(flask.request.get_data(cache=False), kind)


def _answer(body: bytes) -> flask.Response:
    return flask.Response(body, mimetype=CONTENT_TYPE)


def _line(text: str, code: int) -> flask.Response:
    line = " ".join(text.split()) + "\n"
    return flask.Response(line, status=code, mimetype="text/plain")


def machine_load() -> dict[str, float]:
    """This machine's load average of a minute, and its free memory (bytes), as far as known."""
    known: dict[str, float] = {}
    with contextlib.suppress(OSError, AttributeError):  # Windows has neither
        known["load"] = round(os.getloadavg()[0], 2)
        memory = Path("/proc/meminfo").read_text(encoding="ascii")
        if found := re.search(r"^MemAvailable: *(\d+) kB", memory, re.MULTILINE):
            known["free_memory_bytes"] = 1024 * int(found[1])
    return known


class Confined(msgspec.Struct, frozen=True):
    """How compilers are confined: ``mode`` is namespace or plain, ``why`` the reason in text."""

    mode: str
    why: str


class WorkerStatus:
    """Builds the response to GET /status. ``version`` is the program's, ``expires`` when its first
    certificate expires."""

    def __init__(
        self, workshop: Workshop, confined: Confined, version: str, expires: datetime | None
    ) -> None:
        self._shop = workshop
        self._confined = confined
        self._version = version
        self._expires = "" if expires is None else expires.isoformat()
        self._started = time.monotonic()

    def __call__(self) -> Mapping[str, Any]:
        """The current status, as JSON types."""
        shop = self._shop
        return {
            "version": self._version,
            "name": shop.label,
            "worker": shop.name,
            "num_cores": shop.slots.total,
            **shop.tally.counts(),
            "uptime_s": round(time.monotonic() - self._started, 1),
            "clients": {
                name: msgspec.structs.asdict(tree) for name, tree in shop.trees.status().items()
            },
            "sandbox": msgspec.structs.asdict(self._confined),
            "store": msgspec.structs.asdict(shop.store.status()),
            "toolchains": [to_plain(toolchain) for toolchain in shop.compilers.advertised()],
            "performance": shop.tally.performance(),
            "clock_off_s": shop.tally.clock_off_s,
            "certificates_expire": self._expires,
            **machine_load(),
        }
