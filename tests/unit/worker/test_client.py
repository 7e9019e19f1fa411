from typing import Any

import pytest
import requests

from distbuild.protocol.errors import (
    DistBuildError,
    InfrastructureError,
    ProtocolError,
    Unauthorized,
)
from distbuild.protocol.messages import (
    BlobBatch,
    BlobRequest,
    LeaseReply,
    LeaseRequest,
    ResultBatch,
    ResultRequest,
    ResultsReply,
    decode,
    encode,
)
from distbuild.worker.client import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, HttpSyncer
from distbuild.worker.namespace import find_bwrap, probe

LEASE = LeaseRequest("w", 1, 7.0, [])


class FakeSession(requests.Session):
    """Answers every request alike; keeps the last one."""

    def __init__(
        self, status: int = 200, body: bytes = b"", error: Exception | None = None
    ) -> None:
        super().__init__()
        self.answer = (status, body)
        self.error = error
        self.asked: dict[str, Any] = {}

    def post(self, url: Any, data: Any = None, json: Any = None, **options: Any) -> Any:
        self.asked = {"url": url, "data": data, **options}
        if self.error is not None:
            raise self.error
        response = requests.Response()
        response.status_code, response._content = self.answer
        return response


def test_a_request_and_its_answer_travel_as_messages() -> None:
    session = FakeSession(body=encode(LeaseReply("dev", "e")))
    assert HttpSyncer("https://s:1", session).lease(LEASE) == LeaseReply("dev", "e")
    assert session.asked["url"] == "https://s:1/api/v1/lease"
    assert decode(session.asked["data"], LeaseRequest) == LEASE
    assert session.asked["timeout"] == (CONNECT_TIMEOUT_S, 7.0 + ANSWER_TIMEOUT_S)


def test_blobs_come_from_the_mirror() -> None:
    session = FakeSession(body=encode(BlobBatch([])))
    assert HttpSyncer("https://s:1", session).blobs(BlobRequest([])) == BlobBatch([])
    assert session.asked["url"] == "https://s:1/api/v1/mirror/blobs"


def test_results_travel_together_and_the_answer_says_which_were_wanted() -> None:
    session = FakeSession(body=encode(ResultsReply([True, False])))
    batch = ResultBatch([ResultRequest("1", "w"), ResultRequest("2", "w")])
    assert HttpSyncer("https://s:1", session).results(batch) == ResultsReply([True, False])
    assert session.asked["url"] == "https://s:1/api/v1/results"
    assert decode(session.asked["data"], ResultBatch) == batch


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ProtocolError),
        (401, Unauthorized),
        (409, ProtocolError),
        (404, InfrastructureError),
        (500, InfrastructureError),
        (503, InfrastructureError),
    ],
)
def test_a_refusal_says_what_the_syncer_said(status: int, kind: type[DistBuildError]) -> None:
    syncer = HttpSyncer("https://s:1", FakeSession(status, b"because\n"))
    with pytest.raises(kind, match=f"syncer https://s:1 answers {status}: because"):
        syncer.lease(LEASE)


def test_a_failed_connection_is_an_infrastructure_error_with_its_cause() -> None:
    error = requests.ConnectionError("wrapped")
    error.__cause__ = OSError(111, "Connection refused")
    with pytest.raises(InfrastructureError, match=r"syncer https://s:1: .*Connection refused"):
        HttpSyncer("https://s:1", FakeSession(error=error)).lease(LEASE)


def test_an_answer_that_is_no_message_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        HttpSyncer("https://s:1", FakeSession(body=b"\xc1")).lease(LEASE)


def test_a_sandbox_that_does_not_work_says_why() -> None:
    assert "not installed" in probe(find_bwrap("/no/such/directory"))
    assert "does not work here" in probe("/bin/false")
    assert "does not run" in probe("/no/such/bwrap")
