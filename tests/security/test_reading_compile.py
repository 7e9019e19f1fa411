"""A job reads no file of the worker's but its own client's tree and the compiler's installation.

The assembler takes in any file that a source names, and diagnostics quote what is no C. The job
comes straight to the worker, as a hostile syncer would send it.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from distbuild.protocol.messages import ResultRequest, SymlinkEntry
from distbuild.protocol.names import client_label
from distbuild.worker.process.here import Cancellation
from distbuild.worker.sandbox.base import Sandbox
from distbuild.worker.sandbox.plain import PlainSandbox
from distbuild.worker.tree.blob_file import expand
from tests.support.sandboxes import SANDBOXES, sandbox_of
from tests.unit.worker.devbox import SEARCH_PATH, DevBox
from tests.unit.worker.fakes import finished

pytestmark = pytest.mark.compiler

MARKER = "THE_SECRET_OF_ANOTHER"
INLINE = '__asm__(".section .data\\n.incbin \\"{path}\\"");\nint x;\n'
#: How a source takes a file in, and the name of such a source.
MEANS = {
    "inline": ("x.c", INLINE),
    "asm": ("x.S", '.data\n.incbin "{path}"\n'),
    "asm include": ("x.S", '.include "{path}"\n'),
    "asm macro": ("x.S", '.macro m a\n.inc\\a "{path}"\n.endm\n.data\nm bin\n'),
    "include": ("x.c", '#include "{path}"\n'),
}
COMPILERS = ("gcc", "clang")


class Hostile:
    """A worker with secrets, and a client that wants them."""

    def __init__(self, top: Path) -> None:
        self.home = top / "home"
        self.box = DevBox(self.home)
        self.project = top / "p"
        self.project.mkdir()
        for name in ("certs/worker/key.pem", "certs/worker/token", "config.json", "logs/log"):
            self.plant(self.home / name)
        self.box.trees.tree("other")
        self.plant(self.home / "sandbox" / client_label("other") / "src/secret.h")
        self.plant(self.home / "sandbox/.jobs/99/x.o")
        self.plant(self.home / "store/ab/cdef")
        self.plant(top / "elsewhere")
        self.environ = subprocess.Popen(["sleep", "600"], env={"MARKER": MARKER})

    @staticmethod
    def plant(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{MARKER} no C\n")

    def compile(self, sandbox: Sandbox, compiler: str, means: str, path: str) -> ResultRequest:
        name, text = MEANS[means]
        (self.project / name).write_text(text.replace("{path}", path))
        self.box.mirror(self.project)
        job = self.box.job([compiler, "-c", name, "-o", "x.o"], self.project)
        job = msgspec.structs.replace(job, implicit_include=b"")
        cancellation = Cancellation()
        try:
            steps = self.box.runner(sandbox).run(job, self.box.tree, cancellation)
            result = finished(steps, cancellation)
        finally:
            cancellation.close()
        assert result is not None
        return result


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    made = Hostile(tmp_path_factory.mktemp("hostile"))
    yield made
    made.environ.kill()
    made.environ.wait()


@pytest.fixture(params=SANDBOXES)
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> Sandbox:
    return sandbox_of(request.param, tmp_path)


def wanted(hostile: Hostile) -> list[str]:
    """Spellings of what is not the client's."""
    home, top = hostile.home, hostile.home.parent
    climb = "../" * 60
    secrets = [path for path in home.rglob("*") if path.is_file() and MARKER in text_of(path)]
    assert len(secrets) == 7
    found = [str(path) for path in secrets]
    found += [climb[:-1] + str(path) for path in secrets]
    found += [f"{top}/p/../home/certs/worker/key.pem", "../home/certs/worker/token"]
    # From the client's tree, where a plain worker runs the compiler.
    here = home / "sandbox" / client_label("dev") / str(hostile.project).lstrip("/")
    found += [os.path.relpath(path, here) for path in secrets]
    found += [str(top / "elsewhere"), "link", "climbing", "directory/certs/worker/key.pem"]
    pid = hostile.environ.pid
    found += [f"/proc/{pid}/environ", f"/proc/{os.getpid()}/environ", "/proc/1/environ"]
    found += [f"/proc/{pid}/root{home}/config.json", f"/proc/self/root{home}/config.json"]
    return [*found, "/proc/self/cwd/../home/config.json", f"/dev/fd/../../..{home}/config.json"]


