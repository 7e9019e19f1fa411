"""Whole compiles over a scripted executor and a real mirror."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from distbuild.command.model import Local, LocalReason
from distbuild.farm.executor import Stopwatch, Task
from distbuild.one_shot import OneShot
from distbuild.protocol.messages import FileEntry, InputFile, ResultRequest, SubmitReply
from distbuild.syncer.assembler_inputs import MAX_LISTED
from distbuild.syncer.compile import MAX_ROUNDS, MAX_ROUNDS_IN_ALL, Compiles
from tests.support.preparing import IDENTITY, Box
from tests.support.tasks import ScriptedExecutor, run


class Compiling:
    """A box, a script of what workers answer, and the compiles between them."""

    def __init__(self, base: Path, home: str = "") -> None:
        self.box = Box(base, home)
        self.executor = ScriptedExecutor()
        self.compiles = Compiles(
            self.box.preparer, self.executor, self.box.mirroring, self.box.mirror.scanner
        )

    def result(self, *inputs: str, exit_code: int = 0, stderr: bytes = b"") -> ResultRequest:
        """A worker's honest answer: these files, as they are now."""
        read = [self.read(name) for name in inputs]
        return ResultRequest("1.1", "w1", exit_code, b"out", stderr, [], read)

    def read(self, name: str, data: bytes | None = None) -> InputFile:
        content = (self.box.base / name).read_bytes() if data is None else data
        return InputFile(self.box.path(name), hashlib.sha256(content).digest())

    def compile(self, *answers: ResultRequest | Local | Callable[[Task], ResultRequest]) -> object:
        self.executor.script = list(answers)
        answer = run(self.compiles.compile(self.box.submission()))
        assert self.executor.script == []
        return answer

    def counted(self) -> tuple[int, int, int, dict[str, int]]:
        counts = self.compiles
        return counts.done, counts.failed, counts.repeated, dict(counts.local)

    def held(self, name: str) -> bool:
        return isinstance(self.box.mirroring.manifest.get(f"{self.box.base}/{name}"), FileEntry)


@pytest.fixture
def compiling(tmp_path: Path) -> Iterator[Compiling]:
    base = Path(os.path.realpath(tmp_path)) / "base"
    base.mkdir()
    made = Compiling(base)
    yield made
    made.box.stop()


def done(exit_code: int = 0, stderr: bytes = b"") -> SubmitReply:
    return SubmitReply("done", exit_code=exit_code, stdout=b"out", stderr=stderr, worker="w1")


def local(reason: LocalReason, detail: str) -> SubmitReply:
    return SubmitReply("local", reason=str(reason), detail=detail, silent=reason.by_design)


UNPROVED = local(LocalReason.UNPROVED_FAILURE, "x.c")


def test_a_proven_result_is_the_answer(compiling: Compiling) -> None:
    assert compiling.compile(compiling.result("src/x.c", "inc/a.h")) == done()
    assert compiling.counted() == (1, 0, 0, {})


def test_a_genuine_failure_is_accepted_at_once(compiling: Compiling) -> None:
    said = b"x.c:2:1: error: no\n"
    failed = compiling.result("src/x.c", exit_code=1, stderr=said)
    assert compiling.compile(failed) == done(1, said)
    assert compiling.counted() == (1, 1, 0, {})


def test_a_failure_that_lists_no_inputs_is_left_to_the_local_compiler(compiling: Compiling) -> None:
    failed = compiling.result(exit_code=1, stderr=b"x.c:2:1: fatal error: no\n")
    assert compiling.compile(failed) == UNPROVED


@pytest.mark.parametrize(
    "text", ['#if __has_include("../cfg/l.h")\n', '#define L "../cfg/l.h"\n#include L\n']
)
def test_a_failure_that_a_file_outside_may_mend_is_compiled_again(
    compiling: Compiling, text: str
) -> None:
    compiling.box.write("cfg/l.h", "")
    compiling.box.write("src/x.c", '#include "a.h"\n')
    compiling.box.write("inc/a.h", text)
    said = f"{compiling.box.base}/inc/a.h:1:2: fatal error: no\n".encode()
    failed = compiling.result(exit_code=1, stderr=said)
    assert compiling.compile(failed, compiling.result("src/x.c", "inc/a.h")) == done()
    assert compiling.held("cfg/l.h")
    assert compiling.compile(failed) == UNPROVED


