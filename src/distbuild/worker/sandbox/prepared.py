"""Makes namespaces with the mounts that jobs share, and keeps them for later jobs.

bubblewrap makes one; descriptors of this process keep it when bubblewrap has ended, so that nothing
of it outlives the worker. ``enter`` runs a job's compiler in it, with mounts of the job's own.
"""

import contextlib
import json
import os
import select
import signal
import stat
import subprocess
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from distbuild.protocol.errors import InfrastructureError
from distbuild.worker.process import spawn
from distbuild.worker.process.limits import Completed
from distbuild.worker.process.posix import pipe, start
from distbuild.worker.sandbox import enter
from distbuild.worker.sandbox.mounts import MountPlan
from distbuild.worker.sandbox.view import SharedView, base_plan
from distbuild.worker.tree.paths import is_within

#: bubblewrap's options for every namespace, before its mounts.
CONFINED = b"--unshare-all --die-with-parent --new-session --cap-drop ALL".split()
#: Namespaces for other views and clients are made anew when there are more.
MAX_KEPT = 32
#: Says that the mounts are made, and waits until the descriptors are open.
_WAITING = (b"/bin/sh", b"-c", b"echo; read line")
_READ_BYTES = 4096
_MAKE_S = 20.0


class PreparedNamespace:
    """The namespaces of a view by their descriptors, in the order of ``enter.NAMESPACES``.

    They are closed, and so the namespaces freed, with the last reference to this object."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self.descriptors = tuple(descriptors)
        weakref.finalize(self, _close, self.descriptors)


class PreparedNamespaces:
    """Keeps the namespaces of the last views. Thread-safe. ``bwrap`` is bubblewrap's path."""

    def __init__(self, bwrap: bytes, most: int = MAX_KEPT) -> None:
        self._bwrap = bwrap
        self._most = most
        self._kept: OrderedDict[object, PreparedNamespace] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, view: SharedView) -> PreparedNamespace:
        """The namespace of a view, made if there is none or files that it shows were replaced.

        Raises InfrastructureError if it cannot be made."""
        with self._lock:
            key = (view.words, tuple(map(_identity, view.places)))
            found = self._kept.get(key)
            if found is None:
                found = make(self._bwrap, view.words)
                self._kept[key] = found
                if len(self._kept) > self._most:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return found

    def forget(self, namespace: PreparedNamespace) -> None:
        """Use a namespace for no later job: one could not be started in it."""
        with self._lock:
            for key in [key for key, kept in self._kept.items() if kept is namespace]:
                del self._kept[key]


def make(bwrap: bytes, words: Sequence[bytes]) -> PreparedNamespace:
    """A new namespace with these mounts, options of bubblewrap. Raises InfrastructureError."""
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as writers:
            # The process reads from a pipe until this function closes it.
            asked = pipe(stack, stack)
            said, errors, report = (pipe(stack, writers) for _ in range(3))
            argv = [bwrap, b"--json-status-fd", b"%d" % report.writer, *CONFINED, *words, b"--"]
            streams = (asked.reader, said.writer, errors.writer)
            process = _started([*argv, *_WAITING], streams, report.writer)
        stack.callback(process.wait)
        stack.callback(process.kill)
        if not _is_readable(said.reader):
            raise InfrastructureError("cannot make a namespace: bubblewrap hangs")
        if not os.read(said.reader, 1):
            raise InfrastructureError(f"cannot make a namespace: {_last_line(errors.reader)}")
        return PreparedNamespace(_opened(os.read(report.reader, _READ_BYTES)))


def end_leftovers(jobs: bytes) -> None:
    """End what an earlier process of this worker left of bubblewraps that show ``jobs``.

    A bubblewrap that is killed in its first moment has a child that waits for it for ever."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            is_ours = any(is_within(word, jobs) for word in words[1:])
            if is_ours and os.path.basename(words[0]) == b"bwrap":
                os.kill(int(pid), signal.SIGKILL)


def _started(
    argv: Sequence[bytes], streams: tuple[int, int, int], report: int
) -> subprocess.Popen[bytes]:
    try:
        return spawn.start(argv, b"/", {}, streams, report)
    except (OSError, ValueError) as error:
        raise InfrastructureError(f"cannot start {os.fsdecode(argv[0])}: {error}") from error


def _last_line(errors: int) -> str:
    text = os.read(errors, _READ_BYTES).decode(errors="replace").strip()
    return text.splitlines()[-1] if text else "it does not say why"


def obstacle(bwrap: str, program: Path | None) -> str:
    """Why commands cannot be run in a prepared namespace here; "" if they can. Tries it."""
    if program is None:
        return "no C compiler works here"
    changes = [*enter.one(b"proc", b"/proc"), *enter.one(b"tmpfs", b"/tmp")]
    try:
        script = b"exec >/tmp/made && test -e /proc/self/exe"
        completed = _tried(bwrap, program, base_plan(), changes, script)
    except InfrastructureError as error:
        return str(error)
    if completed.status == 0:
        return ""
    return f"a namespace cannot be entered: {completed.stderr.decode(errors='replace').strip()}"


def has_layers(bwrap: str, program: Path, directory: str) -> bool:
    """Whether directories on the disk of this one can be shown with a layer over them. Tries it."""
    try:
        with tempfile.TemporaryDirectory(dir=directory) as work:
            return _shows_layers(bwrap, program, Path(work))
    except (OSError, InfrastructureError):
        return False


def _shows_layers(bwrap: str, program: Path, work: Path) -> bool:
    """Whether an overlay in this empty directory hides, keeps and protects what it should."""
    shown = b"/.dist_build"
    below, layer = work / "below", work / "up"
    for made in (below, layer, work / "work"):
        made.mkdir()
    (below / "old").touch()
    os.mknod(layer / "hidden", stat.S_IFCHR)
    plan = base_plan()
    plan.bind(shown, os.fsencode(work), writable=True)
    changes = enter.overlay(shown + b"/below", shown)
    script = b"cd /.dist_build/below && rm old && echo >new"
    completed = _tried(bwrap, program, plan, changes, script)
    return completed.status == 0 and (layer / "new").exists() and (below / "old").exists()


def _tried(
    bwrap: str, program: Path, plan: MountPlan, changes: Sequence[bytes], script: bytes
) -> Completed:
    """The result of a shell script in a namespace with these mounts, after these operations."""
    namespace = make(os.fsencode(bwrap), plan.arguments())
    command = (b"/bin/sh", b"-c", script)
    argv = enter.arguments(
        os.fsencode(program), namespace.descriptors, spawn.limits(), changes, command
    )
    running = start(argv, b"/", {})
    try:
        _is_readable(running.descriptors()[-1])
    finally:
        completed = running.finish("")
    return completed


def _is_readable(descriptor: int) -> bool:
    """Wait for some time until a descriptor can be read; whether it can."""
    # Not select(2), which knows no descriptor above 1,023.
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * _MAKE_S))


def _opened(report: bytes) -> list[int]:
    """Descriptors of the namespaces of the process that bubblewrap reports."""
    with contextlib.ExitStack() as stack:
        opened = []
        try:
            pid = int(json.loads(report.splitlines()[0])["child-pid"])
            for name in enter.NAMESPACES:
                descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                opened.append(descriptor)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InfrastructureError(f"cannot keep a namespace: {error}") from error
        stack.pop_all()
        return opened


def _identity(path: bytes) -> tuple[int, int] | None:
    """A file itself, not what a symlink leads to; None: there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
