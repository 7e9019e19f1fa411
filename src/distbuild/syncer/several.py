"""A command with several sources, as one compile for each: put together from their answers.

Only the cl family's: gcc and clang name all their outputs themselves there, and builds do not use
it. Knows how long to wait, and nothing of how a compile is done.
"""

import re
from collections.abc import Callable, Generator, Iterator, Sequence

from distbuild.one_shot import OneShot
from distbuild.protocol.messages import SubmitReply
from distbuild.syncer.understand import Submission

#: What a driver says once for the whole command: clang's warnings, Microsoft's banner.
_OF_THE_COMMAND = re.compile(rb"clang: (?:\x1b\[[0-9;]*m)*warning: |Microsoft |Copyright |\r?$")

Compile = Generator[OneShot, None, SubmitReply]


def compile_several(
    parts: Sequence[Submission], compile_one: Callable[[Submission], Compile]
) -> Compile:
    """The answer for all; that of the first part that is to be compiled locally, for all of them.

    As the drivers do, what comes after the first source that fails is not compiled.
    """
    running = [compile_one(part) for part in parts]
    waiting: dict[int, OneShot] = {}
    replies: dict[int, SubmitReply] = {}
    try:
        for at in range(len(running)):
            _advance(at, running, waiting, replies)
        while (last := _last(replies, len(running))) is None:
            one_of_them = OneShot()
            for signal in waiting.values():
                signal.then(one_of_them.set)
            yield one_of_them
            for at in [at for at, signal in waiting.items() if signal.is_set()]:
                del waiting[at]
                _advance(at, running, waiting, replies)
        return _together([replies[at] for at in range(last + 1)])
    finally:
        for compile_ in running:
            compile_.close()


def _advance(
    at: int,
    running: Sequence[Compile],
    waiting: dict[int, OneShot],
    replies: dict[int, SubmitReply],
) -> None:
    try:
        waiting[at] = next(running[at])
    except StopIteration as end:
        replies[at] = end.value


def _last(replies: dict[int, SubmitReply], count: int) -> int | None:
    """The part that decides the end: the first that failed, else the last; None: still open."""
    for at in range(count):
        reply = replies.get(at)
        if reply is None:
            return None
        if reply.outcome != "done" or reply.exit_code != 0:
            return at
    return count - 1


def _together(replies: Sequence[SubmitReply]) -> SubmitReply:
    last = replies[-1]
    if last.outcome != "done":
        return last
    said = list(_without_repetition([reply.stderr for reply in replies]))
    return SubmitReply(
        "done",
        exit_code=last.exit_code,
        stdout=b"".join(reply.stdout for reply in replies),
        stderr=b"".join(said),
        outputs=[file for reply in replies for file in reply.outputs],
        removed=[path for reply in replies for path in reply.removed],
        rewritten=[path for reply in replies for path in reply.rewritten],
        worker=", ".join(dict.fromkeys(reply.worker for reply in replies)),
    )


def _without_repetition(texts: Sequence[bytes]) -> Iterator[bytes]:
    """What each part said, without what the first one has said for all."""
    first = texts[0].splitlines(keepends=True)
    yield texts[0]
    for text in texts[1:]:
        lines = text.splitlines(keepends=True)
        same = 0
        while (
            same < min(len(lines), len(first))
            and lines[same] == first[same]
            and _OF_THE_COMMAND.match(lines[same])
        ):
            same += 1
        yield b"".join(lines[same:])