def test_the_phases_are_measured_for_a_wrapper_that_prints_them(compiling: Compiling) -> None:
    stale = ResultRequest("1.1", "w1", inputs=[compiling.read("inc/a.h", b"old")])
    compiling.executor.script = [stale, compiling.result("inc/a.h")]
    submission = msgspec.structs.replace(
        compiling.box.submission(), stopwatch=Stopwatch(), is_timed=True
    )
    reply = run(compiling.compiles.compile(submission))
    phases = [part.rsplit(" ", 1)[0] for part in reply.times.split(", ")]
    assert phases == ["understood", "prepared", "on the worker", "verified"]
    assert [task.stopwatch for task in compiling.executor.tasks] == [submission.stopwatch] * 2


def test_a_stale_input_is_compiled_again(compiling: Compiling) -> None:
    stale = ResultRequest("1.1", "w1", inputs=[compiling.read("inc/a.h", b"old")])
    assert compiling.compile(stale, compiling.result("inc/a.h")) == done()
    assert compiling.counted() == (1, 0, 1, {})


def test_a_disturbed_result_is_compiled_again(compiling: Compiling) -> None:
    disturbed = ResultRequest("1.1", "w1", exit_code=1, disturbed=True)
    assert compiling.compile(disturbed, compiling.result("inc/a.h")) == done()
    assert compiling.counted() == (1, 0, 1, {})


def test_a_disturbed_failure_still_says_what_it_ran_into(compiling: Compiling) -> None:
    """In a busy build every round of a failing compile may be disturbed."""
    compiling.box.write("inc/b.c", "int b;\n")
    read = [compiling.read("inc/b.c", b"placeholder")]
    disturbed = ResultRequest("1.1", "w1", exit_code=1, inputs=read, disturbed=True)
    assert compiling.compile(disturbed, compiling.result("inc/b.c")) == done()
    assert compiling.counted() == (1, 0, 1, {})


def test_a_source_that_changed_meanwhile_is_compiled_again(compiling: Compiling) -> None:
    def edit(task: Task) -> ResultRequest:
        compiling.box.write("src/x.c", "int y;\n")
        return compiling.result(exit_code=1)

    assert compiling.compile(edit, lambda task: compiling.result("src/x.c")) == done()
    first, second = compiling.executor.tasks
    assert first.files != second.files


def test_a_header_that_changed_meanwhile_is_compiled_again(compiling: Compiling) -> None:
    def edit(task: Task) -> ResultRequest:
        result = compiling.result("inc/a.h")
        compiling.box.write("inc/a.h", "int b;\n")
        compiling.box.mirroring.settle()
        return result

    assert compiling.compile(edit, lambda task: compiling.result("inc/a.h")) == done()
    first, second = compiling.executor.tasks
    assert second.generation > first.generation


def test_inputs_that_keep_changing_make_it_local(compiling: Compiling) -> None:
    stale = ResultRequest("1.1", "w1", inputs=[compiling.read("inc/a.h", b"old")])
    answer = compiling.compile(*[stale] * MAX_ROUNDS)
    assert answer == local(LocalReason.INPUTS_CHANGED, "x.c")
    assert compiling.counted() == (0, 0, MAX_ROUNDS, {"inputs_changed": 1})


def test_a_withheld_input_is_mirrored_for_the_next_round(compiling: Compiling) -> None:
    compiling.box.write("inc/b.c", "int b;\n")
    held = compiling.result("src/x.c", "inc/b.c")
    assert compiling.compile(held, held) == done()
    assert compiling.held("inc/b.c")


