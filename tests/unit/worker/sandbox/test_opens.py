"""Which files a program opens, as the kernel tells."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest

from distbuild.protocol.errors import UnseenInputs
from distbuild.worker.process import spawn
from distbuild.worker.sandbox import opens as opens_module
from distbuild.worker.sandbox.opens import Opens

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")

Start = Callable[[], Popen[bytes]]


def starting(words: list[str], cwd: Path) -> Start:
    null = os.open(os.devnull, os.O_RDWR)

    def start() -> Popen[bytes]:
        try:
            argv = [os.fsencode(word) for word in words]
            env = {b"PATH": os.fsencode(os.environ["PATH"])}
            return spawn.start(argv, os.fsencode(cwd), env, (null, null, null))
        finally:
            os.close(null)

    return start


def seen(words: list[str], cwd: Path) -> tuple[bytes, ...]:
    opens = Opens(lambda name: name.startswith((b"x", os.fsencode(cwd))))
    process = opens.start(starting(words, cwd))
    process.wait()
    opens.close()
    return opens.names()


def test_what_is_opened_after_the_first_file_of_the_task_is_told(tmp_path: Path) -> None:
    for name in ("x.c", "y z.bin", "ü\n"):
        (tmp_path / name).touch()
    script = "exec 3<x.c; exec 4<'y z.bin'; exec 5<'ü\n'; exec 6<none; exec 7>made"
    names = seen(["/bin/bash", "-c", script.replace("exec 6<none; ", "")], tmp_path)
    assert names == (b"x.c", b"y z.bin", "ü\n".encode())


def test_each_process_begins_with_its_loader(tmp_path: Path) -> None:
    (tmp_path / "x.c").touch()
    names = seen(["/bin/sh", "-c", "cat x.c; cat x.c /etc/passwd; true"], tmp_path)
    assert names == (b"x.c", b"/etc/passwd")


def test_a_name_at_the_end_of_its_page_is_read(tmp_path: Path) -> None:
    assert seen([sys.executable, "-c", "open('x' + '/' * 4000 + 'y')"], tmp_path)


def test_a_program_may_wish_to_die_with_its_parent(tmp_path: Path) -> None:
    """As bubblewrap does; the kernel then kills it when the thread that started it ends."""
    (tmp_path / "x.c").touch()
    ready, writer = os.pipe()
    program = (
        "import ctypes, os, signal, time\n"
        "assert ctypes.CDLL(None).prctl(1, signal.SIGKILL) == 0\n"
        "os.write(1, b'!')\n"
        "time.sleep(0.3)\n"
        "open('x.c')\n"
    )

    def start() -> Popen[bytes]:
        argv = [os.fsencode(sys.executable), b"-c", program.encode()]
        process = spawn.start(argv, os.fsencode(tmp_path), {}, (ready, writer, writer))
        assert os.read(ready, 1) == b"!"
        return process

    opens = Opens(lambda name: name == b"x.c")
    process = opens.start(start)
    assert process.wait() == 0
    opens.close()
    assert b"x.c" in opens.names()
    os.close(ready)
    os.close(writer)


OPENAT2 = """
import ctypes, os, struct
libc = ctypes.CDLL(None)
def openat2(directory, name, flags, resolve=0):
    how = struct.pack("=QQQ", flags, 0, resolve)
    return libc.syscall(437, directory, name, how, len(how))
top = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
open("x.c")
"""


@pytest.mark.parametrize(
    ("call", "more"),
    [
        ("openat2(-100, b'y.c', os.O_RDONLY)", (b"y.c",)),
        ("openat2(top, os.getcwdb() + b'/y.c', os.O_RDONLY)", None),
        ("openat2(top, b'/', os.O_PATH, 0x10)", ()),
        ("openat2(top, b'/', os.O_RDONLY | os.O_DIRECTORY, 0x10)", ()),
        ("openat2(-100, b'y.c', os.O_WRONLY)", ()),
    ],
)
def test_openat2_is_seen_as_openat_is(
    tmp_path: Path, call: str, more: tuple[bytes, ...] | None
) -> None:
    (tmp_path / "x.c").touch()
    (tmp_path / "y.c").touch()
    more = (os.fsencode(tmp_path / "y.c"),) if more is None else more
    names = seen([sys.executable, "-c", OPENAT2 + call], tmp_path)
    assert names[names.index(b"x.c") :] == (b"x.c", *more)


@pytest.mark.parametrize(
    "call",
    [
        "openat2(top, b'y.c', os.O_RDONLY)",
        "openat2(top, b'/y.c', os.O_RDONLY, 0x10)",
        "libc.syscall(437, -100, b'y.c', None, 24)",
    ],
)
def test_an_openat2_that_cannot_be_followed_proves_nothing(tmp_path: Path, call: str) -> None:
    (tmp_path / "x.c").touch()
    (tmp_path / "y.c").touch()
    with pytest.raises(UnseenInputs):
        seen([sys.executable, "-c", OPENAT2 + call], tmp_path)


def test_a_program_that_opens_nothing_of_the_task_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnseenInputs):
        seen(["/bin/true"], tmp_path)


def test_a_program_that_is_not_there_is_an_error_of_its_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Opens(lambda _: True).start(starting(["/none"], tmp_path))


def _confinement() -> list[str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return [line for line in lines if line.startswith(("NoNewPrivs", "Seccomp"))]


def test_this_process_is_not_confined(tmp_path: Path) -> None:
    (tmp_path / "x.c").touch()
    before = _confinement()
    seen(["/bin/cat", "x.c"], tmp_path)
    assert _confinement() == before


def test_a_failure_of_ours_ends_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not wait for an answer for ever."""

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(opens_module, "_process_of", broken)
    (tmp_path / "x.c").touch()
    opens = Opens(lambda _: True)
    process = opens.start(starting(["/bin/cat", "x.c"], tmp_path))
    assert process.wait() != 0
    opens.close()
    with pytest.raises(UnseenInputs, match="broken"):
        opens.names()


def test_a_machine_whose_calls_are_not_known_sees_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with pytest.raises(UnseenInputs, match="vax"):
        Opens(lambda _: True).start(starting(["/bin/true"], tmp_path))
