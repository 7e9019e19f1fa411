"""Puts what a worker's compiler wrote where the local one would have written it.

Whole or not at all: every file is written beside its place and renamed once all are written.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterable

from distbuild.protocol.blobs import unpack
from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.messages import OutputFile, SubmitReply


def write_outputs(reply: SubmitReply) -> None:
    """Write and remove the files of a reply; raises InfrastructureError and leaves nothing half."""
    written: list[tuple[str, str]] = []
    try:
        for file in reply.outputs:
            path = os.fsdecode(file.path)
            written.append((_write_beside(path, file), path))
        for temporary, path in written:
            os.replace(temporary, path)
    except OSError as error:
        _remove(temporary for temporary, _ in written)
        raise InfrastructureError(f"cannot write the result: {error.strerror}") from error
    except InfrastructureError:
        _remove(temporary for temporary, _ in written)
        raise
    _remove(os.fsdecode(path) for path in reply.removed)


def _write_beside(path: str, file: OutputFile) -> str:
    try:
        data = unpack(file.blob)
    except ProtocolError as error:
        raise InfrastructureError(f"{path}: damaged on the way: {error}") from error
    handle, temporary = tempfile.mkstemp(prefix=".dist_build.", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(data)
        # As open(2) gives them to the compiler: its mode bits less the build's umask.
        os.chmod(temporary, (0o777 if file.mode & 0o111 else 0o666) & ~_umask())
    except OSError:
        os.unlink(temporary)
        raise
    return temporary


def _umask() -> int:
    # There is no call that only reads it; this process has one thread.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _remove(paths: Iterable[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