@pytest.mark.parametrize("spelled", ["{base}/inc/b.c", "../inc/b.c"])
def test_a_placeholder_in_the_errors_is_mirrored(compiling: Compiling, spelled: str) -> None:
    compiling.box.write("inc/b.c", "int b;\n")
    path = spelled.format(base=compiling.box.base).encode()
    said = path + b":1:2: error: #error dist_build_withheld\n"
    failed = compiling.result(exit_code=1, stderr=said)
    assert compiling.compile(failed, compiling.result("inc/b.c")) == done()
    assert compiling.held("inc/b.c")


def test_a_placeholder_that_cannot_be_mirrored_makes_it_local(compiling: Compiling) -> None:
    said = b"none.c:1:2: error: #error dist_build_withheld\n"
    answer = compiling.compile(compiling.result(exit_code=1, stderr=said))
    assert answer == local(LocalReason.INPUT_NOT_MIRRORED, "x.c")


MISSING = b"x.c:1:10: fatal error: a.h: No such file or directory\n"


def test_a_placeholder_that_another_job_had_mirrored_meanwhile_is_compiled_again(
    compiling: Compiling,
) -> None:
    compiling.box.write("inc/b.c", "int b;\n")
    path = f"{compiling.box.base}/inc/b.c"

    def meanwhile(task: Task) -> ResultRequest:
        assert compiling.box.mirroring.want(path)
        said = path.encode() + b":1:2: error: #error dist_build_withheld\n"
        return compiling.result(exit_code=1, stderr=said)

    assert compiling.compile(meanwhile, lambda _: compiling.result("inc/b.c")) == done()


def test_a_file_that_comes_first_and_was_mirrored_meanwhile_is_compiled_again(
    tmp_path: Path,
) -> None:
    """Another job had it mirrored: this one's compiler found the other file all the same."""
    base = Path(os.path.realpath(tmp_path)) / "base"
    base.mkdir()
    compiling = Compiling(base, f"{base}/src")
    try:
        compiling.box.write("inc/sub/b.h", "")
        compiling.box.write("src/sub/b.h", "")

        def meanwhile(task: Task) -> ResultRequest:
            assert compiling.box.mirroring.want(f"{base}/src/sub/b.h")
            return compiling.result("src/x.c", "inc/sub/b.h")

        again = compiling.compile(meanwhile, lambda _: compiling.result("src/sub/b.h"))
        assert again == done()
    finally:
        compiling.box.stop()


def test_what_a_link_leads_to_that_was_mirrored_meanwhile_is_compiled_again(
    compiling: Compiling,
) -> None:
    """The file itself was mirrored before, and the link is what was missing."""
    compiling.box.write("inc/a.h", '#if __has_include("../o/l/d.h")\n#endif\n')
    compiling.box.write("inc/sub/d.h", "")
    (compiling.box.base / "o").mkdir()
    (compiling.box.base / "o/l").symlink_to("../inc/sub")
    first, second = compiling.result("inc/a.h"), compiling.result("inc/a.h")
    assert compiling.compile(first, second) == done()


@pytest.mark.parametrize("is_disturbed", [False, True])
def test_a_long_chain_of_placeholders_does_not_end_here(
    compiling: Compiling, is_disturbed: bool
) -> None:
    def next_one(n: int) -> Callable[[Task], ResultRequest]:
        compiling.box.write(f"inc/t{n}.c", "int t;\n")
        said = f"{compiling.box.base}/inc/t{n}.c:1:2: error: #error dist_build_withheld\n"
        failed = compiling.result(exit_code=1, stderr=said.encode())
        return lambda _: msgspec.structs.replace(failed, disturbed=is_disturbed)

    chain = [next_one(n) for n in range(3 * MAX_ROUNDS)]
    assert compiling.compile(*chain, lambda _: compiling.result("inc/t0.c")) == done()
    assert compiling.counted() == (1, 0, len(chain), {})


def test_a_file_that_is_lacking_in_each_round_makes_it_local_in_the_end(
    compiling: Compiling,
) -> None:
    said = f"{compiling.box.base}/inc/t.c:1:2: error: #error dist_build_withheld\n"

    def touched(task: Task) -> ResultRequest:
        compiling.box.write("inc/t.c", f"{len(compiling.executor.script)}")
        compiling.box.mirroring.settle()
        return compiling.result(exit_code=1, stderr=said.encode())

    answer = compiling.compile(*[touched] * MAX_ROUNDS_IN_ALL)
    assert answer == local(LocalReason.INPUTS_CHANGED, "x.c")


