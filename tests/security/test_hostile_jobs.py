"""A syncer that lies in every field of a job: the worker says why it did not compile, no more.

The jobs come straight to the runner. Whatever is no DistBuildError would be a traceback in the
worker's log and fails a test here.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from distbuild.protocol.codec import pack
from distbuild.protocol.messages import FileEntry, Job, JobFile, ResultRequest, Terminal, Window
from distbuild.worker.process.here import Cancellation
from distbuild.worker.sandbox.base import Sandbox
from tests.support.sandboxes import SANDBOXES, sandbox_of
from tests.unit.worker.devbox import DevBox
from tests.unit.worker.fakes import finished

pytestmark = pytest.mark.compiler

CONTENT = b"int x;\n"
DIGEST = hashlib.sha256(CONTENT).digest()


def file_at(path: bytes, **changes: Any) -> JobFile:
    entry = FileEntry(DIGEST, len(CONTENT), 0o644, 5)
    entry = msgspec.structs.replace(entry, **changes)
    return JobFile(path, entry, pack(CONTENT, DIGEST))


DEEP = b"/a" * 3000
#: What no path may be, or no machine can have.
PATHS = {
    "nul": b"/p/\0x",
    "relative": b"p/x",
    "empty": b"",
    "climbing": b"/p/../../../../../../etc",
    "all climbing": b"/.." * 200 + b"/etc",
    "deep": DEEP,
    "deep but possible": b"/a" * 1900,
    "long name": b"/p/" + b"n" * 300,
    "long": b"/p/" + b"n" * 5000,
    "a line": b"/p/a\nb",
    "a percent sign": b"/p/%s%n %(x)s",
    "no utf-8": b"/p/\xff\xfe",
    "the worker's": b"/proc/self",
    "root": b"/",
    "slashes": b"//p///x//",
    "etc": b"/etc",
    "usr": b"/usr/bin",
}
#: Another file than the command's, in the job.
FILES = {
    "another's content": [file_at(b"/p/y.h", digest=b"x" * 32)],
    "no digest": [file_at(b"/p/y.h", digest=b"")],
    "a wrong size": [file_at(b"/p/y.h", size=2**40)],
    "a size below zero": [file_at(b"/p/y.h", size=-1)],
    "a short size": [file_at(b"/p/y.h", size=3)],
    "an odd mode": [file_at(b"/p/y.h", mode=0o107777)],
    "an odd time": [file_at(b"/p/y.h", mtime_ns=2**62)],
    "a time below zero": [file_at(b"/p/y.h", mtime_ns=-(2**62))],
    "many": [file_at(b"/p/y%d.h" % n) for n in range(3000)],
}
ARGV: dict[str, list[bytes]] = {
    "none": [],
    "empty": [b""],
    "a path": [b"/bin/sh", b"-c", b"touch /tmp/owned"],
    "nul": [b"gcc", b"-c", b"x.c", b"-DX=\0"],
    "nul in the source": [b"gcc", b"-c", b"x\0.c"],
    "plugin": [b"gcc", b"-fplugin=/p/evil.so", b"-c", b"x.c"],
    "programs": [b"gcc", b"-B/p", b"-c", b"x.c"],
    "wrapper": [b"gcc", b"-wrapper", b"/p/evil,x", b"-c", b"x.c"],
    "specs": [b"gcc", b"-specs=/p/evil", b"-c", b"x.c"],
    "dashed specs": [b"gcc", b"--specs=/p/evil", b"-c", b"x.c"],
    "at file": [b"gcc", b"@/etc/passwd", b"-c", b"x.c"],
    "load": [b"clang", b"-Xclang", b"-load", b"-Xclang", b"/p/evil.so", b"-c", b"x.c"],
    "clang plugin": [b"clang", b"-fplugin=/p/evil.so", b"-c", b"x.c"],
    "pass plugin": [b"clang", b"-fpass-plugin=/p/evil.so", b"-c", b"x.c"],
    "config": [b"clang", b"--config", b"/p/evil.cfg", b"-c", b"x.c"],
    "mllvm": [b"clang", b"-mllvm", b"-load=/p/evil.so", b"-c", b"x.c"],
    "offload": [b"gcc", b"-fuse-ld=/p/evil", b"-c", b"x.c"],
    "output elsewhere": [b"gcc", b"-c", b"x.c", b"-o", b"/etc/owned.o"],
    "output above": [b"gcc", b"-c", b"x.c", b"-o", b"../../../../../../../etc/owned.o"],
    "dependencies elsewhere": [b"gcc", b"-c", b"x.c", b"-MD", b"-MF", b"/etc/owned.d"],
    "no source": [b"gcc", b"-c"],
    "long": [b"gcc", b"-c", b"x.c", b"-D" + b"X" * 3_000_000],
    "many": [b"gcc", b"-c", b"x.c", *[b"-DX"] * 200_000],
    "no utf-8": [b"gcc", b"-c", b"x.c", b"-D\xff"],
    "a percent sign": [b"gcc", b"-c", b"x.c", b"-D%s%n=%d"],
}
ENV: dict[str, dict[str, bytes]] = {
    "preload": {"LD_PRELOAD": b"/p/evil.so", "LD_LIBRARY_PATH": b"/p", "LD_AUDIT": b"/p/evil.so"},
    "path": {"PATH": b"/p", "COMPILER_PATH": b"/p", "GCC_EXEC_PREFIX": b"/p/"},
    "nul": {"LANG": b"C\0PATH=/p"},
    "nul in a name": {"LANG\0PATH": b"/p"},
    "an equals sign": {"LANG=C": b"/p"},
    "clang's": {
        "CCC_OVERRIDE_OPTIONS": b"+-fplugin=/p/evil.so",
        "CLANG_CONFIG_FILE_USER_DIR": b"/p",
    },
    "paths": {"CPATH": b"/etc:/root:../..:\0"},
    "temporary": {"TMPDIR": b"/etc"},
    "odd": {"": b"", "LC_ALL": b"../../../p/evil", "TZ": b":/etc/shadow"},
    "long": {"LANG": b"x" * 3_000_000},
}
PROCESSOR = {
    "options": ["-march=native", "-fplugin=/p/evil.so"],
    "specs": ["-march=x %{!x:}", "}\n*cc1:\n-fplugin=/p/evil.so"],
    "nul": ["-march=x\0y"],
    "many": ["-mavx"] * 100_000,
}


def liars() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, path in PATHS.items():
        yield f"cwd: {name}", {"cwd": path}
        yield f"output_dirs: {name}", {"output_dirs": [path]}
        yield f"builtin_dirs: {name}", {"builtin_dirs": [path]}
        yield f"implicit_include: {name}", {"implicit_include": path}
        yield f"files: {name}", {"files": [file_at(path)]}
    yield "output_dirs: many", {"output_dirs": [b"/p/d%d" % n for n in range(300)]}
    for name, files in FILES.items():
        yield f"files: {name}", {"files": files}
    for name, argv in ARGV.items():
        yield f"argv: {name}", {"argv": argv}
    for name, env in ENV.items():
        yield f"env: {name}", {"env": env}
    for name, words in PROCESSOR.items():
        argv = [b"gcc", b"-march=native", b"-c", b"x.c", b"-o", b"x.o"]
        yield f"processor: {name}", {"processor": words, "argv": argv}
    for toolchain in ("", "/bin/sh", "../gcc", "\0", "x" * 5000):
        yield f"toolchain: {toolchain[:9]!r}", {"toolchain": toolchain}
    for lease in ("", "\0", "../x", "x" * 5000):
        yield f"lease_id: {lease[:9]!r}", {"lease_id": lease}
    yield "generation", {"generation": -(2**63)}
    yield "terminal", {"terminal": Terminal(Window(0xFFFF, 0xFFFF), Window(0, 0))}


LIARS = dict(liars())


class Worker:
    """One worker, its honest client's job, and what is around the worker."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.box = DevBox(top / "home")
        self.project = top / "p"
        self.project.mkdir()
        (self.project / "x.c").write_bytes(CONTENT)
        self.box.mirror(self.project)
        job = self.box.job(["gcc", "-c", "x.c", "-o", "x.o"], self.project)
        self.job = msgspec.structs.replace(job, implicit_include=b"")

    def run(self, job: Job, sandbox: Sandbox) -> ResultRequest:
        cancellation = Cancellation()
        try:
            steps = self.box.runner(sandbox).run(job, self.box.tree, cancellation)
            result = finished(steps, cancellation)
        finally:
            cancellation.close()
        assert result is not None
        return result

    def around(self) -> dict[str, tuple[int, ...]]:
        """What no job may touch."""
        places = [Path("/etc"), Path("/"), self.top, self.project]
        found: dict[str, tuple[int, ...]] = {}
        for place in places:
            for path in place.iterdir():
                if path not in (Path("/proc"), Path("/tmp"), Path("/sys"), Path("/dev")):
                    status = path.lstat()
                    found[str(path)] = (status.st_mode, status.st_uid, status.st_ino)
        return found


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(params=SANDBOXES)
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> Sandbox:
    return sandbox_of(request.param, tmp_path)


