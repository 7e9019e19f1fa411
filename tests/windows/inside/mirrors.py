"""Run by Windows' Python: a mirror of its disk, and the tree that a worker makes of it.

Says whether all is as it has to be. The directory in which it is started is the dev box's.
"""

import contextlib
import ctypes
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

from distbuild.mirror.digest_cache import DigestCache
from distbuild.mirror.live import Mirroring
from distbuild.mirror.manifest import DIRECTORY, WITHHELD
from distbuild.mirror.scan import Scanner
from distbuild.mirror.watching import NoWatcher, watcher_maker
from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.messages import FileEntry
from distbuild.push.bundles import BlobSource
from distbuild.system import disk
from distbuild.system.paths import from_system, to_system
from distbuild.system.windows import calls
from distbuild.worker.tree import on_disk
from distbuild.worker.tree.store import OwnFiles, Store
from distbuild.worker.tree.trees import Trees

HERE = Path.cwd()
PROJECT = HERE / "Proj"


def written(path: Path, text: str) -> Path:
    """A file with this text; long paths are no obstacle."""
    real = Path(to_system(from_system(str(path))))
    real.parent.mkdir(parents=True, exist_ok=True)
    real.write_text(text, encoding="ascii", newline="\n")
    return path


def inside(path: Path) -> str:
    return from_system(str(path))


def respell(path: Path, name: str) -> None:
    """In two steps: wine leaves a name alone that differs in nothing but case."""
    path.rename(path.parent / "other").rename(path.parent / name)


class Farm:
    """A mirror of PROJECT and one worker's tree."""

    def __init__(self) -> None:
        scanner = Scanner(DigestCache(None), 1 << 24)
        maker = watcher_maker(HERE)
        home = from_system(os.path.expanduser("~"))
        self.mirror = Mirroring(scanner, maker, home, lambda: None)
        self.scanner = scanner
        self._source = BlobSource(self.mirror.manifest)
        self._store = Store(HERE / "store")
        trees = Trees(HERE / "sandbox", self._store, OwnFiles(self._store, enabled=False))
        trees.set_aside_old()
        self.tree = trees.tree("me")
        self.sent = 0

    def push(self, *directories: Path) -> None:
        """What a job does: afterwards the tree is what the disk is."""
        self.mirror.require(map(inside, directories))
        self.mirror.settle()
        have = self.tree.generation
        while True:
            changes = self.mirror.changes("me", self.tree.epoch, have)
            try:
                reply = self.tree.apply(changes)
            except InfrastructureError:
                have = 0  # it has begun anew
                continue
            if reply.state == "applied":
                break
            have = 0 if reply.state == "need_full" else have
            for batch in self._source.batches(reply.missing):
                self._store.put_all(batch)
                self.sent += sum(len(bundle.digests) for bundle in batch)
        assert self.tree.position()[2] == self.mirror.manifest.summary()

    def read(self, path: Path) -> str:
        """What the compiler finds in the tree under this spelling."""
        real = self.tree.ground.real(os.fsencode(inside(path)))
        with disk.open_to_read(real) as file:
            return file.read().decode()

    def names(self, directory: Path) -> list[str]:
        return sorted(map(os.fsdecode, disk.listdir(self._real(directory))))

    def _real(self, path: Path) -> bytes:
        return self.tree.ground.real(os.fsencode(inside(path)))

    def proof(self, path: Path) -> bool:
        """Whether a compiler that names the file so is believed to have read the right bytes."""
        spelled = self.tree.spelled(os.fsencode(inside(path)))
        entry = self.mirror.manifest.get(inside(path))
        digest = self.tree.digest_at(spelled)
        return isinstance(entry, FileEntry) and entry.digest == digest


def headers(farm: Farm) -> None:
    """Two hundred files, of which one changes, one comes and one goes."""
    for number in range(200):
        written(PROJECT / f"Inc{number % 7}" / f"Head{number}.h", f"{number}\n")
    farm.push(PROJECT)
    assert farm.sent == 200, farm.sent
    assert farm.mirror.manifest.counts().files == 200
    for root in farm.mirror.roots:
        assert root.path == inside(PROJECT)
        assert root.polled
    listed = farm.scanner.hashed_bytes
    farm.push(PROJECT)
    assert farm.scanner.hashed_bytes == listed or farm.sent == 200
    written(PROJECT / "Inc0" / "Head7.h", "changed\n")
    written(PROJECT / "New" / "new.h", "new\n")
    (PROJECT / "Inc1" / "Head1.h").unlink()
    farm.push(PROJECT)
    assert farm.read(PROJECT / "Inc0" / "Head7.h") == "changed\n"
    assert farm.read(PROJECT / "New" / "new.h") == "new\n"
    assert "Head1.h" not in farm.names(PROJECT / "Inc1")
    assert farm.sent == 202, farm.sent


