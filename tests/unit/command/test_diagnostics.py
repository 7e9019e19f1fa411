"""Places that diagnostics name, in every format that compilers have."""

import json
import subprocess
from pathlib import Path

import pytest

from distbuild.command.diagnostics import blamed, places

FORMATS = {
    "gcc": [
        "",
        "-fdiagnostics-color=always -fdiagnostics-urls=always",
        "-fdiagnostics-format=json",
        "-fdiagnostics-plain-output",
        "-fdiagnostics-column-unit=byte",
        "-fno-show-column",
        "-fmessage-length=20",
        "-fmessage-length=20 -fdiagnostics-show-location=every-line",
        "-fno-diagnostics-show-caret",
    ],
    "clang": [
        "",
        "-fcolor-diagnostics",
        "-fdiagnostics-format=msvc",
        "-fdiagnostics-format=vi",
        "-fno-show-column",
        "-fmessage-length=20",
        "-fmessage-length=20 -fcolor-diagnostics -fdiagnostics-format=vi",
        "-fdiagnostics-print-source-range-info",
        "-fdiagnostics-parseable-fixits",
        "-fdiagnostics-absolute-paths",
        "-fno-caret-diagnostics",
    ],
}
SARIF = (
    b'{"$schema": "s", "runs": [{"results": [{"message": {"text": "#error the_word"}, "locations": '
    b'[{"physicalLocation": {"artifactLocation": {"uri": "a.h", "uriBaseId": "PWD"}, '
    b'"region": {"startLine": 1, "startColumn": 2}}}]}]}]}\n'
)


def indented(document: bytes) -> bytes:
    """As gcc 14 and later write it."""
    text = json.dumps(json.loads(document), indent=1)
    return b"{" + text.encode().lstrip(b"{\n ") + b"\n"


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("driver", "options"), [(driver, line) for driver, lines in FORMATS.items() for line in lines]
)
def test_an_error_is_found_in_every_format(driver, options, tmp_path, require_tool):
    (tmp_path / "x.c").write_text('\n#include "with space.h"\n')
    (tmp_path / "with space.h").write_text("#error the_word\n")
    done = subprocess.run(
        [require_tool(driver), *options.split(), "-c", "x.c"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    if "json" in options and b"unrecognized argument" in done.stderr:
        pytest.skip(f"this {driver} has no JSON any more")  # from gcc 16 on
    assert [Path(name).name for name in blamed(done.stderr, "the_word")] == ["with space.h"]


@pytest.mark.parametrize(
    ("stderr", "found"),
    [
        (b"a.h:1:2: error: x\n    the_word\nb.h:3: note: y\n", ["a.h"]),
        (b"a.h(1): error: the_word\na.h +1:2: error: the_word\n", ["a.h"]),
        (b"the_word\n", []),
        (b"[{the_word\n", []),
        (b'[{"file": "a.h", "line": "one", "message": "the_word"}]\n', []),
        (b'{"runs": [null, {"results": null}], "a": "the_word"}\n', []),
        (b"[{" * 100_000 + b"\n", []),
        (SARIF, ["a.h"]),
        (b"note\n" + indented(SARIF) + b"b.h:1: error: the_word\n", ["a.h", "b.h"]),
        (b"[{}]\n" * 100 + indented(SARIF), []),  # more documents than a compiler writes
        (b"\xff.h:1:2: error: the_word\n", ["\udcff.h"]),
    ],
)
def test_a_word_is_blamed_on_the_file_in_front_of_it(stderr, found):
    assert blamed(stderr, "the_word") == found


def test_the_places_of_a_sarif_log_are_found():
    assert list(places(SARIF)) == [("a.h", 1)]


@pytest.mark.parametrize(
    "said",
    [
        b"[{" + b'"a": [{' * 900 + b'"m": "the_word"' + b"}]" * 900 + b"}]\n",
        b"[{" * 100_000 + b"\n",
        b'{"runs": [{"results": 7}, 3, {"results": {"a": 1}}]}\n',
        b'{"runs": {"results": []}}\n',
        b"x.c:" + b"9" * 5000 + b": error: the_word\n",
        b'[{"file": 7, "line": "the_word"}, null, "the_word"]\n',
    ],
    ids=["deep", "deeper", "no list", "no runs", "a long number", "other types"],
)
def test_what_no_compiler_says_names_no_place(said: bytes) -> None:
    """A worker may say anything."""
    assert blamed(said, "the_word") == []
    assert list(places(said)) == []
