"""Both sides of TLS in memory, without a socket."""

import os
import ssl
from pathlib import Path

import pytest

from distbuild.http.transport import TlsPump, server_context
from tests.unit.http.test_transport import Taken


class Sides:
    """A client's pump and a server's, and what each has decrypted."""

    def __init__(self, certs: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.client = TlsPump(context, "any")
        self.server = TlsPump(server_context(certs / "cert.pem", certs / "key.pem"))

    def shake_hands(self) -> None:
        while not (self.client.shake_hands() & self.server.shake_hands()):
            move(self.client, self.server)
            move(self.server, self.client)
        move(self.client, self.server)


def move(one: TlsPump, other: TlsPump, size: int = -1) -> None:
    """Carry encrypted bytes, at most ``size``."""
    other.incoming.write(one.outgoing.read(size))


@pytest.fixture
def sides(certs_dir: Path) -> Sides:
    return Sides(certs_dir / "dev")


@pytest.mark.parametrize("is_from_client", [True, False])
@pytest.mark.parametrize("size", [1, 16_384, 100_000])
def test_bytes_go_both_ways(sides: Sides, is_from_client: bool, size: int) -> None:
    sides.shake_hands()
    ends = (sides.client, sides.server) if is_from_client else (sides.server, sides.client)
    data, taken = os.urandom(size), Taken()
    ends[0].write(data)
    move(*ends)
    assert ends[1].unpack(taken) is True
    assert taken.data == data
    assert ends[1].unpack(taken) is None


def test_a_handshake_and_a_record_may_come_byte_by_byte(sides: Sides) -> None:
    while not (sides.client.shake_hands() & sides.server.shake_hands()):
        move(sides.client, sides.server, 1)
        move(sides.server, sides.client, 1)
    while sides.client.outgoing.pending:
        move(sides.client, sides.server, 1)
    sides.server.write(b"data")
    taken = Taken()
    while sides.server.outgoing.pending:
        assert sides.client.unpack(taken) is None
        move(sides.server, sides.client, 1)
    assert sides.client.unpack(taken) is True
    assert taken.data == b"data"


def test_an_end_with_the_last_bytes_is_seen_after_them(sides: Sides) -> None:
    sides.shake_hands()
    sides.server.write(b"last")
    sides.server.end()
    move(sides.server, sides.client)
    taken = Taken()
    assert sides.client.unpack(taken) is True
    assert (taken.data, sides.client.has_ended) == (b"last", True)
    assert sides.client.unpack(taken) is False


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", bytes(100)], ids=["HTTP", "zeros"])
def test_noise_is_an_error_with_an_alert(sides: Sides, noise: bytes) -> None:
    sides.server.incoming.write(noise)
    with pytest.raises(ssl.SSLError):
        sides.server.shake_hands()
    assert not sides.server.is_open
    sides.server.end()  # does nothing


def test_noise_after_the_handshake_is_an_error(sides: Sides) -> None:
    sides.shake_hands()
    sides.client.incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError):
        sides.client.unpack(Taken())
    assert sides.client.outgoing.pending  # the alert
