"""The dashboard's web site, which the syncer serves on loopback HTTP to its own user. Read-only."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request, send_from_directory
from werkzeug.exceptions import HTTPException

from distbuild.command.model import LocalReason
from distbuild.history.views import slower, summary
from distbuild.http.site import Call, Handler, Later
from distbuild.syncer.browser_access import COOKIE, HEADERS, Access
from distbuild.syncer.routes import RequestRefused, refused
from distbuild.syncer.service import Service

PAGE_FILES = Path(__file__).parent / "page"
#: Jobs that are shown as the slowest, as failed, and as changed between two builds.
MAX_SHOWN = 20


def make_stream(access: Access, stream: Callable[[], Later]) -> Mapping[str, Handler]:
    """The handler of the live events, by its path."""

    def handle(call: Call) -> Later:
        try:
            access.check(call.headers)
        except RequestRefused as refusal:
            yield refused(refusal)
            return
        yield from stream()

    return {f"{access.path}events": handle}


def make_dashboard(service: Service, access: Access) -> Flask:
    """The WSGI app of the page, its files and its documents."""
    app = Flask("dashboard", static_folder=None)
    # Phases are in their order.
    app.json.sort_keys = False  # type: ignore[attr-defined]

    @app.before_request
    def admit() -> None:
        if request.method != "GET":
            raise RequestRefused(405, "the dashboard only shows")
        headers = {name.lower(): value for name, value in request.headers}
        is_open = request.endpoint in ("open_link", "no_icon")
        check = access.check_host if is_open else access.check
        check(headers)

    _add_page(app, access)
    _add_documents(app, service, access.path)

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(RequestRefused)
    def refuse(refusal: RequestRefused) -> Response:
        return Response(f"{refusal.reason}\n", refusal.status, mimetype="text/plain")

    @app.errorhandler(HTTPException)
    def fail(error: HTTPException) -> Response:
        return Response(f"{error.description}\n", error.code, mimetype="text/plain")

    return app


def _add_page(app: Flask, access: Access) -> None:
    @app.get(f"{access.path}open")
    def open_link() -> Response:
        cookie = access.exchange(request.args.get("token", ""))
        # Not a redirect: after one from a link on a page of another site the browser would send no
        # cookie that is for the same site only.
        response = Response(f'<meta http-equiv="refresh" content="0;url={access.path}">')
        response.set_cookie(COOKIE, cookie, path=access.path, httponly=True, samesite="Strict")
        return response

    @app.get("/favicon.ico")
    def no_icon() -> Response:
        # A browser asks for it beside the page above, and would report an error.
        return Response(status=204)

    @app.get(access.path)
    def page() -> Response:
        return send_from_directory(PAGE_FILES, "index.html")

    @app.get(f"{access.path}<name>")
    def file(name: str) -> Response:
        return send_from_directory(PAGE_FILES, name)


def _add_documents(app: Flask, service: Service, path: str) -> None:
    def build(number: int) -> dict[str, Any]:
        found = service.build(number)
        if found is None:
            raise RequestRefused(404, f"there is no build {number}")
        return found

    @app.get(f"{path}builds")
    def builds() -> Response:
        return jsonify(service.builds())

    @app.get(f"{path}builds/<int(max=9007199254740991):number>")
    def report(number: int) -> Response:
        return jsonify(report_of(build(number)))

    @app.get(f"{path}builds/<int(max=9007199254740991):number>/jobs")
    def jobs(number: int) -> Response:
        history = service.history
        return _json([] if history is None else history.jobs_after(number, 0))

    @app.get(f"{path}compare/<int(max=9007199254740991):a>/<int(max=9007199254740991):b>")
    def compare(a: int, b: int) -> Response:
        before, now = build(a), build(b)
        changed = slower(before.pop("jobs_of_it"), now.pop("jobs_of_it"))[:MAX_SHOWN]
        return jsonify({"before": before, "now": now, "changed": changed})

    @app.get(f"{path}jobs/<int(max=9007199254740991):row>")
    def job(row: int) -> Response:
        found = service.history.job(row) if service.history else None
        if found is None:
            raise RequestRefused(404, "this job is no longer in the history")
        return jsonify(found)


def _json(document: object) -> Response:
    """Large documents, without Flask's sorting and indentation."""
    return Response(json.dumps(document), mimetype="application/json")


def report_of(build: Mapping[str, Any]) -> dict[str, Any]:
    """A build with its figures, its slowest jobs and its failures, without the other jobs."""
    jobs = build["jobs_of_it"]
    ran = [job for job in jobs if job["ran_s"]]
    meanings = {reason.value: reason.meaning for reason in LocalReason}
    return {
        **{key: value for key, value in build.items() if key != "jobs_of_it"},
        **summary(build),
        "meanings": {reason: meanings.get(reason, "") for reason in build["reasons"]},
        "slowest": sorted(ran, key=lambda job: -job["ran_s"])[:MAX_SHOWN],
        "failures": [job for job in jobs if job["outcome"] == "failed"][:MAX_SHOWN],
    }
