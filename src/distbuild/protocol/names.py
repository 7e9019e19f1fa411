"""Names that several packages share: of the home's marker, worker processes and clients; and the
cleaning of text from peers for one line of a log or terminal."""

import hashlib
import re

#: Marks a directory of dist_build's, which is never mirrored: it may contain a worker's sandboxes.
HOME_MARKER = ".dist_build_home"

_LABEL_DIGITS = 32


def worker_name(identity: str, start: str) -> str:
    """The name of one worker process: its home's identity, and a part that is random at each start.

    A cloned machine has the same identity in its home. The second part keeps the clones apart, and
    keeps a process from renewing the leases of its predecessor.
    """
    return f"{identity}.{start}"


def identity_of(worker: str) -> str:
    """The part of a worker's name that is the same after a restart."""
    return worker.partition(".")[0]


def client_label(client: str) -> str:
    """A hash of a client's id that may be shown, and that names its tree's directory.

    The id is a secret: it gives access to that client's tree. From the label, neither the id can be
    found, nor another id with the same label (128 bits).
    """
    digest = hashlib.sha256(client.encode("utf-8", "surrogatepass")).hexdigest()
    return digest[:_LABEL_DIGITS]


#: The longest line; more characters add no information.
MAX_SAID = 300
#: Control characters (C0, C1, DEL), Unicode line separators, bidirectional controls, surrogates.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


def one_line(text: str) -> str:
    """``text`` with control characters replaced by spaces, cut to ``MAX_SAID`` characters."""
    fit = _UNFIT.sub(" ", text[: 4 * MAX_SAID]).strip()
    return fit if len(fit) <= MAX_SAID else fit[: MAX_SAID - 3] + "..."
