"""Laws of the command package, over generated command lines, paths and dependency files."""

import os

from hypothesis import given
from hypothesis import strategies as st

from distbuild.command.dependency_file import (
    parse_dependency_file,
    quote_clang,
    quote_gcc,
    render_clang,
    render_gcc,
    unmap_dependency_file,
    unmap_text,
)
from distbuild.command.model import CompileCommand, Family, Local
from distbuild.command.options import Effect, ValueForm
from distbuild.command.parse import parse, render
from distbuild.command.relocate import relocate, root
from distbuild.command.response import split_gnu
from distbuild.command.tables.gcc import ROWS

TREE = "/var/lib/dist build/sandbox/c$1"
FLAVOURS = {
    Family.GCC: (quote_gcc, render_gcc),
    Family.CLANG: (quote_clang, render_clang),
}

#: clang quotes no backslash, tab or colon, so Make cannot read such names back.
names = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\n\r\t\\:"),
    min_size=1,
    max_size=40,
)
relative_paths = st.lists(names.filter(lambda name: "/" not in name), min_size=1, max_size=4).map(
    "/".join
)
paths = st.builds("".join, st.tuples(st.sampled_from(["", "/"]), relative_paths))
values = st.sampled_from(["a", "/b/c", "../d", "=e", "/f=/g", "é h", "-i", "\udcff"])
plain_rows = [row for row in ROWS if isinstance(row.verdict, Effect) and row.spelling != "-x"]


@st.composite
def options(draw: st.DrawFn) -> list[str]:
    row = draw(st.sampled_from(plain_rows))
    if row.shape is ValueForm.FLAG:
        return [row.spelling]
    value = draw(values)
    joined = row.shape is ValueForm.JOINED or (
        row.shape is ValueForm.EITHER and draw(st.booleans())
    )
    return [row.spelling + value] if joined else [row.spelling, value]


lines = st.lists(options(), max_size=8).map(
    lambda found: [word for words in found for word in words]
)


@given(st.sampled_from(["gcc", "g++", "clang", "clang++"]), lines, lines)
def test_a_parsed_command_renders_as_it_came(compiler, before, after):
    argv = [compiler, *before, "-c", "x.c", *after]

    command = parse(argv, "/home/u", lambda _: None)

    assert isinstance(command, Local) or render(command) == argv


@given(st.lists(st.text(), max_size=8))
def test_any_words_have_an_answer(words):
    assert isinstance(parse(["gcc", *words], "/w", lambda _: None), CompileCommand | Local)


@given(st.sampled_from(["gcc", "clang"]), paths, st.lists(paths, max_size=4))
def test_paths_of_a_relocated_command_map_back(compiler, source, directories):
    argv = [compiler, "-c", f"{source}.c", *(f"-I{path}" for path in directories)]
    command = parse([word.replace("//", "/") for word in argv], "/home/u", lambda _: None)
    if isinstance(command, Local) or command.needs_original_paths:
        return

    moved = relocate(command, TREE, "/out", [])

    kept = moved.argv[-len(command.arguments) :]
    original = [unmap_text(os.fsencode(word), os.fsencode(TREE)) for word in kept]
    assert original == [os.fsencode(word) for word in command.argv()[1:]]


@given(st.sampled_from(sorted(FLAVOURS)), st.lists(paths, min_size=1, max_size=30))
def test_a_rendered_dependency_file_parses_back(family, prerequisites):
    quote, write = FLAVOURS[family]

    data = write(b"x.o:", [quote(path.encode()) for path in prerequisites])

    assert parse_dependency_file(data, family) == prerequisites


@given(st.sampled_from(sorted(FLAVOURS)), st.lists(paths, min_size=1, max_size=30))
def test_a_dependency_file_written_in_the_tree_maps_back(family, prerequisites):
    quote, write = FLAVOURS[family]

    def written(found: list[str]) -> bytes:
        quoted = [quote(path.encode()) for path in found]
        return write(b"x.o:", quoted) + b"".join(name + b":\n" for name in quoted[1:])

    in_tree = written([root(path, TREE) for path in prerequisites])

    assert unmap_dependency_file(in_tree, TREE, family) == written(prerequisites)


@given(st.lists(st.text(min_size=1).filter(lambda word: "\\" not in word)))
def test_quoted_words_survive_a_response_file(words):
    text = " ".join('"' + word.replace('"', '\\"') + '"' for word in words)

    assert split_gnu(text) == words
