import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distbuild.command.model import Local, LocalReason
from distbuild.farm.executor import Task
from distbuild.mirror.manifest import WITHHELD
from distbuild.protocol.codec import pack
from distbuild.protocol.messages import FileEntry, JobFile
from distbuild.syncer.understand import Submission, Understood
from distbuild.system import disk
from tests.support.preparing import IDENTITY, Box


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    base = Path(os.path.realpath(tmp_path)) / "base"
    base.mkdir()
    box = Box(base)
    yield box
    box.stop()


def prepared(box: Box, submission: Submission) -> Task | Local:
    known = box.preparer.understand(submission)
    return known if isinstance(known, Local) else box.preparer.prepare(submission, known)


def packed(path: Path) -> JobFile:
    data, status = path.read_bytes(), path.stat()
    entry = FileEntry(hashlib.sha256(data).digest(), len(data), 0o444, status.st_mtime_ns)
    return JobFile(os.fsencode(path), entry, pack(data))


def test_what_a_command_reads_is_mirrored_and_its_source_packed(box: Box) -> None:
    box.compilers.dirs = (str(box.write("sys/s.h", "").parent),)
    task = prepared(box, box.submission("-O2"))
    assert isinstance(task, Task)
    assert task.files == (packed(box.base / "src/x.c"),)
    assert task.generation == box.mirroring.manifest.generation
    assert task.toolchain == IDENTITY.digest
    assert task.search_dirs == tuple(f"{box.base}/{d}" for d in ("src", "inc", "sys"))
    assert task.builtin_dirs == (f"{box.base}/sys",)
    assert task.output_dirs == (f"{box.base}/src",)
    assert "SECRET" not in task.env
    for name in ("inc/a.h", "sys/s.h"):
        assert isinstance(box.mirroring.manifest.get(f"{box.base}/{name}"), FileEntry)


def test_a_change_before_the_call_is_in_the_generation(box: Box) -> None:
    first = prepared(box, box.submission())
    for n in range(20):
        path = box.write("inc/a.h", f"int a{n};\n")
        task = prepared(box, box.submission())
        assert isinstance(task, Task)
        entry = box.mirroring.manifest.get(str(path))
        assert isinstance(entry, FileEntry)
        assert entry.digest == hashlib.sha256(path.read_bytes()).digest()
    assert isinstance(first, Task)
    assert isinstance(task, Task)
    assert task.generation > first.generation


def test_directories_in_the_environment_are_searched(box: Box) -> None:
    for name in ("one", "src/two", "three"):
        box.write(f"{name}/x.h", "")
    submission = box.submission()
    env = dict(submission.env)
    env |= {"CPATH": f"{box.base}/one:two:", "C_INCLUDE_PATH": f"{box.base}/three"}
    task = prepared(box, Submission(submission.argv, submission.cwd, env))
    assert isinstance(task, Task)
    for name in ("one", "src/two", "three"):
        assert any(os.path.realpath(d) == f"{box.base}/{name}" for d in task.search_dirs)
        assert isinstance(box.mirroring.manifest.get(f"{box.base}/{name}/x.h"), FileEntry)


def test_a_source_behind_a_link_travels_under_its_real_path(box: Box) -> None:
    real = box.write("elsewhere/real.c", "int x;\n")
    (box.base / "src/l.c").symlink_to("../elsewhere/real.c")
    task = prepared(box, box.submission(source="l.c"))
    assert isinstance(task, Task)
    assert task.files == (packed(real),)


def test_a_withheld_file_that_an_option_names_is_mirrored(box: Box) -> None:
    inside, outside = box.write("inc/conf.c", "1"), box.write("o/conf.txt", "1")
    options = ("-include", str(inside), "-imacros", "../o/conf.txt", "-include", "none.h")
    task = prepared(box, box.submission(*options))
    assert isinstance(task, Task)
    assert task.generation == box.mirroring.manifest.generation
    for path in (inside, outside):
        assert isinstance(box.mirroring.manifest.get(str(path)), FileEntry)
    assert box.mirroring.manifest.get(f"{box.base}/src/x.c") == WITHHELD


MAPPED = ("-MD", "-fmodules-ts", "-fmodule-mapper=m.modmap")


