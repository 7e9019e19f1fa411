"""Compilers are watched by strace: no file that they read is unknown to the rule of identities."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from distbuild.compiler.identity import Identifier, Identity, found_by_path
from distbuild.mirror.digest_cache import DigestCache
from tests.support.tools import absent, need, need_configured, need_versioned

pytestmark = pytest.mark.compiler

PATH = "/usr/bin:/bin"
SOURCES = {
    "x.c": "#include <stdio.h>\nint main(void) { return EOF; }\n",
    "x.cc": "#include <vector>\nint f(std::vector<int> v) { return v.size(); }\n",
    "x.s": ".globl a\na: .long 1\n",
    "x.S": "#define A 1\n.globl a\na: .long A\n",
}
GCC = (
    "-c x.c|-g -O2 -c x.c|-O2 -S x.c|-c x.s|-g -c x.S|-E x.c -o x.i|-gsplit-dwarf -c x.c"
    "|-flto -c x.c|-fopenmp -c x.c|-fprofile-arcs -c x.c|-MD -Wall -c x.c|-gz=zlib -g -c x.c"
).split("|")
GXX = ["-c x.cc", "-g -O2 -c x.cc", "-std=c++20 -flto -c x.cc"]
NATIVE = ["-march=native -c x.c", "-m32 -c x.s", "-m32 -S x.c"]
CLANG = [*GCC, "-no-integrated-as -c x.c", "-fno-integrated-as -gsplit-dwarf -g -c x.c"]
CL = ["/c x.c", "/O2 /Z7 /c x.c"]
COMPILERS = {
    "gcc": [*GCC, *NATIVE],
    "g++": GXX,
    "aarch64-linux-gnu-gcc": GCC,
    "clang": [
        *CLANG,
        *NATIVE,
        "--target=aarch64-linux-gnu -c x.c",
        "-no-canonical-prefixes -c x.c",
    ],
    "clang++": GXX,
    "configured clang": [*CLANG, *NATIVE, "--target=aarch64-linux-gnu -c x.s"],
    "configured clang++": [*GXX, "-no-canonical-prefixes -m32 -x c++ -c x.s"],
    "clang-cl": CL,
    "configured clang-cl": CL,
}

#: Files that decide nothing of what a compile writes, and why.
HARMLESS = re.compile(
    r"""
    /dev/(?:null|urandom) | /proc/.* | /sys/.*
    # The distribution's name: clang gives its linker other options by it.
    | /etc/(?:lsb-release|os-release|debian_version|redhat-release|SuSE-release|exherbo-release
        |arch-release|gentoo-release|alpine-release|\w+-release) | /usr/lib/os-release
    # Which gcc a clang takes headers from; the directories that this gives are in the identity.
    | .*/crtbegin\w*\.o | .*/gcc/[^/]+/[^/]+/include/c\+\+/
    # What only a linker reads. Of a directory it is asked whether it is there by "/." behind it.
    | .*/\. | .*/(?:lib|libx?32|lib64) | .*/lib(?:x?32|64)/gcc(?:-cross)?
    | .*/lib/clang/[^/]+/lib/(?:linux/|windows/)?[\w-]+ | .*/libc\+\+\.so
    | .*/lib/\w+-\w+-(?:linux-gnu|windows-msvc)
    # Headers of a gcc for another machine, which comes with them.
    | .*/gcc-cross/[^/]+/[^/]+/(?:\.\./){4}[\w-]+/include(?:/.*)?
    # Other languages than those that are distributed.
    | .*/ptxas | /usr/local/cuda.* | /Program\ Files/NVIDIA.* | .*/nvvm.* | /opt/rocm.*
    | .*/\.hipVersion | .*/hip/version
    """,
    re.VERBOSE,
)
_CALL = re.compile(r'^(?:\d+\s+)?(\w+)\((?:AT_FDCWD, )?"([^"]*)".*?\) += (-?\d+)(?: (\w+))?', re.M)
_WRITES = {"unlink", "unlinkat", "mkdir", "rename", "chmod", "utimensat"}


def traced(words: list[str], directory: Path) -> Iterator[tuple[str, bool]]:
    """The absolute paths that a command looks at, and whether something was there."""
    log = directory / "trace"
    env = {"PATH": PATH, "LC_ALL": "C", "TMPDIR": str(directory), "HOME": "/nonexistent"}
    command = [need("strace"), "-f", "-qq", "-s", "4096", "-e", "trace=%file", "-o", str(log)]
    done = subprocess.run([*command, *words], cwd=directory, env=env, capture_output=True)
    text = log.read_text()
    if done.returncode != 0 and not text:
        absent(f"strace cannot trace here: {done.stderr.decode()}")
    for call, path, result, error in _CALL.findall(text):
        if call not in _WRITES and path:
            there = int(result) >= 0 or error not in ("ENOENT", "ENOTDIR")
            yield os.path.join(directory, path), there


class Rule:
    """What an identity knows of files."""

    def __init__(self, identity: Identity, directory: Path) -> None:
        self._needs = {os.path.realpath(path) for path in (*identity.needs, identity.real_path)}
        self._places = set(map(os.path.realpath, identity.places))
        dirs = (*identity.c_dirs, *identity.cxx_dirs)
        self._inside = (*map(os.path.realpath, dirs), str(directory))

    def knows(self, path: str, *, is_there: bool) -> bool:
        real = os.path.realpath(path)
        if HARMLESS.fullmatch(path) or real.startswith(tuple(f"{d}/" for d in self._inside)):
            return True
        if is_there:
            return os.path.isdir(real) or real in self._needs or real in self._places
        return self._notices(real)

    def _notices(self, real: str) -> bool:
        """Whether it shows when something appears at a path."""
        if real in self._places or real in self._inside:
            return True
        if any(place.startswith(f"{real}/") for place in self._places):
            return True
        while not os.path.lexists(real):
            real = os.path.dirname(real)
            if real in self._places:
                return True
        return False


def called(compiler: str) -> str:
    """The compiler's name here; a configured one is the first that reads configuration files."""
    kind, _, name = compiler.rpartition(" ")
    if kind:
        return need_configured(name)
    return need_versioned(name) if name == "clang-cl" else name


