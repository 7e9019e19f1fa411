"""Finds in a text all that makes a compile depend on more than the contents of the files it reads:
names that it looks for, dates, directives that compare files.

Pure: text in, facts out. Errs towards more names and more doubts.
"""

import itertools
import posixpath
import re
from collections.abc import Callable, Collection

import msgspec

from distbuild.mirror.includes import DOUBTFUL, asked, is_odd, without_comments


class Lookups(msgspec.Struct, frozen=True):
    """What a compile that reads a text may look for, and what else its result may depend on."""

    #: Literal operands, and those of ``__has_include``.
    operands: tuple[str, ...] = ()
    #: Quoted operands of plain includes that climb by ``..``.
    climbing: tuple[str, ...] = ()
    #: The last components of other operands that are absolute, climb or are unusual.
    odd: tuple[str, ...] = ()
    #: Macros that are operands.
    macros: tuple[str, ...] = ()
    #: It may look for files in its own directory, as for quoted operands.
    looks_beside: bool = False
    #: It may look for others, or compare times.
    is_opaque: bool = False
    #: It mentions the date or time of the compile.
    is_dated: bool = False
    #: gcc may skip a second file that has the same content and time, for this text is read once.
    is_once: bool = False
    #: The same for texts that are read with it: it imports files, or has pragmas in macros.
    makes_once: bool = False
    imports: bool = False
    #: It names other files as the places of its lines, which gcc shows in messages.
    is_placed: bool = False
    #: It has pragmas whose words macros give.
    computes_pragmas: bool = False
    #: It has the word of the pragma that compares times, which such a pragma may get.
    depends: bool = False
    #: Its words that are parts of ``_MADE``.
    parts: frozenset[bytes] = frozenset()


_HASH = rb"(?:#|%:|\?\?=)[ \t\f\v]*"
_OPERAND = (
    rb"(include(?:_next)?|import|embed)\b[ \t\f\v]*"
    rb"(?:\"([^\"\n]+)\"|<([^>\n]+)>|([A-Za-z_]\w*)[ \t\f\v]*(?=\r?\n|/[/*]|\Z))?"
)
#: The value of a macro that names a file. Within angle brackets other macros would be expanded.
_LITERAL = rb"[ \t\f\v]+\"([^\"\n]+)\"[ \t\f\v]*(?=\r?\n|/[/*]|\Z)"
#: Trigraphs may splice lines, compilers skip NULs, and ``include_alias`` gives an include another
#: operand.
_OPAQUE_MARKS = (
    b"??/",
    b"\0",
    b"__TIMESTAMP__",
    b"pch_preprocess",
    b"include_alias",
    b"__has_include__",
    b"__has_include_next__",
)
#: A pragma that compares the times of two files, perhaps made by a macro from its operand.
_DEPENDENCY = re.compile(rb"\bdependency\b(?:[ \t\f\v]|/\*.*?\*/)*\\?[\"<]", re.DOTALL)
_DEPENDS = re.compile(rb"\bdependency\b")
_PRAGMA = re.compile(rb"\b_Pragma\b")
_PLAIN_PRAGMA = re.compile(rb"\b_Pragma[ \t]*\([ \t]*\"")
_HAS = rb"__has_(?:include(?:_next)?|embed)\b"
_TESTS = re.compile(_HAS)
#: Tests whose operand is plain, and tests whether the test itself is known.
_PLAIN_TESTS = re.compile(
    _HAS + rb"[ \t]*\([ \t]*[\"<]|(?:\bdefined[ \t]*\(?|#[ \t]*ifn?def)[ \t]*" + _HAS
)
_SPLICE = re.compile(rb"\\[ \t\f\v]*\r?\n")
#: A carriage return alone ends a line for gcc and clang.
_OLD_END = re.compile(rb"\r(?!\n)")
#: In an operand it may begin a trigraph, so that the file has another name.
_TRIGRAPH = "??"
_DATES = (b"__DATE__", b"__TIME__")
#: Names that ``##`` may make of parts, which may be in different texts.
_MADE = (
    *_DATES,
    b"__TIMESTAMP__",
    b"__has_include",
    b"__has_include_next",
    b"__has_embed",
    b"_Pragma",
)
#: Names of more parts are not found: single letters are in every large text.
MAX_PARTS = 4
#: The same for the words that a pragma may get from macros. ``o``, ``n``, ``c`` and ``e`` are in
#: every text.
_MADE_IN_PRAGMAS = (b"once", b"dependency")
MAX_PARTS_IN_PRAGMAS = 2
_PARTS = frozenset(
    name[begin:end]
    for name in (*_MADE, *_MADE_IN_PRAGMAS)
    for begin, end in itertools.combinations(range(len(name) + 1), 2)
    if end - begin < len(name)
)
#: Makes a blank of each byte that is in no word.
_WORDS = bytes(
    byte if byte >= 128 or byte in b"_$" or chr(byte).isalnum() else 32 for byte in range(256)
)


