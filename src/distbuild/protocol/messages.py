"""Every message on the wire, as a frozen typed value. Knows no socket, no disk and no queue.

Paths and arguments are ``bytes``, exactly as the operating system has them: file names need not be
UTF-8. Digests are raw SHA-256 (32 bytes), so that the same blobs can serve a content store of
another system. What is about the mirror stands in ``entries``.
"""

import re
from typing import Annotated, TypeGuard

import msgspec

from distbuild.protocol.coding import (
    BATCH_BYTES,
    CONTENT_TYPE,
    DIGEST_BYTES,
    MAX_BLOB_BYTES,
    MAX_BODY_BYTES,
    MAX_BUNDLE_BYTES,
    MAX_OUTPUTS,
    MAX_PRINTED_BYTES,
    MAX_RESULTS_BYTES,
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
    "MAX_OUTPUTS",
    "MAX_PRINTED_BYTES",
    "MAX_RESULTS_BYTES",
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
    #: Where paths mean what they mean to the wrapper: one of ``place.views_of_files``; empty: not
    #: told.
    place: bytes = b""
    #: The build's umask; needed only where the syncer writes the outputs.
    umask: int = 0o022
    #: The group that its new files belong to; -1: not told. Needed there too.
    group: int = -1
    #: The caller on the Unix socket takes the outputs as descriptors, and puts them in place.
    places_outputs: bool = False


class OutputFile(Message, frozen=True):
    """A file that the compiler wrote; ``path`` is absolute, in the dev box's terms."""

    path: bytes
    mode: int
    blob: Blob


#: How a compiler ends; one that a signal or an exception ended has no exit code.
MAX_EXIT_CODE = 255
ExitCode = Annotated[int, msgspec.Meta(ge=0, le=MAX_EXIT_CODE)]
Outputs = Annotated[list[OutputFile], msgspec.Meta(max_length=MAX_OUTPUTS)]


class SubmitReply(Message, frozen=True):
    """``outcome``: ``done`` (the compiler's own answer) or ``local`` (compile here)."""

    outcome: str
    exit_code: ExitCode = 0
    stdout: bytes = b""
    stderr: bytes = b""
    outputs: Outputs = []
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
_WORKER_NAME = r"\A[A-Za-z0-9._:\[\]-]+\Z"
#: It is shown, logged, and part of a header.
WorkerName = Annotated[str, msgspec.Meta(max_length=MAX_NAME, pattern=_WORKER_NAME)]
_LABEL = r"\A[A-Za-z0-9._:\[\]-]*\Z"
#: What people know a worker by; empty: it does not say.
Label = Annotated[str, msgspec.Meta(max_length=MAX_NAME, pattern=_LABEL)]
#: Text that somebody else made up, and that is compared, perhaps shown.
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
#: More slots than any machine has.
MAX_SLOTS = 10_000
Slots = Annotated[int, msgspec.Meta(ge=0, le=MAX_SLOTS)]
#: Seconds that an answer may be waited for; the syncer answers sooner.
Wait = Annotated[float, msgspec.Meta(ge=0, le=3600)]
#: Of the mirror.
Generation = Annotated[int, msgspec.Meta(ge=0)]
MAX_TOOLCHAINS = 1000
MAX_LEASES = 20_000
#: A hundred thousand headers are more than any translation unit reads.
MAX_INPUTS = 100_000
MAX_PACKED_INPUTS = 32 * 1024 * 1024
MAX_MARKS_BYTES = 8 * MAX_INPUTS


def is_worker_name(name: object) -> TypeGuard[str]:
    """Whether a worker may be called so."""
    return isinstance(name, str) and len(name) <= MAX_NAME and bool(re.search(_WORKER_NAME, name))


def worker_label(host: str, port: int) -> str:
    """What people know a worker on this host by: some systems allow more in a host's name."""
    return f"{re.sub('[^A-Za-z0-9._-]', '-', host[:255])}:{port}"


class Toolchain(Message, frozen=True):
    """A compiler as a worker or a job names it. ``identity`` is what has to agree."""

    identity: Name
    name: Name
    version: Name = ""


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
    could start them now. ``worker`` is one process's own name, see ``names.worker_name``.
    """

    worker: WorkerName
    slots: Slots
    wait_s: Wait
    toolchains: Annotated[list[Toolchain], msgspec.Meta(max_length=MAX_TOOLCHAINS)]
    epoch: Name = ""
    generation: Generation = 0
    namespaces: bool = False
    version: int = PROTOCOL_VERSION
    ahead: Slots = 0
    #: Another one after each start of the worker: its trees are gone then.
    life: Name = ""
    #: What people know the worker by (HOST:PORT); several may have the same one. Empty: ``worker``.
    label: Label = ""


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

    worker: WorkerName
    leases: Annotated[list[Name], msgspec.Meta(max_length=MAX_LEASES)]
    wait_s: Wait


class RenewReply(Message, frozen=True):
    """Leases that are the worker's no more: kill their compilers."""

    ended: list[str] = []


class InputFile(Message, frozen=True):
    """A file that the compiler read, with the digest of the bytes it read."""

    path: bytes
    digest: Digest


Inputs = Annotated[list[InputFile], msgspec.Meta(max_length=MAX_INPUTS)]
#: As ``blobs.pack_inputs`` writes them.
PackedInputs = Annotated[list[tuple[bytes, Digest]], msgspec.Meta(max_length=MAX_INPUTS)]


class ResultRequest(Message, frozen=True):
    """A finished lease. ``error`` set: no verdict of the compiler, the job has to go elsewhere."""

    lease_id: Name
    worker: WorkerName
    exit_code: ExitCode = 0
    stdout: bytes = b""
    stderr: bytes = b""
    outputs: Outputs = []
    inputs: Inputs = []
    #: More inputs, as ``blobs.pack_inputs`` makes them: hundreds of paths that begin alike.
    packed_inputs: Annotated[bytes, msgspec.Meta(max_length=MAX_PACKED_INPUTS)] = b""
    #: Of those, in their order, as ``marks.pack_marks`` makes them; may be missing.
    marks: Annotated[bytes, msgspec.Meta(max_length=MAX_MARKS_BYTES)] = b""
    #: What the assembler read by its own directives, which no dependency file lists; without a
    #: digest where that is no file of the mirror. There may be one too many among them.
    assembled: Inputs = []
    #: The tree changed under the compiler in a way that may have touched what it read.
    disturbed: bool = False
    error: str = ""
    #: The error is the compiler's own crash: the dev box's is asked instead of another worker.
    crashed: bool = False
    #: The error is that the object would name the worker's own paths: only the dev box's has none.
    named: bool = False
    #: The error is that the worker cannot tell what the assembler read: the dev box compiles.
    unseen: bool = False


#: Results in one request.
MAX_RESULTS = 10_000


class ResultBatch(Message, frozen=True):
    """Results that were ready at the same time."""

    results: Annotated[list[ResultRequest], msgspec.Meta(max_length=MAX_RESULTS)]


class ReceivedBatch(Message, frozen=True):
    """The same as the syncer takes it: each is decoded for itself, so that one which is malformed
    takes no other with it, and that many small parts of one are gone before the next."""

    results: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_RESULTS)]


class Claim(Message, frozen=True):
    """What a result that is malformed may still tell: whose lease it is."""

    lease_id: Name
    worker: WorkerName


class ResultsReply(Message, frozen=True):
    """For each result, in order: whether it was taken; not: its lease is not valid any more."""

    taken: list[bool]
