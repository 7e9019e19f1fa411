import os

import pytest

from distbuild.command.model import CompileCommand
from distbuild.command.named_modules import with_modules
from distbuild.command.parse import parse
from distbuild.mirror.manifest import WITHHELD
from distbuild.protocol.codec import pack
from distbuild.protocol.messages import (
    Entry,
    FileEntry,
    InputFile,
    OutputFile,
    ResultRequest,
    SymlinkEntry,
)
from distbuild.syncer.evidence import (
    Findings,
    examine,
    precompiled,
    shadowing,
    unproved_module,
)
from distbuild.syncer.include_lookup import IncludeFacts

ONE, TWO = b"\1" * 32, b"\2" * 32
MANIFEST: dict[str, Entry] = {
    "/i/a.h": FileEntry(ONE, 1, 0o444, 0),
    "/i/held.h": WITHHELD,
    "/i/link.h": SymlinkEntry(b"a.h"),
    "/i/odd.h": FileEntry(ONE, 1, 0o444, 0),
    "/i/gone.h": FileEntry(ONE, 1, 0o444, 0),
    "/s/main.c": WITHHELD,
}
OWN = {"/s/main.c": FileEntry(TWO, 1, 0o444, 0)}
FACTS = {
    "/i/a.h": IncludeFacts(),
    "/i/odd.h": IncludeFacts(odd=True),
}


def about(path: str, digest: bytes) -> IncludeFacts | None:
    assert digest == ONE
    return FACTS.get(path)


@pytest.mark.parametrize(
    ("path", "digest", "expected"),
    [
        ("/i/a.h", ONE, Findings()),
        ("/i/a.h", TWO, Findings(stale=["/i/a.h"])),
        ("/i/none.h", ONE, Findings(stale=["/i/none.h"])),
        ("/i/link.h", ONE, Findings(stale=["/i/link.h"])),
        ("/i/held.h", ONE, Findings(withheld=["/i/held.h"])),
        ("/i/odd.h", ONE, Findings(odd=["/i/odd.h"])),
        ("/i/gone.h", ONE, Findings(stale=["/i/gone.h"])),
        ("/s/main.c", TWO, Findings()),
        ("/s/main.c", ONE, Findings(stale=["/s/main.c"])),
        ("/.dist_build/stdc-predef.h", TWO, Findings()),
    ],
)
def test_an_input_is_held_against_the_manifest(
    path: str, digest: bytes, expected: Findings
) -> None:
    found = examine([InputFile(path.encode(), digest)], MANIFEST.get, OWN, about)
    assert found == expected
    assert found.in_doubt() == bool(expected.stale or expected.withheld)


@pytest.mark.parametrize(
    ("inputs", "header", "found"),
    [
        (["/i/a.h"], "/i/a.h.gch", True),
        (["/other/a.h"], "/i/a.h.gch", False),  # there is an a.h beside it, and it was not read
        (["/i/a.h"], "/i/link.h.gch", True),
        (["/other/link.h"], "/i/link.h.gch", False),
        (["/i/a.h"], "/i/a.h.pch", True),
        (["/late/sub/a.h"], "/early/sub/a.h.gch", True),
        (["/late/sub/a.h"], "/early/a.h.gch", True),  # perhaps; rather local once too often
        (["/i/aa.h"], "/i/a.h.gch", False),
        (["/elsewhere/a.h"], "/beside/a.h.gch", True),
        (["/elsewhere/none.h"], "/beside/none.h.gch", True),
        ([], "/i/a.h.gch", False),
    ],
)
def test_a_precompiled_header_counts_wherever_the_search_would_find_it(
    inputs: list[str], header: str, found: bool
) -> None:
    expected = header if found else ""
    there = {"/i/a.h": "/i/a.h", "/i/link.h": "/i/a.h"}
    assert precompiled(inputs, ["/early", "/late", "/i"], [header], there.get) == expected


