"""The syncer as a worker sees it, in five requests. The edge at which HTTP's errors become ours."""

from typing import Protocol, TypeVar

import requests

from distbuild.protocol.errors import InfrastructureError, ProtocolError, Unauthorized
from distbuild.protocol.messages import (
    CONTENT_TYPE,
    BlobBatch,
    BlobRequest,
    Changes,
    LeaseReply,
    LeaseRequest,
    Message,
    PullRequest,
    RenewReply,
    RenewRequest,
    ResultBatch,
    ResultsReply,
    decode,
    encode,
)

CONNECT_TIMEOUT_S = 5.0
#: What an answer may take beyond the time that the request itself asked to wait.
ANSWER_TIMEOUT_S = 60.0
_MAX_REASON = 300
_UNAUTHORIZED, _BAD_REQUEST, _CONFLICT = 401, 400, 409

M = TypeVar("M", bound=Message)


class Syncer(Protocol):
    """What an agent asks of a syncer. All raise InfrastructureError when there is no answer and
    ProtocolError when the syncer refuses."""

    @property
    def url(self) -> str:
        """Its base URL, for messages."""
        ...

    def lease(self, request: LeaseRequest) -> LeaseReply:
        """Ask for jobs."""
        ...

    def renew(self, request: RenewRequest) -> RenewReply:
        """Say what is still worked on."""
        ...

    def results(self, batch: ResultBatch) -> ResultsReply:
        """Deliver results; the answer says which of them were still wanted."""
        ...

    def pull(self, request: PullRequest) -> Changes:
        """Ask what has changed."""
        ...

    def blobs(self, request: BlobRequest) -> BlobBatch:
        """Ask for contents; the answer may hold fewer than were asked for."""
        ...


class HttpSyncer:
    """A syncer at ``url`` (https://host:port), over ``session``."""

    def __init__(self, url: str, session: requests.Session) -> None:
        self.url = url
        self._session = session

    def lease(self, request: LeaseRequest) -> LeaseReply:
        """POST /api/v1/lease."""
        return self._post("lease", request, LeaseReply, request.wait_s)

    def renew(self, request: RenewRequest) -> RenewReply:
        """POST /api/v1/renew."""
        return self._post("renew", request, RenewReply, request.wait_s)

    def results(self, batch: ResultBatch) -> ResultsReply:
        """POST /api/v1/results."""
        return self._post("results", batch, ResultsReply, 0.0)

    def pull(self, request: PullRequest) -> Changes:
        """POST /api/v1/mirror/pull."""
        return self._post("mirror/pull", request, Changes, 0.0)

    def blobs(self, request: BlobRequest) -> BlobBatch:
        """POST /api/v1/mirror/blobs."""
        return self._post("mirror/blobs", request, BlobBatch, 0.0)

    def _post(self, name: str, request: Message, kind: type[M], wait_s: float) -> M:
        return decode(self._send(name, request, wait_s), kind)

    def _send(self, name: str, request: Message, wait_s: float) -> bytes:
        try:
            response = self._session.post(
                f"{self.url}/api/v1/{name}",
                data=encode(request),
                headers={"Content-Type": CONTENT_TYPE},
                timeout=(CONNECT_TIMEOUT_S, wait_s + ANSWER_TIMEOUT_S),
            )
            body = response.content
        except requests.RequestException as error:
            raise InfrastructureError(f"syncer {self.url}: {_reason(error)}") from error
        if response.ok:
            return body
        said = body.decode(errors="replace").strip()[:_MAX_REASON]
        text = f"syncer {self.url} answers {response.status_code}: {said}"
        if response.status_code == _UNAUTHORIZED:
            raise Unauthorized(text)
        if response.status_code in (_BAD_REQUEST, _CONFLICT):
            raise ProtocolError(text)
        raise InfrastructureError(text)


def _reason(error: BaseException) -> str:
    """The innermost cause: what urllib3 wraps around it helps nobody."""
    inner = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    return str(inner)[:_MAX_REASON] or type(inner).__name__
