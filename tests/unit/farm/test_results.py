"""Results that no honest worker can have sent, and what is known of those who sent them."""

import functools

import msgspec
import pytest

from distbuild.command.model import CompileCommand, LocalReason
from distbuild.command.named_modules import with_modules
from distbuild.command.parse import parse
from distbuild.farm.executor import Task
from distbuild.farm.results import objection, only_here, size_of
from distbuild.protocol.codec import mark, pack, pack_inputs
from distbuild.protocol.messages import (
    MAX_BLOB_BYTES,
    MAX_PRINTED_BYTES,
    Blob,
    FileEntry,
    InputFile,
    JobFile,
    OutputFile,
    ResultRequest,
)
from tests.support.tasks import task

DIGEST = b"d" * 32
SOURCE = JobFile(b"/p/x.c", FileEntry(DIGEST, 1, 0o644, 0), pack(b"x"))
OBJECT = OutputFile(b"/p/x.o", 0o644, pack(b"object"))
READ = InputFile(b"/p/x.c", DIGEST)
HONEST = ResultRequest("l", "w", outputs=[OBJECT], inputs=[READ])


@pytest.fixture
def given() -> Task:
    return msgspec.structs.replace(task(), files=(SOURCE,))


def but(**changes: object) -> ResultRequest:
    return msgspec.structs.replace(HONEST, **changes)


def written(path: bytes, blob: Blob | None = None) -> OutputFile:
    return OutputFile(path, 0o644, blob or pack(b"x"))


@pytest.mark.parametrize(
    "result",
    [
        HONEST,
        but(inputs=[], packed_inputs=pack_inputs([READ])),
        but(inputs=[], marks=mark(READ.path, READ.digest).to_bytes(8, "little")),
        but(exit_code=1, outputs=[], inputs=[]),
        but(disturbed=True, outputs=[], inputs=[]),
        but(assembled=[InputFile(b"/p/a.inc", b"")]),
    ],
)
def test_there_is_no_objection_to_an_honest_result(given: Task, result: ResultRequest) -> None:
    assert objection(given, result) == ""


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (but(stdout=b"x" * MAX_PRINTED_BYTES, stderr=b"x"), "it prints more than any compiler"),
        (but(outputs=[OBJECT, written(b"x.d")]), "it writes x.d"),
        (but(outputs=[OBJECT, written(b"/p/a\0b")]), "it writes /p/a"),
        (but(outputs=[OBJECT, written(b"/p/x.c")]), "it writes /p/x.c"),
        (but(outputs=[OBJECT, OBJECT]), "it writes /p/x.o"),
        (but(outputs=[OBJECT, written(b"/p/y.o")]), "/p/y.o, which its command does not"),
        (but(outputs=[written(b"/p/x.o", Blob(DIGEST, MAX_BLOB_BYTES + 1, b""))]), "it writes "),
        (but(outputs=[written(b"/p/x.o", Blob(DIGEST, MAX_BLOB_BYTES, b"."))]), "packed in 1"),
        (but(inputs=[READ, InputFile(b"a.h", DIGEST)]), "it read a.h"),
        (but(inputs=[READ, InputFile(b"/a\0.h", DIGEST)]), "it read /a"),
        (but(assembled=[InputFile(b"/a.inc", b"short")]), "a digest of 5 bytes"),
        (but(outputs=[]), "it succeeded without x.o"),
        (but(outputs=[written(b"/other/y.o")]), "/other/y.o, which its command does not"),
        (but(inputs=[]), "it succeeded without reading x.c"),
        (but(inputs=[InputFile(b"/p/y.c", DIGEST)]), "it succeeded without reading x.c"),
        (but(inputs=[], packed_inputs=b"damaged"), ""),
    ],
)
def test_what_no_honest_worker_sends_is_refused(
    given: Task, result: ResultRequest, why: str
) -> None:
    said = objection(given, result)
    assert said
    assert why in said


def test_the_reason_is_one_printable_line(given: Task) -> None:
    said = objection(given, but(outputs=[OBJECT, written(b"/p/a\n\x1b[2J\xff")]))
    assert said.isprintable()


def test_a_result_takes_the_memory_of_what_it_carries() -> None:
    result = but(stdout=b"12", stderr=b"345", packed_inputs=b"6789")
    assert size_of(result) == len(OBJECT.blob.data) + 9


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (but(error="e", crashed=True), LocalReason.COMPILER_CRASHED),
        (but(error="e", unseen=True), LocalReason.ASSEMBLER_INPUT),
        (but(error="e", named=True), LocalReason.NAMES_ITS_PLACE),
        (but(error="e"), None),
    ],
)
def test_some_errors_would_come_on_every_worker(
    result: ResultRequest, reason: LocalReason | None
) -> None:
    assert only_here(result) is reason


def test_a_worker_writes_no_module_but_that_which_the_source_provides(given: Task) -> None:
    words = "g++ -fmodules-ts -fmodule-mapper=m -c x.c -o x.o".split()
    command = parse(words, "/p", lambda _: None)
    assert isinstance(command, CompileCommand)
    mapper = b"a m/a.gcm\nb m/b.gcm\n"
    for source, allowed in ((b"import a;\n", ()), (b"export module a;\n", ("/p/m/a.gcm",))):
        mapped = with_modules(command, mapper, functools.partial(bytes, source))
        assert isinstance(mapped, CompileCommand)
        task = msgspec.structs.replace(given, command=mapped)
        for path in ("/p/m/a.gcm", "/p/m/b.gcm", "/p/m/a.gcm~", "/p/a.gcm", "/p/m"):
            result = but(outputs=[OBJECT, written(path.encode())])
            assert (objection(task, result) == "") == (path in allowed)