def text_of(path: Path) -> str:
    return path.read_text(errors="replace")


def add_links(hostile: Hostile) -> None:
    """Symlinks of the tree that would lead out of it."""
    links = {
        "link": str(hostile.home / "config.json"),
        "climbing": "../" * 60 + str(hostile.home / "config.json"),
        "directory": str(hostile.home),
    }
    for name, target in links.items():
        path = hostile.project / name
        if not path.is_symlink():
            path.symlink_to(target)
    hostile.box.mirror(hostile.project)
    top = os.fsencode(hostile.project)
    assert isinstance(hostile.box.entries[top + b"/link"], SymlinkEntry)


def said(result: ResultRequest) -> bytes:
    """All that comes back to the client."""
    outputs = [b"".join(expand(o.blob.data, o.blob.size)) for o in result.outputs]
    return b"\n".join([result.stdout, result.stderr, result.error.encode(), *outputs])


@pytest.mark.in_turn("sandbox", "means", "compiler", of=3)
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("means", MEANS)
def test_a_job_has_nothing_of_the_workers_and_other_clients_files(
    hostile: Hostile,
    sandbox: Sandbox,
    means: str,
    compiler: str,
    require_tool: Callable[[str], str],
) -> None:
    require_tool(compiler)
    add_links(hostile)
    # Every spelling by the shortest means; of the others a file by each kind of spelling.
    for path in wanted(hostile)[:: 1 if means == "inline" else 5]:
        result = hostile.compile(sandbox, compiler, means, path)
        assert MARKER.encode() not in said(result), path


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/hostname", "/proc/self/environ"]
)
def test_nor_of_the_machines(
    hostile: Hostile,
    sandbox: Sandbox,
    compiler: str,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
    require_tool: Callable[[str], str],
) -> None:
    require_tool(compiler)
    if not os.access(path, os.R_OK):
        pytest.skip(f"this user may not read {path} anyway")
    monkeypatch.setenv("THE_WORKER_S", MARKER)
    lines = [line for line in Path(path).read_bytes().splitlines()[:1] if len(line) > 3]
    for means in ("inline", "include"):
        result = hostile.compile(sandbox, compiler, means, path)
        assert MARKER.encode() not in said(result)
        assert not any(line in said(result) for line in lines)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_its_own_files_it_reads(
    hostile: Hostile, sandbox: Sandbox, compiler: str, require_tool: Callable[[str], str]
) -> None:
    """What is refused above is refused for what it is, not because nothing can be read."""
    require_tool(compiler)
    (hostile.project / "own.h").write_text("own content 4711\n")
    (hostile.project / "own").symlink_to("own.h")
    for path in ("own.h", "own", "./../p/own.h"):
        result = hostile.compile(sandbox, compiler, "inline", path)
        assert (result.error, result.exit_code) == ("", 0), result.stderr
        assert b"own content 4711" in said(result)
    (hostile.project / "own").unlink()


def test_without_confinement_only_the_assembler_s_own_list_stops_it(hostile: Hostile) -> None:
    """Two mechanisms keep a file of the worker's out of an object: each of them has to hold."""
    path = str(hostile.home / "certs/worker/key.pem")
    unconfined = hostile.compile(PlainSandbox(SEARCH_PATH, confined=False), "gcc", "inline", path)
    assert "may be the worker's" in unconfined.error
    confined = hostile.compile(PlainSandbox(SEARCH_PATH), "gcc", "inline", path)
    assert (confined.error, confined.exit_code) == ("", 1)
    assert b"ssembler messages" in confined.stderr
    assert MARKER.encode() not in said(confined)
