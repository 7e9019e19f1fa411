"""Which compiled modules of gcc are mirrored for a compile, and which are not."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distbuild.command.model import Local, LocalReason
from distbuild.farm.executor import Task
from distbuild.mirror.manifest import WITHHELD
from distbuild.protocol.messages import FileEntry
from distbuild.syncer.module_files import MAX_MAPPER_BYTES
from tests.support.preparing import Box


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    base = Path(os.path.realpath(tmp_path)) / "base"
    base.mkdir()
    box = Box(base)
    yield box
    box.stop()


def compiled(*imports: str) -> str:
    """The part of a compiled module that is read here."""
    lines = [f"import: m{n} {path}" for n, path in enumerate(imports)]
    return "\0".join(["\x7fELF", "GNU C++ primary interface", "module: x", *lines, "", ""])


def prepared(box: Box, mapper: str, source: str = "import foo;\n") -> Task | Local:
    box.write("src/m.modmap", mapper)
    box.write("src/x.cc", source)
    options = ("-MD", "-fmodules-ts", "-fmodule-mapper=m.modmap")
    submission = box.submission(*options, source="x.cc")
    known = box.preparer.understand(submission)
    assert not isinstance(known, Local)
    return box.preparer.prepare(submission, known)


def is_held(box: Box, name: str) -> bool:
    return isinstance(box.mirroring.manifest.get(f"{box.base}/{name}"), FileEntry)


def test_what_is_imported_is_mirrored(box: Box) -> None:
    box.write("src/m/foo.gcm", compiled())
    box.write("other/bar.gcm", compiled())
    box.write("src/m/unused.gcm", compiled())
    task = prepared(box, "$root .\nfoo m/foo.gcm\nbar ../other/bar.gcm\nnone m/none.gcm\n")
    assert isinstance(task, Task)
    assert is_held(box, "src/m/foo.gcm")
    assert is_held(box, "other/bar.gcm")
    assert box.mirroring.manifest.get(f"{box.base}/src/m/unused.gcm") == WITHHELD
    assert task.generation == box.mirroring.manifest.generation


def test_a_changed_module_is_mirrored_as_it_is_now(box: Box) -> None:
    for text in ("one", "two", "two"):
        box.write("src/m/foo.gcm", compiled(text))
        task = prepared(box, "foo m/foo.gcm\n")
        assert isinstance(task, Task)
        entry = box.mirroring.manifest.get(f"{box.base}/src/m/foo.gcm")
        assert isinstance(entry, FileEntry)
        assert entry == box.mirror.scanner.file(f"{box.base}/src/m/foo.gcm")
        assert task.generation == box.mirroring.manifest.generation


def test_what_an_interface_makes_is_an_output_and_not_mirrored(box: Box) -> None:
    box.write("src/m/foo.gcm", "of an earlier compile")
    box.write("src/m/bar.gcm", compiled())
    mapper = "$root .\nfoo m/foo.gcm\nbar m/bar.gcm\n"
    task = prepared(box, mapper, "export module foo;\nimport bar;\n")
    assert isinstance(task, Task)
    assert box.mirroring.manifest.get(f"{box.base}/src/m/foo.gcm") == WITHHELD
    assert is_held(box, "src/m/bar.gcm")
    assert task.output_dirs == (f"{box.base}/src", f"{box.base}/src/m")
    assert f"{box.base}/src/m/foo.gcm" in task.command.named_outputs()


def test_modules_that_only_others_import_are_mirrored(box: Box) -> None:
    box.write("src/m/foo.gcm", compiled("m/one.gcm"))
    box.write("src/m/one.gcm", compiled("m/two.gcm", "m/one.gcm", "m/gone.gcm"))
    box.write("src/m/two.gcm", compiled("m/one.gcm"))
    assert isinstance(prepared(box, "foo m/foo.gcm\n"), Task)
    assert is_held(box, "src/m/one.gcm")
    assert is_held(box, "src/m/two.gcm")


def test_below_another_root(box: Box) -> None:
    box.write("src/r/m/foo.gcm", compiled("one.gcm"))
    box.write("src/r/one.gcm", compiled())
    box.write("src/one.gcm", compiled())
    assert isinstance(prepared(box, "$root r\nfoo m/foo.gcm\n"), Task)
    assert is_held(box, "src/r/one.gcm")
    assert not is_held(box, "src/one.gcm")


def test_a_compiled_module_has_nothing_else_mirrored(box: Box) -> None:
    """A worker may have written it: neither a key nor a directory of its choice is mirrored."""
    box.write("elsewhere/x.gcm", compiled())
    box.write("src/keys.json", "key")
    (box.write("elsewhere/key", "key").parent / "link.gcm").symlink_to("key")
    (box.base / "src/other.gcm").symlink_to("keys.json")
    names = ("../elsewhere/x.gcm", "../elsewhere/link.gcm", "other.gcm", "keys.json")
    box.write("src/foo.gcm", compiled(*names, f"{box.base}/elsewhere/x.gcm"))
    assert isinstance(prepared(box, "foo foo.gcm\n"), Task)
    for name in ("elsewhere/x.gcm", "elsewhere/key", "src/keys.json"):
        assert not is_held(box, name)
    assert box.mirroring.manifest.get(f"{box.base}/elsewhere/x.gcm") is None


@pytest.mark.parametrize(
    ("mapper", "source"),
    [
        ("$root .\n./a.h a.gcm\n", "int i;\n"),
        ("foo foo.gcm\n", "export module bar;\n"),
        ("foo foo.gcm\n" + "\n" * MAX_MAPPER_BYTES, "import foo;\n"),
    ],
)
def test_what_is_not_plain_stays_local(box: Box, mapper: str, source: str) -> None:
    assert prepared(box, mapper, source) == Local(LocalReason.MODULES, "m.modmap")


def test_header_units_below_the_root_stay_local(box: Box) -> None:
    (box.base / "src/r/,").mkdir(parents=True)
    found = prepared(box, "$root r\nfoo foo.gcm\n")
    assert found == Local(LocalReason.MODULES, f"{box.base}/src/r/,")
    assert isinstance(prepared(box, "foo foo.gcm\n"), Task)


def test_a_module_that_cannot_be_written_stays_local(box: Box) -> None:
    (box.base / "src/foo.gcm").mkdir()
    for path in ("foo.gcm", "gone/foo.gcm"):
        found = prepared(box, f"foo {path}\n", "export module foo;\n")
        assert isinstance(found, Local)
        assert found.reason is LocalReason.OUTPUT_SPECIAL


@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", os.mkdir)])
def test_a_module_that_is_no_file_stays_local(box: Box, make: Callable[[str], None]) -> None:
    make(f"{box.base}/src/foo.gcm")
    found = prepared(box, "foo foo.gcm\n")
    assert found == Local(LocalReason.SPECIAL_INPUT, f"{box.base}/src/foo.gcm")
