"""Wrappers of this machine: outputs are written for them, local work takes turns."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from distbuild import write_outputs
from distbuild.command.model import Local, LocalReason
from distbuild.farm.local_slots import LocalSlots
from distbuild.http.response import Response as HttpAnswer
from distbuild.one_shot import OneShot
from distbuild.protocol.codec import pack
from distbuild.protocol.messages import OutputFile, SubmitReply
from distbuild.syncer import local_callers
from distbuild.syncer.local_callers import MAX_PASSED, Caller, LocalCallers, WrapperOrders
from distbuild.syncer.routes import answers
from distbuild.system.process import views_of_files
from tests.support.tasks import run
from tests.unit.syncer.test_compile import Compiling

CALLER = Caller(0o027, -1, views_of_files()[0])


class Serving:
    def __init__(self, base: Path) -> None:
        self.compiling = Compiling(base)
        self.slots = LocalSlots(1)
        self.here = LocalCallers(self.compiling.compiles, self.slots)

    def run(self, *words: str, caller: Caller = CALLER) -> WrapperOrders:
        submission = self.compiling.box.submission()
        if words:
            submission = replace(submission, argv=words)
        answer = run(self.here.run(submission, caller))
        assert isinstance(answer, WrapperOrders)
        return answer

    def start(self, *words: str) -> Generator[OneShot, None, WrapperOrders]:
        submission = replace(self.compiling.box.submission(), argv=words)
        return self.here.run(submission, CALLER)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    base = Path(os.path.realpath(tmp_path)) / "base"
    base.mkdir()
    made = Serving(base)
    yield made
    made.compiling.box.stop()


def test_outputs_are_written_with_the_builds_umask(serving: Serving) -> None:
    box = serving.compiling.box
    result = serving.compiling.result("src/x.c", "inc/a.h")
    written = OutputFile(box.path("src/x.o"), 0o644, pack(b"object"))
    serving.compiling.executor.script = [msgspec.structs.replace(result, outputs=[written])]
    answer = serving.run()
    assert (answer.reply.outcome, answer.program, answer.holds_slot) == ("done", None, False)
    made = box.base / "src/x.o"
    assert (made.read_bytes(), made.stat().st_mode & 0o777) == (b"object", 0o640)


def test_who_puts_outputs_in_place_itself_gets_them_open(serving: Serving) -> None:
    """What this process does later, when it was stopped here, overwrites nothing."""
    box = serving.compiling.box
    result = serving.compiling.result("src/x.c", "inc/a.h")
    written = OutputFile(box.path("src/x.o"), 0o644, pack(b"object"))
    serving.compiling.executor.script = [replace(result, outputs=[written])]
    answer = serving.run(caller=replace(CALLER, places_outputs=True))
    assert answer.outputs is not None
    assert not (box.base / "src/x.o").exists()
    steps = answers(FakeService(answer), None)  # type: ignore[arg-type]
    sent = next(steps)
    assert isinstance(sent, HttpAnswer)
    record = b"f\0" + box.path("src/x.o") + b"\0"
    assert (sent.body, sent.headers["Dist-Build-Outputs"]) == (record + b"out", str(len(record)))
    (descriptor,) = sent.files
    assert os.pread(descriptor, 100, 0) == b"object"
    assert os.fstat(descriptor).st_mode & 0o777 == 0o640
    assert list(steps) == []
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)
    assert not (box.base / "src/x.o").exists()


def test_temporary_files_last_as_long_as_the_connection(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without nameless files the wrapper renames them."""
    monkeypatch.setattr(write_outputs, "_TMPFILE", 0)
    box = serving.compiling.box
    result = serving.compiling.result("src/x.c", "inc/a.h")
    files = [OutputFile(box.path(f"src/x.{n}"), 0o644, pack(b"object")) for n in "od"]
    serving.compiling.executor.script = [replace(result, outputs=files)]
    before = set((box.base / "src").iterdir())
    steps = answers(FakeService(serving.run(caller=replace(CALLER, places_outputs=True))), None)  # type: ignore[arg-type]
    sent = next(steps)
    assert isinstance(sent, HttpAnswer)
    assert isinstance(next(steps), OneShot)
    first, second = set((box.base / "src").iterdir()) - before
    first.rename(box.base / "src/x.o")
    steps.close()
    assert not second.exists()
    assert (box.base / "src/x.o").read_bytes() == b"object"


def test_more_outputs_than_a_message_carries_are_put_in_place_here(serving: Serving) -> None:
    result = serving.compiling.result("src/x.c", "inc/a.h")
    files = [
        OutputFile(serving.compiling.box.path(f"src/{n}"), 0o644, pack(b""))
        for n in range(MAX_PASSED + 1)
    ]
    serving.compiling.executor.script = [replace(result, outputs=files)]
    answer = serving.run(caller=replace(CALLER, places_outputs=True))
    assert (answer.reply.outcome, answer.outputs) == ("done", None)
    assert (serving.compiling.box.base / f"src/{MAX_PASSED}").exists()


@pytest.mark.parametrize("places", [True, False])
def test_a_path_with_a_nul_is_refused(serving: Serving, places: bool) -> None:
    """It would end a record of the list."""
    box = serving.compiling.box
    result = serving.compiling.result("src/x.c", "inc/a.h")
    written = OutputFile(box.path("src/x.o") + b"\0r\0/etc/passwd", 0o644, pack(b"object"))
    serving.compiling.executor.script = [replace(result, outputs=[written])]
    answer = serving.run(caller=replace(CALLER, places_outputs=places))
    assert (answer.reply.reason, answer.outputs) == (LocalReason.OUTPUT_NOT_WRITTEN, None)


