"""A Debian system in a directory, made once with debootstrap, and commands that run in it.

Needs root, debootstrap and bubblewrap. The mounts are in a mount namespace of the command, so a
system's directory can be removed at any time.
"""

import configparser
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import absent, need

REPOSITORY = Path(__file__).parents[2]
#: Where the systems are, and where their packages come from.
PLACE = Path(os.environ.get("DIST_BUILD_SYSTEMS") or REPOSITORY / "build" / "matrix")
ARCHIVE = os.environ.get("DIST_BUILD_DEBIAN") or "http://deb.debian.org/debian"
PACKAGES = (
    "bubblewrap bzip2 ca-certificates cmake curl dpkg-dev g++ gcc git libabsl-dev make meson mount"
    " ninja-build openssl procps python3-venv python3-dev libpython3-dev strace tzdata xz-utils"
    " zlib1g-dev"
).split()
#: Further packages of a compiler; those that a suite does not have are left out.
COMPILER = {
    "gcc": "gcc-{0} g++-{0} gobjc-{0} gobjc++-{0}",
    "clang": "clang-{0} clang-tools-{0} libclang-rt-{0}-dev",
}
CHECKOUT = "/srv/dist_build"
_PIP = ("/etc/pip.conf", "/etc/xdg/pip", "~/.config/pip", "~/.pip")
_VARIABLES = re.compile(r"PIP_.*|SSL_CERT_.*|(?:https?|no)_proxy", re.IGNORECASE)
#: bubblewrap covers parts of /proc, and then no other bubblewrap can mount one in its namespace.
_WITH_PROC = 'mount -t proc proc /proc && exec "$@"'
_MADE = "dist_build-made"


class SystemNotMade(Exception):
    """A step failed; the message ends with its output."""


@dataclass(frozen=True)
class Debian:
    """One suite's system."""

    suite: str

    @property
    def root(self) -> Path:
        return PLACE / self.suite

    def make(self, compilers: Iterable[str]) -> None:
        """Make the system unless it is there, and install these compilers (``gcc-14``)."""
        need_root()
        made = self.root / _MADE
        wanted = [*PACKAGES]
        for word in compilers:
            family, _, version = word.rpartition("-")
            wanted += COMPILER[family].format(version).split()
        if made.exists() and set(wanted) <= set(made.read_text().split()):
            return
        if not (self.root / "etc/apt").exists():
            self._bootstrap()
        # An earlier installation may have been interrupted.
        self._checked_run(["dpkg", "--configure", "-a"])
        self._apt("update")
        self._apt("install", "--no-install-recommends", *wanted)
        made.write_text("\n".join(wanted))

    def _bootstrap(self) -> None:
        partial = PLACE / f"{self.suite}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        words = ["debootstrap", "--variant=minbase", self.suite, str(partial), ARCHIVE]
        _checked(words, subprocess.run(words, stdout=-1, stderr=-2, check=False))
        partial.rename(self.root)

    def _apt(self, *words: str) -> None:
        options = ["-qy", "-o", "APT::Sandbox::User=root", "-o", "Dpkg::Use-Pty=0"]
        # A snapshot, or a mirror that is behind, has an expired list.
        options += ["-o", "Acquire::Check-Valid-Until=false"]
        self._checked_run(["apt-get", *options, *words])

    def _checked_run(self, argv: Sequence[str]) -> None:
        _checked(argv, self._run(argv, {"DEBIAN_FRONTEND": "noninteractive"}, []))

    def run(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        """A command in the copy of the checkout, with the host's configuration of pip."""
        return self._run(argv, {**pip_variables(), **(env or {})}, pip_files())

    def check(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
        """What such a command prints; it has to succeed."""
        done = self.run(argv, env)
        _checked(argv, done)
        return done.stdout.decode(errors="replace")

    def _run(
        self, argv: Sequence[str], env: Mapping[str, str], shown: Iterable[str]
    ) -> "subprocess.CompletedProcess[bytes]":
        for name in ("dev", "proc", "sys", CHECKOUT[1:]):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        words = ["bwrap", "--bind", str(self.root), "/", "--dev-bind", "/dev", "/dev"]
        words += ["--proc", "/proc", "--dev-bind", "/sys", "/sys", "--cap-add", "ALL"]
        words += ["--unshare-pid", "--die-with-parent", "--chdir", CHECKOUT, "--clearenv"]
        for path in ("/etc/resolv.conf", *shown):
            words += ["--ro-bind-try", path, path]
        variables = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **env}
        for name, value in {**variables, "LANG": "C.UTF-8"}.items():
            words += ["--setenv", name, value]
        words += ["--", "sh", "-c", _WITH_PROC, "sh", *argv]
        return subprocess.run(words, stdin=-3, stdout=-1, stderr=-2, check=False)

    def copy_checkout(self) -> None:
        """The repository's files as they are here; what was built in the copy stays."""
        copy = Path(f"{self.root}{CHECKOUT}")
        copy.mkdir(parents=True, exist_ok=True)
        for top in (copy, copy / "src"):
            for old in top.iterdir() if top.exists() else ():
                if old.name not in (".venv", "build", "src", "dist"):
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=REPOSITORY,
            capture_output=True,
            check=True,
        )
        for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
            source, target = REPOSITORY / name, copy / name
            if os.path.lexists(source):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)


def need_root() -> None:
    """Skip or fail with the reason, unless systems can be made here."""
    if os.geteuid() != 0:
        absent("root is needed to make Debian systems with debootstrap; this user is not root")
    for tool in ("debootstrap", "bwrap", "git"):
        need(tool)


def pip_variables() -> dict[str, str]:
    """The host's settings of pip and of how to reach its packages."""
    return {name: value for name, value in os.environ.items() if _VARIABLES.fullmatch(name)}


def pip_files() -> list[str]:
    """pip's configuration files here, and the paths that they and the variables name."""
    found = [os.path.expanduser(path) for path in _PIP]
    values = [*pip_variables().values()]
    for path in found:
        parser = configparser.RawConfigParser(strict=False)
        parser.read([path, *map(str, Path(path).glob("pip.conf"))] if os.path.isdir(path) else path)
        values += [value for section in parser.values() for value in section.values()]
    for word in " ".join(values).split():
        # A package index refers to files beside it.
        is_index = word.startswith("file://")
        found.append(os.path.dirname(word.removeprefix("file://")) if is_index else word)
    return [path for path in dict.fromkeys(found) if path.startswith("/") and os.path.exists(path)]


def _checked(argv: Sequence[str], done: "subprocess.CompletedProcess[bytes]") -> None:
    if done.returncode != 0:
        with tempfile.NamedTemporaryFile(prefix="dist_build-", suffix=".log", delete=False) as log:
            log.write(done.stdout)
        said = done.stdout[-3000:].decode(errors="replace")
        raise SystemNotMade(f"{' '.join(argv)}: exit code {done.returncode}\n{said}\n{log.name}")
