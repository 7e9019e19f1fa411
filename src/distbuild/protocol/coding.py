"""Encodes messages as MessagePack (``application/msgpack``), decodes them with checks, and defines
the size limits of the protocol. Knows no message.
"""

import threading
from typing import Annotated, Any, TypeVar

import msgspec

from distbuild.protocol.errors import ProtocolError

PROTOCOL_VERSION = 3
DIGEST_BYTES = 32
CONTENT_TYPE = "application/msgpack"

#: One request's body. The object file of a very large unit with debug information is some 100 MB.
MAX_BODY_BYTES = 512 * 1024 * 1024
#: One request's body to the syncer: compressed results, of which that object takes some 30 MB.
MAX_RESULTS_BYTES = 256 * 1024 * 1024
#: One blob of the mirror or one output file, decompressed.
MAX_BLOB_BYTES = 1024 * 1024 * 1024
#: A batch of blobs or results is closed when it has grown past this.
BATCH_BYTES = 4 * 1024 * 1024
#: Several contents in one frame, decompressed.
MAX_BUNDLE_BYTES = 8 * 1024 * 1024
#: A compiler's output on both streams. gcc prints at most some MB for the worst template error.
MAX_PRINTED_BYTES = 64 * 1024 * 1024
#: Output files of one job. The dumps of all passes of gcc are some 350.
MAX_OUTPUTS = 2000
#: Up to this total size, output files may have any compression ratio.
FREE_EXPANSION_BYTES = 64 * 1024 * 1024
#: The largest compression ratio of larger ones: objects shrink to a third or a tenth.
MAX_EXPANSION = 100

#: SHA-256; empty: none.
Digest = Annotated[bytes, msgspec.Meta(max_length=DIGEST_BYTES)]
T = TypeVar("T")


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=False, omit_defaults=True):
    """Base of all messages. Unknown fields are ignored, so that a newer peer can add fields."""


_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {}
_making = threading.Lock()


def encode(message: Message) -> bytes:
    """The message as MessagePack bytes."""
    return _encoder.encode(message)


def decode(data: bytes | bytearray | msgspec.Raw, kind: type[T]) -> T:
    """Bytes as a message of ``kind``; raises ProtocolError, which names the field, otherwise."""
    try:
        decoder: msgspec.msgpack.Decoder[T] = _decoders.get(kind) or _decoder(kind)
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"malformed {kind.__name__}: {error}") from error


def _decoder(kind: type[T]) -> msgspec.msgpack.Decoder[T]:
    """The decoder of a kind. One at a time is made: msgspec 0.22 crashes where two threads see a
    type for the first time at the same moment."""
    with _making:
        return _decoders.setdefault(kind, msgspec.msgpack.Decoder(kind))


def to_plain(message: Message) -> Any:
    """The message as dicts and lists, for JSON and for tests."""
    return msgspec.to_builtins(message)
