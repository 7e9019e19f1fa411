"""Requests out of bytes, whatever pieces they come in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.http.request import (
    FIRST_BYTES,
    FREE_BODY_BYTES,
    MAX_PIECES,
    BodyBudget,
    Request,
    RequestReader,
)

MAX_BODY = 50_000_000


def reader(body_budget: BodyBudget | None = None) -> RequestReader:
    return RequestReader(
        MAX_BODY, lambda headers: headers.get("authorization") == "me", body_budget or BodyBudget()
    )


def post(body: bytes, *fields: bytes) -> bytes:
    """As our own clients write it: the length last."""
    lines = [b"POST /x HTTP/1.1", b"Host: x", *fields, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def all_of(read: RequestReader) -> list[Request]:
    found = []
    while (request := read.next()) is not None:
        found.append(request)
        if request.problem:
            break
    return found


@given(st.lists(st.binary(max_size=40), max_size=4), st.lists(st.integers(1, 30), max_size=40))
def test_pieces_make_no_difference(bodies: list[bytes], cuts: list[int]) -> None:
    data = b"".join(post(body, b"X: y") for body in bodies)
    read, found = reader(), []
    for cut in [*cuts, len(data)]:
        if piece := data[:cut]:
            read.feed(piece)
        data = data[cut:]
        found += all_of(read)
    assert [request.body for request in found] == bodies
    assert read.missing() == 0


@pytest.mark.parametrize("length", [b"0", b"5", b"005", b"12"])
def test_heads_that_differ_in_their_length_only(length: bytes) -> None:
    read = reader()
    for _ in range(2):
        read.feed(b"POST /x HTTP/1.1\r\nHost: x\r\nA: b\r\nContent-Length: " + length + b"\r\n\r\n")
        read.feed(bytes(int(length)))
        request = read.next()
        assert request is not None
        assert (request.method, request.target, request.keeps) == ("POST", "/x", True)
        assert (request.headers["a"], request.body) == ("b", bytes(int(length)))


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (b"Content-Length: 5\r\nA: b", b"12345"),
        (b"content-length: 5", b"12345"),
        (b"Content-Length:5", b"12345"),
        (b"A: b", b""),
    ],
)
def test_a_length_may_be_said_in_other_ways(fields: bytes, body: bytes) -> None:
    read = reader()
    read.feed(b"POST /x HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\n" + body)
    request = read.next()
    assert request is not None
    assert (request.problem, request.body) == ("", body)


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (b"Content-Length: 5", "400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5x", "400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1234567890123", "400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999", "413"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d" % (FREE_BODY_BYTES + 1), "401"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked", "411"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\nContent-Length: 5", "400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 5", "400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\nContent-Length: 5", "400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5", "400"),
        (b"POST /x HTTP/1.1\r\nContent-Length: 5", "400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nHost: y", "400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: a\r\nAuthorization: b", "400"),
        (b"POST /x HTTP/1.1\r\nHost: x\0", "400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nA: b\nC: d", "400"),
        (b"POST /x HTTP/1.1\nHost: x\r\nA: b", "400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nA : b", "400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\n folded", "400"),
        (b"POST /x HTTP/2.0\r\nHost: x", "400"),
        (b"POST /x\0 HTTP/1.1\r\nHost: x", "400"),
    ],
)
def test_heads_that_are_refused(head: bytes, problem: str) -> None:
    read = reader()
    read.feed(head + b"\r\n\r\n")
    request = read.next()
    assert request is not None
    assert request.problem.startswith(problem)


def test_each_large_body_needs_its_own_admission() -> None:
    body = bytes(FREE_BODY_BYTES + 1)
    for token, problem in ((b"me", ""), (b"you", "401 Unauthorized"), (b"me", "")):
        read = reader()
        read.feed(post(body, b"Authorization: " + token))
        request = read.next()
        assert request is not None
        assert request.problem == problem


def test_what_is_missing_of_a_body_is_known() -> None:
    read = reader()
    assert read.missing() == 0
    read.feed(post(bytes(FREE_BODY_BYTES + 1), b"Authorization: me")[:-60])
    assert read.next() is None
    assert read.missing() == 60


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 200_000)), max_size=4),
    st.lists(st.integers(1, 150_000), max_size=10),
    st.data(),
)
def test_large_bodies_come_as_they_were_sent(
    bodies: list[tuple[bool, int]], cuts: list[int], chosen: st.DataObject
) -> None:
    sent = [bytes([number]) * size for number, (_, size) in enumerate(bodies)]
    data = b"".join(post(body, b"Authorization: me") for body in sent)
    read, found = reader(), []
    for cut in [*cuts, len(data)]:
        piece, data = data[:cut], data[cut:]
        while piece:
            room = read.room()
            size = min(len(room), len(piece))
            if chosen.draw(st.booleans()):
                room[:size] = piece[:size]
                read.filled(size)
            else:
                size = len(piece)
                read.feed(piece)
            piece = piece[size:]
            found += all_of(read)
    assert [bytes(request.body) for request in found] == sent
    assert read.missing() == 0


def test_single_bytes_do_not_pile_up() -> None:
    read = reader()
    read.feed(post(bytes(10_000))[:-10_000])
    assert read.next() is None
    for _ in range(10_000 - 1):
        read.feed(b"x")
        assert len(read._received) <= MAX_PIECES
    read.feed(b"x")
    request = read.next()
    assert request is not None
    assert request.body == b"x" * 10_000


def test_what_comes_behind_a_large_body_has_room_too() -> None:
    read = reader()
    body, behind = b"x" * (FREE_BODY_BYTES + 1), post(b"behind")
    read.feed(post(body, b"Authorization: me")[: -len(body)])
    assert read.next() is None
    for piece in (body, behind):
        while piece:
            room = read.room()
            size = min(len(room), len(piece))
            assert size > 0
            room[:size] = piece[:size]
            read.filled(size)
            piece = piece[size:]
    assert [bytes(request.body) for request in all_of(read)] == [body, b"behind"]


# --- memory -------------------------------------------------------------------------------------


def announced(length: int, body_budget: BodyBudget) -> RequestReader:
    """A reader after a head that says so."""
    read = reader(body_budget)
    read.feed(post(b"", b"Authorization: me").replace(b": 0", b": %d" % length))
    read.next()
    return read


def fill(read: RequestReader, data: bytes) -> None:
    """As a connection does it, which still holds the last room when it asks for the next."""
    left = memoryview(data)
    room = read.room()
    while left:
        size = min(len(room), len(left))
        room[:size] = left[:size]
        read.filled(size)
        left = left[size:]
        room = read.room()


@pytest.mark.parametrize("fed", [False, True])
def test_a_body_takes_no_more_memory_than_came(fed: bool) -> None:
    body = bytes(range(251)) * (MAX_BODY // 251)
    read = announced(len(body), BodyBudget())
    came = 0
    while came < len(body):
        assert read.next() is None
        assert len(read._body or b"") <= max(FIRST_BYTES, 2 * came)
        assert read.missing() == len(body) - came
        piece = body[came : came + 1_000_000]
        came += len(piece)
        if fed:
            read.feed(piece)
        else:
            fill(read, piece)
    request = read.next()
    assert request is not None
    assert request.body == body


@pytest.mark.parametrize("length", [FREE_BODY_BYTES + 1, FIRST_BYTES])
def test_an_ordinary_body_is_never_copied(length: int) -> None:
    read = announced(length, BodyBudget())
    room = read._body
    fill(read, bytes(length))
    request = read.next()
    assert request is not None
    assert request.body is room


def test_all_bodies_under_way_share_an_allowance() -> None:
    body_budget = BodyBudget(2 * FIRST_BYTES)
    first, second = announced(FIRST_BYTES, body_budget), announced(MAX_BODY, body_budget)
    for refused in (announced(FIRST_BYTES, body_budget), announced(MAX_BODY, body_budget)):
        assert [request.problem[:3] for request in all_of(refused)] == ["503"]
    fill(first, bytes(FIRST_BYTES))
    assert [len(request.body) for request in all_of(first)] == [FIRST_BYTES]
    assert announced(FIRST_BYTES, body_budget).next() is None
    small = announced(FREE_BODY_BYTES, body_budget)
    small.feed(bytes(FREE_BODY_BYTES))
    assert [len(request.body) for request in all_of(small)] == [FREE_BODY_BYTES]
    second.close()
    assert announced(FIRST_BYTES, body_budget).next() is None


def test_a_body_in_hand_counts_until_it_was_answered() -> None:
    body_budget = BodyBudget(2 * FIRST_BYTES)
    read = announced(2 * FIRST_BYTES, body_budget)
    fill(read, bytes(2 * FIRST_BYTES))
    request = read.next()
    assert request is not None
    [refused] = all_of(announced(FIRST_BYTES, body_budget))
    assert refused.problem[:3] == "503"
    assert read.next() is None  # the connection goes on
    assert announced(FIRST_BYTES, body_budget).next() is None


@pytest.mark.parametrize("fed", [False, True])
def test_a_body_that_outgrows_what_is_left_is_given_up(fed: bool) -> None:
    body_budget = BodyBudget(3 * FIRST_BYTES)
    read, other = announced(MAX_BODY, body_budget), announced(2 * FIRST_BYTES, body_budget)
    (read.feed if fed else lambda data: fill(read, data))(bytes(FIRST_BYTES + 1))
    (read.feed if fed else lambda data: fill(read, data))(bytes(3 * FIRST_BYTES))
    assert [request.problem[:3] for request in all_of(read)] == ["503"]
    assert (read.missing(), read._received, read._body) == (0, [], None)
    fill(other, bytes(2 * FIRST_BYTES))  # what the first gave back is there for others
    assert [len(request.body) for request in all_of(other)] == [2 * FIRST_BYTES]