def test_a_mapper_that_maps_nothing_travels_with_the_source(box: Box) -> None:
    mapper = box.write("src/m.modmap", "$root .\n")
    for _ in range(2):
        task = prepared(box, box.submission(*MAPPED))
        assert isinstance(task, Task)
        assert task.files[1:] == (packed(mapper),)


def test_a_mapper_elsewhere_has_its_directory_mirrored(box: Box) -> None:
    box.write("elsewhere/m.modmap", "$root .\n")
    task = prepared(box, box.submission(*MAPPED[:2], "-fmodule-mapper=../elsewhere/m.modmap"))
    assert isinstance(task, Task)
    assert f"{box.base}/elsewhere" in map(os.path.realpath, task.search_dirs)


def test_a_changed_mapper_is_judged_anew(box: Box) -> None:
    for text in ("$root .\n", "$root .\nfoo foo.gcm\n", "", "foo\n", "$root ..\n", "$root .\n"):
        box.write("src/m.modmap", text)
        task = prepared(box, box.submission(*MAPPED))
        if text not in ("foo\n", "$root ..\n"):
            assert isinstance(task, Task)
            assert task.command.module_root == ("." if "foo" in text else "")
        else:
            assert task == Local(LocalReason.MODULES, "m.modmap")


ODD_MAPPERS: dict[str, Callable[[Path], object]] = {
    "none": lambda path: None,
    "a directory": Path.mkdir,
    "a pipe": lambda path: os.mkfifo(path) if hasattr(os, "mkfifo") else None,
    "a link": lambda path: path.symlink_to("x.c"),
    "a loop": lambda path: path.symlink_to("m.modmap"),
    "10 MB": lambda path: path.write_bytes(b"\n" * 10_000_000),
    "NUL": lambda path: path.write_bytes(b"$root .\n\0"),
}


@pytest.mark.parametrize("kind", ODD_MAPPERS)
def test_an_odd_mapper_is_left_to_the_compiler(box: Box, kind: str) -> None:
    ODD_MAPPERS[kind](box.base / "src/m.modmap")
    task = prepared(box, box.submission(*MAPPED))
    assert task == Local(LocalReason.MODULES, "m.modmap")


@pytest.mark.parametrize("where", ["src/,", "src/{top}"])
def test_header_units_are_left_to_the_compiler(box: Box, where: str) -> None:
    box.write("src/m.modmap", "$root .\n")
    top = str(box.base).split("/")[1]
    place = box.base / where.format(top=top)
    place.mkdir()
    assert prepared(box, box.submission(*MAPPED)) == Local(LocalReason.MODULES, str(place))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe with a name")
def test_a_pipe_as_response_file_is_not_waited_for(box: Box) -> None:
    os.mkfifo(box.base / "src/args")
    assert isinstance(prepared(box, box.submission("@args")), Local)


def profile_of(what: str) -> Callable[[Box], Submission]:
    def made(box: Box) -> Submission:
        box.write("src/lib/p.txt", "p")
        return box.submission(f"-fauto-profile={what}")

    return made


def from_a_fifo(box: Box) -> Submission:
    os.mkfifo(box.base / "src/fifo.c")
    return box.submission(source="fifo.c")


def with_incbin(box: Box) -> Submission:
    box.write("src/x.c", '__asm__(".incbin \\"logo\\"");\n')
    return box.submission()


def with_assembler_include(box: Box) -> Submission:
    box.write("src/x.s", '.include "macros"\n')
    return box.submission(source="x.s")


def over_a_fifo(box: Box) -> Submission:
    os.mkfifo(box.base / "src/x.o")
    return box.submission()


def over_a_link(box: Box) -> Submission:
    (box.base / "src/x.o").symlink_to("elsewhere.o")
    return box.submission()


def without_compiler(box: Box) -> Submission:
    (box.base / "bin/gcc").unlink()
    return box.submission()


def on_an_unknown_processor(box: Box) -> Submission:
    box.compilers.found = None
    return box.submission("-march=native")


