import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from flask.testing import FlaskClient

from distbuild.credentials import Credentials, load_credentials
from distbuild.mirror.manifest import Summary
from distbuild.protocol.codec import bundle
from distbuild.protocol.messages import (
    BlobBatch,
    Change,
    Changes,
    ChangesReply,
    CleanRequest,
    FileEntry,
    Message,
    decode,
    encode,
)
from distbuild.protocol.names import client_label
from distbuild.worker.routes import make_app
from distbuild.worker.tree.store import OwnFiles, Store
from distbuild.worker.tree.trees import Trees

CONTENT = b"int a;\n"
ENTRY = FileEntry(hashlib.sha256(CONTENT).digest(), len(CONTENT), 0o644, 5)
OTHER = bundle({ENTRY.digest: b"other"})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def client(tmp_path: Path, store: Store, certs_dir: Path) -> Iterator[FlaskClient]:
    trees = Trees(tmp_path / "sandbox", store, OwnFiles(store, enabled=False))
    credentials = load_credentials(certs_dir, "worker")
    app = make_app(trees, store, credentials, lambda: {"version": "1", "running": 0})
    with app.test_client() as made:
        yield made


@pytest.fixture
def dev(certs_dir: Path) -> dict[str, str]:
    return bearer(load_credentials(certs_dir, "dev"))


def bearer(credentials: Credentials) -> dict[str, str]:
    return {"Authorization": f"Bearer {credentials.token}"}


def listing() -> Changes:
    summary = Summary()
    summary.add(b"/d/a.h", ENTRY)
    return Changes("dev", "e", 0, 3, summary.digest(), [Change(b"/d/a.h", ENTRY)])


def post(client: FlaskClient, path: str, message: Message, headers: dict[str, str]):
    return client.post(path, data=encode(message), headers=headers)


def test_status_needs_no_token(client: FlaskClient) -> None:
    answer = client.get("/status")
    assert (answer.status_code, answer.json) == (200, {"version": "1", "running": 0})


def test_changes_ask_for_blobs_and_then_apply(
    client: FlaskClient, dev: dict[str, str], tmp_path: Path
) -> None:
    answer = post(client, "/api/v1/mirror/changes", listing(), dev)
    assert decode(answer.data, ChangesReply) == ChangesReply("need_blobs", 0, [ENTRY.digest])
    batch = BlobBatch([bundle({ENTRY.digest: CONTENT})])
    assert post(client, "/api/v1/mirror/blobs", batch, dev).status_code == 200
    answer = post(client, "/api/v1/mirror/changes", listing(), dev)
    assert decode(answer.data, ChangesReply) == ChangesReply("applied", 3)
    assert (tmp_path / "sandbox" / client_label("dev") / "d/a.h").read_bytes() == CONTENT
    assert post(client, "/api/v1/clean", CleanRequest("dev"), dev).status_code == 200
    assert list((tmp_path / "sandbox" / client_label("dev")).iterdir()) == []


def test_changes_may_bring_their_contents_along(
    client: FlaskClient, dev: dict[str, str], tmp_path: Path
) -> None:
    changes = msgspec.structs.replace(listing(), bundles=[bundle({ENTRY.digest: CONTENT})])
    answer = post(client, "/api/v1/mirror/changes", changes, dev)
    assert decode(answer.data, ChangesReply) == ChangesReply("applied", 3)
    assert (tmp_path / "sandbox" / client_label("dev") / "d/a.h").read_bytes() == CONTENT


def test_what_is_lacking_is_told_and_the_tree_stays_as_it_is(
    client: FlaskClient, dev: dict[str, str], tmp_path: Path
) -> None:
    answer = post(client, "/api/v1/mirror/lacking", listing(), dev)
    assert decode(answer.data, ChangesReply) == ChangesReply("need_blobs", 0, [ENTRY.digest])
    batch = BlobBatch([bundle({ENTRY.digest: CONTENT})])
    assert post(client, "/api/v1/mirror/blobs", batch, dev).status_code == 200
    answer = post(client, "/api/v1/mirror/lacking", listing(), dev)
    assert decode(answer.data, ChangesReply) == ChangesReply("need_blobs", 0, [])
    assert list((tmp_path / "sandbox" / client_label("dev")).iterdir()) == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/mirror/changes",
        "/api/v1/mirror/lacking",
        "/api/v1/mirror/blobs",
        "/api/v1/clean",
        "/nothing",
    ],
)
def test_a_request_without_the_developers_token_is_refused_unread(
    path: str, client: FlaskClient, certs_dir: Path
) -> None:
    worker = bearer(load_credentials(certs_dir, "worker"))
    wrong = {"Authorization": "Bearer " + "x" * 43}
    for headers in ({}, wrong, worker):
        answer = client.post(path, data=b"\xc1 no MessagePack", headers=headers)
        assert (answer.status_code, answer.text) == (401, "wrong or missing token\n")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("changes", b"\xc1"),
        ("changes", b""),
        ("changes", encode(Changes("../up", "e", 0, 1, b"", []))),
        ("changes", encode(Changes("dev", "e", 0, 1, b"", [Change(b"/../x", ENTRY)]))),
        (
            "changes",
            encode(Changes("d", "e", 1, 2, b"", [], [], [OTHER])),
        ),
        ("lacking", encode(Changes("dev", "e", 0, 1, b"", [Change(b"/../x", ENTRY)]))),
        ("blobs", encode(BlobBatch([OTHER]))),
    ],
)
def test_a_malformed_request_is_answered_with_one_line(
    path: str, body: bytes, client: FlaskClient, dev: dict[str, str]
) -> None:
    answer = client.post(f"/api/v1/mirror/{path}", data=body, headers=dev)
    assert answer.status_code == 400
    assert answer.text.count("\n") == 1


def test_a_body_above_the_limit_is_refused(client: FlaskClient, dev: dict[str, str]) -> None:
    client.application.config["MAX_CONTENT_LENGTH"] = 10
    answer = client.post("/api/v1/mirror/blobs", data=bytes(11), headers=dev)
    assert (answer.status_code, answer.text) == (413, "Request Entity Too Large\n")


def test_a_full_disk_is_said_so(
    client: FlaskClient, dev: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    batch = BlobBatch([bundle({ENTRY.digest: CONTENT})])
    answer = post(client, "/api/v1/mirror/blobs", batch, dev)
    assert answer.status_code == 507
    assert "No space left" in answer.text


def test_an_unknown_path_is_not_found(client: FlaskClient, dev: dict[str, str]) -> None:
    assert client.post("/api/v1/nothing", headers=dev).status_code == 404
