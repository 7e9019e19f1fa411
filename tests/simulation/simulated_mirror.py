"""A simulated farm with a mirror: manifest, push threads, stores and trees are the product's own.

The dev box's files and the workers' trees are real, in a directory of the run.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import msgspec

from distbuild.mirror.manifest import Manifest
from distbuild.one_shot import OneShot
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import (
    BlobBatch,
    BlobRequest,
    Bundle,
    Changes,
    ChangesReply,
    Digest,
    DirectoryEntry,
    Entry,
    FileEntry,
    Job,
    LeaseRequest,
    PullRequest,
)
from distbuild.protocol.names import client_label
from distbuild.push import bundles, found_files, pusher
from distbuild.push.bundles import BlobSource
from distbuild.push.pusher import Pusher
from distbuild.worker.tree import job_files, store, tree, trees
from distbuild.worker.tree.store import OwnFiles, Store
from distbuild.worker.tree.trees import Trees
from tests.simulation.simulated_farm import (
    CLIENT,
    EPOCH,
    MODULES,
    Broken,
    SimulatedFarm,
    SimulatedWorker,
    T,
)
from tests.simulation.world import Event, World
from tests.support.tasks import task

MIRROR_MODULES = (*MODULES, bundles, found_files, pusher, job_files, store, tree, trees)
FILES = [f"{directory}/{name}.h" for directory in ("a", "b") for name in ("x", "y", "z")]


class DevBox:
    """Headers that are edited, and their manifest, which learns of an edit some time later. Stands
    for ``Mirroring``, whose part is to find changes; here they are known."""

    def __init__(self, farm: "MirroredFarm", top: Path) -> None:
        self._farm = farm
        self.top = str(top)
        self.manifest = Manifest()
        self.epoch = EPOCH
        self.ready = Event(farm.world)
        self._dirty: set[str] = set()
        #: By path: the digest from each generation on; None: the file is absent.
        self.versions: dict[str, list[tuple[int, Digest | None]]] = defaultdict(list)
        for name in FILES:
            self._write(name)
        self.sync()
        self.ready.set()

    def edit(self) -> None:
        """Change, add or remove a file, or a directory with all that is in it."""
        chance = self._farm.world.chance
        name = chance.choice(FILES)
        match chance.randrange(8):
            case 0:
                directory = os.path.join(self.top, os.path.dirname(name))
                for one in FILES:
                    path = os.path.join(self.top, one)
                    if os.path.dirname(path) == directory and os.path.exists(path):
                        os.unlink(path)
                        self._dirty.add(path)
                if os.path.isdir(directory):
                    os.rmdir(directory)
                    self._dirty.add(directory)
            case 1:
                if os.path.exists(path := os.path.join(self.top, name)):
                    os.unlink(path)
                    self._dirty.add(path)
            case _:
                self._write(name)
        self._farm.world.after(chance.choice((0.0003, 0.01, 0.5)), self.sync)

    def _write(self, name: str) -> None:
        path = os.path.join(self.top, name)
        if not os.path.isdir(os.path.dirname(path)):
            os.makedirs(os.path.dirname(path))
            self._dirty.add(os.path.dirname(path))
        # Sometimes as it was before, or as another file is.
        text = f"/* {self._farm.world.chance.randrange(40)} */\n"
        Path(path).write_text(text)
        self._dirty.add(path)

    def sync(self) -> None:
        """Bring the manifest up to date, as the barrier before each job does."""
        batch: dict[str, Entry | None] = {path: _entry_of(path) for path in self._dirty}
        self._dirty.clear()
        if self.manifest.apply(batch):
            for path, entry in batch.items():
                digest = entry.digest if isinstance(entry, FileEntry) else None
                self.versions[path].append((self.manifest.generation, digest))
            for one in self._farm.pushers.values():
                one.notify()

    def recheck(self, paths: Iterable[str]) -> None:
        self._dirty.update(paths)
        self.sync()

    def changes(self, client: str, epoch: str, have: int, *, offer: bool = False) -> Changes:
        """As ``Mirroring.changes``."""
        manifest = self.manifest
        is_known = epoch == self.epoch and 0 < have <= manifest.generation
        base = have if is_known and manifest.can_tell_since(have) else 0
        entries = None if offer else manifest.since(base)
        summary, target = manifest.summary(), manifest.generation
        return Changes(client, self.epoch, base, target, summary, entries, [os.fsencode(self.top)])

    def allowed(self, path: str, generation: int) -> set[Digest | None]:
        """What a job of a generation may read at a path: what was there then or later."""
        found: set[Digest | None] = {None}
        for since, digest in self.versions[path]:
            if since <= generation:
                found = {digest}
            else:
                found.add(digest)
        return found


def _entry_of(path: str) -> Entry | None:
    if os.path.isdir(path):
        return DirectoryEntry()
    try:
        data = Path(path).read_bytes()
    except OSError:
        return None
    # All files have one time: an edit may leave time and size as they were.
    return FileEntry(digest=hashlib.sha256(data).digest(), size=len(data), mode=0o644, mtime_ns=0)


class PushClient:
    """Stands for ``WorkerClient``: the syncer's requests to one worker."""

    address = ("127.0.0.1", 1)

    def __init__(self, farm: "MirroredFarm", worker: SimulatedWorker) -> None:
        self._farm, self._worker = farm, worker
        self.host = f"{worker.name}:1"

    def may_be(self, worker: object) -> bool:
        return isinstance(worker, str) and bool(worker)

    def probe(self) -> None:
        self._ask(lambda: None)

    def status(self) -> dict[str, Any]:
        def answer() -> dict[str, Any]:
            known = self._worker.trees.status()
            clients = {name: {**msgspec.structs.asdict(tree)} for name, tree in known.items()}
            return {"worker": self._worker.name, "clients": clients}

        return self._ask(answer)

    def changes(self, changes: Changes) -> ChangesReply:
        def answer() -> ChangesReply:
            self._worker.store.put_all(changes.bundles)
            return self._worker.trees.tree(changes.client).apply(changes)  # type: ignore[no-any-return]

        return self._ask(answer)

    def lacking(self, changes: Changes) -> list[Digest]:
        tree = self._worker.trees.tree
        return self._ask(lambda: tree(changes.client).lacking(changes).missing)

    def blobs(self, sent: list[Bundle]) -> None:
        self._ask(lambda: self._worker.store.put_all(sent))

    def clean(self, client: str) -> None:
        self._ask(lambda: self._worker.trees.clean(client))

    def _ask(self, act: Callable[[], T]) -> T:
        def answer() -> Generator[OneShot, None, tuple[T]]:
            yield from ()
            return (act(),)

        host = self._worker.host
        if not host.is_alive:
            raise InfrastructureError("connection refused")
        return self._farm.send(answer, 10.0, host, host)[0]


