"""Names that several of our parts have to agree on."""

import hashlib
import re

#: A directory with a file of this name is ours and never mirrored: a worker's sandboxes are there.
HOME_MARKER = ".dist_build_home"

_LABEL_DIGITS = 32


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


def client_label(client: str) -> str:
    """What may be shown of a client's id, and what its tree's directory is called.

    The id is a secret: whoever knows it has that client's tree. Of this nobody finds the id, nor
    another id with the same label (128 bits).
    """
    digest = hashlib.sha256(client.encode("utf-8", "surrogatepass")).hexdigest()
    return digest[:_LABEL_DIGITS]


#: Longer ones say nothing more.
MAX_SAID = 300
#: Controls of C0 and C1, DEL, what ends a line elsewhere, and what turns the direction of text.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


def one_line(text: str, most: int = MAX_SAID) -> str:
    """``text`` with a space for what does not belong in a line, cut after ``most`` characters."""
    fit = _UNFIT.sub(" ", text[: 4 * most]).strip()
    return fit if len(fit) <= most else fit[: most - 3] + "..."
