"""Which compiler a driver is: all that it reads besides its programs is part of that.

Each case is a machine that differs from this one in a single file.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import SRC, Cluster
from tests.support.namespaces import HERE, added, replaced
from tests.support.tools import absent, need, need_configured

pytestmark = pytest.mark.compiler

_IDENTIFY = """
import sys
from pathlib import Path
from distbuild.mirror.digest_cache import DigestCache
from distbuild.compiler.identity import Identifier
identifier = Identifier(DigestCache(Path(sys.argv[1])))
print(identifier.identify(sys.argv[2]).digests())
"""


def identify(driver: str, memory: Path, view: list[str]) -> str:
    """A compiler's identity for a process that sees the file system in this view."""
    command = [*view, sys.executable, "-c", _IDENTIFY, str(memory), driver]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(SRC), "PATH": "/usr/bin:/bin"}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def ask(driver: str, *options: str) -> str:
    done = subprocess.run([driver, *options], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def library(program: str, name: str) -> Path:
    """The library with this name that a program loads."""
    lines = ask("ldd", program).splitlines()
    found = next((line.split()[2] for line in lines if line.strip().startswith(name)), None)
    if found is None:
        absent(f"{program} does not load {name}")
    return Path(str(found))


def program(driver: str, name: str) -> Path:
    """A gcc's own program of this name."""
    path = Path(ask(driver, f"-print-prog-name={name}"))
    if not path.is_absolute():
        absent(f"{driver} has no {name}")
    return path


def parts(driver: str) -> Path:
    """The directory of a gcc's own parts."""
    return Path(ask(driver, "-print-libgcc-file-name")).parent


def above(driver: str) -> Path:
    """Where a gcc of this machine has what is for all its versions."""
    return parts(driver).parent


def tools(driver: str) -> Path:
    machine = ask(driver, "-dumpmachine")
    return Path(f"{parts(driver)}/../../../../{machine}/lib/specs").resolve()


def beside(driver: str, name: str) -> Path:
    return Path(driver).resolve().parent / name


def called(compiler: str) -> str:
    """The compiler's name here; a configured one is the first that reads configuration files."""
    kind, _, name = compiler.rpartition(" ")
    return need_configured(name) if kind else name


def one_byte_more(path: Path, directory: Path) -> Path:
    """A copy that works as its original does."""
    copy = directory / "content"
    copy.write_bytes(path.read_bytes() + b"\0")
    copy.chmod(0o755)
    return copy


def text(content: str) -> Callable[[Path, Path], Path]:
    def write(_: Path, directory: Path) -> Path:
        (directory / "content").write_text(content)
        return directory / "content"

    return write


SPECS = "*cc1_options:\n+ -DFROMSPECS\n\n"
CFG = "-DFROMCFG\n"

#: What is changed, the compiler that reads it, its path, and what it is then.
Case = tuple[str, Callable[[str], Path], Callable[[Path, Path], Path]]
CASES: dict[str, Case] = {
    "objective-c": ("gcc", lambda gcc: program(gcc, "cc1obj"), one_byte_more),
    "specs": ("gcc", lambda gcc: parts(gcc) / "specs", text(SPECS)),
    "specs of all versions": ("gcc", lambda gcc: above(gcc) / "specs", text(SPECS)),
    "specs of the tools": ("gcc", tools, text(SPECS)),
    "specs of g++": ("g++", lambda gcc: parts(gcc) / "specs", text(SPECS)),
    "specs of a cross compiler": (
        "aarch64-linux-gnu-gcc",
        lambda gcc: parts(gcc) / "specs",
        text(SPECS),
    ),
    "assembler": ("gcc", lambda _: Path(need("as")), one_byte_more),
    "assembler of clang": ("clang", lambda _: Path(need("as")), one_byte_more),
    "bfd": ("gcc", lambda _: library(need("as"), "libbfd"), one_byte_more),
    "libc": (
        "gcc",
        lambda gcc: library(ask(gcc, "-print-prog-name=cc1"), "libc.so"),
        one_byte_more,
    ),
    "mpfr": (
        "gcc",
        lambda gcc: library(ask(gcc, "-print-prog-name=cc1"), "libmpfr"),
        one_byte_more,
    ),
    "libc of clang": ("clang", lambda clang: library(clang, "libc.so"), one_byte_more),
    "libstdc++ of clang": ("clang", lambda clang: library(clang, "libstdc++"), one_byte_more),
    "clang.cfg": ("configured clang", lambda clang: beside(clang, "clang.cfg"), text(CFG)),
    "clang++.cfg": ("configured clang++", lambda clang: beside(clang, "clang++.cfg"), text(CFG)),
    "cfg of a triple": (
        "configured clang",
        lambda clang: beside(clang, "x86_64-pc-linux-gnu.cfg"),
        text(CFG),
    ),
    "cfg of another target": (
        "configured clang",
        lambda clang: beside(clang, "armv7-unknown-linux-gnueabihf-clang.cfg"),
        text(CFG),
    ),
    "cfg of clang-cl": (
        "configured clang-cl",
        lambda clang: beside(clang, "clang-cl.cfg"),
        text(CFG),
    ),
    # With -no-canonical-prefixes.
    "cfg beside the name": (
        "configured clang",
        lambda clang: Path(clang).with_name("clang.cfg"),
        text(CFG),
    ),
}


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digests by the files' states: hashing a whole LLVM for each case takes long."""
    return tmp_path_factory.mktemp("digests") / "memory"


@pytest.mark.in_turn("name")
@pytest.mark.parametrize("name", CASES)
def test_a_file_that_the_compiler_reads_makes_it_another_one(
    name: str, memory: Path, tmp_path: Path
) -> None:
    need("bwrap")
    compiler, place, content = CASES[name]
    driver = need(called(compiler))
    path = place(driver)
    words = (replaced if path.exists() else added)(path, content(path, tmp_path))
    here = identify(driver, memory, list(HERE))
    assert here == identify(driver, memory, [])
    assert here != identify(driver, memory, [*HERE, *words])


#: The compile that shows each difference.
FOREIGN = {
    "specs": ["-c", "x.c"],
    "specs of g++": ["-c", "x.cc"],
    "assembler": ["-c", "x.c"],
    "objective-c": ["-c", "x.m"],
    "libc": ["-c", "x.c"],
    "clang.cfg": ["-c", "x.c"],
    "clang++.cfg": ["-c", "x.cc"],
}


@pytest.fixture(params=FOREIGN)
def foreign(
    request: pytest.FixtureRequest, tmp_path: Path, certs_dir: Path
) -> Iterator[tuple[Cluster, list[str]]]:
    """A farm whose only worker differs from this machine in one file, and a compile."""
    need("bwrap")
    compiler, place, content = CASES[request.param]
    path = place(need(called(compiler)))
    words = (replaced if path.exists() else added)(path, content(path, tmp_path))
    farm = Cluster(tmp_path / "farm", certs_dir, [{}])
    farm.daemons[0].prefix = [*HERE, *words]
    try:
        yield farm.start(), [called(compiler), *FOREIGN[request.param]]
        farm.stop()
    finally:
        farm.kill()


@pytest.mark.in_turn("foreign")
def test_a_worker_with_another_file_gets_no_job(
    foreign: tuple[Cluster, list[str]], tmp_path: Path
) -> None:
    farm, words = foreign
    project = tmp_path / "project"
    project.mkdir()
    source = project / words[-1]
    source.write_text("#if defined FROMSPECS || defined FROMCFG\nint wrong;\n#endif\nint x;\n")
    done = farm.run([*words, "-o", "x.o"], project)
    assert done.exit_code == 0
    assert b"no_toolchain" in done.stderr
    assert b"wrong" not in (project / "x.o").read_bytes()
    assert farm.jobs()["done"] == 0
