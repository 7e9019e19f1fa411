"""Include operands whose answer a mirror of directories may not hold. Pure: text in, names out.

A compiler that looks for ``"../x.h"`` leaves the directories that are mirrored, and so does one
that looks for an absolute path; ``__has_include`` makes even a name that is absent count.
"""

import re
from collections.abc import Callable

#: gas takes directives in any case.
_READS_MORE = re.compile(rb"\.\s*inc(?:bin|lude)\b", re.IGNORECASE)
_OPERAND = re.compile(
    rb"\b(?:include|include_next|import|embed|__has_include|__has_include_next|__has_embed)"
    rb'[ \t]*\(?[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>)'
)


def odd_operands(text: bytes, unusual: Callable[[str], bool]) -> tuple[str, ...]:
    """The operands in ``text`` that are absolute, that climb, or whose name is ``unusual``."""
    if b"include" not in text and b"import" not in text and b"embed" not in text:
        return ()
    if not (b"../" in text or b'"/' in text or b"</" in text or b"__has_" in text):
        return ()
    found: dict[str, None] = {}
    for match in _OPERAND.finditer(text):
        name = (match[1] or match[2]).decode("utf-8", "surrogateescape")
        if name.startswith("/") or ".." in name.split("/") or unusual(name):
            found[name] = None
    return tuple(found)


def assembler_reads_more(text: bytes) -> bool:
    """Whether an assembler that gets this text may read files that no dependency list names."""
    if not any(word in text for word in (b".inc", b".INC", b".Inc", b"incbin", b"INCBIN")):
        return False
    return b"incbin" in text.lower() or _READS_MORE.search(text) is not None
