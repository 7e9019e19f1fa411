"""A remembered command is what it would be if it were parsed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.command.model import CompileCommand, Family, Local
from distbuild.command.parse import parse
from distbuild.command.parse_cache import Recall
from tests.property.test_command import lines
from tests.support.examples import examples

names = st.sampled_from(
    [
        *(
            "a",
            "b/c",
            "/t/d",
            "é n",
            "//x",
            "/./dev/fd/3",
            "//proc/q",
            "a..b",
            "q.",
            "x\ny",
            "\udcff",
            "a.c",
            "b.o",
            "c.d",
        ),
        *(
            "../e",
            "f/../g",
            "-",
            "-h",
            "@i",
            "/dev/null",
            "/proc/p",
            "=j",
            "$SYSROOT/k",
            "l/",
            "",
            "/",
            "..",
        ),
    ]
)
suffixes = st.sampled_from([".c", ".cc", ".S", ".i", ".h", ".C", ".s", ""])
sources = st.builds("".join, st.tuples(names, suffixes))


class Name(str):
    """A word that differs between the commands of one kind."""

    __slots__ = ()


class Mapper(Name):
    """The same, behind an option in the same word."""

    __slots__ = ()


def joined(parts):
    return [word for part in parts for word in part]


ordinary = st.sampled_from(["a", "b/c", "/t/d", "a..b", "x.o", "e.c"])
some_name = st.one_of(ordinary, ordinary, ordinary, names)
some_source = st.one_of(
    st.builds("".join, st.tuples(ordinary, st.sampled_from([".c", ".c", ".c", ".cc", ".C"]))),
    sources,
)
naming = st.sampled_from(["-o", "-MF", "-MT", "-MQ", "-D", "-include", "-I", "--output"])
plain = st.sampled_from(
    [
        *(["-O2"], ["-MD"], ["-MMD"], ["-Wp,-MD,w.d"], ["-S"], ["--"], ["-x", "c"], [""], ["-ox"]),
        *(["-D", "-o"], ["-MFm.d"], ["-MF", "n.d"], ["-include", "k.c"], ["-MTt"], ["-D", "-MT"]),
        *(["-fno-such=x.c"], ["-fopt-info-vec=a"], ["--output", "b"], ["-fauto-profile=k"]),
        *(["-gsplit-dwarf"], ["-dumpbase", "d"], ["-ffile-prefix-map=/a=b"], ["y.c"]),
    ]
)
extra = st.one_of(
    plain,
    st.tuples(naming, st.just(Name("n"))).map(list),
    st.just(["-fmodules-ts", Mapper("m")]),
    st.just([Mapper("m")]),
    st.just([Name("n.c")]),
    lines,
)
#: Mostly commands that can be remembered, in any order, with something else among them.
commands = st.lists(extra, max_size=3).flatmap(
    lambda more: st.permutations(
        [["-c"], [Name("s.c")], ["-o", Name("o")], ["-MD"], ["-MF", Name("m")], *more]
    ).flatmap(lambda parts: st.integers(3, len(parts)).map(lambda count: joined(parts[:count])))
)


@examples(10)
@given(commands, st.sampled_from(["/home/u", "/home/u", "/", "//", "/w/.."]), st.data())
def test_other_names_give_what_parsing_gives(words, where, data):
    recall = Recall()
    for cwd in (where, where, where, "/home/other"):
        drawn = ["gcc"]
        for word in words:
            source = type(word) is Name and word.endswith(".c")
            name = data.draw(some_source if source else some_name)
            name = f"-fmodule-mapper={name}" if type(word) is Mapper else name
            drawn.append(name if isinstance(word, Name) else word)
        family = data.draw(st.sampled_from([None, None, Family.CLANG]))
        got = recall.parse(drawn, cwd, lambda _: None, family)
        assert got == parse(drawn, cwd, lambda _: None, family)


def other(recall, line):
    words = line.split(" ")
    got = recall.parse(words, "/w", lambda _: None)
    assert got == parse(words, "/w", lambda _: None)
    return got


def test_a_builds_commands_are_remembered():
    recall = Recall()
    line = "g++ -DX -I/i -O2 -g -MD -MT d/{0}.o -MF d/{0}.o.d -o d/{0}.o -c /s/{0}.cc"
    for name in ("a", "b", "sub/c"):
        command = other(recall, line.format(name))
        assert isinstance(command, CompileCommand)
        assert (command.source, command.output) == (f"/s/{name}.cc", f"d/{name}.o")
    assert len(recall._known) == 1


def test_a_build_of_cmake_with_module_mappers_is_remembered():
    recall = Recall()
    line = (
        "g++ -MD -MT {0}.o -MF {0}.d -fmodules-ts -fmodule-mapper={0}.o.modmap -o {0}.o -c {0}.cc"
    )
    for name in ("a", "b", "sub/c"):
        command = other(recall, line.format(name))
        assert isinstance(command, CompileCommand)
        assert command.module_mapper == f"{name}.o.modmap"
    assert len(recall._known) == 1


def test_what_differs_in_more_than_names_is_another_command():
    recall = Recall()
    for line in ("gcc -c a.c", "gcc -c a.cc", "gcc -c -O2 a.c", "gcc -c a.c -o a.o", "cc -c a.c"):
        assert isinstance(other(recall, line), CompileCommand)
    assert len(recall._known) == 5


def test_an_output_that_is_the_source_stays_local_though_remembered():
    recall = Recall()
    assert isinstance(other(recall, "gcc -c a.c -o a.o"), CompileCommand)
    assert isinstance(other(recall, "gcc -c a.c -o a.c"), Local)
    assert isinstance(other(recall, "gcc -c a.c -o /a.o"), Local)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("gcc -c a.c -MD -MF m -MFj", "gcc -c a.c -MD -MF n -MFj"),
        ("gcc -c a.c -MD -MF m -MF j", "gcc -c a.c -MD -MF n -MF k"),
        ("gcc -c a.c -o o", "gcc -c a.c -o /dev/null"),
        ("gcc -c a.c -o o", "gcc -c a.c -o o/"),
        ("gcc -c a.c -o o", "gcc -c a.c -o ../../o"),
        ("gcc -c a.c -o o", "gcc -c a.c -o -"),
        ("gcc -c a.c -o o", "gcc -c a.c -o "),
        ("gcc -c a.c -o o", "gcc -c a.c -o =o"),
        ("gcc -c a.c -o o", "gcc -c a.c -o @o"),
        ("gcc -c a.c -o o", "gcc -c  -o o"),
        ("gcc -c a.c", "gcc -c ../../a.c"),
        ("gcc -c a.c", "gcc -c =a.c"),
        ("gcc -c -include k.c s.i", "gcc -c -include j.c s.i"),
        ("gcc -c -include k.c s.c", "gcc -c -include j.c s.c"),
        ("gcc -c s.c -include k.c", "gcc -c s.c -include j.c"),
        ("gcc -c -D -o a.c", "gcc -c -D -o b.i"),
        ("gcc -fmodules-ts -c -fmodule-mapper=m a.c", "gcc -fmodules-ts -c a.c -fmodule-mapper=m"),
        ("gcc -fmodules-ts -fmodule-mapper=m -c a.c", "gcc -fmodules-ts -fmodule-mapper= -c a.c"),
        ("gcc -fmodules-ts -fmodule-mapper=m -c a.c", "gcc -fmodules-ts -fmodule-mapper=|m -c a.c"),
        (
            "gcc -fmodules-ts -fmodule-mapper=m -c a.c",
            "gcc -fmodules-ts -fmodule-mapper=h:1 -c a.c",
        ),
        (
            "gcc -fmodules-ts -fmodule-mapper=m -c a.c",
            "gcc -fmodules-ts -o -fmodule-mapper=m -c a.c",
        ),
        (
            "g++ -fmodules-ts -fmodule-mapper=m -c a.c",
            "g++ -fmodules-ts -fmodule-mapper=/proc/m -c a.c",
        ),
    ],
)
def test_a_name_that_means_more_is_seen(first, second):
    recall = Recall()
    other(recall, first)
    other(recall, second)
    other(recall, first)


def test_memory_is_bounded():
    recall = Recall(most_known=10)
    for number in range(25):
        other(recall, f"gcc -c -DN={number} a.c")
    assert len(recall._known) <= 10


def test_the_same_command_is_remembered_as_a_whole():
    recall = Recall(most_whole=10)
    line = "gcc -O2 -c a.c -o a.o"
    assert other(recall, line) is other(recall, line)
    for number in range(25):
        other(recall, f"gcc -c {number}.c")
    assert len(recall._whole) <= 10


def test_a_response_file_is_read_each_time():
    recall = Recall()
    words = ["gcc", "@more", "-c", "a.c"]
    for text in (b"-O1", b"-O2", b"-E"):
        read = {"/w/more": text, "more": text}.get
        assert recall.parse(words, "/w", read) == parse(words, "/w", read)
    assert isinstance(recall.parse(words, "/w", read), Local)
