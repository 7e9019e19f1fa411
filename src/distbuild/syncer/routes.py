"""What is asked for each job: by the wrapper on the socket, and by the workers. Never blocks.

The same functions are Flask's routes and, past Flask, the server's: its dispatch costs the dev box
more than what these do.
"""

from collections.abc import Callable, Generator
from http import HTTPStatus

from distbuild.http.front import Call, Handler
from distbuild.http.response import Response
from distbuild.http.site import Later
from distbuild.one_shot import OneShot
from distbuild.protocol import messages
from distbuild.protocol.errors import ProtocolError, TooMuchAtOnce
from distbuild.syncer.answers import answers
from distbuild.syncer.gate import Gate, RequestRefused, same_version
from distbuild.syncer.service import Service

#: A worker with its compilers, of which some are kept.
MAX_LEASE_BYTES = 512 * 1024
#: The names of its leases.
MAX_RENEW_BYTES = 1024 * 1024
#: A message that has to be waited for.
Steps = Generator[OneShot, None, messages.Message]


def make_handlers(service: Service, gate: Gate) -> dict[str, Handler]:
    """By path."""

    def run(call: Call) -> Later:
        if not call.is_same_user:
            raise RequestRefused(403, "only over the syncer's Unix socket")
        return answers(service, gate.submitted(call))

    def lease(call: Call) -> Steps:
        if len(call.body) > MAX_LEASE_BYTES:
            raise RequestRefused(413, "a worker that has more to tell than is taken")
        message = gate.message(call, "worker", messages.LeaseRequest)
        same_version(message.version)
        return service.lease(message)

    def renew(call: Call) -> Steps:
        if len(call.body) > MAX_RENEW_BYTES:
            raise RequestRefused(413, "more leases than any worker has")
        return service.renew(gate.message(call, "worker", messages.RenewRequest))

    return {
        "/api/v1/run": _guarded(run),
        "/api/v1/lease": _guarded(lambda call: _packed(lease(call))),
        "/api/v1/renew": _guarded(lambda call: _packed(renew(call))),
        "/api/v1/results": _guarded(lambda call: _take_results(service, gate, call)),
    }


def _take_results(service: Service, gate: Gate, call: Call) -> Later:
    batch = gate.message(call, "worker", messages.ReceivedBatch)
    answered: list[OneShot] = []
    try:
        # Where there is too much at once those that were taken are not taken again.
        taken = [service.deliver(result, answered.append) for result in batch.results]
        yield _answer(messages.ResultsReply(taken))
    finally:
        # Only now: whoever is woken would fight this thread for Python's lock.
        for signal in answered:
            signal.set()


def _packed(steps: Steps) -> Later:
    yield _answer((yield from steps))


def _answer(message: messages.Message) -> Response:
    return Response({"Content-Type": messages.CONTENT_TYPE}, messages.encode(message))


def _guarded(handle: Callable[[Call], Later]) -> Handler:
    """With what is refused as an answer."""

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
    """A refusal as it is sent."""
    status = f"{refusal.status} {HTTPStatus(refusal.status).phrase}"
    return Response({"Content-Type": "text/plain"}, f"{refusal.reason}\n".encode(), status)
