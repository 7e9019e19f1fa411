"""Syncer side: refuses results that no honest worker can have sent for the task.

Such a result comes from a broken or hostile worker: a file that the command does not write, a
success without its object or its source, too many bytes. Reads no file contents; looks at
directories of the dev box. Whether a result is correct is checked by ``syncer.verify``.
"""

import os
import struct
from collections.abc import Container, Iterable

from distbuild.command.model import LocalReason
from distbuild.command.side_effects import Writable, object_of
from distbuild.farm.executor import Task
from distbuild.protocol.codec import is_expanding, mark, unpack_inputs
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import (
    DIGEST_BYTES,
    MAX_BLOB_BYTES,
    MAX_PRINTED_BYTES,
    InputFile,
    ResultRequest,
)
from distbuild.protocol.names import one_line
from distbuild.system.paths import WINDOWS
from distbuild.system.windows.names import fold
from distbuild.write_outputs import is_same_directory

_MARK = struct.Struct("<Q")


def objection(task: Task, result: ResultRequest) -> str:
    """The reason why no honest worker can have sent this result; "": none."""
    if len(result.stdout) + len(result.stderr) > MAX_PRINTED_BYTES:
        return "it prints more than any compiler"
    named = task.command.named_outputs()
    try:
        return (
            objection_to_outputs(task, result, named)
            or _objection_to_inputs((*result.inputs, *result.assembled))
            or _objection_to_success(task, result)
        )
    except ProtocolError as error:
        return str(error)


def size_of(result: ResultRequest) -> int:
    """The memory that a result takes while it waits to be used (bytes)."""
    packed = sum([len(file.blob.data) for file in result.outputs])
    return packed + len(result.stdout) + len(result.stderr) + len(result.packed_inputs)


def only_here(result: ResultRequest) -> LocalReason | None:
    """Why no other worker is tried; None: one may be, or there was no error."""
    if result.crashed:
        return LocalReason.COMPILER_CRASHED
    if result.unseen:
        return LocalReason.ASSEMBLER_INPUT
    if result.outside:
        return LocalReason.NO_NAMESPACE
    return LocalReason.NAMES_ITS_PLACE if result.named else None


def objection_to_outputs(task: Task, result: ResultRequest, named: Container[str]) -> str:
    """The reason why the command cannot have written these files; "": none."""
    own = {file.path for file in task.files}
    writable: Writable | None = None
    seen = set[bytes]()
    size = packed = 0
    for file in result.outputs:
        path = file.path
        if not path.startswith(b"/") or b"\0" in path or path in own or path in seen:
            return f"it writes {_shown(path)}"
        if os.fsdecode(path) not in named:  # it mostly is; the check below is slower
            writable = writable or Writable(task.command, is_same_directory)
            if not writable.has(os.fsdecode(path)):
                return f"it writes {_shown(path)}, which its command does not"
        if not 0 <= file.blob.size <= MAX_BLOB_BYTES:
            return f"it writes {file.blob.size} bytes"
        seen.add(path)
        size += file.blob.size
        packed += len(file.blob.data)
    if size > MAX_BLOB_BYTES or is_expanding(size, packed):
        return f"it writes {size} bytes, packed in {packed}"
    return ""


def _objection_to_inputs(inputs: Iterable[InputFile]) -> str:
    for item in inputs:
        if not item.path.startswith(b"/") or b"\0" in item.path:
            return f"it read {_shown(item.path)}"
        if len(item.digest) not in (0, DIGEST_BYTES):
            return f"a digest of {len(item.digest)} bytes"
    return ""


def _objection_to_success(task: Task, result: ResultRequest) -> str:
    """Skipped for a disturbed result: its compile is repeated anyway."""
    if result.exit_code != 0 or result.disturbed:
        return ""
    made = object_of(task.command)
    if made and not _writes(task, result, made):
        return f"it succeeded without {one_line(made)}"
    if task.files and not _lists_source(task, result):
        return f"it succeeded without reading {one_line(task.command.source)}"
    return ""


def _writes(task: Task, result: ResultRequest, name: str) -> bool:
    base = os.fsencode(task.command.style.base(name))
    return base in [file.path.rpartition(b"/")[2] for file in result.outputs]


def _lists_source(task: Task, result: ResultRequest) -> bool:
    source = task.files[0]
    if _MARK.pack(mark(source.path, source.entry.digest)) in result.marks:
        return True
    packed = unpack_inputs(result.packed_inputs) if result.packed_inputs else []
    paths = [item.path for item in (*result.inputs, *packed)]
    if not WINDOWS:
        return source.path in paths
    # Microsoft's compiler lists paths in lower case.
    return fold(os.fsdecode(source.path)) in {fold(os.fsdecode(path)) for path in paths}


def _shown(path: bytes) -> str:
    return one_line(path.decode("utf-8", "replace"))
