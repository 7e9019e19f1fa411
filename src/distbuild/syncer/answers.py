"""What a wrapper on the Unix socket is answered: plain headers, for a small C program to read."""

import os
from collections.abc import Generator

from distbuild.command.model import LocalReason
from distbuild.http.response import Response as HttpAnswer
from distbuild.one_shot import OneShot
from distbuild.protocol.messages import SubmitReply, SubmitRequest
from distbuild.syncer.local_callers import WrapperOrders
from distbuild.syncer.service import Service


def answers(
    service: Service, message: SubmitRequest
) -> Generator[OneShot | HttpAnswer, None, None]:
    """Compile, answer, and hold the local slot as long as the connection lasts: the wrapper's
    process becomes the compiler with the connection open. Temporary files are held so long, too:
    the wrapper renames them."""
    answer = yield from service.run(message)
    try:
        yield _answer(answer)
        if answer.holds_slot or (answer.outputs is not None and answer.outputs.has_temporary()):
            yield OneShot()  # never happens; the end of the connection closes this generator
    finally:
        if answer.holds_slot:
            service.release()
        if answer.outputs is not None:
            answer.outputs.close()


def _answer(answer: WrapperOrders) -> HttpAnswer:
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
        files = () if outputs is None else outputs.descriptors()
        return HttpAnswer(headers, listing + reply.stdout + reply.stderr, files=files)
    program = os.fsencode(answer.program or "")
    headers = {
        "Dist-Build": "local",
        "Dist-Build-Silent": _silent(reply),
        "Dist-Build-Program": str(len(program)),
    }
    return HttpAnswer(headers, program + os.fsencode(_why(reply)))


def _silent(reply: SubmitReply) -> str:
    if not reply.silent:
        return "0"
    return "2" if LocalReason(reply.reason).is_said else "1"


def _why(reply: SubmitReply) -> str:
    return f"{reply.reason}: {reply.detail}".rstrip(": ")