def test_a_named_file_that_another_job_has_mirrored_is_in_the_tree_that_the_job_asks_for(
    compiling: Compiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiling.box.write("src/first.c", "")
    mirroring, settle = compiling.box.mirroring, compiling.box.mirroring.settle

    def settle_and_be_overtaken() -> int:
        generation = settle()
        mirroring.want(f"{compiling.box.base}/src/first.c")
        return generation

    monkeypatch.setattr(mirroring, "settle", settle_and_be_overtaken)
    compiling.executor.script = [compiling.result("src/x.c")]
    assert (
        run(compiling.compiles.compile(compiling.box.submission("-include", "first.c"))) == done()
    )
    (task,) = compiling.executor.tasks
    path = f"{compiling.box.base}/src/first.c"
    assert not mirroring.manifest.is_newer(path, task.generation)


def test_what_a_source_includes_from_elsewhere_is_mirrored_before_it_is_compiled(
    compiling: Compiling,
) -> None:
    compiling.box.write("src/x.c", '#include "../o/a.h"\n')
    compiling.box.write("o/a.h", "int a;\n")
    assert compiling.compile(compiling.result("o/a.h")) == done()
    assert compiling.held("o/a.h")


def test_what_a_header_asks_for_elsewhere_is_mirrored_and_compiled_again(
    compiling: Compiling,
) -> None:
    compiling.box.write("inc/a.h", '#if __has_include("../o/b.h")\n#endif\n')
    compiling.box.write("o/b.h", "int b;\n")
    first, second = compiling.result("inc/a.h"), compiling.result("inc/a.h")
    assert compiling.compile(first, second) == done()
    assert compiling.held("o/b.h")


def test_a_missing_include_that_is_mirrored_already_is_left_to_the_local_compiler(
    compiling: Compiling,
) -> None:
    answer = compiling.compile(compiling.result(exit_code=1, stderr=MISSING))
    assert answer == UNPROVED


def test_a_missing_include_that_came_meanwhile_is_compiled_again(compiling: Compiling) -> None:
    """Another job may have had it mirrored: this one has nothing to add any more."""

    def meanwhile(task: Task) -> ResultRequest:
        compiling.box.write("inc/b.h", "")
        compiling.box.mirroring.settle()
        assert compiling.held("inc/b.h")
        return compiling.result(exit_code=1, stderr=MISSING.replace(b"a.h", b"b.h"))

    compiling.box.write("src/x.c", '#include "b.h"\n')
    again = compiling.compile(meanwhile, lambda _: compiling.result("src/x.c", "inc/b.h"))
    assert again == done()


def test_a_missing_include_that_does_not_exist_is_left_to_the_local_compiler(
    compiling: Compiling,
) -> None:
    compiling.box.write("src/x.c", '#include "none.h"\n')
    assert compiling.compile(compiling.result(exit_code=1, stderr=MISSING)) == UNPROVED


def test_a_missing_include_that_a_macro_names_makes_it_local(compiling: Compiling) -> None:
    compiling.box.write("src/x.c", "#include NAME\n")
    answer = compiling.compile(compiling.result(exit_code=1, stderr=MISSING))
    assert answer == UNPROVED


NO_NAMESPACE = Local(LocalReason.NO_NAMESPACE)


@pytest.mark.parametrize("suffix", [".gch", ".pch"])
def test_a_precompiled_header_without_its_header_makes_it_local(
    compiling: Compiling, suffix: str
) -> None:
    """gcc takes a.h.gch even where there is no a.h."""
    compiling.executor.blocked = NO_NAMESPACE
    (compiling.box.base / "inc/a.h").unlink()
    compiling.box.write("inc/a.h" + suffix, "made")
    answer = compiling.compile(compiling.result(exit_code=1, stderr=MISSING))
    path = f"{compiling.box.base}/inc/a.h{suffix}"
    assert answer == local(LocalReason.PRECOMPILED_HEADER, path)


def test_without_namespaces_a_precompiled_header_beside_an_input_makes_it_local(
    compiling: Compiling,
) -> None:
    compiling.executor.blocked = NO_NAMESPACE
    compiling.box.write("inc/a.h.gch", "made")
    answer = compiling.compile(compiling.result("inc/a.h"))
    path = f"{compiling.box.base}/inc/a.h.gch"
    assert answer == local(LocalReason.PRECOMPILED_HEADER, path)
    assert not compiling.held("inc/a.h.gch")


def test_a_precompiled_header_beside_an_input_is_mirrored_and_compiled_again(
    compiling: Compiling,
) -> None:
    compiling.box.write("inc/a.h.gch", "made")
    first, second = compiling.result("inc/a.h"), compiling.result("inc/a.h.gch")
    assert compiling.compile(first, second) == done()
    assert compiling.held("inc/a.h.gch")
    assert [t.command.needs_original_paths for t in compiling.executor.tasks] == [False, True]


OUTSIDE = Local(LocalReason.NO_NAMESPACE, "w1: '/o/a.h' is outside the mirror")


def test_a_path_outside_the_mirror_goes_to_a_worker_with_namespaces(compiling: Compiling) -> None:
    assert compiling.compile(OUTSIDE, compiling.result("src/x.c", "inc/a.h")) == done()
    assert [t.command.needs_original_paths for t in compiling.executor.tasks] == [False, True]


def test_a_path_outside_the_mirror_makes_it_local_where_no_worker_has_namespaces(
    compiling: Compiling,
) -> None:
    compiling.executor.blocked = NO_NAMESPACE
    assert compiling.compile(OUTSIDE) == local(LocalReason.NO_NAMESPACE, OUTSIDE.detail)


def test_a_worker_with_namespaces_that_names_a_path_outside_is_asked_once(
    compiling: Compiling,
) -> None:
    answer = compiling.compile(OUTSIDE, OUTSIDE)
    assert isinstance(answer, SubmitReply)
    assert (answer.outcome, answer.reason) == ("local", "no_namespace")


def test_a_mirrored_precompiled_header_is_there_for_the_next_compile(compiling: Compiling) -> None:
    compiling.box.write("inc/a.h.gch", "made")
    compiling.compile(compiling.result("inc/a.h"), compiling.result("inc/a.h.gch"))
    assert compiling.compile(compiling.result("inc/a.h.gch")) == done()
    assert compiling.compile(compiling.result("inc/a.h")) == done()  # the compiler refused it
    assert compiling.executor.tasks[-1].command.needs_original_paths


def test_a_precompiled_header_that_came_during_the_compile_is_compiled_again(
    compiling: Compiling,
) -> None:
    compiling.box.write("inc/a.h.gch", "made")
    compiling.compile(compiling.result("inc/a.h"), compiling.result("inc/a.h.gch"))

    def rebuilt(task: Task) -> ResultRequest:
        compiling.box.write("inc/a.h.gch", "new")
        compiling.box.mirroring.settle()
        return compiling.result("inc/a.h")

    assert compiling.compile(rebuilt, lambda task: compiling.result("inc/a.h.gch")) == done()


def test_a_failure_where_a_precompiled_header_was_missing_is_compiled_again(
    compiling: Compiling,
) -> None:
    compiling.box.write("inc/a.h.gch", "made")
    failed = compiling.result(exit_code=1, stderr=b"inc/a.h:1:1: error: no\n")
    assert compiling.compile(failed, compiling.result("inc/a.h.gch")) == done()
    assert compiling.compile(failed) == UNPROVED


def test_a_directory_of_precompiled_headers_makes_it_local(compiling: Compiling) -> None:
    compiling.box.write("inc/a.h.gch/debug", "")
    answer = compiling.compile(compiling.result("inc/a.h"))
    path = f"{compiling.box.base}/inc/a.h.gch"
    assert answer == local(LocalReason.PRECOMPILED_HEADER, path)


def assembled(result: ResultRequest, *read: InputFile) -> ResultRequest:
    """The same result of an assembler that read these files by itself."""
    return msgspec.structs.replace(result, assembled=list(read))


def test_what_the_assembler_read_is_held_against_the_mirror(compiling: Compiling) -> None:
    compiling.box.write("src/logo.h", "picture")
    good = assembled(compiling.result("src/x.c"), compiling.read("src/logo.h"))
    stale = assembled(compiling.result("src/x.c"), compiling.read("src/logo.h", b"old"))
    assert compiling.compile(good) == done()
    assert compiling.compile(stale, good) == done()
    assert compiling.counted() == (2, 0, 1, {})


def test_a_placeholder_that_the_assembler_read_is_mirrored(compiling: Compiling) -> None:
    compiling.box.write("src/logo.bin", "picture")
    held = InputFile(compiling.box.path("src/logo.bin"), b"")
    good = assembled(compiling.result("src/x.c"), compiling.read("src/logo.bin"))
    assert compiling.compile(assembled(compiling.result("src/x.c"), held), good) == done()
    assert compiling.held("src/logo.bin")
    assert compiling.counted() == (1, 0, 1, {})


def test_what_no_directory_of_the_command_holds_is_not_mirrored_on_a_workers_word(
    compiling: Compiling,
) -> None:
    """However it is spelled, and though the mirror has its name."""
    compiling.box.write("other/key.bin", "secret")
    compiling.box.mirroring.require([f"{compiling.box.base}/other"])
    here = os.fsencode(compiling.box.base)
    spelled = [b"/other/key.bin", b"/src/../other/key.bin", b"/none", b"/other", b"", b"/src"]
    for path in [*(here + name for name in spelled), b"", b"other/key.bin", b"\xff/\n"]:
        read = [compiling.read("inc/a.h"), InputFile(path, b"")]
        answer = compiling.compile(assembled(compiling.result("src/x.c"), *read))
        assert answer == local(LocalReason.ASSEMBLER_INPUT, os.fsdecode(path))
    assert not compiling.held("other/key.bin")


def test_more_files_than_an_assembler_reads_make_it_local(compiling: Compiling) -> None:
    read = [compiling.read("inc/a.h")] * (MAX_LISTED + 1)
    answer = compiling.compile(assembled(compiling.result("src/x.c"), *read))
    assert answer == local(LocalReason.ASSEMBLER_INPUT, "x.c")


def test_a_file_that_may_have_been_found_first_makes_it_local(compiling: Compiling) -> None:
    compiling.box.write("inc/logo.o", "there, and not mirrored")
    compiling.box.write("src/logo.o", "mirrored by its name")
    compiling.box.mirroring.want(f"{compiling.box.base}/src/logo.o")
    read = assembled(compiling.result("src/x.c"), compiling.read("src/logo.o"))
    answer = compiling.compile(read)
    assert answer == local(LocalReason.ASSEMBLER_INPUT, f"{compiling.box.base}/inc/logo.o")


@pytest.mark.parametrize(
    "said",
    [
        b"/tmp/ccaB3_d9.s: Assembler messages:\n/tmp/ccaB3_d9.s:4: Error: file not found: x\n",
        b"/tmp/ccaB3_d9.s: Assembler-Meldungen:\n/tmp/ccaB3_d9.s:4: Fehler: nein\n",
        b"{standard input}:4: Error: no such instruction: `foo'\n",
        b"x.c:1:9: error: Could not find incbin file 'x.bin'\n<inline asm>:1:9: note: here\n",
        b"<instantiation>:1:1: error: invalid instruction mnemonic 'foo'\n",
    ],
)
def test_the_local_assembler_has_the_last_word(compiling: Compiling, said: bytes) -> None:
    """Whether the inputs are listed or not."""
    for inputs in ([], ["src/x.c"]):
        answer = compiling.compile(compiling.result(*inputs, exit_code=1, stderr=said))
        assert answer == local(LocalReason.ASSEMBLER_INPUT, "x.c")


def test_a_shadowing_file_in_a_partly_mirrored_directory_is_mirrored(tmp_path: Path) -> None:
    """The working directory is the user's home, of which only the top is mirrored."""
    base = Path(os.path.realpath(tmp_path)) / "base"
    base.mkdir()
    compiling = Compiling(base, f"{base}/src")
    try:
        compiling.box.write("inc/sub/b.h", "")
        compiling.box.write("src/sub/b.h", "")
        found = compiling.result("src/x.c", "inc/sub/b.h")
        assert compiling.compile(found, lambda task: compiling.result("src/sub/b.h")) == done()
        assert compiling.held("src/sub/b.h")
    finally:
        compiling.box.stop()


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (Local(LocalReason.NO_TOOLCHAIN, "d" * 12), f"for {IDENTITY.version}"),
        (Local(LocalReason.NO_WORKER, "d" * 12), ""),
        (Local(LocalReason.LEASES_LOST, "w1: disk full"), "w1: disk full"),
    ],
)
def test_what_the_farm_cannot_do_is_local(compiling: Compiling, answer: Local, detail: str) -> None:
    assert compiling.compile(answer) == local(answer.reason, detail)
    assert compiling.counted() == (0, 0, 0, {answer.reason: 1})
    compiling.executor.blocked = answer
    explained = compiling.compiles.explain(compiling.box.submission())
    assert explained == Local(answer.reason, detail)


