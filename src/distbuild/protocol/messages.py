"""Every message on the wire, as a frozen typed value. Knows no socket, no disk and no queue.

Paths and arguments are ``bytes``, exactly as the operating system has them: file names need not be
UTF-8. Digests are raw SHA-256 (32 bytes), so that the same blobs can serve a content store of
another system. What is about the mirror stands in ``entries``.
"""

from typing import Annotated

import msgspec

from distbuild.protocol.coding import (
    BATCH_BYTES,
    CONTENT_TYPE,
    DIGEST_BYTES,
    MAX_BLOB_BYTES,
    MAX_BODY_BYTES,
    MAX_BUNDLE_BYTES,
    PROTOCOL_VERSION,
    Digest,
    Message,
    decode,
    encode,
    to_plain,
)
from distbuild.protocol.entries import (
    Blob,
    BlobBatch,
    BlobRequest,
    Bundle,
    Change,
    Changes,
    ChangesReply,
    CleanRequest,
    DirectoryEntry,
    Entry,
    FileEntry,
    PullRequest,
    SymlinkEntry,
    WithheldEntry,
)

#: What is passed on from the others.
__all__ = [
    "BATCH_BYTES",
    "CONTENT_TYPE",
    "DIGEST_BYTES",
    "MAX_BLOB_BYTES",
    "MAX_BODY_BYTES",
    "MAX_BUNDLE_BYTES",
    "PROTOCOL_VERSION",
    "Blob",
    "BlobBatch",
    "BlobRequest",
    "Bundle",
    "Change",
    "Changes",
    "ChangesReply",
    "CleanRequest",
    "Digest",
    "DirectoryEntry",
    "Entry",
    "FileEntry",
    "Message",
    "PullRequest",
    "SymlinkEntry",
    "WithheldEntry",
    "decode",
    "encode",
    "to_plain",
]

# --- a job, from the wrapper -------------------------------------------------------------------

Characters = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]


class Window(Message, frozen=True):
    """A terminal's size as its kernel tells it (``struct winsize``); 0: not known."""

    columns: Characters = 0
    rows: Characters = 0


class Terminal(Message, frozen=True):
    """The terminal that standard error is, and the one that standard input is, if it is one.

    Both count: gcc colours by the first, and takes the width from the second.
    """

    stderr: Window
    stdin: Window | None = None


class SubmitRequest(Message, frozen=True):
    """A command line to compile, as the build gave it to the wrapper."""

    argv: list[bytes]
    cwd: bytes
    env: dict[str, bytes]
    #: None: standard error is no terminal.
    terminal: Terminal | None = None
    version: int = PROTOCOL_VERSION
    #: Where paths mean what they mean to the wrapper: its mount namespace and root directory, as
    #: ``names.place`` has them; empty: not told.
    place: bytes = b""
    #: The build's umask; needed only where the syncer writes the outputs.
    umask: int = 0o022
    #: The group that its new files belong to; -1: not told. Needed there too.
    group: int = -1


class OutputFile(Message, frozen=True):
    """A file that the compiler wrote; ``path`` is absolute, in the dev box's terms."""

    path: bytes
    mode: int
    blob: Blob


class SubmitReply(Message, frozen=True):
    """``outcome``: ``done`` (the compiler's own answer) or ``local`` (compile here)."""

    outcome: str
    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    outputs: list[OutputFile] = []
    #: Files that the compiler would have removed (clang: the outputs of a failed compile).
    removed: list[bytes] = []
    #: Outputs that the compiler would have written into the old file, had there been one.
    rewritten: list[bytes] = []
    reason: str = ""
    detail: str = ""
    #: Local by design (a link, a probe): nothing went wrong and nothing is printed.
    silent: bool = False
    worker: str = ""


class ExplainReply(Message, frozen=True):
    """Whether a command would be distributed; ``reason`` empty: yes."""

    reason: str = ""
    detail: str = ""


# --- a job, to a worker ------------------------------------------------------------------------

