"""The syncer's HTTP routes: who may ask what, and bytes to values and back. Decides nothing."""

import json
import logging
import struct
from collections.abc import Iterator
from typing import TypeVar

from flask import Flask, Response, abort, jsonify, request
from werkzeug.exceptions import HTTPException

from distbuild.protocol import messages
from distbuild.protocol.errors import ProtocolError
from distbuild.serve_socket import LATER, SAME_USER
from distbuild.syncer.answers import answers
from distbuild.syncer.service import Service
from distbuild.tls import Credentials, Role

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Before each message of a streamed answer: its length. Length 0: nothing yet, still waiting; the
#: frame tries the connection, so that a vanished client is noticed.
FRAME = struct.Struct("!I")
HEARTBEAT = FRAME.pack(0)
#: How often a waiting wrapper's connection is tried (seconds): its death frees the slot after this.
HEARTBEAT_S = 0.4


class Gate:
    """Reads a request's body once its sender has shown the right token."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def admit(self, role: Role) -> None:
        """Abort with 401 unless the request carries the role's token, or comes from our user."""
        if role == "dev" and request.environ.get(SAME_USER):
            return
        if not self._credentials.verify_token(request.headers.get("Authorization"), role):
            abort(401, f"a {role} token is needed")

    def message(self, role: Role, kind: type[T]) -> T:
        """The body as a message; 400 with one line for anything else."""
        self.admit(role)
        return messages.decode(request.get_data(cache=False), kind)


def packed(message: messages.Message) -> Response:
    """A message as a response."""
    return Response(messages.encode(message), content_type=messages.CONTENT_TYPE)


def _same_version(version: int) -> None:
    if version != messages.PROTOCOL_VERSION:
        ours = messages.PROTOCOL_VERSION
        abort(409, f"this syncer speaks protocol {ours}, not {version}; install one version")


def make_app(service: Service, credentials: Credentials) -> Flask:
    """The WSGI app over a service."""
    app = Flask("syncer", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = messages.MAX_BODY_BYTES
    gate = Gate(credentials)
    _add_wrapper_routes(app, gate, service)
    _add_worker_routes(app, gate, service)

    @app.get("/status")
    def status() -> Response:
        return jsonify(service.status())

    @app.errorhandler(ProtocolError)
    def malformed(error: ProtocolError) -> tuple[str, int]:
        return f"{error}\n", 400

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> tuple[str, int]:
        return f"{error.description}\n", error.code or 500

    return app


def submitted(gate: Gate) -> messages.SubmitRequest:
    """The command in the request; 400 or 409 for one that cannot be taken."""
    message = gate.message("dev", messages.SubmitRequest)
    _same_version(message.version)
    if not message.argv or not message.cwd.startswith(b"/"):
        abort(400, "argv and an absolute cwd are needed")
    return message


def _add_wrapper_routes(app: Flask, gate: Gate, service: Service) -> None:
    @app.post("/api/v1/jobs")
    def submit() -> Response:
        message = submitted(gate)
        return Response(_streamed(service, message), content_type=messages.CONTENT_TYPE)

    @app.post("/api/v1/run")
    def run() -> Response:
        later = request.environ.get(LATER)
        if later is None:
            abort(403, "only over the syncer's Unix socket")
        later(answers(service, submitted(gate)))
        return Response()

    @app.post("/api/v1/explain")
    def explain() -> Response:
        return packed(service.explain(gate.message("dev", messages.SubmitRequest)))

    @app.post("/api/v1/install")
    def install() -> Response:
        gate.admit("dev")
        lines = (json.dumps(step) + "\n" for step in service.install())
        return Response(lines, content_type="application/x-ndjson")

    @app.post("/api/v1/clean")
    def clean() -> Response:
        gate.admit("dev")
        return jsonify(service.clean())


def _streamed(service: Service, message: messages.SubmitRequest) -> Iterator[bytes]:
    """Heartbeats while the job waits, then the answer. The server closes it if the client goes."""
    compiling = service.submit(message)
    try:
        while True:
            try:
                signal = next(compiling)
            except StopIteration as finished:
                reply = messages.encode(finished.value)
                break
            except Exception as error:
                log.exception("compile failed")
                detail = f"{type(error).__name__}: {error}"
                reply = messages.encode(
                    messages.SubmitReply("local", reason="syncer_error", detail=detail)
                )
                break
            while not signal.wait(HEARTBEAT_S):
                yield HEARTBEAT
        yield FRAME.pack(len(reply)) + reply
    finally:
        compiling.close()


def _add_worker_routes(app: Flask, gate: Gate, service: Service) -> None:
    @app.post("/api/v1/lease")
    def lease() -> Response:
        message = gate.message("worker", messages.LeaseRequest)
        _same_version(message.version)
        return packed(service.lease(message))

    @app.post("/api/v1/renew")
    def renew() -> Response:
        return packed(service.renew(gate.message("worker", messages.RenewRequest)))

    @app.post("/api/v1/result")
    def result() -> Response:
        taken = service.deliver(gate.message("worker", messages.ResultRequest))
        return jsonify({"taken": taken})

    @app.post("/api/v1/results")
    def results() -> Response:
        batch = gate.message("worker", messages.ResultBatch)
        return packed(messages.ResultsReply([service.deliver(r) for r in batch.results]))

    @app.post("/api/v1/mirror/pull")
    def pull() -> Response:
        return packed(service.pull(gate.message("worker", messages.PullRequest)))

    @app.post("/api/v1/mirror/blobs")
    def blobs() -> Response:
        return packed(service.blobs(gate.message("worker", messages.BlobRequest)))
