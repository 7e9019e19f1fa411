"""gcc's module mappers, and which module a source provides."""

import time

import pytest

from distbuild.command.model import CompileCommand, Local, LocalReason
from distbuild.command.named_modules import (
    Mapper,
    provided,
    read_mapper,
    recorded_imports,
    with_modules,
)
from distbuild.command.parse import parse
from distbuild.command.side_effects import Writable, is_rewritten

UNUSABLE = Local(LocalReason.MODULES, "d/x.modmap")
LINE = "g++ -MD -fmodules-ts -fmodule-mapper=d/x.modmap -c x.cc -o d/x.o"


def command(line: str = LINE) -> CompileCommand:
    found = parse(line.split(), "/w", lambda _: None)
    assert isinstance(found, CompileCommand)
    return found


@pytest.mark.parametrize(
    ("text", "root", "files"),
    [
        (b"", ".", {}),
        (b"\n$root .\n\n", ".", {}),
        (b"$root .\na m/a.gcm\na:p m/a-p.gcm", ".", {"a": "m/a.gcm", "a:p": "m/a-p.gcm"}),
        (b"a.b.c /m/a.gcm\n", ".", {"a.b.c": "/m/a.gcm"}),
        (b"$root r\na a.gcm\nb /b.gcm\n", "r", {"a": "r/a.gcm", "b": "/b.gcm"}),
        (b"$root /r\na a.gcm\n", "/r", {"a": "/r/a.gcm"}),
        (b"a \xff.gcm\n", ".", {"a": "\udcff.gcm"}),
    ],
)
def test_a_mapper_is_read(text, root, files):
    assert read_mapper(text) == Mapper(root, files)


@pytest.mark.parametrize(
    "line",
    [
        b"foo",
        b"./inc/h.h inc.gcm",
        b"/usr/include/stdio.h x.gcm",
        b"<vector> x.gcm",
        b"foo foo.pcm",
        b"foo foo.o",
        b"foo foo.gcm more",
        b"foo  foo.gcm",
        b"foo\tfoo.gcm",
        b"foo foo.gcm\r",
        b"foo:a:b foo.gcm",
        b"f\xc3\xb6\xc3\xb6 foo.gcm",
        b"# comment",
        b"$root .",
        b"$other .",
        b"one other.gcm",
        b"\0",
        b"\xff",
    ],
)
def test_a_mapper_with_another_line_is_not_read(line):
    assert read_mapper(b"$root .\none one.gcm\n" + line + b"\n") is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"int f();\n", ""),
        (b"import foo;\nint f();\n", ""),
        (b"module foo;\n", ""),
        (b"module;\n#include <x.h>\nmodule foo;\nimport :p;\n", ""),
        (b"export module foo;\n", "foo"),
        (b"export  module\tfoo ;\n", "foo"),
        (b"  export module foo.bar;module :private;\n", "foo.bar"),
        (b"module;\n#define X\nexport module foo;\nmodule :private;\nint g();\n", "foo"),
        (b"export module foo:part;\n", "foo:part"),
        (b"export module foo : part ;\n", "foo:part"),
        (b"module foo:inner;\nimport foo;\n", "foo:inner"),
        (b"export module foo [[deprecated]];\n", "foo"),
        (b"export /* one */ module /* two\n */ foo; // three\n", "foo"),
        (b"export \\\n module fo\\\no;\n", "foo"),
        (b"export mod\\\nule foo;\n", "foo"),
        (b"#define foo bar\nexport module foo;\n", "foo"),
        (b"// export module other;\n/* module other:x; */\nexport module foo;\n", "foo"),
        (b'#define A "/*"\nexport module foo;\n#define B "*/"\n', "foo"),
        (b"export module foo;\nint module(int);\nint i =\nmodule(3);\nmodule.x = 1;\n", "foo"),
        (b"int modules;\nmodule_t x;\nint a_module;\n", ""),
        (b"#if A\nexport module foo;\n#endif\n", "foo"),
        (b"export module foo;\n#if 0\nexport module foo;\n#endif\n", "foo"),
    ],
)
def test_a_source_provides(text, name):
    assert provided(text) == name


@pytest.mark.parametrize(
    "text",
    [
        b"#if A\nexport module foo;\n#else\nexport module bar;\n#endif\n",
        b"#if A\nexport module foo;\n#else\nmodule foo;\n#endif\n",
        b"#if A\nmodule foo;\n#else\nmodule foo:part;\n#endif\n",
        b"export module foo\n;\n",
        b"export module\nfoo;\n",
        b"export module;\n",
        b"module foo bar;\n",
        b"export module NAME(foo);\n",
        b"export module foo:a:b;\n",
        b"export module 3;\n",
        b"module::f();\n",
    ],
)
def test_it_is_not_known_what_a_source_provides(text):
    assert provided(text) is None


