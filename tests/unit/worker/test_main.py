"""What a worker makes once for its home, and what it is called by."""

import hashlib
import os
import re
import stat
import threading
from pathlib import Path

import pytest

from distbuild.config import Home
from distbuild.protocol.codec import pack
from distbuild.protocol.errors import ConfigError, ProtocolError
from distbuild.protocol.messages import LeaseRequest, decode, encode, worker_label
from distbuild.protocol.names import identity_of, worker_name
from distbuild.worker import main as main_module
from distbuild.worker.main import keep_clean, read_identity
from distbuild.worker.tree import store as store_module
from distbuild.worker.tree.store import OwnFiles, Store
from distbuild.worker.tree.trees import Trees
from tests.support.cluster import wait_until


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


def test_an_identity_is_made_once_and_kept_for_its_owner_alone(home: Home) -> None:
    made = read_identity(home)
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert read_identity(home) == made
    kept = home.state / "identity"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert kept.read_text() == made + "\n"


@pytest.mark.parametrize(
    "damaged", [b"", b"../../x", b"A" * 32, b"a" * 31, b"\xff" * 32, b"a" * 32 + b"\r\nX: y", b"\0"]
)
def test_a_damaged_identity_is_made_anew(home: Home, damaged: bytes) -> None:
    (home.state / "identity").write_bytes(damaged)
    made = read_identity(home)
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert made == read_identity(home)


def test_an_identity_is_not_written_through_a_link(home: Home, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (home.state / "identity").symlink_to(precious)
    read_identity(home)
    assert precious.read_text() == "mine"


def test_an_identity_that_cannot_be_kept_is_one_line(home: Home) -> None:
    (home.state / "identity").mkdir()
    with pytest.raises(ConfigError, match="state/identity: cannot be written: "):
        read_identity(home)


def test_copies_of_one_home_have_one_identity_and_two_names() -> None:
    names = {worker_name("a" * 32, os.urandom(8).hex()) for _ in range(2)}
    assert len(names) == 2
    assert {identity_of(name) for name in names} == {"a" * 32}


@pytest.mark.parametrize("host", ["build1", "büild\r\nX: y", "x" * 5000, ""])
def test_a_label_is_made_of_letters_digits_and_a_few_signs(host: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,300}", worker_label(host, 8443))
    assert worker_label("build1", 8443) == "build1:8443"


@pytest.mark.parametrize("label", ["x\r\nDist-Build: local", "a b", "\0", "ü", "x\n", "x" * 301])
def test_a_label_that_is_none_is_refused(label: str) -> None:
    """It stands in a header of the launcher's answer."""
    request = LeaseRequest("a.1", 1, 0.0, [], label=label)
    with pytest.raises(ProtocolError):
        decode(encode(request), LeaseRequest)


def test_the_store_of_a_running_worker_stays_below_its_cap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_module, "CLEAN_S", 0.01)
    monkeypatch.setattr(main_module, "EVICT_S", 0.0)
    monkeypatch.setattr(store_module, "KEEP_RECENT_S", 0)
    store = Store(tmp_path / "store")
    trees = Trees(tmp_path / "trees", store, OwnFiles(store, enabled=False))
    trees.set_aside_old()
    stop = threading.Event()
    cleaner = threading.Thread(target=keep_clean, args=(trees, store, 30_000, stop))
    cleaner.start()
    try:
        for number in range(100):
            content = b"%04d" % number * 500
            store.put(pack(content, hashlib.sha256(content).digest()))
        wait_until(lambda: store.status().bytes <= 30_000, "the store is trimmed")
        store.put(pack(b"last", hashlib.sha256(b"last").digest()))
        assert store.missing([hashlib.sha256(b"last").digest()]) == []
    finally:
        stop.set()
        cleaner.join()
