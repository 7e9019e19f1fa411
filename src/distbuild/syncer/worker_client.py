"""A worker as the syncer sees it: five requests. The edge at which HTTP's errors become ours."""

import socket
from typing import Any

import msgspec
import requests

from distbuild.config import parse_host
from distbuild.protocol import messages
from distbuild.protocol.errors import InfrastructureError

CONNECT_TIMEOUT_S = 3.0
#: One request with a batch of some megabytes, or the removal of a large tree.
REQUEST_TIMEOUT_S = 120.0


class WorkerClient:
    """The routes of one worker's HTTP interface; every failure is an InfrastructureError."""

    def __init__(self, session: requests.Session, host: str) -> None:
        self._session = session
        self.host = host
        self._base = f"https://{host}"
        self._address = parse_host(host)

    def probe(self) -> None:
        """Whether something listens at the worker's port: a hundredth of what asking it costs."""
        try:
            socket.create_connection(self._address, CONNECT_TIMEOUT_S).close()
        except ConnectionRefusedError:
            raise InfrastructureError(f"{self.host}: connection refused") from None
        except OSError as error:
            raise InfrastructureError(f"{self.host}: {error.strerror or error}") from error

    def status(self) -> dict[str, Any]:
        """The worker's own ``/status``."""
        body = self._request("GET", "/status", None)
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise InfrastructureError(f"{self.host}: /status is no JSON: {error}") from error

    def changes(self, changes: messages.Changes) -> messages.ChangesReply:
        """Offer or send changes of the mirror."""
        body = self._request("POST", "/api/v1/mirror/changes", changes)
        return messages.decode(body, messages.ChangesReply)

    def lacking(self, changes: messages.Changes) -> list[messages.Digest]:
        """Which contents of these entries would have to be sent; the tree stays as it is."""
        body = self._request("POST", "/api/v1/mirror/lacking", changes)
        return messages.decode(body, messages.ChangesReply).missing

    def blobs(self, bundles: list[messages.Bundle]) -> None:
        """Send contents."""
        self._request("POST", "/api/v1/mirror/blobs", messages.BlobBatch(bundles))

    def clean(self, client: str) -> None:
        """Have the client's sandbox removed."""
        self._request("POST", "/api/v1/clean", messages.CleanRequest(client))

    def _request(self, method: str, path: str, message: messages.Message | None) -> bytes:
        try:
            response = self._session.request(
                method,
                self._base + path,
                data=None if message is None else messages.encode(message),
                headers={"Content-Type": messages.CONTENT_TYPE},
                timeout=(CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S),
            )
        except requests.RequestException as error:
            raise InfrastructureError(f"{self.host}: {reason_of(error)}") from error
        if not response.ok:
            text = response.text.strip().splitlines()[:1]
            raise InfrastructureError(f"{self.host}: {response.status_code} {' '.join(text)}")
        return response.content


def reason_of(error: requests.RequestException) -> str:
    """The last cause in a chain of requests' and urllib3's exceptions, in a few words."""
    text = str(error)
    for known in ("Connection refused", "certificate verify failed", "timed out", "not known"):
        if known in text:
            return known.lower()
    return text.rpartition(": ")[2].strip("')\"") or type(error).__name__
