"""A C text without its comments. Pure: bytes in, bytes out.

Knows no preprocessing but what decides where a comment or a literal begins and ends. Where that
cannot be told from the text alone, the text stays as it is.
"""

import re

#: Raw strings and trigraphs are a matter of the standard in force; a backslash before the end of
#: a line can be inside of ``/*``, ``*/`` and ``//``, and gcc takes it with white space between.
_DOUBTFUL = re.compile(rb'R"|\?\?/|[/*]\\[ \t\r]*\n|\\[ \t\r]+\n')
#: A literal ends with its line at the latest, as an apostrophe in assembler text does.
_TOKEN = re.compile(
    rb"""
    (?P<comment> /\*.*?(?:\*/|\Z) | //(?!\*)(?:\\.|[^\\\n])* )
    | "(?:\\.|[^"\\\n])*"?
    | '(?:\\.|[^'\\\n])*'?
    | [A-Za-z_]\w* | [0-9](?:'?[\w.])*  # u8'x' has a literal, 1'000 has none
    | //\*[^\n]*  # in C90 the beginning of a comment behind a division: left alone
    """,
    re.VERBOSE | re.DOTALL,
)


def without_comments(text: bytes) -> bytes:
    """``text`` with a blank for each comment; all of it where comments cannot be told for sure."""
    if _DOUBTFUL.search(text):
        return text
    return _TOKEN.sub(lambda token: b" " if token["comment"] else token[0], text)
