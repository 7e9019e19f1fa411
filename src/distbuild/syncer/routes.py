"""The syncer's HTTP handlers for the requests of each job, from wrappers and workers; never block.

They serve the Flask app's routes, too. The server calls them without Flask, whose dispatch costs
more processor time than the handlers. ``Gate`` authorizes requests.
"""

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

from distbuild.command.model import LocalReason
from distbuild.credentials import SHARED, Credentials, carries
from distbuild.http.response import Response
from distbuild.http.site import Call, Handler, Later
from distbuild.joining import NEW_CODE
from distbuild.one_shot import OneShot
from distbuild.protocol import messages
from distbuild.protocol.errors import ProtocolError, TooMuchAtOnce
from distbuild.protocol.messages import SubmitReply, SubmitRequest
from distbuild.protocol.names import identity_of
from distbuild.syncer.local_callers import WrapperOrders
from distbuild.syncer.service import Service

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RequestRefused(Exception):
    """Raised to answer a request with an HTTP status and one line."""

    status: int
    reason: str


class Gate:
    """Authorizes requests by their tokens.

    ``user``: SHA-256 of the token of the syncer's own user. A command may run programs and read
    files as that user, so that submitting one needs this token and not a role's, which others hold
    too. ``remote``: the user's token is also accepted over TLS.
    """

    def __init__(self, credentials: Credentials, user: bytes, *, remote: bool = False) -> None:
        self._credentials = credentials
        self._user = user
        self._remote = remote

    def knows(self, authorization: str | None) -> bool:
        """Whether the header carries a token of any role or of the syncer's user."""
        known = self._credentials
        return carries(authorization, self._user) or any(
            known.verify_token(authorization, role) for role in known.accepted
        )

    def admit_worker(self, call: Call) -> str:
        """The identity of the worker whose token the request carries; SHARED: the workers' common
        token. Raises RequestRefused."""
        holder = self._credentials.holder(call.authorization, "worker")
        if holder is None:
            raise RequestRefused(
                401, f"a worker token is needed; a removed worker has to join again, {NEW_CODE}"
            )
        return holder

    def admit_user(self, call: Call) -> None:
        """Raises RequestRefused unless the request comes from the syncer's own user."""
        if call.is_same_user:
            return
        if not (call.is_local or self._remote):
            raise RequestRefused(
                403,
                "only over the socket in the syncer's home, unless"
                ' "remote_compiles" is set in config.json',
            )
        if not carries(call.authorization, self._user):
            raise RequestRefused(401, "the token of the syncer's user is needed (state/user_token)")

    def message(self, call: Call, kind: type[T]) -> T:
        """Decode the body of a worker's request. Raises RequestRefused and ProtocolError."""
        return self.message_of(call, kind)[0]

    def message_of(self, call: Call, kind: type[T]) -> tuple[T, str]:
        """As ``message``, with the worker's identity as ``admit_worker`` gives it."""
        holder = self.admit_worker(call)
        message = messages.decode(call.body, kind)
        identity = identity_of(getattr(message, "worker", ""))
        if holder == SHARED:
            is_own = identity not in self._credentials.accepted["worker"]
        else:
            is_own = identity in ("", holder)
        if not is_own:
            raise RequestRefused(403, "this token is another worker's than the name")
        return message, holder

    def submitted(self, call: Call) -> messages.SubmitRequest:
        """Decode a compile command of the syncer's user. Raises RequestRefused, ProtocolError."""
        self.admit_user(call)
        message = messages.decode(call.body, messages.SubmitRequest)
        same_version(message.version)
        if not message.argv or not message.cwd.startswith(b"/"):
            raise RequestRefused(400, "argv and an absolute cwd are needed")
        # No process has such an argument, path or variable, and no system call accepts one.
        values = b"".join((message.cwd, *message.argv, *message.env.values()))
        names = "".join(message.env)
        if b"\0" in values or "\0" in names or "=" in names:
            raise RequestRefused(400, "argv, cwd or env: a NUL, or a variable's name with '='")
        return message


def same_version(version: int) -> None:
    """Raises RequestRefused for another version of the protocol than the syncer's."""
    if version != messages.PROTOCOL_VERSION:
        ours = messages.PROTOCOL_VERSION
        raise RequestRefused(
            409, f"this syncer speaks protocol {ours}, not {version}; install one version"
        )


def answers(service: Service, message: SubmitRequest) -> Generator[OneShot | Response, None, None]:
    """Compile, answer, and hold the local slot until the connection ends: the wrapper's process
    becomes the compiler with the connection open. Temporary files are kept until then, too: the
    wrapper renames them."""
    answer = yield from service.run(message)
    try:
        yield _wrapper_response(answer)
        if answer.holds_slot or (answer.outputs is not None and answer.outputs.has_temporary()):
            yield OneShot()  # never fires; the end of the connection closes this generator
    finally:
        answer.ended()
        if answer.holds_slot:
            service.release()
        if answer.outputs is not None:
            answer.outputs.close()


