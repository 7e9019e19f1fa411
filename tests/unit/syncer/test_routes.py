"""The routes of each job: the same answers past Flask and through it, and who may ask."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from distbuild.credentials import load_credentials
from distbuild.farm.jobs import FarmLimits
from distbuild.http.loop import SAME_USER
from distbuild.http.request import FREE_BODY_BYTES
from distbuild.http.response import Response
from distbuild.http.site import Call
from distbuild.one_shot import OneShot
from distbuild.protocol import messages
from distbuild.syncer.flask_app import HEARTBEAT, make_app
from distbuild.syncer.routes import MAX_LEASE_BYTES, Gate, make_handlers
from tests.unit.syncer.test_service import Serving

PATHS = [f"/api/v1/{name}" for name in ("run", "lease", "renew", "results")]


class Told(NamedTuple):
    """An answer's parts."""

    code: int
    body: bytes


class Routes:
    """A service's handlers and its app."""

    def __init__(self, base: Path, certs: Path) -> None:
        self.serving = Serving(base)
        gate = Gate(load_credentials(certs, "dev"), hashlib.sha256(b"u" * 64).digest())
        self.handlers = make_handlers(self.serving.service, gate)
        self.client = make_app(self.serving.service, gate, self.handlers).test_client()
        self.tokens = {
            "dev": f"Bearer {load_credentials(certs, 'dev').token}",
            "worker": f"Bearer {load_credentials(certs, 'worker').token}",
        }

    def ask(self, path: str, body: bytes, role: str = "", *, same_user: bool = False) -> Told:
        """What both ways answer; they must not differ."""
        shown = self.tokens.get(role)
        past = self.past(path, body, role, same_user=same_user)
        answer = self.client.post(
            path,
            data=body,
            headers={"Authorization": shown} if shown else {},
            environ_overrides={SAME_USER: same_user},
        )
        assert Told(answer.status_code, answer.data) == past
        return past

    def past(self, path: str, body: bytes, role: str = "", *, same_user: bool = False) -> Told:
        """What is answered past Flask."""
        return self._drive(path, Call(self.tokens.get(role), body, same_user))

    def _drive(self, path: str, call: Call) -> Told:
        steps = self.handlers[path](call)
        for step in steps:
            if isinstance(step, Response):
                steps.close()
                return Told(int(step.status[:3]), step.body)
            assert isinstance(step, OneShot)
            step.wait()
        raise AssertionError("no answer")


@pytest.fixture
def routes(tmp_path: Path, certs_dir: Path) -> Iterator[Routes]:
    made = Routes(tmp_path, certs_dir)
    yield made
    made.serving.stop()


def request_for(path: str, serving: Serving) -> messages.Message:
    kind = path.rpartition("/")[2]
    if kind == "run":
        return serving.request("-E")
    if kind == "lease":
        return serving.asking()
    if kind == "renew":
        return messages.RenewRequest("w1", ["none"], 0.0)
    return messages.ResultBatch([messages.ResultRequest("none", "w1")])


@pytest.mark.parametrize("path", PATHS)
def test_whoever_may_ask_is_answered(routes: Routes, path: str) -> None:
    body = messages.encode(request_for(path, routes.serving))
    if path.endswith("run"):
        assert routes.ask(path, body, same_user=True).code == 200
    else:
        assert routes.ask(path, body, "worker").code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("role", ["", "dev", "worker"])
def test_others_are_refused(routes: Routes, path: str, role: str) -> None:
    body = messages.encode(request_for(path, routes.serving))
    if path.endswith("run"):
        # Whatever token is shown: the outputs are written by this user, on this machine.
        assert routes.ask(path, body, role).code == 403
    elif role != "worker":
        told = routes.ask(path, body, role, same_user=True)
        assert told.code == 401
        assert told.body.startswith(b"a worker token is needed;")


