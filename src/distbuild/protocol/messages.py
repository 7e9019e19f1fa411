"""All messages of the protocol, as frozen typed values. Knows no socket, no disk and no queue.

Paths and arguments are ``bytes``, exactly as in the operating system: file names need not be UTF-8.
Digests are raw SHA-256 (32 bytes), so that the same blobs can serve a content store of another
system. Messages about the mirror are defined in ``entries``.
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

#: Re-exported from ``coding`` and ``entries``.
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
    """A terminal's size, from its kernel (``struct winsize``); 0: not known."""

    columns: Characters = 0
    rows: Characters = 0


class Terminal(Message, frozen=True):
    """The terminals on standard error and, if it is one, on standard input.

    Both matter: gcc's colours depend on the first, its line width on the second.
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
    #: The wrapper's view of the file system, one of ``system.process.views_of_files``; empty: not
    #: known.
    place: bytes = b""
    #: The build's umask; needed only where the syncer writes the outputs.
    umask: int = 0o022
    #: The group that its new files belong to; -1: not known. Needed there too.
    group: int = -1
    #: The caller on the Unix socket accepts the outputs as descriptors, and puts them in place.
    places_outputs: bool = False
    #: The reply is to say how long each phase took.
    timed: bool = False
    #: The wrapper's session (``getsid``), by which the history knows which jobs are one build.
    session: int = 0


class OutputFile(Message, frozen=True):
    """A file that the compiler wrote; ``path`` is absolute, as on the dev box."""

    path: bytes
    mode: int
    blob: Blob


#: A compiler's exit code; one that a signal or an exception ended has none.
MAX_EXIT_CODE = 255
ExitCode = Annotated[int, msgspec.Meta(ge=0, le=MAX_EXIT_CODE)]
Outputs = Annotated[list[OutputFile], msgspec.Meta(max_length=MAX_OUTPUTS)]


#: The phases of a job that a worker compiles, as its wrapper prints them.
UNDERSTOOD, PREPARED, QUEUED, REMOTE, VERIFIED = (
    "understood",
    "prepared",
    "queued",
    "on the worker",
    "verified",
)
#: Words and numbers of ``farm.executor.Stopwatch``.
Times = Annotated[str, msgspec.Meta(max_length=200, pattern=r"\A[a-z0-9 .,()]*\Z")]


class SubmitReply(Message, frozen=True):
    """``outcome``: ``done`` (the compiler's own result) or ``local`` (compile locally)."""

    outcome: str
    exit_code: ExitCode = 0
    stdout: bytes = b""
    stderr: bytes = b""
    outputs: Outputs = []
    #: Files that the compiler would have removed (clang: the outputs of a failed compile).
    removed: list[bytes] = []
    #: Outputs that the compiler would overwrite in place if an old file existed.
    rewritten: list[bytes] = []
    reason: str = ""
    detail: str = ""
    #: Local by design (a link, a probe): no failure, and nothing is printed.
    silent: bool = False
    worker: str = ""
    #: For a ``timed`` request: the phases of the job with their milliseconds, for display.
    times: Times = ""


class ExplainReply(Message, frozen=True):
    """Whether a command would be distributed; ``reason`` empty: yes. ``cache``: what the object
    cache has for it; empty: there is none."""

    reason: str = ""
    detail: str = ""
    cache: str = ""


# --- a job, to a worker ------------------------------------------------------------------------

#: Characters of a worker's name or life; the longest host name (RFC 1035) with a port is shorter.
MAX_NAME = 300
_WORKER_NAME = r"\A[A-Za-z0-9._:\[\]-]+\Z"
#: Restricted, since it is shown, logged, and part of a header.
WorkerName = Annotated[str, msgspec.Meta(max_length=MAX_NAME, pattern=_WORKER_NAME)]
_LABEL = r"\A[A-Za-z0-9._:\[\]-]*\Z"
#: A worker's name for people; empty: not given.
Label = Annotated[str, msgspec.Meta(max_length=MAX_NAME, pattern=_LABEL)]
#: Text from a peer that is only compared, and perhaps shown.
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
#: More slots than any machine has.
MAX_SLOTS = 10_000
Slots = Annotated[int, msgspec.Meta(ge=0, le=MAX_SLOTS)]
#: Seconds of a long poll, at most; the syncer answers sooner.
Wait = Annotated[float, msgspec.Meta(ge=0, le=3600)]
Port = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
#: A generation of the mirror.
Generation = Annotated[int, msgspec.Meta(ge=0)]
MAX_TOOLCHAINS = 1000
MAX_LEASES = 20_000
#: A hundred thousand headers are more than any translation unit reads.
MAX_INPUTS = 100_000
MAX_PACKED_INPUTS = 32 * 1024 * 1024
MAX_MARKS_BYTES = 8 * MAX_INPUTS


def is_worker_name(name: object) -> TypeGuard[str]:
    """Whether ``name`` is a valid name of a worker."""
    return isinstance(name, str) and len(name) <= MAX_NAME and bool(re.search(_WORKER_NAME, name))


def worker_label(host: str, port: int) -> str:
    """A worker's label, HOST:PORT. Characters that only some systems allow in host names become
    ``-``."""
    return f"{re.sub('[^A-Za-z0-9._-]', '-', host[:255])}:{port}"


class Toolchain(Message, frozen=True):
    """A compiler of a worker or a job. Both have to have the same ``identity``."""

    identity: Name
    name: Name
    version: Name = ""


class Job(Message, frozen=True):
    """One lease: a translation unit to compile in a tree of generation ``generation`` or later."""

    lease_id: str
    generation: int
    argv: list[bytes]
    cwd: bytes
    env: dict[str, bytes]
    toolchain: str
    #: Files of this job that the mirror does not hold (its source), with their content.
    files: list["JobFile"] = []
    #: The existing directories, on the dev box, that the compiler may write in.
    output_dirs: list[bytes] = []
    #: The compiler's own search directories, in its order, for a worker without namespaces.
    builtin_dirs: list[bytes] = []
    #: The header that the compiler includes implicitly (stdc-predef.h), "" for none.
    implicit_include: bytes = b""
    #: The options that ``-march=native`` in ``argv`` stands for, in the form of ``command.native``.
    processor: list[str] = []
    terminal: Terminal | None = None


class JobFile(Message, frozen=True):
    """A file that is sent with a job."""

    path: bytes
    entry: FileEntry
    blob: Blob


class LeaseRequest(Message, frozen=True):
    """A worker's long poll for up to ``slots`` jobs, of ``wait_s`` seconds for the first.

    The worker accepts ``ahead`` more jobs, which start as soon as a slot is free: leased only if no
    other worker could start them now. ``worker`` names one process, see ``names.worker_name``.
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
    #: Differs after each start of the worker, which loses its trees.
    life: Name = ""
    #: The worker's name for people (HOST:PORT), not necessarily unique. Empty: ``worker``.
    label: Label = ""
    #: Of a worker that has joined: the port on which it takes changes of the mirror; 0: none.
    port: Port = 0


class LeaseReply(Message, frozen=True):
    """Jobs, and the changes of the mirror that the worker lacks."""

    client: str
    epoch: str
    jobs: list[Job] = []
    changes: Changes | None = None
    #: The dev box's Unix time (seconds), by which a worker notices that its own clock is wrong; 0:
    #: not known.
    clock: float = 0.0


class RenewRequest(Message, frozen=True):
    """A worker's renewal of the leases that it still works on, and its long poll (``wait_s``
    seconds) for cancellations."""

    worker: WorkerName
    leases: Annotated[list[Name], msgspec.Meta(max_length=MAX_LEASES)]
    wait_s: Wait


class RenewReply(Message, frozen=True):
    """Leases that the worker has lost: it kills their compilers."""

    ended: list[str] = []


class InputFile(Message, frozen=True):
    """A file that the compiler read, with the digest of the bytes it read."""

    path: bytes
    digest: Digest


Inputs = Annotated[list[InputFile], msgspec.Meta(max_length=MAX_INPUTS)]
#: In the form of ``codec.pack_inputs``.
PackedInputs = Annotated[list[tuple[bytes, Digest]], msgspec.Meta(max_length=MAX_INPUTS)]


#: A day; the compiler itself is stopped after half an hour.
MAX_RAN_US = 24 * 3600 * 1_000_000
#: A compiler has some threads at the most; no machine has as much memory.
MAX_CPU_US, MAX_MEMORY_BYTES = 100 * MAX_RAN_US, 2**50


class ResultRequest(Message, frozen=True):
    """A finished lease. ``error`` set: no verdict of the compiler, the job is tried elsewhere."""

    lease_id: Name
    worker: WorkerName
    exit_code: ExitCode = 0
    stdout: bytes = b""
    stderr: bytes = b""
    outputs: Outputs = []
    inputs: Inputs = []
    #: More inputs, packed by ``codec.pack_inputs``: hundreds of paths with common prefixes.
    packed_inputs: Annotated[bytes, msgspec.Meta(max_length=MAX_PACKED_INPUTS)] = b""
    #: The marks of those, in their order, packed by ``codec.pack_marks``; may be missing.
    marks: Annotated[bytes, msgspec.Meta(max_length=MAX_MARKS_BYTES)] = b""
    #: Files read by the assembler's own directives or for modules, which no dependency file lists;
    #: without a digest if it is no file of the mirror. A superset.
    assembled: Inputs = []
    #: The tree changed during the compile, perhaps in files that the compiler read.
    disturbed: bool = False
    error: str = ""
    #: The error is a crash of the compiler: the dev box compiles, and no other worker.
    crashed: bool = False
    #: The error is that the object would contain the worker's own paths: the dev box compiles.
    named: bool = False
    #: The error is that the assembler's inputs are not known: the dev box compiles.
    unseen: bool = False
    #: The error is that, without namespaces, the compile reads files outside the client's tree: it
    #: needs a worker with namespaces.
    outside: bool = False
    #: How long the worker was busy with the job (microseconds); 0: not measured. For display only.
    ran_us: Annotated[int, msgspec.Meta(ge=0, le=MAX_RAN_US)] = 0
    #: The compiler's processor time, and the peak memory of its largest process; 0: not measured.
    #: For display only.
    cpu_us: Annotated[int, msgspec.Meta(ge=0, le=MAX_CPU_US)] = 0
    memory_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_MEMORY_BYTES)] = 0


#: Results in one request.
MAX_RESULTS = 10_000


class ResultBatch(Message, frozen=True):
    """Results that were ready at the same time."""

    results: Annotated[list[ResultRequest], msgspec.Meta(max_length=MAX_RESULTS)]


class ReceivedBatch(Message, frozen=True):
    """A ResultBatch as the syncer decodes it: each result separately, so that a malformed one does
    not discard the others, and the many small objects of one are freed before the next."""

    results: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_RESULTS)]


class Claim(Message, frozen=True):
    """The part of a malformed result that may still be decoded: its lease and worker."""

    lease_id: Name
    worker: WorkerName


class ResultsReply(Message, frozen=True):
    """For each result, in order: whether it was accepted; False: its lease is no longer valid."""

    taken: list[bool]
