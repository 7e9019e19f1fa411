"""The codes with which build machines join."""

import stat
import threading
from pathlib import Path

import pytest

from distbuild.joining import (
    REMEMBERED_S,
    SECRET_BYTES,
    VALID_S,
    Code,
    Codes,
    parse_code,
    pin_of,
)
from distbuild.protocol.errors import ConfigError

CERTIFICATE = b"a certificate"


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def codes(tmp_path: Path, clock: Clock) -> Codes:
    return Codes(tmp_path / "certs" / "codes.json", clock)


def test_a_code_is_read_as_it_is_shown(codes: Codes) -> None:
    code = codes.make(CERTIFICATE)
    assert parse_code(code.text) == code
    assert parse_code(f" {code.text.lower().replace('-', '')}\n") == code
    assert code.pin == pin_of(CERTIFICATE)
    assert 8 * len(code.secret) >= 64


@pytest.mark.parametrize("text", ["", "AAAAA", "1" * 40, "A" * 41, "é" * 40, "A" * 48])
def test_another_text_is_no_code(text: str) -> None:
    with pytest.raises(ConfigError, match=r"copy all of it.*setup --invite"):
        parse_code(text)


def test_a_code_is_accepted_once(codes: Codes) -> None:
    secret = codes.make(CERTIFICATE).secret
    assert [codes.look(secret), codes.look(secret)] == ["valid", "valid"]
    assert [codes.use(secret), codes.use(secret), codes.look(secret)] == ["valid", "used", "used"]


def test_a_code_expires(codes: Codes, clock: Clock) -> None:
    secret = codes.make(CERTIFICATE).secret
    clock.now += VALID_S - 1
    assert codes.look(secret) == "valid"
    clock.now += 1
    assert codes.use(secret) == "expired"
    clock.now += REMEMBERED_S
    assert codes.use(secret) == "wrong"


def test_another_secret_is_wrong(codes: Codes) -> None:
    assert codes.use(bytes(SECRET_BYTES)) == "wrong"
    codes.make(CERTIFICATE)
    assert codes.use(bytes(SECRET_BYTES)) == "wrong"


def test_only_the_owner_can_read_the_file_and_it_has_no_secret(
    codes: Codes, tmp_path: Path
) -> None:
    code = codes.make(CERTIFICATE)
    path = tmp_path / "certs" / "codes.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert code.secret.hex() not in text
    assert code.text not in text


def test_of_many_at_the_same_moment_one_is_accepted(codes: Codes) -> None:
    secret = codes.make(CERTIFICATE).secret
    verdicts: list[str] = []
    threads = [
        threading.Thread(target=lambda: verdicts.append(codes.use(secret))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(verdicts) == ["used"] * 7 + ["valid"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff", b'[{"sha256": "\xc3\xa9", "expires": 9e99}]']
)
def test_a_damaged_file_accepts_nothing(codes: Codes, tmp_path: Path, content: bytes) -> None:
    secret = codes.make(CERTIFICATE).secret
    (tmp_path / "certs" / "codes.json").write_bytes(content)
    assert codes.use(secret) == "wrong"
    assert codes.use(codes.make(CERTIFICATE).secret) == "valid"


def test_a_pin_is_of_one_certificate() -> None:
    assert Code(b"s" * SECRET_BYTES, pin_of(b"one")) != Code(b"s" * SECRET_BYTES, pin_of(b"two"))