def test_why_a_command_needs_namespaces_is_said(compiling: Compiling) -> None:
    compiling.executor.blocked = Local(LocalReason.NO_NAMESPACE, "d" * 12)
    compiling.executor.script = [compiling.executor.blocked]
    submission = compiling.box.submission("-gsplit-dwarf")
    detail = f"-gsplit-dwarf, with {IDENTITY.version}"
    assert run(compiling.compiles.compile(submission)) == local(LocalReason.NO_NAMESPACE, detail)
    assert compiling.compiles.explain(submission) == Local(LocalReason.NO_NAMESPACE, detail)


def test_what_is_local_by_design_is_silent(compiling: Compiling) -> None:
    answer = run(compiling.compiles.compile(compiling.box.submission("-E")))
    assert answer == local(LocalReason.PREPROCESS_ONLY, "-E")
    assert isinstance(answer, SubmitReply)
    assert answer.silent
    assert compiling.compiles.explain(compiling.box.submission("-E")) == Local(
        LocalReason.PREPROCESS_ONLY, "-E"
    )
    assert compiling.compiles.explain(compiling.box.submission()) is None


def test_closing_a_compile_cancels_its_task(compiling: Compiling) -> None:
    compiling.executor.script = [compiling.result()]
    running = compiling.compiles.compile(compiling.box.submission())
    next(running)
    running.close()
    assert compiling.executor.cancelled == 1
    assert compiling.counted() == (0, 0, 0, {})


