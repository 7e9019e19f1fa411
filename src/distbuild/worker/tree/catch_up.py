"""Brings a tree to a generation, with what the syncer has to say and to send. Runs no job."""

import time

from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import (
    BlobRequest,
    Changes,
    Digest,
    Job,
    PullRequest,
)
from distbuild.worker.client import SyncerLink
from distbuild.worker.tree.store import Store
from distbuild.worker.tree.tree import Tree

#: Digests asked for in one request; the syncer closes an answer by its size anyway.
MAX_DIGESTS = 1000
#: A dev box that changes faster than it can be followed for so many rounds is not followed.
MAX_ROUNDS = 8
#: An event usually takes 0.3 ms (seconds); a file that is being written may take longer. Doubled
#: each time.
GONE_PAUSE_S = 0.02


def follow(tree: Tree, changes: Changes, syncer: SyncerLink, store: Store) -> None:
    """Apply ``changes``, with the blobs or the full listing that they need.

    A file may change or go between being told of and being sent: then the changes are asked for
    again, once the syncer has had time to hear of it. Raises InfrastructureError when all that
    leads to no end.
    """
    trouble = f"cannot follow the mirror of {syncer.url}"
    pause = GONE_PAUSE_S
    for _ in range(MAX_ROUNDS):
        reply = tree.apply(changes)
        if reply.state == "applied":
            return
        if reply.state != "need_blobs":
            changes = syncer.pull(PullRequest(epoch="", have=0))
        elif not fetch(reply.missing, syncer, store):
            trouble = f"{syncer.url} does not send what it offered"
            time.sleep(pause)
            pause *= 2
            changes = syncer.pull(PullRequest(*tree.position()))
    raise InfrastructureError(trouble)


def fetch(missing: list[Digest], syncer: SyncerLink, store: Store) -> bool:
    """Have the syncer send these blobs; False when it has none of those that are left."""
    while missing:
        batch = syncer.blobs(BlobRequest(missing[:MAX_DIGESTS]))
        store.put_all(batch.bundles)
        left = store.missing(missing)
        if len(left) == len(missing):
            return False
        missing = left
    return True


def reach(tree: Tree, epoch: str, job: Job, syncer: SyncerLink, store: Store) -> None:
    """Have the tree at least at the job's generation of ``epoch``."""
    for _ in range(MAX_ROUNDS):
        have_epoch, have, summary = tree.position()
        if have_epoch == epoch and have >= job.generation:
            return
        follow(tree, syncer.pull(PullRequest(have_epoch, have, summary)), syncer, store)
    raise InfrastructureError(f"{syncer.url} has not got generation {job.generation} of {epoch}")
