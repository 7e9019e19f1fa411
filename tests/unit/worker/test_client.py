import msgspec
import pytest

from distbuild.protocol.errors import (
    DistBuildError,
    InfrastructureError,
    ProtocolError,
    Unauthorized,
)
from distbuild.protocol.messages import (
    CONTENT_TYPE,
    BlobBatch,
    BlobRequest,
    LeaseReply,
    LeaseRequest,
    ResultBatch,
    ResultRequest,
    ResultsReply,
    Toolchain,
    decode,
    encode,
)
from distbuild.worker.client import ANSWER_TIMEOUT_S, FAREWELL_TIMEOUT_S, HttpSyncer
from distbuild.worker.sandbox.namespace import find_bwrap, probe
from tests.support.tasks import asking

LEASE = LeaseRequest("w", 1, 7.0, asking("w").toolchains)


class FakeConnections:
    """Answers every request alike; keeps the last one."""

    def __init__(
        self, status: int = 200, body: bytes = b"", error: Exception | None = None
    ) -> None:
        self.answer = (status, body)
        self.error = error
        self.asked: tuple[str, str, bytes, float] = ("", "", b"", 0.0)

    def post(self, path: str, kind: str, body: bytes, timeout_s: float) -> tuple[int, bytes]:
        self.asked = (path, kind, body, timeout_s)
        if self.error is not None:
            raise self.error
        return self.answer


def syncer(connections: FakeConnections) -> HttpSyncer:
    return HttpSyncer("https://s:1", connections)  # type: ignore[arg-type]


def test_a_request_and_its_answer_travel_as_messages() -> None:
    made = FakeConnections(body=encode(LeaseReply("dev", "e")))
    assert syncer(made).lease(LEASE) == LeaseReply("dev", "e")
    assert made.asked[0] == "/api/v1/lease"
    assert decode(made.asked[2], LeaseRequest) == LEASE
    assert made.asked[1::2] == (CONTENT_TYPE, 7.0 + ANSWER_TIMEOUT_S)


def test_blobs_come_from_the_mirror() -> None:
    made = FakeConnections(body=encode(BlobBatch([])))
    assert syncer(made).blobs(BlobRequest([])) == BlobBatch([])
    assert made.asked[0] == "/api/v1/mirror/blobs"


def test_results_travel_together_and_the_answer_says_which_were_wanted() -> None:
    made = FakeConnections(body=encode(ResultsReply([True, False])))
    batch = ResultBatch([ResultRequest("1", "w"), ResultRequest("2", "w")])
    assert syncer(made).results(batch) == ResultsReply([True, False])
    assert made.asked[0] == "/api/v1/results"
    assert decode(made.asked[2], ResultBatch) == batch


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
    with pytest.raises(kind, match=f"syncer https://s:1 answers {status}: because"):
        syncer(FakeConnections(status, b"because\n")).lease(LEASE)


def test_a_failed_connection_is_an_infrastructure_error_with_its_cause() -> None:
    error = InfrastructureError("Connection refused")
    with pytest.raises(InfrastructureError, match=r"syncer https://s:1: .*Connection refused"):
        syncer(FakeConnections(error=error)).lease(LEASE)


def test_an_answer_that_is_no_message_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        syncer(FakeConnections(body=b"\xc1")).lease(LEASE)


def test_a_sandbox_that_does_not_work_says_why() -> None:
    assert "not installed" in probe(find_bwrap("/no/such/directory"))
    assert "does not work here" in probe("/bin/false")
    assert "does not run" in probe("/no/such/bwrap")


@pytest.mark.parametrize(
    ("toolchains", "timeout_s"),
    [(LEASE.toolchains, LEASE.wait_s + ANSWER_TIMEOUT_S), ([], LEASE.wait_s + FAREWELL_TIMEOUT_S)],
)
def test_a_farewell_waits_for_its_answer_for_less_time(
    toolchains: list[Toolchain], timeout_s: float
) -> None:
    made = FakeConnections(body=encode(LeaseReply("dev", "e")))
    syncer(made).lease(msgspec.structs.replace(LEASE, toolchains=toolchains))
    assert made.asked[3] == timeout_s