@pytest.mark.parametrize("text", [b"/*\n", b'\\"', b'"', b"export ", b"module a.", b"\n", b"'"])
def test_a_long_text_takes_no_long_time(text):
    began = time.monotonic()
    provided(text * 200_000 + b"\nexport module foo;\n")
    assert time.monotonic() - began < 5


MAPPER = b"$root .\nfoo d/foo.gcm\nfoo:p e/foo-p.gcm\nbar /b/bar.gcm\n"


def test_compiled_modules_are_inputs_and_one_is_an_output():
    found = with_modules(command(), MAPPER, lambda: b"export module foo:p;\nimport bar;\n")
    assert isinstance(found, CompileCommand)
    assert found.input_files == ("d/foo.gcm", "/b/bar.gcm")
    assert found.by_products == ("e/foo-p.gcm",)
    assert found.output_dirs == ("/w", "/w/d", "/w/e")
    assert (found.module_root, found.uses_modules) == (".", True)
    assert found.named_outputs() == {"/w/d/x.o", "/w/d/x.d", "/w/e/foo-p.gcm"}
    assert found.argv() == command().argv()


def test_only_the_module_that_the_source_provides_may_be_written():
    found = with_modules(command(), MAPPER, lambda: b"export module foo;\n")
    assert isinstance(found, CompileCommand)
    writable = Writable(found, lambda one, other: one == other)
    assert writable.has("/w/d/foo.gcm")
    for path in ("/w/e/foo-p.gcm", "/b/bar.gcm", "/w/foo.gcm", "/w/d/foo.gcm~", "/w/d/bar.gcm"):
        assert not writable.has(path)
    assert not is_rewritten(found, "/w/d/foo.gcm", empty=True)
    assert is_rewritten(found, "/w/d/x.d")


@pytest.mark.parametrize("text", [b"import foo;\n", b"module foo;\n"])
def test_an_importer_writes_no_module(text):
    found = with_modules(command(), MAPPER, lambda: text)
    assert isinstance(found, CompileCommand)
    assert found.input_files == ("d/foo.gcm", "e/foo-p.gcm", "/b/bar.gcm")
    assert (found.by_products, found.output_dirs) == ((), ("/w", "/w/d"))


def test_a_mapper_that_maps_nothing_changes_nothing():
    for text in (b"", b"$root .\n"):
        assert with_modules(command(), text, lambda: b"export module foo;\n") == command()


@pytest.mark.parametrize(
    ("mapper", "source"),
    [
        (b"foo\n", b""),
        (b"$root ..\n", b""),
        (MAPPER, b"export module other;\n"),
        (MAPPER, b"export module foo:q;\n"),
        (MAPPER, b"#if A\nexport module foo;\n#else\nexport module bar;\n#endif\n"),
        (b"foo x.gcm\nbar x.gcm\n", b"export module foo;\n"),
    ],
)
def test_what_is_not_plain_is_left_to_the_local_compiler(mapper, source):
    assert with_modules(command(), mapper, lambda: source) == UNUSABLE


@pytest.mark.parametrize(
    ("mapper", "source", "reason"),
    [
        (b"foo /proc/self/cwd/x.gcm\n", b"", LocalReason.SPECIAL_INPUT),
        (b"foo /dev/x.gcm\n", b"export module foo;\n", LocalReason.OUTPUT_SPECIAL),
        (b"foo /x.gcm\n", b"export module foo;\n", LocalReason.OUTPUT_SPECIAL),
        (b"foo /proc/self/cwd/x.gcm\n", b"export module foo;\n", LocalReason.OUTPUT_SPECIAL),
    ],
)
def test_special_places_are_left_to_the_local_compiler(mapper, source, reason):
    found = with_modules(command(), mapper, lambda: source)
    assert isinstance(found, Local)
    assert found.reason is reason


def test_the_output_is_no_other_output():
    line = "g++ -fmodules-ts -fmodule-mapper=d/x.modmap -c x.cc -o d/foo.gcm"
    found = with_modules(command(line), b"foo d/foo.gcm\n", lambda: b"export module foo;\n")
    assert found == Local(LocalReason.OUTPUT_SPECIAL, "d/foo.gcm")


README = (
    b"\x7fELF\0GNU C++ old\0import: x old.gcm\0junk"
    b"\0GNU C++ primary module interface\0compiler: 12.2.0\0module: foo\0source: foo.cc\0"
    b"export: foo:p CMakeFiles/a b/foo-p.gcm\0import: bar /b/bar.gcm\0import: ./h.h ,/h.h.gcm\0"
    b"import: nameless\0import: keys /home/me/.ssh/id_rsa\0\0more\0"
)


def test_a_compiled_module_records_the_paths_of_its_imports():
    assert recorded_imports(README) == ["CMakeFiles/a b/foo-p.gcm", "/b/bar.gcm", ",/h.h.gcm"]
    assert recorded_imports(b"") == recorded_imports(b"garbage\0import") == []