def spellings(farm: Farm) -> None:
    """Two spellings of one header are one file, before and after it gets another name."""
    written(PROJECT / "Inc" / "Foo.h", "foo\n")
    farm.push(Path(str(PROJECT).upper()) / "inC")
    assert [root.path for root in farm.mirror.roots] == [inside(PROJECT / "Inc")]
    for name in ("INC/FOO.H", "inc/foo.h", "Inc/Foo.h"):
        assert farm.proof(PROJECT / name), name
        assert farm.mirror.manifest.resolve(inside(PROJECT / name)) == inside(PROJECT / "Inc/Foo.h")
        assert farm.read(PROJECT / name) == "foo\n"
    farm.push(PROJECT, PROJECT / "inc", Path(str(PROJECT).lower()))
    assert farm.mirror.manifest.counts().files == 1
    respell(PROJECT / "Inc" / "Foo.h", "FOO.h")
    farm.push(PROJECT)
    assert farm.names(PROJECT / "Inc") == ["FOO.h"]
    assert farm.proof(PROJECT / "inc" / "foo.h")


def respelled_directory(farm: Farm) -> None:
    """A directory, a root by itself, gets another spelling and keeps what is in it."""
    written(PROJECT / "Inc" / "a.h", "a\n")
    farm.push(PROJECT / "Inc", PROJECT)
    respell(PROJECT / "Inc", "INC")
    farm.push(PROJECT / "Inc", PROJECT)
    assert farm.names(PROJECT) == ["INC"]
    assert farm.proof(PROJECT / "inc" / "A.H")
    generation = farm.mirror.manifest.generation
    farm.push(PROJECT / "Inc", PROJECT)
    assert farm.mirror.manifest.generation == generation


def long_paths(farm: Farm) -> None:
    """Paths beyond 260 characters, on both sides."""
    deep = PROJECT.joinpath(*["d" * 80] * 4, "deep.h")
    written(deep, "deep\n")
    farm.push(PROJECT)
    assert farm.read(deep) == "deep\n"
    assert farm.proof(deep.with_name("DEEP.H"))
    written(deep, "deeper\n")
    farm.push(PROJECT)
    assert farm.read(deep) == "deeper\n"
    disk.unlink(inside(deep))
    farm.push(PROJECT)
    assert farm.mirror.manifest.get(inside(deep)) is None


def open_on_the_worker(farm: Farm) -> None:
    """A compiler has open what changes: its bytes stay, and the next one reads the new ones."""
    on_disk._PAUSES = (0.01,) * 30
    for name in ("a.h", "b.h", "c.h"):
        written(PROJECT / name, "old\n")
    farm.push(PROJECT)
    root = farm.tree.ground.root
    with disk.open_to_read(farm._real(PROJECT / "a.h")) as shared:
        written(PROJECT / "a.h", "new\n")
        farm.push(PROJECT)
        assert farm.read(PROJECT / "a.h") == "new\n"
        assert shared.read() == b"old\n"
    with open(to_system(os.fsdecode(farm._real(PROJECT / "b.h")))) as held:
        written(PROJECT / "b.h", "new\n")
        farm.push(PROJECT)
        assert farm.read(PROJECT / "b.h") == "new\n"
        assert held.read() == "old\n"
    assert farm.tree.ground.root != root, "a file that nobody may rename"
    with disk.open_to_read(farm._real(PROJECT / "c.h")):
        (PROJECT / "c.h").unlink()
        farm.push(PROJECT)
        assert farm.names(PROJECT) == ["a.h", "b.h"]
    assert farm.proof(PROJECT / "A.H")


def held_on_the_dev_box(farm: Farm) -> None:
    """A file that nobody else may read is withheld, and mirrored once it can be read."""
    path = written(PROJECT / "held.h", "held\n")
    library: Any = calls.kernel32()
    handle = library.CreateFileW(str(path), 0x40000000, 0, None, 3, 0, None)
    assert handle != calls.INVALID_HANDLE
    farm.push(PROJECT)
    assert farm.mirror.manifest.get(inside(path)) == WITHHELD
    library.CloseHandle(ctypes.c_void_p(handle))
    farm.push(PROJECT)
    assert farm.read(path) == "held\n"