def test_until_the_first_scan_is_over_a_compile_waits(compiling: Compiling) -> None:
    ready = compiling.box.mirroring.ready = OneShot()
    compiling.executor.script = [compiling.result("inc/a.h")]
    running = compiling.compiles.compile(compiling.box.submission())
    next(running)
    assert compiling.executor.tasks == []
    ready.set()
    assert run(running) == done()


def test_what_one_job_proved_says_nothing_of_another_digest_or_generation(
    compiling: Compiling,
) -> None:
    good = compiling.result("src/x.c", "inc/a.h")
    stale = ResultRequest("1.1", "w1", inputs=[compiling.read("inc/a.h", b"old")])
    assert compiling.compile(good) == done()
    assert compiling.compile(stale, good) == done()
    compiling.box.write("inc/a.h", "int b;\n")
    now = compiling.result("src/x.c", "inc/a.h")
    assert compiling.compile(good, now) == done()
    assert compiling.counted() == (3, 0, 2, {})


def test_a_worker_that_lists_its_inputs_wrongly_compiles_again(compiling: Compiling) -> None:
    wrong = ResultRequest("1.1", "w1", packed_inputs=b"no list")
    assert compiling.compile(wrong, compiling.result("src/x.c", "inc/a.h")) == done()
    assert compiling.counted() == (1, 0, 1, {})