#: A worker's name, or its life's; the longest host name (RFC 1035) with a port is shorter.
MAX_NAME = 300
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]


class Toolchain(Message, frozen=True):
    """A compiler as a worker or a job names it. ``identity`` is what has to agree."""

    identity: str
    name: str
    version: str = ""


class Job(Message, frozen=True):
    """One lease: a translation unit to compile in a tree of at least ``generation``."""

    lease_id: str
    generation: int
    argv: list[bytes]
    cwd: bytes
    env: dict[str, bytes]
    toolchain: str
    #: Files of this job that the mirror does not hold (its source), with their content.
    files: list["JobFile"] = []
    #: Directories, of those the compiler may write in, that exist on the dev box.
    output_dirs: list[bytes] = []
    #: The compiler's own search directories, in its order, for a worker without namespaces.
    builtin_dirs: list[bytes] = []
    #: The header that the compiler includes by itself there (stdc-predef.h), "" for none.
    implicit_include: bytes = b""
    #: What ``-march=native`` in ``argv`` means, as ``command.native`` has it.
    processor: list[str] = []
    terminal: Terminal | None = None


class JobFile(Message, frozen=True):
    """A file that travels with a job."""

    path: bytes
    entry: FileEntry
    blob: Blob


class LeaseRequest(Message, frozen=True):
    """An idle worker asks for up to ``slots`` jobs and waits ``wait_s`` seconds for the first.

    ``ahead`` more are welcome that start as soon as a slot is free: given only if nobody else
    could start them now.
    """

    worker: Name
    slots: int
    wait_s: float
    toolchains: list[Toolchain]
    epoch: str = ""
    generation: int = 0
    namespaces: bool = False
    version: int = PROTOCOL_VERSION
    ahead: int = 0
    #: Another one after each start of the worker: its trees are gone then.
    life: Name = ""


class LeaseReply(Message, frozen=True):
    """Jobs, and the changes of the mirror that the worker has not got yet."""

    client: str
    epoch: str
    jobs: list[Job] = []
    changes: Changes | None = None
    #: The dev box's time (Unix time in seconds), by which a worker sees that its own is wrong; 0:
    #: not told.
    clock: float = 0.0


class RenewRequest(Message, frozen=True):
    """A worker says which leases it still works on, and listens for cancellations."""

    worker: Name
    leases: list[str]
    wait_s: float


class RenewReply(Message, frozen=True):
    """Leases that are the worker's no more: kill their compilers."""

    ended: list[str] = []


class InputFile(Message, frozen=True):
    """A file that the compiler read, with the digest of the bytes it read."""

    path: bytes
    digest: Digest


class ResultRequest(Message, frozen=True):
    """A finished lease. ``error`` set: no verdict of the compiler, the job has to go elsewhere."""

    lease_id: str
    worker: Name
    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    outputs: list[OutputFile] = []
    inputs: list[InputFile] = []
    #: More inputs, as ``blobs.pack_inputs`` makes them: hundreds of paths that begin alike.
    packed_inputs: bytes = b""
    #: Of those, in their order, as ``marks.pack_marks`` makes them; may be missing.
    marks: bytes = b""
    #: What the assembler read by its own directives, which no dependency file lists; without a
    #: digest where that is no file of the mirror. There may be one too many among them.
    assembled: list[InputFile] = []
    #: The tree changed under the compiler in a way that may have touched what it read.
    disturbed: bool = False
    error: str = ""
    #: The error is the compiler's own crash: the dev box's is asked instead of another worker.
    crashed: bool = False
    #: The error is that the object would name the worker's own paths: only the dev box's has none.
    named: bool = False
    #: The error is that the worker cannot tell what the assembler read: the dev box compiles.
    unseen: bool = False


class ResultBatch(Message, frozen=True):
    """Results that were ready at the same time."""

    results: list[ResultRequest]


class ResultsReply(Message, frozen=True):
    """For each result, in order: whether it was taken; not: its lease is not valid any more."""

    taken: list[bool]