class MirroredFarm(SimulatedFarm):
    """A farm whose jobs read headers of the dev box."""

    def __init__(self, world: World, top: Path) -> None:
        self._top = top
        self.pushers: dict[str, Pusher] = {}
        self._is_started = Event(world)
        (top / "dev").mkdir()
        super().__init__(world)

    def _start(self) -> None:
        super()._start()
        self.dev = DevBox(self, self._top / "dev")
        self._source = BlobSource(self.dev.manifest)
        self._source.scanned()
        self._is_started.set()

    def tree_and_store(self, worker: SimulatedWorker) -> tuple[Any, Any]:
        """Empty ones, which a push thread of the syncer fills."""
        made = Made(self._top / worker.name)
        self.world.spawn(self.syncer, lambda: self._push_to(worker), "push")
        return made.trees, made.store

    def _push_to(self, worker: SimulatedWorker) -> None:
        self._is_started.wait()
        made = Pusher(
            PushClient(self, worker),  # type: ignore[arg-type]
            CLIENT,
            self.dev,  # type: ignore[arg-type]
            self._source,
            self.farm,
        )
        self.pushers[worker.name] = made
        made.start()

    def prepared(self, name: str) -> Any:
        self.dev.sync()
        return msgspec.structs.replace(task(name), generation=self.dev.manifest.generation)

    def pull(self, request: PullRequest) -> Changes:
        """As ``Service.pull``."""
        if request.summary and request.summary == self.dev.manifest.summary():
            return self.dev.changes(CLIENT, "", 0, offer=True)
        return self.dev.changes(CLIENT, request.epoch, request.have)

    def blobs(self, request: BlobRequest) -> BlobBatch:
        """As ``Service.blobs``."""
        found = next(self._source.batches(request.digests), [])
        if not found:
            paths_of = self.dev.manifest.paths_of
            self.dev.recheck([path for digest in request.digests for path in paths_of(digest)])
        return BlobBatch(found)

    def changes_for(self, request: LeaseRequest, jobs: list[Job]) -> Changes | None:
        """As ``Service.lease``."""
        if not any(job.generation > request.generation for job in jobs):
            return None
        changes = self.pull(PullRequest(request.epoch, request.generation))
        return changes if changes.base else None

    # --- what must hold -------------------------------------------------------------------------

    def reads(self, worker: SimulatedWorker, job: Job, tree: Any) -> Callable[[], object]:
        """A job finds what the dev box had when it was submitted, or has had since; unless the tree
        has changed under it, which the worker says with its result."""
        begin = tree.revision()
        path = os.path.join(self.dev.top, self.world.chance.choice(FILES))
        name = os.fsencode(path)
        found = self._read(tree, name)

        def end() -> None:
            if tree.is_changed_since(begin, [name]):
                return
            if found not in self.dev.allowed(path, job.generation):
                raise Broken(f"{worker.name} reads an old {path} for generation {job.generation}")

        return end

    def _read(self, tree: Any, name: bytes) -> Digest | None:
        try:
            with open(tree.ground.real(name), "rb") as file:
                return hashlib.sha256(file.read()).digest()
        except OSError:
            return None

    def check_that_nothing_is_left(self) -> None:
        super().check_that_nothing_is_left()
        for worker in self.alive():
            held = worker.trees.status().get(client_label(CLIENT))
            if worker.is_leaving or held is None:
                continue
            if held.generation != self.dev.manifest.generation:
                raise Broken(f"{worker.name} stays at generation {held.generation}")
            self._compare(worker)

    def _compare(self, worker: SimulatedWorker) -> None:
        """A worker's tree is what the dev box has."""
        root = worker.trees._trees[CLIENT].ground.root
        for name in FILES:
            path = os.path.join(self.dev.top, name)
            here = Path(path).read_bytes() if os.path.exists(path) else None
            copy = Path(os.fsdecode(root) + path)
            there = copy.read_bytes() if copy.exists() else None
            if here != there:
                raise Broken(f"{worker.name} has another {path}: {there!r}, not {here!r}")


class Made:
    """A worker's disk."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory / "store")
        self.trees = Trees(directory / "sandbox", self.store, OwnFiles(self.store, enabled=False))
        self.trees.set_aside_old()
