"""Run by Windows' Python: a process in a job object, and what becomes of it. Says whether all is
as it has to be."""

import ctypes
import json
import os
import queue
import sys
import time
from collections.abc import Callable

sys.path.insert(0, sys.argv[1])

from distbuild.protocol.errors import InfrastructureError
from distbuild.worker.process.here import Cancellation, Completed, Watcher, limit_descendants, start

PYTHON = os.fsencode(sys.executable)
SLEEPER = f"import subprocess; p = subprocess.Popen([{sys.executable!r}, '-c', {{!r}}])"
PARENT = SLEEPER.format("import time; time.sleep(100)") + "; print(p.pid, flush=True); "
WORDS = ['a "b" c\\', "", '/Fo"build/"', "C:\\x y\\", "%PATH%", "\u00e4\u20ac"]
LIMIT_S = 15.0


def run(
    code: str, *words: str, timeout_s: float = 60.0, cancel_s: float | None = None
) -> Completed:
    """What becomes of a Python with this code."""
    cancellation, ended = Cancellation(), queue.Queue[str]()
    watcher = Watcher()
    argv = [PYTHON, b"-c", os.fsencode(code), *map(os.fsencode, words)]
    running = start(argv, os.getcwd(), {b"PYTHONIOENCODING": b"utf-8"})
    watcher.watch(running, cancellation, ended.put, timeout_s)
    if cancel_s is not None:
        time.sleep(cancel_s)
        cancellation.set()
    completed = running.finish(ended.get(timeout=60.0))
    watcher.close()
    return completed


def is_alive(pid: int) -> bool:
    """Whether a process is."""
    synchronize, timed_out = 0x100000, 258
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 - only there
    handle = kernel.OpenProcess(synchronize, False, pid)
    return bool(handle) and kernel.WaitForSingleObject(handle, 0) == timed_out


def words() -> None:
    """Every word arrives as it is, and nothing of our environment does."""
    os.environ["SECRET"] = "x"
    done = run("import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))", *WORDS)
    got, env = json.loads(done.stdout)
    assert got == WORDS, got
    assert "SECRET" not in env
    assert "SYSTEMROOT" in env


def exit_code() -> None:
    """The exit code, and both streams."""
    done = run("import sys; print('out'); sys.stderr.write('err'); sys.exit(3)")
    assert done == Completed(3, b"out\r\n", b"err"), done


def exception() -> None:
    """An access violation is no exit code."""
    code = "import ctypes; ctypes.windll.kernel32.ExitProcess(ctypes.c_uint(0xC0000005))"
    assert run(code).status == 0xC0000005 - (1 << 32)


def timeout() -> None:
    """What takes too long is ended."""
    assert run("import time; time.sleep(100)", timeout_s=1.0).stopped == "timeout"


def output() -> None:
    """So is what says too much."""
    done = run("while True: print('x' * 1000000)")
    assert done.stopped == "output"
    assert len(done.stdout) < 70_000_000


def cancelled() -> None:
    """With all that it has started, and at once."""
    began = time.monotonic()
    done = run(PARENT + "p.wait()", cancel_s=3.0)
    assert done.stopped == "cancelled"
    assert time.monotonic() - began < LIMIT_S
    assert not is_alive(int(done.stdout))


def orphan() -> None:
    """What a compiler has left running ends with it."""
    done = run(PARENT)
    assert (done.stopped, done.status) == ("", 0)
    assert not is_alive(int(done.stdout))


def missing() -> None:
    """A program that is not there is our trouble."""
    said = ""
    try:
        start([b"C:\\nothing.exe"], os.getcwd(), {})
    except InfrastructureError as error:
        said = str(error)
    assert "nothing.exe" in said


if __name__ == "__main__":
    limit_descendants()
    cases: dict[str, Callable[[], None]] = {
        case.__name__: case
        for case in (words, exit_code, exception, timeout, output, cancelled, orphan, missing)
    }
    cases[sys.argv[2]]()
    print(json.dumps("as expected"))
