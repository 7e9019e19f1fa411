"""Odd values in every field of what the syncer is asked: an answer of one line, no traceback."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from distbuild.protocol import messages
from distbuild.system.process import views_of_files
from tests.unit.syncer.test_routes import Routes, request_for

#: Whom a route believes, and whether past Flask too.
ROUTES = {
    "/api/v1/run": ("dev", True),
    "/api/v1/jobs": ("dev", False),
    "/api/v1/explain": ("dev", False),
    "/api/v1/lease": ("worker", True),
    "/api/v1/renew": ("worker", True),
    "/api/v1/results": ("worker", True),
    "/api/v1/mirror/pull": ("worker", False),
    "/api/v1/mirror/blobs": ("worker", False),
    "/api/v1/install": ("dev", False),
    "/api/v1/clean": ("dev", False),
}
ODD_BYTES = [b"", b"\0", b"/a\0b", b"\xff\xfe", b"x" * 5000, b"/" * 300, b"%s%n", b"\r\n", b"a\nb"]
ODD_TEXTS = ["", "\0", "a\r\nX: y", "x" * 300, "../..", "\N{SNOWMAN}", "%s"]
ODD_NUMBERS: list[Any] = [-1, 0, 2**31, 2**63, 2**64 - 1, -(2**63), 1.5]
ODD: list[Any] = [
    *ODD_BYTES,
    *ODD_TEXTS,
    *ODD_NUMBERS,
    float("nan"),
    float("inf"),
    None,
    True,
    [],
    {},
]
WORDS: list[Any] = [
    [[word] for word in ODD_BYTES],
    [[b"gcc", b"-c", word] for word in ODD_BYTES],
    [[b"gcc", b"-c", b"x.c", b"-o", word] for word in ODD_BYTES],
    [[b"gcc", b"@" + word, b"-c", b"x.c"] for word in ODD_BYTES],
    [[word + b"/gcc", b"-c", b"x.c"] for word in ODD_BYTES],
    [[b"gcc", b"-I" + word, b"-c", b"x.c"] for word in ODD_BYTES],
]
ENVIRONMENTS: list[Any] = [
    {name: value}
    for name in ("PATH", "CPATH", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD", "HOME", "PWD", "TERMINFO")
    for value in ODD_BYTES
]
NAMES: list[Any] = [{name: b"x"} for name in [*ODD_TEXTS, "LC_\0", "LC_A=B", "LC_\n"]]


@pytest.fixture
def routes(tmp_path: Path, certs_dir: Path) -> Iterator[Routes]:
    made = Routes(tmp_path, certs_dir)
    yield made
    made.serving.stop()


def base(path: str, routes: Routes) -> dict[str, Any]:
    """A right message as plain values."""
    message: messages.Message
    if path.endswith("pull"):
        message = messages.PullRequest("e", 0)
    elif path.endswith("blobs"):
        message = messages.BlobRequest([bytes(32)])
    elif path.endswith(("install", "clean")):
        return {}
    elif path.endswith(("run", "jobs", "explain")):
        message = msgspec.structs.replace(routes.serving.request(), place=views_of_files()[0])
    else:
        message = request_for(path, routes.serving)
    plain = {name: getattr(message, name) for name in message.__struct_fields__}
    return dict(msgspec.msgpack.decode(msgspec.msgpack.encode(plain)))


def odd(right: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Messages that are wrong in one place."""
    for name, value in right.items():
        for other in ODD:
            yield {**right, name: other}
            if isinstance(value, list):
                yield {**right, name: [other]}
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for inner in value[0]:
                yield from ({**right, name: [{**value[0], inner: other}]} for other in ODD)
    if "argv" in right:
        yield from ({**right, "argv": argv} for argvs in WORDS for argv in argvs)
        for env in (*ENVIRONMENTS, *NAMES):
            yield {**right, "env": {**right["env"], **env}}
        yield from ({**right, "cwd": b"/" + word} for word in ODD_BYTES)
        for size in ODD:
            yield {**right, "terminal": {"stderr": {"columns": size, "rows": size}}}
            yield {**right, "terminal": {"stderr": {}, "stdin": size}}


@pytest.mark.parametrize("path", ROUTES)
def test_odd_values_are_answered_and_leave_no_traceback(
    path: str, routes: Routes, caplog: pytest.LogCaptureFixture
) -> None:
    role, past = ROUTES[path]
    routes.serving.farm.stop()  # nobody waits for a worker
    right = base(path, routes)
    for message in [right, *odd(right)]:
        body = msgspec.msgpack.encode(message)
        wrong = f"{message}"[:600]
        if past:
            code, text = routes.past(path, body, role, same_user=role == "dev")
        else:
            headers = {"Authorization": routes.tokens[role]}
            answer = routes.client.post(path, data=body, headers=headers)
            code, text = answer.status_code, answer.data
        assert code < 500, wrong
        if code != 200:
            assert (text.count(b"\n"), text[-1:]) == (1, b"\n"), wrong
            assert b"Traceback" not in text, wrong
        shown = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert not shown, f"{wrong}: {shown[0].getMessage()} {shown[0].exc_info}"
