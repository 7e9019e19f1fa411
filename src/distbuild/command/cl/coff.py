"""Worker side: replaces the output path that cl.exe always records inside a COFF object.

Bytes in, bytes out. The symbol record S_OBJNAME stands first in the section ``.debug$S`` and holds
the whole path. Formats: "PE Format" in Microsoft's documentation (COFF objects, also those whose
section count exceeds 16 bits), and the records of cvinfo.h in Microsoft's microsoft-pdb.
"""

import struct
import zlib
from collections.abc import Iterator

import msgspec

_SECTION = b".debug$S"
_SIGNATURE = 4  # CV_SIGNATURE_C13
_SYMBOLS = 0xF1
_OBJNAME = 0x1101
#: Bytes before the name: the record's length, its kind, and a signature that is not used here.
_NAME_AT = 8
_BIG = b"\0\0\xff\xff"
_NRELOC_OVERFLOW = 0x0100_0000
_STATIC = 3
_RELOCATION_BYTES = 10


def renamed(data: bytes, old: str, new: str) -> bytes:
    """The object ``data`` with its recorded path ``old`` (compared ignoring case) set to ``new``.

    Returns the same bytes if ``old`` is not recorded. Raises ValueError if ``data`` is no object.
    """
    try:
        return _renamed(data, old.encode("utf-8"), new.encode("utf-8"))
    except (struct.error, IndexError) as error:
        raise ValueError(f"a damaged object: {error}") from error


class _Layout(msgspec.Struct, frozen=True):
    """Positions of an object's tables in the file."""

    sections: int
    section_count: int
    #: Position of the pointer to the symbol table.
    symbols_field: int
    symbols: int
    symbol_count: int
    symbol_bytes: int


class _Edit(msgspec.Struct, frozen=True):
    """One replacement in a section: ``length`` bytes from file offset ``at`` become ``new``.

    The rest of the subsection, and everything after it, moves.
    """

    at: int
    length: int
    new: bytes
    #: File offset of the subsection's end, and the padding after it before and after the edit.
    end: int
    padding: int
    new_padding: int
    length_field: int
    new_length: int


def _renamed(data: bytes, old: bytes, new: bytes) -> bytes:
    layout = _layout(data)
    for number in range(layout.section_count):
        header = layout.sections + 40 * number
        name, size, start = data[header : header + 8], *struct.unpack_from("<II", data, header + 16)
        if name == _SECTION and (edit := _edit(data, start, size, old, new)):
            return _applied(data, layout, number, edit)
    return data


def _layout(data: bytes) -> _Layout:
    if data.startswith(_BIG):
        count, symbols, symbol_count = struct.unpack_from("<III", data, 44)
        return _Layout(56, count, 48, symbols, symbol_count, 20)
    count = struct.unpack_from("<H", data, 2)[0]
    symbols, symbol_count, optional = struct.unpack_from("<IIH", data, 8)
    return _Layout(20 + optional, count, 8, symbols, symbol_count, 18)


def _edit(data: bytes, start: int, size: int, old: bytes, new: bytes) -> _Edit | None:
    """The edit of the name in the section's first symbol subsection; None if ``old`` is absent."""
    if size < 12 or struct.unpack_from("<III", data, start)[:2] != (_SIGNATURE, _SYMBOLS):
        return None
    length = struct.unpack_from("<I", data, start + 8)[0]
    at, end = start + 12, start + 12 + length
    record, kind = struct.unpack_from("<HH", data, at)
    name, closed, _ = data[at + _NAME_AT : at + 2 + record].partition(b"\0")
    if kind != _OBJNAME or not closed or name.lower() != old.lower():
        return None
    body = data[at + 2 : at + _NAME_AT] + new + b"\0"
    if _are_padded(data, at, end):
        body += bytes(-(len(body) + 2) % 4)
    text = struct.pack("<H", len(body)) + body
    new_length = length + len(text) - (record + 2)
    # The last subsection of a section may lack the padding that precedes another subsection.
    padding = min(-length % 4, start + size - end)
    new_padding = -new_length % 4 if end + padding < start + size or padding else 0
    return _Edit(at, record + 2, text, end, padding, new_padding, start + 8, new_length)


