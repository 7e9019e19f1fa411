"""Nobody who has a say in one header writes another, or the body."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from distbuild.http.request import Request, environ_of
from distbuild.http.response import Response, call

ENDS = ["\r\n", "\r", "\n", "\0", "\r\n\r\n"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Dist-Build-Worker", "w1{}Dist-Build: local", "200 OK"),
        ("Dist-Build-Worker{}X", "w1", "200 OK"),
        ("Dist-Build-Worker", "w1", "200 OK{}Dist-Build: local"),
        ("Dist-Build-Worker", "w1{}", "200 OK"),
    ],
)
@pytest.mark.parametrize("keeps", [True, False])
def test_a_header_is_one_line(name: str, value: str, status: str, end: str, *, keeps: bool) -> None:
    headers = {name.replace("{}", end): value.replace("{}", end)}
    answer = Response(headers, b"", status.replace("{}", end))
    with pytest.raises(ValueError, match="line"):
        answer.encode(keeps=keeps)
    sent: list[bytes] = []
    with pytest.raises(ValueError, match="line"):
        call(application(answer), environ_of(Request("GET", "/", {}, b""), "https"), sent.append,
             keeps=keeps)  # fmt: skip
    assert sent == []


def application(answer: Response) -> Any:
    """A WSGI app that gives this answer."""

    def app(environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(answer.status, list(answer.headers.items()))
        return [b"body"]

    return app


@pytest.mark.parametrize("text", ["\u010a", "\u010d", "\u2028", "\x85"])
def test_no_other_character_becomes_the_end_of_a_line(text: str) -> None:
    said = Response({"X": text}, b"").encode(keeps=True)
    assert said.count(b"\n") == said.count(b"\r") == 4