def bursts(farm: Farm) -> None:
    """Five hundred files at once, and then the whole directory goes."""
    farm.push(PROJECT)
    for number in range(500):
        written(PROJECT / "burst" / f"{number}.h", str(number))
    farm.push(PROJECT)
    assert len(farm.names(PROJECT / "burst")) == 500
    assert farm.proof(PROJECT / "BURST" / "499.h")
    shutil.rmtree(PROJECT / "burst")
    farm.push(PROJECT)
    assert farm.names(PROJECT) == []
    assert farm.mirror.manifest.get(inside(PROJECT)) == DIRECTORY


def hard_links(farm: Farm) -> None:
    """A header that is written through another of its names, outside of what is mirrored."""
    path = written(PROJECT / "x.h", "one\n")
    other = HERE / "other.h"
    os.link(path, other)
    farm.push(PROJECT)
    status = path.stat()
    written(other, "two\n")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    farm.push(PROJECT)
    assert farm.read(path) == "two\n"


def held(top: Path) -> dict[str, str | None]:
    """What is below a directory, as it is spelled there; None for directories."""
    found: dict[str, str | None] = {}
    for at, directories, files in os.walk(top):
        for name in directories:
            found[str((Path(at) / name).relative_to(top))] = None
        for name in files:
            path = Path(at) / name
            found[str(path.relative_to(top))] = path.read_text(encoding="ascii")
    return found


def change(choice: random.Random, number: int) -> None:
    """Something that happens to a project: some of it changes nothing but capitals."""
    names = ["a", "A", "b", "B.h", "b.h", "C.h", "c.H"]
    everything = [PROJECT, *PROJECT.rglob("*")]
    some, there = choice.choice(everything), choice.choice(everything)
    directory = there if there.is_dir() else there.parent
    target = directory / choice.choice(names)
    what = choice.choice(["write", "write", "make", "move", "respell", "remove", "touch"])
    with contextlib.suppress(OSError):
        if what == "write":
            written(target, str(number))
        elif what == "make":
            target.mkdir()
        elif what == "move" and some != PROJECT:
            some.rename(target)
        elif what == "respell" and some != PROJECT:
            respell(some, some.name.swapcase())
        elif what == "remove" and some != PROJECT:
            shutil.rmtree(some) if some.is_dir() else some.unlink()
        elif what == "touch" and some.is_file():
            os.utime(some, ns=(number * 10**9, number * 10**9))


def changes(farm: Farm) -> None:
    """Whatever happens to the project, the tree holds what it holds, in its spelling."""
    for seed in range(4):
        choice = random.Random(seed)
        for number in range(25):
            for _ in range(choice.randint(1, 6)):
                change(choice, number)
            named = [path for path in PROJECT.rglob("*") if path.is_dir()]
            farm.push(PROJECT, *choice.sample(named, min(1, len(named))))
            tree = Path(os.fsdecode(to_system(farm._real(PROJECT))))
            assert held(tree) == held(PROJECT), (seed, number, held(tree), held(PROJECT))


def bad_names(farm: Farm) -> None:
    """What opens a device, a stream or another file never reaches the disk."""
    farm.push(PROJECT)
    for name in ("nul", "aux.h", "x.h:s", "a.", "..\\..\\x"):
        try:
            with farm.tree.holds.holding([], [os.fsencode(inside(PROJECT) + "/" + name)]):
                raise AssertionError(name)
        except ProtocolError:
            continue


def watching(farm: Farm) -> None:
    """Wine loses notifications: there, directories are listed for each job."""
    watcher = watcher_maker(HERE)(lambda path, is_directory: None, lambda: None)
    assert isinstance(watcher, NoWatcher)


CASES: dict[str, Callable[[Farm], None]] = {
    case.__name__: case
    for case in (
        *(headers, spellings, respelled_directory, long_paths, open_on_the_worker),
        *(held_on_the_dev_box, bursts, hard_links, changes, bad_names, watching),
    )
}

if __name__ == "__main__":
    PROJECT.mkdir()
    farm = Farm()
    try:
        CASES[sys.argv[2]](farm)
    finally:
        farm.mirror.stop()
    print(json.dumps("as expected"))