class _Patterns(msgspec.Struct, frozen=True):
    """The patterns of directives. A pattern that begins with one literal is ten times as fast."""

    looks: "re.Pattern[bytes]"
    #: A comment may stand before a directive's name.
    commented: "re.Pattern[bytes]"
    placed: "re.Pattern[bytes]"


_PLAIN, _ANY = (
    _Patterns(
        re.compile(hash_ + _OPERAND),
        re.compile(hash_ + rb"/\*"),
        re.compile(hash_ + rb"(?:line\b|[0-9])"),
    )
    for hash_ in (rb"#[ \t\f\v]*", _HASH)
)
_ONCE = re.compile(rb"pragma[ \t]+once\b|_Pragma[ \t]*\([ \t]*\"once")
_CLIMBS = re.compile(r"(?:\.\./)+(?:(?!\.\.?/)[^/]+/)*[^/]+")
#: What may look like the beginning of a comment, and is none for all compilers: between digits an
#: apostrophe may separate them or begin a literal; the operand of a test may contain ``//``, ``/*``
#: or a backslash; clang reads a message and a mark to the end of the line.
_NO_COMMENT = re.compile(
    rb"\b[0-9][\w.]*'"
    rb"|__has_\w+[ \t]*\([ \t]*(?:<[^>\n]*/[/*]|\"[^\"\n]*\\)"
    rb"|\b(?:error|warning|mark)\b(?:(?!\*/)[^\n])*/\*(?:(?!\*/)[^\n])*$",
    re.MULTILINE,
)


def lookups(text: bytes, unusual: Callable[[str], bool], *, of_system: bool = False) -> Lookups:
    """The facts about a text; ``unusual``: see ``includes.is_odd``. ``of_system``: it is trusted to
    make no names of parts, and no pragma ``once`` of words at several places."""
    text = _spliced(text)
    parts = frozenset[bytes]() if of_system else parts_of(text)
    found = _lookups(text, unusual, parts)
    is_usable = not (found.is_opaque or found.is_dated)
    if not is_usable and not _NO_COMMENT.search(text):  # perhaps only by a comment
        found = _lookups(without_comments(text), unusual, parts)
    elif found.depends and not of_system and not _NO_COMMENT.search(text):
        depends = _DEPENDS.search(without_comments(text)) is not None
        found = msgspec.structs.replace(found, depends=depends)
    if of_system:
        found = msgspec.structs.replace(found, computes_pragmas=False, depends=False)
        if not _ONCE.search(text):
            found = msgspec.structs.replace(found, is_once=False, makes_once=found.imports)
    return found


def _spliced(text: bytes) -> bytes:
    """The text with its lines as the compilers see them."""
    if b"\r" in text:
        text = _OLD_END.sub(b"\n", text)
    return _SPLICE.sub(b"", text) if b"\\" in text else text


def _lookups(text: bytes, unusual: Callable[[str], bool], parts: frozenset[bytes]) -> Lookups:
    patterns = _ANY if b"%:" in text or b"??=" in text else _PLAIN
    operands, macros = _searched(text, unusual), dict[str, None]()
    if operands is None or _is_opaque(text, patterns):
        return Lookups(is_opaque=True)
    climbing, odd, imports = dict[str, None](), dict[str, None](), False
    looks_beside = bool(operands)
    for directive, quoted, angled, macro in patterns.looks.findall(text):
        if directive == b"embed" or not (quoted or angled or macro) or macro.startswith(b"__"):
            return Lookups(is_opaque=True)
        name = _decoded(macro or quoted or angled)
        if _TRIGRAPH in name:
            return Lookups(is_opaque=True)
        imports |= directive == b"import"
        looks_beside |= not angled
        if macro:
            macros[name] = None
        elif not is_odd(name, unusual):
            operands.append(name)
        elif quoted and directive != b"include_next" and _only_climbs(name, unusual):
            climbing[name] = None
        else:
            odd[posixpath.basename(name)] = None
    return Lookups(
        tuple(dict.fromkeys(map(posixpath.normpath, operands))),
        tuple(climbing),
        tuple(odd),
        tuple(macros),
        looks_beside,
        is_dated=any(name in text for name in _DATES),
        is_once=b"once" in text,
        imports=imports,
        makes_once=imports or b"_Pragma" in text,
        is_placed=patterns.placed.search(text) is not None,
        computes_pragmas=_computes_pragmas(text),
        depends=b"dependency" in text and _DEPENDS.search(text) is not None,
        parts=parts,
    )


