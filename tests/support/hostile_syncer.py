"""A syncer that speaks the real protocol over TLS, with a developer's credentials, and lies."""

import contextlib
import queue
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

from distbuild.credentials import Role, load_credentials
from distbuild.protocol.messages import (
    BlobBatch,
    BlobRequest,
    Changes,
    Job,
    LeaseReply,
    LeaseRequest,
    PullRequest,
    RenewReply,
    RenewRequest,
    ResultBatch,
    ResultRequest,
    ResultsReply,
    decode,
    encode,
)


class HostileSyncer:
    """``client`` is what it names; with jobs ``client_of_jobs``, if that is not empty.

    ``pulled`` and ``asked`` are what workers told it.

    ``changes`` answers a pull. What is put into ``replies`` answers the next request for jobs as it
    is, bytes too.
    """

    def __init__(self, client: str) -> None:
        self.client = client
        self.client_of_jobs = ""
        self.changes = Changes(client, "evil", 0, 1, bytes(32), [])
        self.pulled: list[PullRequest] = []
        self.asked: list[LeaseRequest] = []
        self.replies: queue.Queue[LeaseReply | bytes] = queue.Queue()
        self.jobs: queue.Queue[Job] = queue.Queue()
        self.results: queue.Queue[ResultRequest] = queue.Queue()
        self.url = ""

    def answer(self, route: str, body: bytes) -> bytes:
        """The body of the answer to a worker's request."""
        match route:
            case "lease":
                return self._lease(decode(body, LeaseRequest))
            case "renew":
                decode(body, RenewRequest)
                return encode(RenewReply())
            case "results":
                batch = decode(body, ResultBatch)
                for result in batch.results:
                    self.results.put(result)
                return encode(ResultsReply([True] * len(batch.results)))
            case "mirror/pull":
                self.pulled.append(decode(body, PullRequest))
                return encode(self.changes)
            case _:
                decode(body, BlobRequest)
                return encode(BlobBatch([]))

    def _lease(self, request: LeaseRequest) -> bytes:
        self.asked.append(request)
        with contextlib.suppress(queue.Empty):
            # The worker asks again and again: the wait bounds how often.
            reply = self.replies.get(timeout=0.05)
            return reply if isinstance(reply, bytes) else encode(reply)
        jobs = []
        if request.slots:
            with contextlib.suppress(queue.Empty):
                jobs = [self.jobs.get_nowait()]
        client = (self.client_of_jobs if jobs else "") or self.client
        return encode(LeaseReply(client, "evil", jobs))

    @contextlib.contextmanager
    def serving(self, certs: Path, role: Role = "dev") -> Iterator["HostileSyncer"]:
        """On a free port of this machine, with the certificate of a role."""
        credentials = load_credentials(certs, role)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(credentials.cert, credentials.key)
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.answer))
        server.daemon_threads = False
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.url = f"https://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _handler(answer: Callable[[str, bytes], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                said, status = answer(self.path.removeprefix("/api/v1/"), body), 200
            except (msgspec.MsgspecError, ValueError) as error:
                said, status = str(error).encode(), 400
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    return Handler
