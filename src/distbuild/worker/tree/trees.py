"""Keeps a worker's trees, one for each client, below one directory. Knows no entry and no network.

A client's id is a secret of its syncer and its workers: it gives access to the tree. On disk and in
messages for people its label is used.
"""

import contextlib
import logging
import os
import threading
import time
from pathlib import Path

from distbuild.mirror.manifest import Fold
from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.names import HOME_MARKER, client_label
from distbuild.system import disk
from distbuild.system.paths import FOLD, from_system
from distbuild.worker.tree.paths import check_client
from distbuild.worker.tree.store import OwnFiles, Store, translated
from distbuild.worker.tree.tree import Tree, TreeStatus

_log = logging.getLogger(__name__)

#: Holds the trees of an earlier process until they are deleted. No client can have this name.
_TRASH = ".trash"
_JOBS = ".jobs"


class Trees:
    """The trees by client; each is created when its client is first named. Thread-safe."""

    def __init__(
        self, root: Path, store: Store, own_files: OwnFiles, fold: Fold | None = FOLD
    ) -> None:
        self._fold = fold
        self._root = root
        self._store = store
        self._own_files = own_files
        self._lock = threading.Lock()
        self._trees: dict[str, Tree] = {}
        # Client -> the syncer whose lease reply named it first.
        self._syncers: dict[str, str] = {}
        # When each client was named last, on the monotonic clock.
        self._named: dict[str, float] = {}
        with translated():
            root.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def jobs(self) -> Path:
        """The parent of running jobs' own directories, on the trees' file system."""
        return self._root / _JOBS

    def set_aside_old(self) -> None:
        """Move an earlier process's trees to the trash: their state in memory is lost."""
        trash = self._root / _TRASH
        with translated():
            trash.mkdir(exist_ok=True)
            for number, name in enumerate(os.listdir(self._root)):
                if name not in (_TRASH, HOME_MARKER):
                    os.rename(self._root / name, trash / f"{os.getpid()}-{number}-{name}"[:200])
            self.jobs.mkdir()

    def delete_old(self) -> None:
        """Delete the trash; slow, for a thread of its own."""
        disk.remove_tree(from_system(str(self._root / _TRASH)))

    def tree(self, client: str) -> Tree:
        """The tree of the client with this id; raises ProtocolError for a bad id."""
        check_client(client)
        with self._lock:
            self._named[client] = time.monotonic()
            if client not in self._trees:
                root = os.fsencode(from_system(str(self._root / client_label(client))))
                self._trees[client] = Tree(root, self._store, self._own_files, self._fold)
            return self._trees[client]

    def tree_for(self, syncer: str, client: str) -> Tree:
        """The client's tree for jobs of the syncer at this URL.

        Raises ProtocolError for a client that another syncer named first: two developers share no
        tree.
        """
        tree = self.tree(client)
        with self._lock:
            if self._syncers.setdefault(client, syncer) != syncer:
                raise ProtocolError(f"{syncer} names another syncer's client")
        return tree

    def clear_unused(self, unused_s: float) -> None:
        """Remove the files of the clients that were not named for so long (seconds). If one comes
        back, its files are linked again from the store."""
        before = time.monotonic() - unused_s
        with self._lock:
            unused = {c: tree for c, tree in self._trees.items() if self._named[c] <= before}
        for client, tree in unused.items():
            if tree.status().files:
                _log.info("the files of %s are removed: not used", client_label(client))
                with contextlib.suppress(InfrastructureError):
                    tree.clean()

    def heal(self) -> None:
        """Recreate the directory if it was removed; the trees are then sent again.

        After a failure here the next job fails as well, and this is called again.
        """
        with self._lock, contextlib.suppress(InfrastructureError), translated():
            if self.jobs.is_dir():
                return
            _log.warning("%s was removed; it is made anew", self._root)
            for tree in self._trees.values():
                tree.clean()
            self.jobs.mkdir(parents=True, exist_ok=True)

    def clean(self, client: str) -> None:
        """Remove this client's mirrored files."""
        self.tree(client).clean()

    def status(self) -> dict[str, TreeStatus]:
        """The status of every client's tree, by the client's label."""
        with self._lock:
            trees = dict(self._trees)
        return {client_label(client): tree.status() for client, tree in trees.items()}