def _wrapper_response(answer: WrapperOrders) -> Response:
    reply, outputs = answer.reply, answer.outputs
    if reply.outcome == "done":
        listing = b"" if outputs is None else outputs.listing()
        headers = {
            "Dist-Build": "done",
            "Dist-Build-Exit": str(reply.exit_code & 0xFF),
            "Dist-Build-Outputs": str(len(listing)),
            "Dist-Build-Stdout": str(len(reply.stdout)),
            "Dist-Build-Worker": reply.worker,
        }
        if reply.times:
            headers["Dist-Build-Times"] = reply.times
        files = () if outputs is None else outputs.descriptors()
        return Response(headers, listing + reply.stdout + reply.stderr, files=files)
    program = os.fsencode(answer.program or "")
    headers = {
        "Dist-Build": "local",
        "Dist-Build-Silent": _silent(reply),
        "Dist-Build-Program": str(len(program)),
    }
    return Response(headers, program + os.fsencode(_why(reply)))


def _silent(reply: SubmitReply) -> str:
    if not reply.silent:
        return "0"
    return "2" if LocalReason(reply.reason).is_said else "1"


def _why(reply: SubmitReply) -> str:
    return f"{reply.reason}: {reply.detail}".rstrip(": ")


#: The largest lease request: the worker's description with its compilers, which is kept in part.
MAX_LEASE_BYTES = 512 * 1024
#: The largest renewal: the names of the worker's leases.
MAX_RENEW_BYTES = 1024 * 1024
#: A generator that waits for events and returns a message.
Steps = Generator[OneShot, None, messages.Message]


def make_handlers(service: Service, gate: Gate) -> dict[str, Handler]:
    """The handlers by path."""

    def run(call: Call) -> Later:
        if not call.is_same_user:
            raise RequestRefused(403, "only over the syncer's Unix socket")
        return answers(service, gate.submitted(call))

    def lease(call: Call) -> Steps:
        if len(call.body) > MAX_LEASE_BYTES:
            raise RequestRefused(413, "the lease request is too long")
        message, holder = gate.message_of(call, messages.LeaseRequest)
        same_version(message.version)
        if holder != SHARED:
            message = service.membership.dialled_in(holder, message, call.peer)
        return leased(call, message)

    def leased(call: Call, message: messages.LeaseRequest) -> Steps:
        reply = yield from service.lease(message)
        gate.admit_worker(call)  # it may have been removed meanwhile
        return reply

    def renew(call: Call) -> Steps:
        if len(call.body) > MAX_RENEW_BYTES:
            raise RequestRefused(413, "more leases than any worker has")
        return service.renew(gate.message(call, messages.RenewRequest))

    return {
        "/api/v1/run": _guarded(run),
        "/api/v1/lease": _guarded(lambda call: _packed(lease(call))),
        "/api/v1/renew": _guarded(lambda call: _packed(renew(call))),
        "/api/v1/results": _guarded(lambda call: _take_results(service, gate, call)),
    }


def _take_results(service: Service, gate: Gate, call: Call) -> Later:
    batch = gate.message(call, messages.ReceivedBatch)
    answered: list[OneShot] = []
    try:
        # On TooMuchAtOnce the worker sends the batch again; results accepted here are then dropped.
        taken = [service.deliver(result, answered.append) for result in batch.results]
        yield _answer(messages.ResultsReply(taken))
    finally:
        # Only now: the woken threads would compete with this one for the GIL.
        for signal in answered:
            signal.set()


def _packed(steps: Steps) -> Later:
    yield _answer((yield from steps))


def _answer(message: messages.Message) -> Response:
    return Response({"Content-Type": messages.CONTENT_TYPE}, messages.encode(message))


def _guarded(handle: Callable[[Call], Later]) -> Handler:
    """Wrap a handler so that errors of the request become HTTP responses."""

    def guarded(call: Call) -> Later:
        try:
            yield from handle(call)
        except RequestRefused as refusal:
            yield refused(refusal)
        except ProtocolError as error:
            yield refused(RequestRefused(400, str(error)))
        except TooMuchAtOnce as error:
            yield refused(RequestRefused(503, str(error)))

    return guarded


def refused(refusal: RequestRefused) -> Response:
    """The HTTP response for a refusal."""
    status = f"{refusal.status} {HTTPStatus(refusal.status).phrase}"
    return Response({"Content-Type": "text/plain"}, f"{refusal.reason}\n".encode(), status)
