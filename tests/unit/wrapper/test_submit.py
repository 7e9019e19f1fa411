import itertools
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.messages import (
    MAX_BODY_BYTES,
    SubmitReply,
    SubmitRequest,
    Terminal,
    Window,
    encode,
)
from distbuild.system.process import views_of_files
from distbuild.wrapper import main
from distbuild.wrapper.syncer_client import SyncerConnection, request_of, working_directory

HEARTBEAT = struct.pack("!I", 0)
REPLY = SubmitReply("done", exit_code=3, stdout=bytes(range(256)), stderr=b"\0\0\0\0")
TERMINAL = Terminal(Window(80, 24))
REQUEST = SubmitRequest([b"gcc"], b"/", {})


def frame(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


class Answer(requests.Response):
    """A streamed response that arrives in these pieces, and then ends or breaks."""

    def __init__(self, *pieces: bytes, breaks: bool = False, status: int = 200) -> None:
        super().__init__()
        self.status_code = status
        self.pieces = pieces
        self.breaks = breaks
        self.closed = False

    def iter_content(
        self, chunk_size: int | None = 1, decode_unicode: bool = False
    ) -> Iterator[bytes]:
        yield from self.pieces
        if self.breaks:
            raise requests.exceptions.ChunkedEncodingError("Connection broken")

    @property
    def content(self) -> bytes:
        return b"".join(self.pieces)

    def close(self) -> None:
        self.closed = True


class Session:
    """Answers every request alike."""

    def __init__(self, answer: Answer | requests.RequestException) -> None:
        self.answer = answer

    def request(self, *words: object, **options: object) -> Answer:
        if isinstance(self.answer, requests.RequestException):
            raise self.answer
        return self.answer


def connection(answer: Answer | requests.RequestException) -> SyncerConnection:
    return SyncerConnection(Session(answer), "https://localhost:5000")  # type: ignore[arg-type]


@given(st.integers(0, 3), st.lists(st.integers(0, 500)), st.binary(max_size=6))
def test_an_answer_is_read_from_any_pieces(beats: int, cuts: list[int], more: bytes) -> None:
    data = HEARTBEAT * beats + frame(encode(REPLY)) + more
    places = [0, *sorted(c for c in cuts if c < len(data)), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    answer = Answer(*pieces)
    assert connection(answer).compile(REQUEST) == REPLY
    assert answer.closed


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(), "connection closed before the answer"),
        (Answer(HEARTBEAT * 3), "connection closed before the answer"),
        (Answer(HEARTBEAT, frame(encode(REPLY))[:-1]), "connection closed before the answer"),
        (Answer(b"\0\0"), "connection closed before the answer"),
        (Answer(HEARTBEAT, breaks=True), "connection lost: Connection broken"),
        (Answer(struct.pack("!I", MAX_BODY_BYTES + 1)), f"an answer of {MAX_BODY_BYTES + 1} bytes"),
        (
            Answer(b"a dev token is needed\nmore\n", status=401),
            "answers 401: a dev token is needed",
        ),
        (Answer(b"", status=502), "answers 502: no explanation"),
        (
            requests.ConnectionError("... [Errno 111] Connection refused"),
            "no syncer at https://localhost:5000; is syncer.py running?",
        ),
        (
            requests.exceptions.SSLError("certificate verify failed: unable to get local issuer"),
            "has a certificate of another installation",
        ),
        (requests.ReadTimeout("Pool: Read timed out."), "says nothing: it is stopped, or stuck"),
    ],
)
def test_without_an_answer_there_is_one_line_of_reason(
    answer: Answer | requests.RequestException, message: str
) -> None:
    with pytest.raises(InfrastructureError) as caught:
        connection(answer).compile(REQUEST)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_command_that_missed_the_socket_of_a_starting_syncer_is_submitted_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "socket"
    refused = Session(Answer(b"only over the socket", status=403))
    served = Session(Answer(frame(encode(REPLY))))
    connections = [
        SyncerConnection(refused, "https://localhost:5000", socket),  # type: ignore[arg-type]
        SyncerConnection(served, "https://localhost:5000"),  # type: ignore[arg-type]
    ]
    assert not connections[0].is_outdated()
    socket.touch()
    monkeypatch.setenv("DIST_BUILD_HOME", str(tmp_path))
    monkeypatch.setattr(main, "connect", lambda: connections.pop(0))
    assert main.submit(REQUEST) == REPLY


@pytest.mark.parametrize("body", [b"\xc1", encode(REQUEST), b"\x80"])
def test_an_answer_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        connection(Answer(frame(body))).compile(REQUEST)


def test_only_what_the_syncer_needs_leaves_the_process() -> None:
    needed = {"PATH", "LC_ALL", "CPATH", "TZ", "COMPILER_PATH", "SUNPRO_DEPENDENCIES"}
    needed |= {"HOME", "LD_LIBRARY_PATH", "LD_PRELOAD"}
    env = dict.fromkeys([*needed, "SECRET", "AWS_KEY", "LD_DEBUG", "SSH_AUTH_SOCK"], "v")
    assert request_of(["gcc"], env, None).env.keys() == needed


def test_a_request_has_the_bytes_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = request_of(["gcc", "caf\udce9.c"], {"PATH": "/\udcff", "X": "y"}, TERMINAL)
    here = os.fsencode(os.path.realpath(tmp_path))
    assert made == SubmitRequest(
        [b"gcc", b"caf\xe9.c"],
        here,
        {"PATH": b"/\xff"},
        terminal=TERMINAL,
        place=views_of_files()[0],
        session=os.getsid(0),
    )


def test_the_working_directory_is_spelled_as_compilers_spell_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path(os.path.realpath(tmp_path)) / "real"
    real.mkdir()
    link = real.with_name("link")
    link.symlink_to(real)
    monkeypatch.chdir(link)
    spelled = {
        str(link): str(link),
        str(real): str(real),
        str(real.parent): str(real),
        "link": str(real),
        "": str(real),
        "/nowhere": str(real),
        "/proc/self/cwd": str(real),
    }
    assert {pwd: working_directory({"PWD": pwd}) for pwd in spelled} == spelled


def test_a_working_directory_that_is_gone_is_no_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InfrastructureError, match="no working directory"):
        working_directory({"PWD": str(gone)})
