"""A dev box and a worker in one process: mirrors real directories, compares with local compiles."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distbuild.command.model import CompileCommand
from distbuild.command.parse import parse
from distbuild.command.probe import parse_implicit_include, parse_search_dirs, search_probe
from distbuild.compiler.identity import Identifier
from distbuild.mirror.digest_cache import DigestCache
from distbuild.mirror.manifest import DIRECTORY, WITHHELD, Summary
from distbuild.mirror.roots import trace
from distbuild.protocol.codec import pack
from distbuild.protocol.messages import (
    Change,
    Changes,
    Entry,
    FileEntry,
    Job,
    JobFile,
    ResultRequest,
    SymlinkEntry,
)
from distbuild.worker.compilers import InstalledCompilers
from distbuild.worker.job import JobRunner
from distbuild.worker.process.here import Cancellation
from distbuild.worker.sandbox.base import Sandbox
from distbuild.worker.tree.blob_file import expand
from distbuild.worker.tree.store import OwnFiles, Store
from distbuild.worker.tree.trees import Trees
from tests.support.system_headers import linked_directories
from tests.support.tools import need
from tests.unit.worker.fakes import finished

SOURCES = (".c", ".cc", ".cpp", ".S", ".o")
#: A syncer always sends one, so that no file is asked for it.
_ZONE = {"TZ": "UTC0"}
SEARCH_PATH = os.environ.get("PATH", os.defpath)


def entry_of(path: Path | str) -> Entry:
    """What is at a path of this machine, as a manifest entry."""
    status = os.lstat(path)
    if os.path.islink(path):
        return SymlinkEntry(os.fsencode(os.readlink(path)))
    if os.path.isdir(path):
        return DIRECTORY
    content = Path(path).read_bytes()
    digest = hashlib.sha256(content).digest()
    return FileEntry(digest, len(content), status.st_mode & 0o7777, status.st_mtime_ns)


def listing(top: Path | str) -> dict[bytes, Entry]:
    """``top``, what is in it, and the directories above it; sources are withheld."""
    found: dict[bytes, Entry] = {}
    for directory, folders, files in os.walk(top):
        found[os.fsencode(directory)] = entry_of(directory)
        for name in folders + files:
            path = os.path.join(directory, name)
            held = name.endswith(SOURCES) and not os.path.islink(path)
            found[os.fsencode(path)] = WITHHELD if held else entry_of(path)
    for parent in Path(top).parents:
        if str(parent) != "/":
            found[os.fsencode(parent)] = DIRECTORY
    return found


def summary_of(entries: Mapping[bytes, Entry]) -> bytes:
    """The summary of a whole manifest."""
    summary = Summary()
    for path, entry in entries.items():
        summary.add(path, entry)
    return summary.digest()


@dataclass
class Outcome:
    """All that can be seen of a compile."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    files: dict[bytes, bytes] = field(default_factory=dict)


