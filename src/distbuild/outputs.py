"""Puts what a worker's compiler wrote where the local one would have written it.

Whole or not at all: every file is written beside its place and renamed once all are written. Used
by the syncer for wrappers of its own machine, and by the wrapper for itself.
"""

import contextlib
import itertools
import os
from collections.abc import Iterable, Sequence

from distbuild.protocol.blobs import unpack
from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.messages import OutputFile

_numbers = itertools.count()


def write_outputs(outputs: Sequence[OutputFile], removed: Iterable[bytes], umask: int) -> None:
    """Write and remove files; raises InfrastructureError and leaves nothing half.

    ``umask`` is the build's: the mode bits are what open(2) would have given the compiler.
    """
    written: list[tuple[bytes, bytes]] = []
    try:
        for file in outputs:
            written.append((_write_beside(file, umask), file.path))  # noqa: PERF401 - one may fail
        for temporary, path in written:
            os.replace(temporary, path)
    except OSError as error:
        _remove(temporary for temporary, _ in written)
        raise InfrastructureError(f"cannot write the result: {error.strerror}") from error
    except InfrastructureError:
        _remove(temporary for temporary, _ in written)
        raise
    _remove(removed)


def _write_beside(file: OutputFile, umask: int) -> bytes:
    try:
        data = unpack(file.blob)
    except ProtocolError as error:
        name = os.fsdecode(file.path)
        raise InfrastructureError(f"{name}: damaged on the way: {error}") from error
    directory = file.path.rpartition(b"/")[0]
    temporary = b"%s/.dist_build.%d.%d" % (directory, os.getpid(), next(_numbers))
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with open(handle, "wb", buffering=0) as opened:
            left = memoryview(data)
            while left:
                left = left[opened.write(left) :]
            os.fchmod(handle, (0o777 if file.mode & 0o111 else 0o666) & ~umask)
    except OSError:
        os.unlink(temporary)
        raise
    return temporary


def _remove(paths: Iterable[bytes]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
