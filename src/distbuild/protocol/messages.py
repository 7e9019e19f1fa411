"""Every message on the wire, as a frozen typed value. Knows no socket, no disk and no queue.

Bodies are MessagePack (``application/msgpack``). Paths and arguments are ``bytes``, exactly as the
operating system has them: file names need not be UTF-8. Digests are raw SHA-256 (32 bytes), so that
the same blobs can serve a content store of another system.
"""

from typing import Annotated, Any, TypeVar

import msgspec

from distbuild.protocol.errors import ProtocolError

PROTOCOL_VERSION = 1
DIGEST_BYTES = 32
CONTENT_TYPE = "application/msgpack"

#: One request's body. An object file with debug information of a very large unit is some 100 MB.
MAX_BODY_BYTES = 512 * 1024 * 1024
#: One blob of the mirror or one output file, decompressed.
MAX_BLOB_BYTES = 1024 * 1024 * 1024
#: A batch of blobs is closed when it has grown past this.
BATCH_BYTES = 4 * 1024 * 1024

Digest = bytes
T = TypeVar("T")


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=False, omit_defaults=True):
    """Base of all messages. Unknown fields are ignored, so that a newer peer can say more."""


# --- the manifest -----------------------------------------------------------------------------


class FileEntry(Message, frozen=True, tag="f"):
    """A regular file. ``mtime_ns`` is mirrored: ``__TIMESTAMP__`` and ``#pragma once`` read it."""

    digest: Digest
    size: int
    mode: int
    mtime_ns: int
    #: The text has ``.incbin`` or the like: what an assembler reads is in no dependency file.
    reads_more: bool = False
    #: The text asks for files that lie outside the mirrored directories.
    odd_includes: bool = False


class SymlinkEntry(Message, frozen=True, tag="l"):
    """A symbolic link and its target as the dev box has it, relative or absolute."""

    target: bytes
    #: Windows has another kind of link for directories; False on other systems.
    to_directory: bool = False


class DirectoryEntry(Message, frozen=True, tag="d"):
    """A directory; its being there matters even when it is empty."""


class WithheldEntry(Message, frozen=True, tag="w"):
    """A name that exists on the dev box; its content is sent once a compile asks for it."""


Entry = FileEntry | SymlinkEntry | DirectoryEntry | WithheldEntry


class Change(Message, frozen=True):
    """One path's new state; ``entry`` None: the path no longer exists."""

    path: bytes
    entry: Entry | None = None


class Changes(Message, frozen=True):
    """What turns the tree of generation ``base`` into that of ``target``.

    ``base`` 0 means a complete listing: whatever it does not name must go. ``summary`` is the
    order-free digest of the whole manifest at ``target``; a tree that already has it only adopts
    the new epoch and generation, and ``entries`` may then be absent (an offer).
    """

    client: str
    epoch: str
    base: int
    target: int
    summary: Digest
    entries: list[Change] | None = None
    roots: list[bytes] = []
    #: Contents that a tree at ``base`` can hardly have, sent along to save two round trips.
    blobs: list["Blob"] = []


class ChangesReply(Message, frozen=True):
    """``state``: ``applied``, ``need_blobs`` (send ``missing``, then the same changes again) or
    ``need_full`` (the base does not fit: send a complete listing)."""

    state: str
    generation: int = 0
    missing: list[Digest] = []


class Blob(Message, frozen=True):
    """One file's content, compressed with zstd; ``size`` and ``digest`` are of the plain bytes."""

    digest: Digest
    size: int
    data: bytes


class BlobBatch(Message, frozen=True):
    """Blobs on their way into a store."""

    blobs: list[Blob]


class BlobRequest(Message, frozen=True):
    """A worker asks the syncer for the content of these digests."""

    digests: list[Digest]


class PullRequest(Message, frozen=True):
    """A worker asks for what it lacks between ``have`` (of ``epoch``) and now."""

    epoch: str
    have: int
    summary: Digest = b""


class CleanRequest(Message, frozen=True):
    """Remove this client's tree from the worker."""

    client: str


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

    worker: str
    slots: int
    wait_s: float
    toolchains: list[Toolchain]
    epoch: str = ""
    generation: int = 0
    namespaces: bool = False
    version: int = PROTOCOL_VERSION
    ahead: int = 0
    #: Another one after each start of the worker: its trees are gone then.
    life: str = ""


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

    worker: str
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
    worker: str
    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    outputs: list[OutputFile] = []
    inputs: list[InputFile] = []
    #: More inputs, as ``blobs.pack_inputs`` makes them: hundreds of paths that begin alike.
    packed_inputs: bytes = b""
    #: The tree changed under the compiler in a way that may have touched what it read.
    disturbed: bool = False
    error: str = ""
    #: The error is the compiler's own crash: the dev box's is asked instead of another worker.
    crashed: bool = False


class ResultBatch(Message, frozen=True):
    """Results that were ready at the same time."""

    results: list[ResultRequest]


class ResultsReply(Message, frozen=True):
    """For each result, in order: whether it was taken; not: its lease is not valid any more."""

    taken: list[bool]


# --- coding ------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """The message as MessagePack bytes."""
    return _encoder.encode(message)


def decode(data: bytes, kind: type[T]) -> T:
    """Bytes as a message of ``kind``; raises ProtocolError, naming the field, for anything else."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"malformed {kind.__name__}: {error}") from error


def to_plain(message: Message) -> Any:
    """The message as dicts and lists, for JSON and for tests."""
    return msgspec.to_builtins(message)
