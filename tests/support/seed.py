"""What one cluster leaves to all later ones of a test run: digests, and the system's headers.

A worker that has nothing is sent all of /usr/include: that takes the processor as long as hundreds
of compiles. So clusters begin like ones that were used before and then forgot their clients.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

#: By role: what a home keeps between runs and what names no client.
_KEPT = {
    "dev": ("state/digests.msgpack", "state/compilers.msgpack"),
    "worker": ("state/programs", "state/compilers", "store"),
}
#: Makes the homes of each role that has been used, below a directory.
Use = Callable[[Path], Mapping[str, Path]]


def made(installation: Path, use: Use) -> Path:
    """The seed of these certificates' clusters, made by the first process that needs it."""
    seed = installation / "seed"
    if not seed.exists():
        with locked(installation / "seed.lock"):
            if not seed.exists():
                _make(seed, use)
    return seed


def sow(seed: Path, role: str, home: Path) -> None:
    """Fill a new home. Contents are hard links, as no process writes to one of a store."""
    for name in _KEPT[role]:
        source, target = seed / role / name, home / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=os.link)
        elif source.exists():
            shutil.copyfile(source, target)


def _make(seed: Path, use: Use) -> None:
    with tempfile.TemporaryDirectory(dir=seed.parent) as directory:
        homes = use(Path(directory))
        taken = Path(directory) / "taken"
        for role, names in _KEPT.items():
            for name in names:
                (taken / role / name).parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    os.rename(homes[role] / name, taken / role / name)
        os.rename(taken, seed)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that other processes respect; ``path`` is its file."""
    with open(path, "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