def _is_found_for_each_job(path: str, compiler: str) -> bool:
    """The driver itself, on PATH."""
    return os.path.basename(path) == compiler or os.path.dirname(path) in PATH.split(":")


@pytest.mark.in_turn("compiler")
@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_file_that_a_compiler_reads_is_known(compiler: str, tmp_path: Path) -> None:
    name = called(compiler)
    driver = need(name)
    identity = Identifier(DigestCache(tmp_path / "memory")).identify(driver, found_by_path(PATH))
    rule = Rule(identity, tmp_path)
    for source, text in SOURCES.items():
        (tmp_path / source).write_text(text)
    unknown = {
        path: (options, is_there)
        for options in COMPILERS[compiler]
        for path, is_there in traced([driver, *options.split()], tmp_path)
        if not (rule.knows(path, is_there=is_there) or _is_found_for_each_job(path, name))
    }
    assert unknown == {}, "\n".join(map(str, sorted(unknown.items())))


@pytest.mark.parametrize("compiler", ["gcc", "configured clang"])
def test_the_rule_would_miss_what_the_identity_does_not_have(compiler: str, tmp_path: Path) -> None:
    """So that the test above can fail."""
    compiler = called(compiler)
    identity = Identifier(DigestCache(tmp_path / "memory")).identify(need(compiler))
    (tmp_path / "x.c").write_text("int x;\n")
    looked = list(traced([need(compiler), "-c", "x.c"], tmp_path))
    bare = Rule(msgspec.structs.replace(identity, needs=(), places=()), tmp_path)
    missed = {
        os.path.basename(path) for path, there in looked if not bare.knows(path, is_there=there)
    }
    assert {"libc.so.6", "ld.so.cache", "ld.so.preload"} <= missed
    assert missed & {"specs", "clang.cfg"}
