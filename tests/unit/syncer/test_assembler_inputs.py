"""What a worker's list of opened files may have mirrored, and what it may not."""

import pytest

from distbuild.command.model import CompileCommand, Local, LocalReason
from distbuild.command.named_modules import with_modules
from distbuild.command.parse import parse
from distbuild.mirror.manifest import WITHHELD
from distbuild.protocol.messages import Entry, FileEntry, InputFile
from distbuild.syncer.assembler_inputs import Assembled, examine

RIGHT, WRONG = b"r" * 32, b"w" * 32
MANIFEST: dict[str, Entry] = {
    "/lib/interface.cc": WITHHELD,
    "/lib/keys.json": WITHHELD,
    "/lib/other.gcm": WITHHELD,
    "/lib/header.h": FileEntry(RIGHT, 1, 0o444, 0),
    "/src/data.bin": WITHHELD,
}
#: gcc's importers are known by their mappers.
OF_GCC = "g++ -fmodules-ts -fmodule-mapper=m -c x.cc"
PLAIN, IMPORTER = "clang++ -c x.cc", "clang++ -fmodule-file=m=m.pcm -c x.cc"


def command(line: str) -> CompileCommand:
    found = parse(line.split(), "/src", lambda _: None)
    assert isinstance(found, CompileCommand)
    if line == OF_GCC:
        found = with_modules(found, b"m /build/m.gcm\n", lambda: b"import m;\n")
        assert isinstance(found, CompileCommand)
    return found


def examined(line: str, path: str, digest: bytes = b"") -> Assembled:
    return examine([InputFile(path.encode(), digest)], command(line), MANIFEST.get, {})


@pytest.mark.parametrize("line", [IMPORTER, OF_GCC])
def test_a_module_has_its_source_mirrored(line: str) -> None:
    assert examined(line, "/lib/interface.cc") == Assembled(withheld=("/lib/interface.cc",))


@pytest.mark.parametrize("line", [IMPORTER, OF_GCC])
@pytest.mark.parametrize("path", ["/lib/keys.json", "/home/me/notes.cc", "/lib/other.gcm"])
def test_a_worker_has_nothing_else_mirrored_by_a_module(line: str, path: str) -> None:
    """The worker may have made the module itself, and have named any file in it."""
    assert examined(line, path) == Assembled(Local(LocalReason.MODULES, path))


def test_without_a_module_only_what_lies_around_the_source_is_mirrored() -> None:
    assert examined(PLAIN, "/src/data.bin") == Assembled(withheld=("/src/data.bin",))
    for path in ("/lib/interface.cc", "/lib/keys.json"):
        assert examined(PLAIN, path) == Assembled(Local(LocalReason.ASSEMBLER_INPUT, path))


@pytest.mark.parametrize("line", [PLAIN, IMPORTER, OF_GCC])
def test_another_content_is_compiled_again(line: str) -> None:
    assert examined(line, "/lib/header.h", RIGHT) == Assembled()
    assert examined(line, "/lib/header.h", WRONG) == Assembled(stale=("/lib/header.h",))
