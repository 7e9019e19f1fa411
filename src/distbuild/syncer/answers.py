"""What a wrapper on the Unix socket is answered: plain headers, for a small C program to read."""

import os
from collections.abc import Generator

from distbuild.protocol.messages import SubmitReply, SubmitRequest
from distbuild.serving.answer import Answer as HttpAnswer
from distbuild.signals import Signal
from distbuild.syncer.here import Answer
from distbuild.syncer.service import Service


def answers(service: Service, message: SubmitRequest) -> Generator[Signal | HttpAnswer, None, None]:
    """Compile, answer, and hold the local slot as long as the connection lasts: the wrapper's
    process becomes the compiler with the connection open."""
    answer = yield from service.run(message)
    try:
        yield _answer(answer)
        if answer.holds_slot:
            yield Signal()  # never happens; the end of the connection closes this generator
    finally:
        if answer.holds_slot:
            service.release()


def _answer(answer: Answer) -> HttpAnswer:
    reply = answer.reply
    if reply.outcome == "done":
        headers = {
            "Dist-Build": "done",
            "Dist-Build-Exit": str(reply.exit_code & 0xFF),
            "Dist-Build-Stdout": str(len(reply.stdout)),
            "Dist-Build-Worker": reply.worker,
        }
        return HttpAnswer(headers, reply.stdout + reply.stderr)
    program = os.fsencode(answer.program or "")
    headers = {
        "Dist-Build": "local",
        "Dist-Build-Silent": str(int(reply.silent)),
        "Dist-Build-Program": str(len(program)),
    }
    return HttpAnswer(headers, program + os.fsencode(_why(reply)))


def _why(reply: SubmitReply) -> str:
    return f"{reply.reason}: {reply.detail}".rstrip(": ")
