"""Fetches real projects: upstream tarballs of Debian's source packages, unpacked unpatched.

Needs apt-get and a network; uses an apt set-up of its own, so that it runs as any user and leaves
the system's alone. Kept between runs in ``$XDG_CACHE_HOME/dist_build-tests``.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.tools import absent

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dist_build-tests"
_SOURCES = (Path("/etc/apt/sources.list.d"), Path("/etc/apt/sources.list"))


class NotFetched(Exception):
    """The project could not be had; the message says why."""


def fetch(package: str, destination: Path, sha256: str = "", members: Sequence[str] = ()) -> Path:
    """A fresh copy of a project below ``destination``, all of it or the ``members``, globs of
    tar's; raises NotFetched.

    Also if the tarball is not the one with this digest, but of another version.
    """
    kept = downloaded(package)
    (tarball,) = (path for path in kept.glob("*.orig.tar.*") if path.suffix != ".asc")
    if sha256 and hashlib.sha256(tarball.read_bytes()).hexdigest() != sha256:
        raise NotFetched(f"{package}: {tarball.name} is another version than this test knows")
    destination.mkdir(parents=True)
    words = ["tar", "xf", str(tarball), "-C", str(destination), "--wildcards", *members]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotFetched(f"{package}: {done.stderr.strip()}")
    (project,) = (path for path in destination.iterdir() if path.is_dir())
    return project


def downloaded(package: str) -> Path:
    """The directory with a project's source package, downloaded unless it is there; raises
    NotFetched."""
    kept = CACHE / package
    kept.parent.mkdir(parents=True, exist_ok=True)
    with open(kept.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            _download(package, kept)
    return kept


def fetch_or_skip(
    package: str, destination: Path, sha256: str = "", members: Sequence[str] = ()
) -> Path:
    """As ``fetch``; skips the test, or fails it where DIST_BUILD_REQUIRE_TOOLS=1."""
    try:
        return fetch(package, destination, sha256, members)
    except NotFetched as error:
        absent(str(error))
        raise


def _download(package: str, kept: Path) -> None:
    if shutil.which("apt-get") is None:
        raise NotFetched(f"{package}: there is no apt-get to fetch it with")
    environment = {**os.environ, "APT_CONFIG": str(_apt_config(CACHE / "apt"))}
    partial = kept.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)

    def run(*words: str) -> str:
        done = subprocess.run(
            words, cwd=partial, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise NotFetched(f"{package}: {done.stderr.strip().splitlines()[-1:]}")
        return done.stdout

    run("apt-get", "update", "-qq")
    name, _, chosen = package.partition("=")
    listed = run("apt-cache", "madison", name).splitlines()
    known = list(dict.fromkeys(line.split("|")[1].strip() for line in reversed(listed)))
    versions = [chosen] if chosen else known
    # A mirror's index may name a version whose files it does not have yet, or no longer.
    for version in versions:
        wanted = f"{name}={version}"
        try:
            run("apt-get", "source", "-qq", "--download-only", "--only-source", wanted)
            break
        except NotFetched:
            if version == versions[-1]:
                raise
    else:
        raise NotFetched(f"{package}: apt knows no such source package")
    partial.rename(kept)


def _apt_config(root: Path) -> Path:
    """An apt set-up that knows the system's source packages."""
    parts, lists = root / "sources", root / "lists"
    parts.mkdir(parents=True, exist_ok=True)
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    for place in _SOURCES:
        for path in [place] if place.is_file() else place.glob("*"):
            text = path.read_text()
            text = re.sub(r"^Types:.*$", "Types: deb-src", text, flags=re.M)
            text = re.sub(r"^deb ", "deb-src ", text, flags=re.M)
            (parts / path.name).write_text(text)
    config = root / "apt.conf"
    config.write_text(
        f'Dir::Etc::SourceParts "{parts}";\nDir::Etc::SourceList "/dev/null";\n'
        f'Dir::State::Lists "{lists}";\nDir::Cache "{root}/cache";\nAPT::Sandbox::User "";\n'
        # A snapshot, or a mirror that is behind, has an expired list.
        'Acquire::Check-Valid-Until "false";\n'
    )
    (root / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    return config


def unpack_or_skip(package: str, tarball: str, members: list[str], destination: Path) -> Path:
    """Some members of a tarball in a binary package, below ``destination``; see ``fetch_or_skip``.

    ``tarball``: a glob in the package; ``members``: globs of tar's.
    """
    destination.mkdir(parents=True)
    steps = [
        ["apt-get", "download", "-qq", package],
        ["sh", "-c", "dpkg-deb -x *.deb package && rm *.deb"],
        [
            "sh",
            "-c",
            f'tar -xf package/{tarball} --wildcards "$@" && rm -r package',
            "sh",
            *members,
        ],
    ]
    for words in steps:
        done = subprocess.run(words, cwd=destination, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            absent(f"{package}: {done.stderr.strip()}")
    return destination
