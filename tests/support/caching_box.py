"""A syncer's mirror, preparation and object cache in this process, without workers.

The executor runs the command itself and reports what a worker would: outputs, and the real paths
and digests of all files that the dependency file lists. So a step costs one compile.
"""

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from distbuild.cache.objects import SHOWN, ObjectCache
from distbuild.command.dependency_file import parse_dependency_file
from distbuild.command.model import CompileCommand, Local, LocalReason
from distbuild.command.relocate import observed
from distbuild.compiler.identity import Identifier
from distbuild.farm.executor import Execution, Task
from distbuild.mirror.digest_cache import DigestCache
from distbuild.mirror.inotify import InotifyWatcher
from distbuild.mirror.live import Mirroring
from distbuild.mirror.scan import Scanner
from distbuild.mirror.watching import MakeWatcher
from distbuild.protocol.codec import pack_inputs, pack_marks, pack_output, unpack_output
from distbuild.protocol.messages import InputFile, OutputFile, ResultRequest, SubmitReply
from distbuild.syncer.compile import Compiles
from distbuild.syncer.compilers import Compilers
from distbuild.syncer.prepare import Preparer
from distbuild.syncer.understand import Submission
from tests.support.cluster import Done

MAX_FILE_BYTES = 1024 * 1024


class Here:
    """An Executor that compiles in this process's view of the files."""

    def __init__(self, work: Path) -> None:
        self._list = work / "list of inputs"
        self.ran = 0
        #: Called with "before" and "after" around each run of a compiler.
        self.meanwhile: Callable[[str], None] = lambda _: None

    def obstacle(self, command: CompileCommand, toolchain: str) -> Local | None:
        """None: everything can be compiled."""

    def execute(self, task: Task) -> Execution:
        """See Executor. Local: an edit took a directory or a file away meanwhile."""
        yield from ()
        try:
            return self._compiled(task)
        except OSError as error:
            return Local(LocalReason.INPUTS_CHANGED, str(error))

    def _compiled(self, task: Task) -> ResultRequest:
        self.ran += 1
        self._list.unlink(missing_ok=True)
        command = task.command
        env = {**task.env, "PWD": command.cwd, "PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        if command.dependencies is not None:
            Path(command.absolute(command.dependencies.path)).unlink(missing_ok=True)
        self.meanwhile("before")
        before = _stamps(task.output_dirs)
        done = subprocess.run(
            observed(command, str(self._list)),
            cwd=command.cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        written = [p for p, s in _stamps(task.output_dirs).items() if before.get(p) != s]
        self.meanwhile("after")
        inputs = self._inputs(task)
        outputs = [OutputFile(os.fsencode(p), 0o644, pack_output(p.read_bytes())) for p in written]
        return ResultRequest(
            "lease",
            "here",
            exit_code=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            outputs=outputs,
            packed_inputs=pack_inputs(inputs) if inputs else b"",
            marks=pack_marks(inputs),
        )

    def _inputs(self, task: Task) -> Sequence[InputFile]:
        own = task.command.dependencies
        path = self._list if own is None else Path(task.command.absolute(own.path))
        if not path.is_file():
            return []
        names = parse_dependency_file(path.read_bytes(), task.command.family)
        reals = dict.fromkeys(
            os.path.realpath(task.command.absolute(name))
            for name in (*names, *task.command.unlisted_files)
        )
        return [
            InputFile(os.fsencode(real), hashlib.sha256(Path(real).read_bytes()).digest())
            for real in reals
        ]


def _stamps(directories: Sequence[str]) -> Mapping[Path, tuple[int, int]]:
    found = {}
    for directory in {os.path.realpath(d) for d in directories}:
        for item in os.scandir(directory):
            if item.is_file(follow_symlinks=False):
                status = item.stat()
                found[Path(item.path)] = (status.st_ino, status.st_mtime_ns)
    return found


class CachingBox:
    """One syncer without its network. ``start`` after ``stop`` is a restart."""

    def __init__(
        self,
        work: Path,
        cache_bytes: int = 10**9,
        make_watcher: MakeWatcher = InotifyWatcher,
    ) -> None:
        self._make_watcher = make_watcher
        work.mkdir(parents=True, exist_ok=True)
        self.database = work / "objects.sqlite"
        self._digests = work / "digests"
        self._bytes = cache_bytes
        self.executor = Here(work)
        self._identifier = Identifier(DigestCache(None))
        self.start()

    def start(self) -> None:
        """Make everything anew but the files below ``work``."""
        self.digests = DigestCache(self._digests)
        self.scanner = Scanner(self.digests, MAX_FILE_BYTES)
        self.mirroring = Mirroring(self.scanner, self._make_watcher, "/nonexistent", lambda: None)
        self.mirroring.ready.set()
        self.cache = ObjectCache(self.database, self._bytes, self.mirroring, self.scanner)
        preparer = Preparer(Compilers(self._identifier), self.mirroring)
        self.compiles = Compiles(preparer, self.executor, self.mirroring, self.scanner, self.cache)

    def stop(self) -> None:
        self.mirroring.stop()
        self.cache.stop()
        self.digests.save()

    def compile(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> SubmitReply:
        """The reply that a wrapper would get."""
        variables = {**os.environ, **env}
        running = self.compiles.compile(Submission(tuple(argv), str(cwd), variables))
        try:
            while True:
                next(running)
        except StopIteration as end:
            reply = end.value
            assert isinstance(reply, SubmitReply)
            return reply

    def settle(self) -> None:
        """Wait until all results are kept."""
        while self.cache.status()["waiting"]:
            time.sleep(0.0005)


def is_hit(reply: SubmitReply) -> bool:
    """Whether the object cache gave the result."""
    return reply.outcome == "done" and reply.worker == SHOWN


def done_of(reply: SubmitReply) -> Done:
    """A reply as a command's end."""
    done = Done(reply.exit_code, reply.stdout, reply.stderr)
    done.files = {os.fsdecode(f.path): unpack_output(f.blob) for f in reply.outputs}
    return done