def _are_padded(data: bytes, at: int, end: int) -> bool:
    """Whether records are padded to multiples of four bytes: clang's are, Microsoft's are not."""
    return all(length % 4 == 0 for length in _record_lengths(data, at, end))


def _record_lengths(data: bytes, at: int, end: int) -> Iterator[int]:
    while at + 4 <= end:
        length = int(struct.unpack_from("<H", data, at)[0]) + 2
        yield length
        at += length


def _applied(data: bytes, layout: _Layout, number: int, edit: _Edit) -> bytes:
    out = bytearray(data)
    in_record = len(edit.new) - edit.length
    delta = in_record + edit.new_padding - edit.padding
    header = layout.sections + 40 * number
    size, start = struct.unpack_from("<II", data, header + 16)
    struct.pack_into("<I", out, edit.length_field, edit.new_length)
    struct.pack_into("<I", out, header + 16, size + delta)
    for at in _relocations(data, header):
        address = int(struct.unpack_from("<I", data, at)[0])
        if start + address >= edit.at + edit.length:
            moved = in_record if start + address < edit.end else delta
            struct.pack_into("<I", out, at, address + moved)
    for field in _pointers(layout):
        value = int(struct.unpack_from("<I", data, field)[0])
        if value > start:
            struct.pack_into("<I", out, field, value + delta)
    definitions = list(_definitions(data, layout, number))
    shift = delta if layout.symbols > start else 0
    out[edit.end : edit.end + edit.padding] = bytes(edit.new_padding)
    out[edit.at : edit.at + edit.length] = edit.new
    checksum = _checksum(bytes(out[start : start + size + delta]))
    for at in definitions:
        struct.pack_into("<I", out, at + shift, size + delta)
        if struct.unpack_from("<I", data, at + 8)[0]:
            struct.pack_into("<I", out, at + shift + 8, checksum)
    return bytes(out)


def _checksum(section: bytes) -> int:
    """A section's checksum as link.exe and LLVM compute it: CRC-32 without its inversions."""
    return ~zlib.crc32(section, 0xFFFFFFFF) & 0xFFFFFFFF


def _relocations(data: bytes, header: int) -> Iterator[int]:
    """File offsets of a section's relocations."""
    start = struct.unpack_from("<I", data, header + 24)[0]
    count = struct.unpack_from("<H", data, header + 32)[0]
    first = 0
    if struct.unpack_from("<I", data, header + 36)[0] & _NRELOC_OVERFLOW and count == 0xFFFF:
        count, first = struct.unpack_from("<I", data, start)[0], 1  # counts its own entry
    for at in range(first, count):
        yield start + at * _RELOCATION_BYTES


def _definitions(data: bytes, layout: _Layout, number: int) -> Iterator[int]:
    """File offsets of the section's auxiliary symbol records.

    A record starts with the section's length; its checksum, 0 if absent, stands eight bytes later.
    """
    at, width = layout.symbols, layout.symbol_bytes
    end = at + layout.symbol_count * width
    while at < end:
        shape = "<ih" if width == 18 else "<ii"
        value, section = struct.unpack_from(shape, data, at + 8)
        kind, more = data[at + width - 2], data[at + width - 1]
        if kind == _STATIC and more and value == 0 and section == number + 1:
            yield at + width
        at += width * (1 + more)


def _pointers(layout: _Layout) -> Iterator[int]:
    """File offsets of the fields that hold file offsets."""
    yield layout.symbols_field
    for number in range(layout.section_count):
        header = layout.sections + 40 * number
        yield from (header + 20, header + 24, header + 28)
