"""Brings a worker's tree to a generation by pulling changes and blobs from the syncer.

Used by agents before a job starts. Runs no job.
"""

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

#: Digests in one request; the syncer limits a reply by its size anyway.
MAX_DIGESTS = 1000
#: Rounds after which the worker gives up on a mirror that changes faster than it can be pulled.
MAX_ROUNDS = 8
#: First pause before another pull (seconds), doubled each time. A file event usually takes 0.3 ms;
#: a file that is being written may take longer.
GONE_PAUSE_S = 0.02


def follow(tree: Tree, changes: Changes, syncer: SyncerLink, store: Store) -> None:
    """Apply ``changes``, with the blobs or the full listing that they need.

    A file may change or be removed between its listing and its transfer: then the changes are
    pulled again, after a pause in which the syncer gets the file event. Raises InfrastructureError
    after MAX_ROUNDS.
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
    """Fetch these blobs into the store; False when the syncer has none of those that are left."""
    while missing:
        batch = syncer.blobs(BlobRequest(missing[:MAX_DIGESTS]))
        store.put_all(batch.bundles)
        left = store.missing(missing)
        if len(left) == len(missing):
            return False
        missing = left
    return True


def reach(tree: Tree, epoch: str, job: Job, syncer: SyncerLink, store: Store) -> None:
    """Bring the tree at least to the job's generation of ``epoch``; raises InfrastructureError."""
    for _ in range(MAX_ROUNDS):
        have_epoch, have, summary = tree.position()
        if have_epoch == epoch and have >= job.generation:
            return
        follow(tree, syncer.pull(PullRequest(have_epoch, have, summary)), syncer, store)
    raise InfrastructureError(f"{syncer.url} has not got generation {job.generation} of {epoch}")