@pytest.mark.parametrize(
    ("reason", "silent", "expected"),
    [("no_worker", False, "0"), ("link", True, "1"), ("other_files", True, "2")],
)
def test_what_is_by_design_but_not_expected_is_told_apart(
    reason: str, silent: bool, expected: str
) -> None:
    reply = SubmitReply("local", reason=reason, silent=silent)
    sent = next(answers(FakeService(WrapperOrders(reply, "/bin/gcc")), None))  # type: ignore[arg-type]
    assert isinstance(sent, HttpAnswer)
    assert sent.headers["Dist-Build-Silent"] == expected


def test_outputs_that_cannot_be_written_leave_a_local_compile(serving: Serving) -> None:
    result = serving.compiling.result("src/x.c", "inc/a.h")
    nowhere = OutputFile(serving.compiling.box.path("none/x.o"), 0o644, pack(b"object"))
    serving.compiling.executor.script = [msgspec.structs.replace(result, outputs=[nowhere])]
    answer = serving.run()
    assert answer.reply.reason == LocalReason.OUTPUT_NOT_WRITTEN
    assert not answer.reply.silent
    assert answer.program == f"{serving.compiling.box.base}/bin/gcc"


def test_a_wrapper_that_sees_other_files_compiles_itself(serving: Serving) -> None:
    answer = serving.run(caller=Caller(0o022, -1, b"mnt:[1] 1:2"))
    assert answer.reply.reason == LocalReason.OTHER_FILES
    assert (answer.program, answer.holds_slot) == (None, True), "it finds its own compiler"
    assert serving.compiling.executor.tasks == []


def test_local_work_takes_turns(serving: Serving) -> None:
    first = serving.run("gcc", "x.o", "-o", "x")
    assert (first.reply.reason, first.holds_slot) == ("link", True)
    second = serving.start("gcc", "y.o", "-o", "y")
    turn = next(second)
    assert not turn.is_set()
    assert serving.slots.counts() == {"slots": 1, "running": 1, "waiting": 1}
    serving.slots.release()
    assert turn.is_set()
    answer = run(second)
    assert isinstance(answer, WrapperOrders)
    assert answer.holds_slot
    serving.slots.release()
    assert serving.slots.counts() == {"slots": 1, "running": 0, "waiting": 0}


def test_who_is_gone_waits_no_longer(serving: Serving) -> None:
    assert serving.run("gcc", "x.o", "-o", "x").holds_slot
    waiting = [serving.start("gcc", "y.o", "-o", "y") for _ in range(3)]
    turns = [next(one) for one in waiting]
    waiting[0].close()
    serving.slots.release()
    assert [turn.is_set() for turn in turns] == [False, True, False]
    waiting[1].close()  # granted, and gone before it could take it
    assert turns[2].is_set()
    waiting[2].close()
    assert serving.slots.idle() == 1


def test_what_is_no_compiler_waits_for_nobody(serving: Serving) -> None:
    """make below the wrapper would wait for its own children."""
    serving.compiling.box.write("bin/make", "").chmod(0o755)
    assert serving.run("gcc", "x.o", "-o", "x").holds_slot
    answer = serving.run("make", "all")
    assert (answer.holds_slot, answer.program) == (False, f"{serving.compiling.box.base}/bin/make")


class FakeService:
    def __init__(self, answer: WrapperOrders) -> None:
        self.answer = answer
        self.released = 0

    def run(self, message: object) -> Generator[OneShot, None, WrapperOrders]:
        yield from ()
        return self.answer

    def release(self) -> None:
        self.released += 1


def test_the_slot_is_held_as_long_as_the_connection(serving: Serving) -> None:
    service = FakeService(serving.run("gcc", "x.o", "-o", "x"))
    generator = answers(service, None)  # type: ignore[arg-type]
    answer = next(generator)
    assert isinstance(answer, HttpAnswer)
    program = f"{serving.compiling.box.base}/bin/gcc"
    assert answer.headers == {
        "Dist-Build": "local",
        "Dist-Build-Silent": "1",
        "Dist-Build-Program": str(len(program)),
    }
    assert answer.body == f"{program}link".encode()
    assert isinstance(next(generator), OneShot)
    assert service.released == 0
    generator.close()
    assert service.released == 1


def test_a_farm_that_lost_the_job_is_no_silent_matter(serving: Serving) -> None:
    serving.compiling.executor.script = [Local(LocalReason.LEASES_LOST, "w1: fire")]
    service = FakeService(serving.run())
    answer = next(answers(service, None))  # type: ignore[arg-type]
    assert isinstance(answer, HttpAnswer)
    assert answer.headers["Dist-Build-Silent"] == "0"
    assert answer.body.endswith(b"leases_lost: w1: fire")


def test_where_the_system_names_no_view_all_callers_have_ours(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_callers, "views_of_files", list)
    callers = LocalCallers(serving.compiling.compiles, LocalSlots(1))
    assert callers.sees_our_files(b"")
    assert callers.sees_our_files(b"mount:1 0:1:2")