class DevBox:
    """The mirrored side: entries, generation, and the worker's tree that follows them."""

    def __init__(self, home: Path) -> None:
        self.store = Store(home / "store")
        self.trees = Trees(home / "sandbox", self.store, OwnFiles(self.store))
        self.trees.set_aside_old()
        self.compilers = InstalledCompilers(Identifier(DigestCache(home / "programs")), SEARCH_PATH)
        self.tree = self.trees.tree("dev")
        self.entries: dict[bytes, Entry] = {}
        self.roots: set[bytes] = set()
        self.generation = 0

    def mirror(self, *tops: Path | str) -> None:
        """Bring these directories into the tree, as they are now."""
        wanted = dict(self.entries)
        for top in tops:
            prefix = os.fsencode(top) + b"/"
            wanted = {path: entry for path, entry in wanted.items() if not path.startswith(prefix)}
            wanted |= listing(top)
            self.roots.add(os.fsencode(top))
            for target in linked_directories(top):
                wanted |= listing(target)
                self.roots.add(os.fsencode(target))
        self.become(wanted)

    def mirror_way(self, path: str) -> None:
        """Bring the directories and symlinks on the way of a path into the tree."""
        way = {os.fsencode(step): entry for step, entry in trace(path).entries.items()}
        self.become(self.entries | way)

    def become(self, wanted: dict[bytes, Entry], contents: Mapping[bytes, bytes] = {}) -> None:
        """Bring the tree to ``wanted``; ``contents`` by path for files that are not on disk."""
        paths = sorted(p for p in wanted | self.entries if wanted.get(p) != self.entries.get(p))
        changes = Changes(
            client="dev",
            epoch="e",
            base=self.generation,
            target=self.generation + 1,
            summary=summary_of(wanted),
            entries=[Change(path, wanted.get(path)) for path in paths],
            roots=sorted(self.roots),
        )
        reply = self.tree.apply(changes)
        if reply.state == "need_blobs":
            at = {e.digest: p for p, e in wanted.items() if isinstance(e, FileEntry)}
            for digest in reply.missing:
                path = at[digest]
                content = contents.get(path) or Path(os.fsdecode(path)).read_bytes()
                self.store.put(pack(content, digest))
            reply = self.tree.apply(changes)
        assert reply.state == "applied"
        self.entries, self.generation = wanted, self.generation + 1

    def runner(self, sandbox: Sandbox) -> JobRunner:
        """Runs jobs of this dev box."""
        return JobRunner("worker:1", self.compilers, sandbox, os.fsencode(self.trees.jobs))

    def job(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None) -> Job:
        """The job that a syncer would make of this command."""
        compiler = argv[0]
        need(compiler)
        command = parse(argv, str(cwd), lambda _: None)
        assert isinstance(command, CompileCommand), command
        identity = next(
            t.identity for t in self.compilers.advertised() if t.name == os.path.basename(compiler)
        )
        search = subprocess.run(
            [compiler, *search_probe(command), "-E", "-v", "-"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={"LC_ALL": "C", "PATH": SEARCH_PATH},
            text=True,
            check=True,
        )
        source = (cwd / command.source).resolve()
        entry = entry_of(source)
        assert isinstance(entry, FileEntry)
        return Job(
            lease_id="lease",
            generation=self.generation,
            argv=[os.fsencode(word) for word in argv],
            cwd=os.fsencode(cwd),
            env={name: os.fsencode(value) for name, value in {**_ZONE, **(env or {})}.items()},
            toolchain=identity,
            files=[JobFile(os.fsencode(source), entry, pack(source.read_bytes(), entry.digest))],
            output_dirs=[os.fsencode(d) for d in command.output_dirs if os.path.isdir(d)],
            builtin_dirs=[os.fsencode(d) for d in parse_search_dirs(search.stderr)],
            implicit_include=os.fsencode(parse_implicit_include(search.stdout) or ""),
        )

    def compile(self, sandbox: Sandbox, argv: Sequence[str], cwd: Path) -> ResultRequest:
        """Run the command on the worker."""
        cancellation = Cancellation()
        try:
            steps = self.runner(sandbox).run(self.job(argv, cwd), self.tree, cancellation)
            result = finished(steps, cancellation)
        finally:
            cancellation.close()
        assert result is not None
        return result


def remote_outcome(result: ResultRequest) -> Outcome:
    """A worker's result, to be compared."""
    assert result.error == ""
    files = {
        output.path: b"".join(expand(output.blob.data, output.blob.size))
        for output in result.outputs
    }
    return Outcome(result.exit_code, result.stdout, result.stderr, files)


def local_outcome(argv: Sequence[str], cwd: Path, outputs_below: Path) -> Outcome:
    """The command run here; what it wrote is read and removed again."""
    before = _states(outputs_below)
    env = {"PATH": SEARCH_PATH, "PWD": str(cwd), **_ZONE}
    done = subprocess.run(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    written = [p for p, state in _states(outputs_below).items() if before.get(p) != state]
    files = {path: Path(os.fsdecode(path)).read_bytes() for path in written}
    for path in written:
        os.unlink(path)
    return Outcome(done.returncode, done.stdout, done.stderr, files)


def _states(top: Path) -> dict[bytes, tuple[int, int]]:
    found = {}
    for path in top.rglob("*"):
        if path.is_file():
            found[os.fsencode(path)] = (path.stat().st_mtime_ns, path.stat().st_size)
    return found


def write(path: Path, text: str) -> Path:
    """A file with its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def make_project(top: Path) -> Path:
    """A small project: C and C++ units, headers beside them and in ``inc``, a build directory."""
    shutil.rmtree(top, ignore_errors=True)
    write(top / "inc/shape.h", "#pragma once\n#include <stddef.h>\nstruct shape { size_t n; };\n")
    write(top / "inc/deep/inner.hpp", '#pragma once\n#include "../shape.h"\ninline int g = 3;\n')
    write(top / "src/local.h", "#define LOCAL __FILE__\n")
    write(
        top / "src/unit.c",
        '#include <stdio.h>\n#include <assert.h>\n#include "local.h"\n#include "shape.h"\n'
        "int f(struct shape *s) { assert(s); puts(LOCAL); return (int)s->n + __LINE__; }\n"
        'const char *stamp(void) { return __FILE__ " " __TIMESTAMP__; }\n',
    )
    write(
        top / "src/unit.cc",
        "#include <vector>\n#include <string>\n#include <deep/inner.hpp>\n"
        "std::vector<std::string> names() { int unused; return {__FILE__, std::to_string(g)}; }\n",
    )
    write(top / "src/bad.c", '#include "local.h"\n#include "no_such.h"\nint x;\n')
    write(top / "src/warn.c", '#include "local.h"\nint h(void) { int a; LOCAL + 1; return 1; }\n')
    write(top / "src/asm.S", '#include "local.h"\n.globl q\nq: nop\n')
    (top / "build").mkdir()
    return top
