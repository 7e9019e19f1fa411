"""The syncer's Flask app: checks tokens, decodes requests, calls the service, encodes replies."""

import json
import logging
import struct
import threading
from collections.abc import Iterator, Mapping

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from distbuild.http.loop import SAME_USER
from distbuild.http.request import FREE_BODY_BYTES
from distbuild.http.response import Response as WholeResponse
from distbuild.http.site import Call, Handler, Later
from distbuild.joining import JOIN_PATH, JoinRequest, RemoveWorkerRequest
from distbuild.one_shot import OneShot
from distbuild.protocol import messages
from distbuild.protocol.errors import ConfigError, ProtocolError
from distbuild.syncer.browser_access import Access
from distbuild.syncer.membership import JoinRefused
from distbuild.syncer.routes import Gate, RequestRefused, same_version
from distbuild.syncer.service import Service

log = logging.getLogger(__name__)

#: The length before each message of a streamed response. Length 0 is a heartbeat: still waiting;
#: sending it shows whether the client is gone.
FRAME = struct.Struct("!I")
HEARTBEAT = FRAME.pack(0)
#: Seconds between heartbeats to a waiting wrapper; its slot is freed this long after its death.
HEARTBEAT_S = 0.4
#: No build has a larger number: SQLite's integers have 64 bits.
MAX_NUMBER = 2**62


def packed(message: messages.Message) -> Response:
    """A message as a response."""
    return Response(messages.encode(message), content_type=messages.CONTENT_TYPE)


def the_call(gate: Gate) -> Call:
    """Flask's current request. A large body is refused without a valid token: RequestRefused."""
    shown = request.headers.get("Authorization")
    if (request.content_length or 0) > FREE_BODY_BYTES and not gate.knows(shown):
        raise RequestRefused(401, "a token is needed")
    return Call(
        shown,
        request.get_data(cache=False),
        bool(request.environ.get(SAME_USER)),
        # Set by the server, not the client: only the Unix socket is without TLS.
        is_local=request.environ["wsgi.url_scheme"] == "http",
    )


def drive(later: Later) -> Response:
    """Run a handler, blocking on each event that it waits for; returns its response."""
    for step in later:
        if isinstance(step, WholeResponse):
            later.close()
            return Response(step.body, step.status, dict(step.headers))
        if isinstance(step, OneShot):
            step.wait()
    raise AssertionError("a handler gave no answer")