@pytest.mark.parametrize(
    ("submission", "reason"),
    [
        (lambda box: box.submission(source="none.c"), LocalReason.SOURCE_MISSING),
        (from_a_fifo, LocalReason.SPECIAL_INPUT),
        (over_a_fifo, LocalReason.OUTPUT_SPECIAL),
        (over_a_link, LocalReason.OUTPUT_SPECIAL),
        (lambda box: box.submission("-o", "none/x.o"), LocalReason.OUTPUT_SPECIAL),
        (lambda box: box.submission("-o", "/dev/null"), LocalReason.OUTPUT_SPECIAL),
        (without_compiler, LocalReason.NOT_A_COMPILER),
        (lambda box: box.submission("-mcpu=native"), LocalReason.NATIVE_TARGET),
        (on_an_unknown_processor, LocalReason.NATIVE_TARGET),
        (lambda box: box.submission("-E"), LocalReason.PREPROCESS_ONLY),
        (lambda box: box.submission("-fno-such=x.c"), LocalReason.NAMES_A_FILE),
        (lambda box: box.submission("-fno-such=../inc"), LocalReason.NAMES_A_FILE),
        (lambda box: box.submission("-fopt-info-vec=/none/o"), LocalReason.OUTPUT_SPECIAL),
        (profile_of("lib"), LocalReason.SPECIAL_INPUT),
        (profile_of("lib/none"), LocalReason.SPECIAL_INPUT),
    ],
)
def test_what_cannot_be_sent_is_local(
    box: Box, submission: Callable[[Box], Submission], reason: LocalReason
) -> None:
    answer = prepared(box, submission(box))
    assert isinstance(answer, Local)
    assert answer.reason is reason


def test_what_the_assembler_reads_travels_with_the_source(box: Box) -> None:
    box.write("src/x.c", '__asm__(".incbin \\"../logo\\"");\n')
    box.write("logo", "picture")
    task = prepared(box, box.submission())
    assert isinstance(task, Task)
    assert [file.path for file in task.files] == [box.path("src/x.c"), box.path("logo")]
    assert not task.command.needs_original_paths


def test_a_whole_path_in_assembler_leads_only_one_way(box: Box) -> None:
    logo = box.write("logo", "picture")
    box.write("src/x.c", f'__asm__(".incbin \\"{logo}\\"");\n')
    task = prepared(box, box.submission())
    assert isinstance(task, Task)
    assert task.command.needs_original_paths


@pytest.mark.parametrize("made", [with_incbin, with_assembler_include])
def test_what_the_assembler_would_not_find_is_no_reason_yet(
    box: Box, made: Callable[[Box], Submission]
) -> None:
    task = prepared(box, made(box))
    assert isinstance(task, Task)
    assert len(task.files) == 1


@pytest.mark.parametrize(
    ("text", "tied"),
    [
        ('#include "/far/x.h"\n', True),
        ("#if __has_include(</far/x.h>)\n#endif\n", True),
        ('#include "../x.h"\n', False),
    ],
)
def test_an_absolute_operand_needs_the_original_paths(box: Box, text: str, tied: bool) -> None:
    box.write("src/x.c", text)
    for _ in range(2):
        task = prepared(box, box.submission())
        assert isinstance(task, Task)
        assert task.command.needs_original_paths is tied


@pytest.mark.parametrize(
    ("place", "options", "tied"),
    [
        ("src", (), True),
        ("quoted", ("-iquote", "../quoted"), True),
        ("inc", (), False),
        ("other", (), False),
    ],
)
def test_a_name_that_hides_the_implicit_include_needs_the_original_paths(
    box: Box, place: str, options: tuple[str, ...], tied: bool
) -> None:
    box.compilers.implicit_include = str(box.write("sys/stdc-predef.h", ""))
    box.write(f"{place}/stdc-predef.h", "")
    task = prepared(box, box.submission(*options))
    assert isinstance(task, Task)
    assert task.command.needs_original_paths is tied


def test_the_processor_is_told_where_a_command_asks_for_it(box: Box) -> None:
    task = prepared(box, box.submission("-march=native"))
    plain = prepared(box, box.submission())
    assert isinstance(task, Task)
    assert isinstance(plain, Task)
    assert (task.processor, plain.processor) == (("-march=cpu",), ())


