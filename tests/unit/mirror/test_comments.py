"""Where comments begin and end."""

import pytest

from distbuild.mirror.includes import without_comments


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (b"a/* b */c", b"a c"),
        (b"a/* b\n * c */d /* e */\n", b"a d  \n"),
        (b"a // b\nc", b"a  \nc"),
        (b"a // b \\\nb\nc", b"a  \nc"),
        (b"a / b * c", b"a / b * c"),
        (b"a /* never closed", b"a  "),
        (b'"/*" a "*/"', b'"/*" a "*/"'),
        (b'"\\"/*" a "*/"', b'"\\"/*" a "*/"'),
        (b"'\"' /* a */ '\"'", b"'\"'   '\"'"),
        (b"'\\'' /* a */ '\\''", b"'\\''   '\\''"),
        (b'"a\\\n/*" b "*/"', b'"a\\\n/*" b "*/"'),
        (b"// it's\n/* a */b", b" \n b"),
        (b"# it's /*\nb */ c", b"# it's /*\nb */ c"),
        (b"/* it's */b", b" b"),
        (b"1'000; /* a */", b"1'000;  "),
        (b"u8'\"' /* a */ L'\"'", b"u8'\"'   L'\"'"),
    ],
)
def test_comments_become_blanks(text: bytes, plain: bytes) -> None:
    assert without_comments(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        b'R"(/*)" a R"(*/)"',
        b'"??/"/*" a "*/"',
        b"/\\\n* a */",
        b"/* a *\\\n/ b /* c */",
        b'"a\\ \n/*" b "*/"',
        b"a //* b */ c",
    ],
)
def test_what_cannot_be_told_is_left_alone(text: bytes) -> None:
    assert without_comments(text) == text