def make_app(
    service: Service,
    gate: Gate,
    handlers: Mapping[str, Handler],
    dashboard: Access | None = None,
) -> Flask:
    """The WSGI app over a service. ``handlers``: further routes by path. ``dashboard`` None: there
    is none."""
    app = Flask("syncer", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = messages.MAX_RESULTS_BYTES
    _add_wrapper_routes(app, gate, service)
    _add_history_routes(app, gate, service)
    _add_dashboard_route(app, gate, dashboard)
    _add_worker_routes(app, gate, service)
    _add_membership_routes(app, gate, service)
    for path, handler in handlers.items():
        _add_handler(app, gate, path, handler)
    _add_open_routes(app, service)
    _translate_errors(app)
    return app


def _add_open_routes(app: Flask, service: Service) -> None:
    """Those that need no token."""

    @app.get("/status")
    def status() -> Response:
        return jsonify(service.status())

    @app.get("/metrics")
    def metrics() -> Response:
        # Imported only now: most syncers are never scraped.
        from distbuild.metrics import CONTENT_TYPE, syncer_metrics

        return Response(syncer_metrics(*service.measured()), content_type=CONTENT_TYPE)


def _translate_errors(app: Flask) -> None:
    @app.errorhandler(ProtocolError)
    def malformed(error: ProtocolError) -> tuple[str, int]:
        return f"{error}\n", 400

    @app.errorhandler(RequestRefused)
    def refused(refusal: RequestRefused) -> tuple[str, int]:
        return f"{refusal.reason}\n", refusal.status

    @app.errorhandler(JoinRefused)
    def not_joined(refusal: JoinRefused) -> tuple[str, int]:
        return f"{refusal}\n", refusal.status

    @app.errorhandler(ConfigError)
    def set_up_wrongly(error: ConfigError) -> tuple[str, int]:
        return f"the syncer's set-up is wrong: {error}\n", 500

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> tuple[str, int]:
        return f"{error.description}\n", error.code or 500


def _add_handler(app: Flask, gate: Gate, path: str, handler: Handler) -> None:
    def handle() -> Response:
        return drive(handler(the_call(gate)))

    app.add_url_rule(path, path, handle, methods=["POST"])


def _add_wrapper_routes(app: Flask, gate: Gate, service: Service) -> None:
    @app.post("/api/v1/jobs")
    def submit() -> Response:
        message = gate.submitted(the_call(gate))
        return Response(_streamed(service, message), content_type=messages.CONTENT_TYPE)

    @app.post("/api/v1/explain")
    def explain() -> Response:
        return packed(service.explain(gate.submitted(the_call(gate))))

    @app.post("/api/v1/install")
    def install() -> Response:
        gate.admit_user(the_call(gate))
        lines = (json.dumps(step) + "\n" for step in service.install())
        return Response(lines, content_type="application/x-ndjson")

    @app.post("/api/v1/check")
    def check() -> Response:
        gate.admit_user(the_call(gate))
        return jsonify(service.check())

    @app.post("/api/v1/clean")
    def clean() -> Response:
        gate.admit_user(the_call(gate))
        return jsonify(service.clean())

    @app.post("/api/v1/cache/clear")
    def clear_cache() -> Response:
        gate.admit_user(the_call(gate))
        service.compiles.clear_cache()
        return jsonify({})


def _add_history_routes(app: Flask, gate: Gate, service: Service) -> None:
    @app.post("/api/v1/builds")
    def builds() -> Response:
        gate.admit_user(the_call(gate))
        return jsonify(service.builds())

    @app.post("/api/v1/builds/<int:number>")
    def build(number: int) -> Response:
        gate.admit_user(the_call(gate))
        found = service.build(number) if number <= MAX_NUMBER else None
        if found is None:
            which = f"build {number}" if number else "build yet"
            raise RequestRefused(404, f"there is no {which}; see dist_build.exe builds")
        return jsonify(found)


def _add_dashboard_route(app: Flask, gate: Gate, dashboard: Access | None) -> None:
    @app.post("/api/v1/dashboard")
    def open_dashboard() -> Response:
        gate.admit_user(the_call(gate))
        if dashboard is None:
            remedy = 'set "dashboard_port" in config.json to a port, or to 0 for any free one'
            raise RequestRefused(404, f"there is no dashboard here; {remedy} (not on Windows)")
        return jsonify({"link": dashboard.link()})


def _streamed(service: Service, message: messages.SubmitRequest) -> Iterator[bytes]:
    """Yields heartbeats until the reply, then the reply. The server closes it when the client goes.

    A separate thread compiles: one step of it may take longer than the client's read timeout.
    """
    gone, answered = OneShot(), OneShot()
    replies: list[bytes] = []

    def compile_it() -> None:
        replies.append(_reply(service, message, gone))
        answered.set()

    threading.Thread(target=compile_it, name="wrapper", daemon=True).start()
    try:
        while not answered.wait(HEARTBEAT_S):
            yield HEARTBEAT
        yield FRAME.pack(len(replies[0])) + replies[0]
    finally:
        gone.set()


def _reply(service: Service, message: messages.SubmitRequest, gone: OneShot) -> bytes:
    """The encoded reply to a wrapper; empty once ``gone`` has fired."""
    compiling = service.submit(message)
    try:
        while not gone.is_set():
            step, happened = next(compiling), threading.Event()
            for signal in (step, gone):
                signal.then(happened.set)
            happened.wait()
    except StopIteration as finished:
        return messages.encode(finished.value)
    except Exception as error:
        log.exception("compile failed")
        detail = f"{type(error).__name__}: {error}"
        return messages.encode(messages.SubmitReply("local", reason="syncer_error", detail=detail))
    finally:
        compiling.close()
    return b""


def _add_worker_routes(app: Flask, gate: Gate, service: Service) -> None:
    @app.post("/api/v1/mirror/pull")
    def pull() -> Response:
        return packed(service.pull(gate.message(the_call(gate), messages.PullRequest)))

    @app.post("/api/v1/mirror/blobs")
    def blobs() -> Response:
        return packed(service.blobs(gate.message(the_call(gate), messages.BlobRequest)))


def _add_membership_routes(app: Flask, gate: Gate, service: Service) -> None:
    @app.post(JOIN_PATH)
    def join() -> Response:
        message = messages.decode(the_call(gate).body, JoinRequest)
        same_version(message.version)
        return packed(service.membership.join(message))

    @app.post("/api/v1/workers")
    def workers() -> Response:
        gate.admit_user(the_call(gate))
        return jsonify(service.membership.workers())

    @app.post("/api/v1/workers/remove")
    def remove_worker() -> Response:
        call = the_call(gate)
        gate.admit_user(call)
        name = messages.decode(call.body, RemoveWorkerRequest).name
        if not service.membership.remove(name):
            raise RequestRefused(
                404, "no worker of this name has joined; see dist_build.exe workers"
            )
        return jsonify({})