def _is_opaque(text: bytes, patterns: _Patterns) -> bool:
    if any(mark in text for mark in _OPAQUE_MARKS) or patterns.commented.search(text):
        return True
    return b"dependency" in text and _DEPENDENCY.search(text) is not None


def _computes_pragmas(text: bytes) -> bool:
    if b"_Pragma" not in text:
        return False
    return len(_PRAGMA.findall(text)) != len(_PLAIN_PRAGMA.findall(text))


def _only_climbs(name: str, unusual: Callable[[str], bool]) -> bool:
    """Whether all ``..`` of an odd operand are at its beginning, and it is odd for nothing else."""
    return _CLIMBS.fullmatch(name) is not None and not unusual(name)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def parts_of(text: bytes) -> frozenset[bytes]:
    """The words of a text of which ``may_make`` may make a name."""
    return _PARTS.intersection(text.translate(_WORDS).split())


def may_make(parts: Collection[bytes]) -> bool:
    """Whether ``##`` can make a name of these words that means more than a plain name."""
    known = frozenset(parts)
    return any(_is_made(name, known - {name}, MAX_PARTS) for name in _MADE)


def may_make_pragma(parts: Collection[bytes]) -> bool:
    """Whether ``##`` can make a word of these for a pragma that compares times."""
    known = frozenset(parts)
    return any(_is_made(name, known, MAX_PARTS_IN_PRAGMAS) for name in _MADE_IN_PRAGMAS)


def _is_made(rest: bytes, parts: Collection[bytes], most: int) -> bool:
    if not rest:
        return True
    return most > 0 and any(
        rest[:end] in parts and _is_made(rest[end:], parts, most - 1)
        for end in range(1, len(rest) + 1)
    )


def _searched(text: bytes, unusual: Callable[[str], bool]) -> list[str] | None:
    """The operands of ``__has_include`` and its relatives; None: not all are plain."""
    if b"__has_" not in text:
        return []
    if len(_TESTS.findall(text)) != len(_PLAIN_TESTS.findall(text)):
        return None
    tested = asked(text)
    if tested.is_computed or any(is_odd(n, unusual) or _TRIGRAPH in n for n in tested.names):
        return None
    return list(tested.names)


def literal_values(
    text: bytes, macro: str, unusual: Callable[[str], bool]
) -> tuple[str, ...] | None:
    """The last components of the file names that a text's definitions give to a macro; None: it may
    get another value, or one of an unusual path."""
    name = macro.encode("utf-8", "surrogateescape")
    if name not in text:
        return ()
    text = _spliced(text)
    if DOUBTFUL.search(text) or _NO_COMMENT.search(text):
        return None
    text = without_comments(text)
    mentions = len(re.findall(rb"\bdefine\b[^\n]*\b%s\b" % re.escape(name), text))
    found = re.findall(rb"\bdefine[ \t\f\v]+%s" % re.escape(name) + _LITERAL, text)
    values = [_decoded(value) for value in found]
    if len(values) != mentions or any(is_odd(v, unusual) or _TRIGRAPH in v for v in values):
        return None
    return tuple(value.rpartition("/")[2] for value in values)


#: What makes a word of a command line more than a name or a plain value.
_MEANS_MORE = (
    "__has_",
    "__DATE__",
    "__TIME__",
    "__TIMESTAMP__",
    "__FILE__",
    "__BASE_FILE__",
    "_Pragma",
)
_FOR_PRAGMAS = re.compile(r"=.*\b(?:once|dependency)\b", re.DOTALL)


def is_plain_word(word: str) -> bool:
    """Whether an argument can define no macro whose meaning depends on other files or the time."""
    return not any(part in word for part in _MEANS_MORE)


def is_for_pragmas(word: str) -> bool:
    """Whether an argument defines a macro with a word of a pragma that compares times."""
    return _FOR_PRAGMAS.search(word) is not None