#: Words that are for the compiler to take or to refuse; those about outputs get what they ask for,
#: in the client's own tree.
COMPILERS_OWN = {
    "argv: many",
    "argv: no utf-8",
    "argv: a percent sign",
    "argv: mllvm",
    "argv: offload",
    "argv: output elsewhere",
    "argv: output above",
    "argv: dependencies elsewhere",
    "processor: many",
}


def may_succeed(name: str) -> bool:
    """What is odd, and yet says nothing wrong of this job; or is ignored."""
    return name.startswith(("env:", "lease_id:", "generation", "terminal", "builtin_dirs:")) or (
        name in COMPILERS_OWN
        or name.startswith(("files: ", "output_dirs:", "cwd: ", "implicit_include:", "argv: long"))
    )


@pytest.mark.in_turn("sandbox", "name", of=3)
@pytest.mark.parametrize("name", LIARS)
def test_a_lie_is_an_error_with_its_reason(worker: Worker, sandbox: Sandbox, name: str) -> None:
    before = worker.around()
    job = msgspec.structs.replace(worker.job, **LIARS[name])
    result = worker.run(job, sandbox)
    assert worker.around() == before
    assert result.error or may_succeed(name), result
    honest = worker.run(worker.job, sandbox)
    assert (honest.error, honest.exit_code, len(honest.outputs)) == ("", 0, 1)