def test_everything_that_is_wrong_is_found() -> None:
    inputs = [
        InputFile(b"/i/held.h", ONE),
        InputFile(b"/i/a.h", TWO),
        InputFile(b"/i/caf\xe9.h", ONE),
    ]
    found = examine(inputs, MANIFEST.get, OWN, about)
    found.shadowing = ["/i/x.h"]
    assert found == Findings(
        stale=["/i/a.h", "/i/caf\udce9.h"], withheld=["/i/held.h"], shadowing=["/i/x.h"]
    )
    assert (found.withheld, found.shadowing) == (["/i/held.h"], ["/i/x.h"])
    assert found.in_doubt()


@pytest.mark.parametrize(
    ("read", "dirs", "shallow", "on_disk", "expected"),
    [
        ("/late/sub/x.h", ["/home", "/late"], ["/home"], {"/home/sub/x.h"}, ["/home/sub/x.h"]),
        ("/late/sub/x.h", ["/home", "/late"], ["/home"], set(), []),
        ("/late/sub/x.h", ["/home", "/late/"], ["/home/"], {"/home/sub/x.h"}, ["/home/sub/x.h"]),
        ("/late/x.h", ["/home", "/late"], ["/home"], {"/home/x.h"}, []),
        ("/late/sub/x.h", ["/home", "/late"], [], {"/home/sub/x.h"}, []),
        ("/late/sub/x.h", ["/other"], ["/home"], {"/home/sub/x.h"}, []),
        ("/home/sub/x.h", ["/home"], ["/home"], {"/home/sub/x.h"}, []),
        ("/late/i/a.h", ["/late", "/"], ["/"], {"/i/a.h", "/late/i/a.h"}, []),
    ],
)
def test_files_that_may_come_first_below_partly_mirrored_directories(
    read: str, dirs: list[str], shallow: list[str], on_disk: set[str], expected: list[str]
) -> None:
    lookup = (MANIFEST | {read: MANIFEST["/i/a.h"]}).get
    assert shadowing([read], dirs, shallow, lookup, on_disk.__contains__) == expected


def with_mapper(source: bytes) -> CompileCommand:
    words = "g++ -fmodules-ts -fmodule-mapper=m -c x.cc".split()
    plain = parse(words, "/w", lambda _: None)
    assert isinstance(plain, CompileCommand)
    found = with_modules(plain, b"a m/a.gcm\n", lambda: source)
    assert isinstance(found, CompileCommand)
    return found


def success(stderr: bytes = b"", *written: str) -> ResultRequest:
    outputs = [OutputFile(path.encode(), 0o644, pack(b"")) for path in ("/w/x.o", *written)]
    read = [InputFile(b"/lib/a.cc", ONE)]
    return ResultRequest("l", "w", outputs=outputs, stderr=stderr, assembled=read)


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        (b"", ""),
        (b"cc1plus: warning: odd\n", ""),
        (b"<command-line>:1:1: warning: odd\n", ""),
        (b"x.cc:1:2: warning: odd\n    1 | int x;\n", ""),
        (b"In module a, imported at x.cc:1:\n../lib/a.cc:1:2: warning: odd\n", ""),
        (b"../lib/b.cc:1:2: warning: odd\n", "/w/../lib/b.cc"),
        (b"x.cc:1:2: warning: odd\n\x1b[01m\x1b[Kb.cc:1:2:\x1b[m\x1b[K note: here\n", "/w/b.cc"),
    ],
)
def test_messages_quote_only_what_was_read(stderr: bytes, expected: str) -> None:
    command, result = with_mapper(b"import a;\n"), success(stderr)
    found = unproved_module(command, result, lambda: ["/w/x.cc"], os.path.normpath)
    assert found == expected


def test_a_module_that_a_source_declares_has_to_be_written() -> None:
    command = with_mapper(b"export module a;\n")
    asked = (lambda: ["/w/x.cc"], os.path.normpath)
    assert unproved_module(command, success(), *asked) == "/w/m/a.gcm"
    assert unproved_module(command, success(b"", "/w/m/b.gcm"), *asked) == "/w/m/a.gcm"
    assert unproved_module(command, success(b"", "/w/m/a.gcm"), *asked) == ""