def test_a_link_of_another_name_means_the_compiler_behind_it(box: Box) -> None:
    (box.base / "bin/mine").symlink_to("gcc")
    given = box.submission()
    known = box.preparer.understand(Submission(("mine", *given.argv[1:]), given.cwd, given.env))
    assert isinstance(known, Understood)
    assert known.command.compiler == f"{box.base}/bin/gcc"


def test_a_profile_is_mirrored(box: Box) -> None:
    task = prepared(box, profile_of("lib/p.txt")(box))
    assert isinstance(task, Task)
    assert isinstance(box.mirroring.manifest.get(f"{box.base}/src/lib/p.txt"), FileEntry)


def test_a_file_named_as_a_known_options_value_is_no_obstacle(box: Box) -> None:
    box.write("src/native", "")
    assert isinstance(prepared(box, box.submission("-fvisibility=x.c", "-mabi=native")), Task)


def test_a_missing_working_directory_is_no_error_of_ours(box: Box) -> None:
    given = box.submission()
    answer = prepared(box, Submission(given.argv, f"{box.base}/none", given.env))
    assert isinstance(answer, Local)


def test_understanding_tells_the_compiler(box: Box) -> None:
    known = box.preparer.understand(box.submission())
    assert isinstance(known, Understood)
    assert (known.driver.path, known.identity) == (f"{box.base}/bin/gcc", IDENTITY)


def test_an_abbreviated_directory_keeps_a_compile_here(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distbuild.syncer.prepare.WINDOWS", True)
    monkeypatch.setattr(
        "distbuild.system.disk.has_short_name", lambda path: path.endswith("/SHORT~1")
    )
    assert isinstance(prepared(box, box.submission()), Task)
    answer = prepared(box, box.submission("-ISHORT~1"))
    assert answer == Local(LocalReason.INPUT_NOT_MIRRORED, f"{box.base}/src/SHORT~1")


def test_a_text_that_was_packed_before_is_not_packed_again(box: Box) -> None:
    first, again = (prepared(box, box.submission()) for _ in range(2))
    assert isinstance(first, Task)
    assert isinstance(again, Task)
    assert again.files == first.files
    assert again.files[0].blob is first.files[0].blob


def test_a_source_is_read_however_unchanged_it_looks(box: Box) -> None:
    path = box.base / "src/x.c"
    prepared(box, box.submission())
    before, text = path.stat(), path.read_text()
    changed = text.replace("a.h", "b.h")
    assert changed != text
    assert len(changed) == len(text)
    path.write_text(changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    task = prepared(box, box.submission())
    assert isinstance(task, Task)
    assert task.files == (packed(path),)


def test_what_a_source_asks_for_elsewhere_is_looked_for_each_time(box: Box) -> None:
    box.write("src/x.c", '#include "../../far/x.h"\nint x;\n')
    prepared(box, box.submission())
    far = box.write("../far/x.h", "int far;\n")
    prepared(box, box.submission())
    assert isinstance(box.mirroring.manifest.get(os.path.realpath(far)), FileEntry)


def test_what_an_assembler_reads_travels_each_time(box: Box) -> None:
    box.write("src/x.c", '__asm__(".incbin \\"data\\"");\n')
    data = box.write("src/data", "one")
    prepared(box, box.submission())
    data.write_text("two")
    task = prepared(box, box.submission())
    assert isinstance(task, Task)
    assert packed(data) in task.files


@pytest.mark.parametrize("call", ["scandir", "stat"])
def test_a_search_directory_that_is_closed_to_us_keeps_a_command_local(
    box: Box, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """As an ordinary user has it; another one's compiler may read there."""
    private = str(box.write("private/x.h", "").parent)
    real = getattr(disk, call)

    def closed(path: str, *words: object, **named: object) -> object:
        if str(path) == private:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *words, **named)

    closed_for = box.submission("-I../private")
    with monkeypatch.context() as patched:
        patched.setattr(disk, call, closed)
        for _ in range(2):
            local = prepared(box, closed_for)
            assert isinstance(local, Local)
            assert local.reason is LocalReason.INPUT_NOT_MIRRORED
            assert os.path.realpath(local.detail) == private
        assert isinstance(prepared(box, box.submission()), Task)
    assert isinstance(prepared(box, closed_for), Task)
    assert isinstance(box.mirroring.manifest.get(f"{private}/x.h"), FileEntry)
