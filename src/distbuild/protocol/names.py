"""Names that several of our parts have to agree on."""

#: A directory with a file of this name is ours and never mirrored: a worker's sandboxes are there.
HOME_MARKER = ".dist_build_home"


def worker_name(identity: str, start: str) -> str:
    """The name of one worker process: its home's identity, and a random part of this start's own.

    A machine that is cloned takes its home's identity along. By the second part the copies are
    two workers all the same, and what was leased to a process that has ended is not renewed by
    its successor.
    """
    return f"{identity}.{start}"


def identity_of(worker: str) -> str:
    """The part of a worker's name that outlives its process."""
    return worker.partition(".")[0]
