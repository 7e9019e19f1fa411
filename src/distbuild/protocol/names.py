"""Names that several of our parts have to agree on."""

import hashlib

#: A directory with a file of this name is ours and never mirrored: a worker's sandboxes are there.
HOME_MARKER = ".dist_build_home"

_LABEL_DIGITS = 32


def client_label(client: str) -> str:
    """What may be shown of a client's id, and what its tree's directory is called.

    The id is a secret: whoever knows it has that client's tree. Of this nobody finds the id, nor
    another id with the same label (128 bits).
    """
    digest = hashlib.sha256(client.encode("utf-8", "surrogatepass")).hexdigest()
    return digest[:_LABEL_DIGITS]
