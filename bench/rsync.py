"""``rsync -az`` of one tree to several directories at the same time: on one disk, and over ssh.

By itself rsync copies through pipes. Over ssh on loopback it pays what a tool pays that brings a
tree to another machine: a network, encryption, and a proof of who asks.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.common import cpu_of, end_tree, stopwatch
from tests.support.cluster import free_ports, wait_until

_HOST = "127.0.0.1"
_ALSO = "/usr/sbin:/usr/local/sbin"
#: Without it an sshd of root does not start.
_SEPARATION = Path("/run/sshd")


@dataclass(frozen=True)
class Transport:
    """A way to the directories; ``resident`` are processes whose CPU counts as well."""

    name: str
    prefix: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    resident: Sequence[int] = ()


LOCAL = Transport("rsync -az on the disk")


@contextlib.contextmanager
def over_ssh(work: Path) -> Iterator[Transport | str]:
    """An sshd of our own on loopback; or, where there is none, a note."""
    path = f"{os.environ.get('PATH', '')}:{_ALSO}"
    found = {name: shutil.which(name, path=path) for name in ("sshd", "ssh", "ssh-keygen")}
    absent = [name for name, program in found.items() if program is None]
    if absent:
        yield f"rsync over ssh is left out, not installed: {', '.join(absent)}"
        return
    work.mkdir()
    (port,) = free_ports(1)
    _configure(work, port)
    with _separation():
        words = [str(found["sshd"]), "-D", "-e", "-f", str(work / "sshd_config")]
        daemon = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            shell = f'ssh -F "{work / "ssh_config"}"'
            try:
                wait_until(lambda: _lets_in(work), "sshd lets us in", 5)
            except AssertionError:
                yield "rsync over ssh is left out: an sshd of our own does not let us in"
                return
            yield Transport("rsync -az over ssh", f"{_HOST}:", {"RSYNC_RSH": shell}, [daemon.pid])
        finally:
            end_tree(daemon)


def copy(transport: Transport, tree: Path, copies: Sequence[Path]) -> tuple[float, float]:
    """Copy ``tree`` to all of them at the same time; seconds, and CPU seconds of all processes."""
    script = 'for copy; do rsync -az "$TREE/" "$PREFIX$copy" & done; wait; times'
    env = {**os.environ, **transport.env, "TREE": str(tree), "PREFIX": transport.prefix}
    before = cpu_of(transport.resident)
    with stopwatch() as elapsed:
        words = ["sh", "-c", script, "sh", *map(str, copies)]
        popen = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env)
        try:
            said, _ = popen.communicate()
        finally:
            end_tree(popen)
    missing = [str(one) for one in copies if not one.is_dir()]
    if missing:
        raise RuntimeError(f"{transport.name} made no {missing[0]}")
    here = sum(map(_seconds, said.split()[2:4]))
    return elapsed[0], here + cpu_of(transport.resident) - before


def _configure(work: Path, port: int) -> None:
    for name in ("host_key", "user_key"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(work / name)]
        subprocess.run(words, check=True)
    shutil.copy(work / "user_key.pub", work / "authorized_keys")
    (work / "sshd_config").write_text(
        f"Port {port}\nListenAddress {_HOST}\nPidFile none\nUsePAM no\nStrictModes no\n"
        f'HostKey "{work / "host_key"}"\nAuthorizedKeysFile "{work / "authorized_keys"}"\n'
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    (work / "ssh_config").write_text(
        f'Port {port}\nIdentityFile "{work / "user_key"}"\nIdentitiesOnly yes\nBatchMode yes\n'
        "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"
    )


@contextlib.contextmanager
def _separation() -> Iterator[None]:
    """The directory that an sshd of root wants, for as long as ours runs."""
    if os.geteuid() != 0 or _SEPARATION.exists():
        yield
        return
    _SEPARATION.mkdir(mode=0o755)
    try:
        yield
    finally:
        _SEPARATION.rmdir()


def _lets_in(work: Path) -> bool:
    words = ["ssh", "-F", str(work / "ssh_config"), _HOST, "true"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode == 0


def _seconds(text: str) -> float:
    """``1m2.5s``, as the shell's ``times`` writes it."""
    minutes, _, rest = text.rstrip("s").partition("m")
    return 60 * float(minutes) + float(rest)
