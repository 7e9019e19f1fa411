"""What a restricted thread can open, and what the processes that it starts can."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from distbuild.worker.sandbox import landlock
from distbuild.worker.sandbox.landlock import Reach, within

pytestmark = pytest.mark.skipif(bool(landlock.obstacle()), reason="needs Landlock")

SYSTEM = (b"/usr", b"/lib", b"/lib64", b"/bin", b"/etc/ld.so.cache")


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    made = {name: tmp_path / name for name in ("read", "write", "secret")}
    for place in made.values():
        place.mkdir()
        (place / "file").write_text(place.name)
    return made


def reach(places: dict[str, Path]) -> Reach:
    return Reach(
        read=(os.fsencode(places["read"]),), run=SYSTEM, write=(os.fsencode(places["write"]),)
    )


def shell(script: str, where: Reach, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return within(
        where,
        lambda: subprocess.run(
            ["/bin/sh", "-c", script], cwd=cwd, capture_output=True, text=True, check=False
        ),
    )


def test_a_process_reads_what_is_named_and_nothing_else(places: dict[str, Path]) -> None:
    top = places["read"].parent
    (places["read"] / "link").symlink_to(places["secret"] / "file")
    done = shell("cat read/file; cat secret/file; cat read/link", reach(places), top)
    assert done.stdout == "read"
    assert done.stderr.count("Permission denied") == 2


def test_a_process_writes_only_where_it_may(places: dict[str, Path]) -> None:
    script = "echo a >write/new; mkdir write/d; rm write/file; echo a >read/new; rm read/file"
    shell(script, reach(places), places["read"].parent)
    assert sorted(os.listdir(places["write"])) == ["d", "new"]
    assert os.listdir(places["read"]) == ["file"]


def test_nothing_is_executed_that_may_only_be_read(places: dict[str, Path]) -> None:
    for name in ("read", "write"):
        program = places[name] / "program"
        program.write_text("#!/bin/sh\necho ran\n")
        program.chmod(0o755)
    done = shell("read/program; write/program", reach(places), places["read"].parent)
    assert "ran" not in done.stdout


def test_only_its_own_thread_is_restricted(places: dict[str, Path]) -> None:
    secret = places["secret"] / "file"
    with pytest.raises(PermissionError):
        within(reach(places), secret.read_text)
    assert secret.read_text() == "secret"


def test_its_result_and_its_error_come_back() -> None:
    assert within(Reach(), lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(Reach(), lambda: 1 // 0)


def test_what_does_not_exist_grants_nothing(places: dict[str, Path]) -> None:
    where = Reach(read=(b"/no/such/place", os.fsencode(places["read"] / "file" / "below")))
    with pytest.raises(PermissionError):
        within(where, (places["read"] / "file").read_text)


def test_a_kernel_without_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "_CREATE_RULESET", 0xFFFF)
    landlock._version.cache_clear()
    try:
        assert "no Landlock" in landlock.obstacle()
    finally:
        landlock._version.cache_clear()


def test_no_network_is_reached() -> None:
    if landlock._version() < 4:
        pytest.skip("needs Linux 6.7")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        socket.create_connection(address).close()
        with pytest.raises(PermissionError):
            within(Reach(), lambda: socket.create_connection(address))