def test_a_heartbeat_goes_out_while_the_syncer_itself_is_busy(
    routes: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gives up when it hears nothing for ten seconds."""
    go_on, ended = threading.Event(), threading.Event()

    def busy(request: object) -> Iterator[OneShot]:
        try:
            go_on.wait(20)
            yield OneShot()
        finally:
            ended.set()

    monkeypatch.setattr(routes.serving.service, "submit", busy)
    answer = routes.client.post(
        "/api/v1/jobs",
        data=messages.encode(routes.serving.request()),
        environ_overrides={SAME_USER: True},
        buffered=False,
    )
    frames = iter(answer.response)
    assert [next(frames), next(frames)] == [HEARTBEAT] * 2
    answer.close()
    go_on.set()
    assert ended.wait(10), "who is gone is not worked for"


@pytest.mark.parametrize("path", PATHS)
def test_what_is_no_message_is_refused_in_one_line(routes: Routes, path: str) -> None:
    told = routes.ask(path, b"\xc1", "worker", same_user=True)
    assert told.code == 400
    assert told.body.count(b"\n") == 1


@pytest.mark.parametrize("path", PATHS)
def test_what_is_nested_too_deeply_is_refused(routes: Routes, path: str) -> None:
    for nested in (b"\x91" * 100_000, b"\x81\xa1a" * 100_000):
        told = routes.ask(path, b"\x81\xa4more" + nested, "worker", same_user=True)
        assert (told.code, told.body.count(b"\n")) == (400, 1)


@pytest.mark.parametrize("path", PATHS[1:])
@pytest.mark.parametrize("field", ["worker", "life"])
def test_names_have_a_limit(routes: Routes, path: str, field: str) -> None:
    request = request_for(path, routes.serving)
    named = request.results[0] if isinstance(request, messages.ResultBatch) else request
    if field not in named.__struct_fields__:
        return
    for length, code in ((messages.MAX_NAME, 200), (messages.MAX_NAME + 1, 400)):
        changed: messages.Message = msgspec.structs.replace(named, **{field: "x" * length})
        if isinstance(changed, messages.ResultRequest):
            changed = messages.ResultBatch([changed])
        assert routes.ask(path, messages.encode(changed), "worker").code == code


def test_a_workers_compilers_have_a_limit(routes: Routes) -> None:
    for count, code in ((500, 200), (MAX_LEASE_BYTES // 300, 413)):
        toolchains = [messages.Toolchain("x" * 300, "gcc")] * count
        request = msgspec.structs.replace(routes.serving.asking(), toolchains=toolchains)
        assert routes.ask("/api/v1/lease", messages.encode(request), "worker").code == code


def test_one_worker_too_many_is_told_to_ask_later(routes: Routes) -> None:
    routes.serving.farm._limits = FarmLimits(workers=0)
    told = routes.ask("/api/v1/lease", messages.encode(routes.serving.asking()), "worker")
    assert told == Told(503, b"0 workers are known already\n")


def test_another_protocol_is_refused_with_both_numbers(routes: Routes) -> None:
    request = msgspec.structs.replace(routes.serving.asking(), version=99)
    told = routes.ask("/api/v1/lease", messages.encode(request), "worker")
    ours = messages.PROTOCOL_VERSION
    assert told == Told(
        409, f"this syncer speaks protocol {ours}, not 99; install one version\n".encode()
    )


@pytest.mark.parametrize("field", ["argv", "cwd"])
def test_a_command_needs_words_and_a_place(routes: Routes, field: str) -> None:
    wrong = {field: [] if field == "argv" else b"relative"}
    request = msgspec.structs.replace(routes.serving.request(), **wrong)
    told = routes.ask("/api/v1/run", messages.encode(request), same_user=True)
    assert told == Told(400, b"argv and an absolute cwd are needed\n")


def test_a_strangers_large_body_is_not_read(routes: Routes) -> None:
    body = bytes(FREE_BODY_BYTES + 1)
    assert routes.client.post("/api/v1/mirror/pull", data=body).status_code == 401
    headers = {"Authorization": routes.tokens["worker"]}
    answer = routes.client.post("/api/v1/mirror/pull", data=body, headers=headers)
    assert answer.status_code == 400
