"""One connection's state, and who has it in hand."""

import threading
import time
from collections.abc import Generator

import msgspec

from distbuild.http.request import RequestReader
from distbuild.http.response import Response
from distbuild.http.transport import Plain
from distbuild.one_shot import OneShot

#: Yields the signals it waits for, and once an Answer; may wait once more after that, for the end
#: of the connection.
Later = Generator[OneShot | Response, None, None]


class Connection(msgspec.Struct, eq=False):
    """Belongs to the thread that claimed it until that lets go; nobody else may read, answer or
    close it."""

    transport: Plain
    reader: RequestReader
    later: Later | None = None
    has_answered: bool = False
    #: Nothing but the answer, or its rest, may be sent any more.
    is_answering: bool = False
    #: The client takes another answer after this one.
    keeps: bool = False
    #: A thread has it in hand; it is closed when that is done.
    is_running: bool = True
    is_gone: bool = False
    #: Something may have come that was not taken yet.
    is_readable: bool = True
    is_watched: bool = False
    #: Its end is watched for, since its generator waits.
    is_waiting: bool = False
    #: Of an answer something is left that the client's socket had no room for.
    is_sending: bool = False
    #: What was shown last by whoever asks here, and whether it is a token that is known.
    shown: str | None = None
    is_known: bool = False
    silent_since: float = msgspec.field(default_factory=time.monotonic)
    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """Take it in hand; False: another thread has it."""
        with self.lock:
            is_ours, self.is_running = not self.is_running, True
            return is_ours

    def claim_as_gone(self) -> bool:
        """The same for a client that has ended; a thread that has it in hand sees it later."""
        with self.lock:
            self.is_gone = True
            is_ours, self.is_running = not self.is_running, True
            return is_ours

    def begin_answer(self) -> None:
        """From now on nobody but the thread that has it in hand sends anything."""
        with self.lock:
            self.is_answering = True

    def hint(self, data: bytes) -> None:
        """Send something short, from any thread, as long as the answer is awaited."""
        with self.lock:
            if not self.is_answering:
                self.transport.hint(data)

    def is_busy(self) -> bool:
        """Whether somebody waits for an answer."""
        if self.is_sending:
            return True
        if self.later is not None:
            return not self.has_answered
        return self.is_running
