"""A random walk in several processes: each ends by SIGKILL, perhaps while its cache is filled.
Between them the tree is edited and the cache's file is damaged.

As a program it is one of the processes: ``python -m tests.support.walk_faults BASE SEED RUN``.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from distbuild.mirror.inotify import InotifyWatcher
from distbuild.mirror.watching import MakeWatcher, NoWatcher
from tests.support.caching_box import CachingBox
from tests.support.walk import Walk

TOP = Path(__file__).parents[2]
#: A process ends after so many steps at most.
MAX_STEPS = 60
_COUNTS = "counts"
_DAMAGED = ("objects.sqlite", "objects.sqlite-wal")
TIMEOUT_S = 600.0


class LossyWatcher(InotifyWatcher):
    """Loses all that happens between some calls of ``barrier``, as the kernel does if its queue is
    full: also the ends of watches. It is reported that events were lost, not which."""

    def __init__(
        self, changed: Callable[[str, bool], None], overflowed: Callable[[], None]
    ) -> None:
        self._dice, self._is_losing = random.Random(), False
        super().__init__(changed, overflowed)

    def barrier(self) -> bool:
        super().barrier()
        if self._is_losing:
            self._overflowed()
        self._is_losing = self._dice.random() < 0.2
        return True

    def _dispatch(self, wd: int, mask: int, name: str) -> None:
        if not self._is_losing:
            super()._dispatch(wd, mask, name)

    def on_watch_deleted(self, wd: int) -> None:
        if not self._is_losing:
            super().on_watch_deleted(wd)


class RefusingWatcher(InotifyWatcher):
    """Cannot watch some directories, as if the limit of watches were reached."""

    def add(self, directory: str) -> bool:
        is_refused = zlib.crc32(os.fsencode(directory)) % 8 == 0
        return not is_refused and super().add(directory)


WATCHERS: tuple[MakeWatcher, ...] = (
    InotifyWatcher,
    LossyWatcher,
    RefusingWatcher,
    lambda *_: NoWatcher(),
)


class Counts(NamedTuple):
    """Steps, hits, and what was done to the cache's file."""

    steps: int = 0
    hits: int = 0
    kills: int = 0
    damages: int = 0


def walk_with_faults(base: Path, seed: int, runs: int) -> Counts:
    """One seed's walk in ``runs`` processes. Raises AssertionError with a process's report if a hit
    was not what the local compiler gives."""
    base.mkdir(parents=True, exist_ok=True)
    dice, counts = random.Random(seed), Counts()
    for run in range(runs):
        words = [sys.executable, "-m", "tests.support.walk_faults", str(base), str(seed), str(run)]
        paths = os.pathsep.join((str(TOP / "src"), str(TOP)))
        done = subprocess.run(
            words,
            cwd=TOP,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode(errors="replace")
        steps, hits = json.loads((base / _COUNTS).read_text())
        is_damaged = dice.random() < 0.5
        if is_damaged:
            damage(base / "box", dice)
        counts = Counts(
            counts.steps + steps, counts.hits + hits, counts.kills + 1, counts.damages + is_damaged
        )
    return counts


def damage(box: Path, dice: random.Random) -> None:
    """Change some bytes of the cache's file or of its log, or cut it."""
    path = box / dice.choice(_DAMAGED)
    size = path.stat().st_size if path.exists() else 0
    if not size:
        return
    if dice.random() < 0.1:
        os.truncate(path, dice.randrange(size))
        return
    with path.open("r+b") as file:
        for _ in range(dice.choice((1, 1, 5, 50))):
            at = dice.randrange(size)
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << dice.randrange(8)]))


def main(base: Path, seed: int, run: int) -> None:
    """Walk until the process kills itself."""
    dice = random.Random(f"faults {seed} {run}")
    box = CachingBox(base / "box", make_watcher=WATCHERS[run % len(WATCHERS)])
    here = Walk(box, base / "trees", seed, run)
    if run:  # edits while no syncer runs
        box.stop()
        for _ in range(dice.randrange(4)):
            here.edit()
        box.start()
    steps = dice.randrange(MAX_STEPS // 2, MAX_STEPS)
    for step in range(1, steps + 1):
        here.step()
        (base / _COUNTS).write_text(json.dumps((step, here.hits)))
        if dice.random() < 0.05:
            box.digests.save()
    # The cache gathers results for a tenth of a second: the end comes before, during or after that.
    time.sleep(dice.choice((0.0, dice.uniform(0, 0.3))))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
