"""Tasks that need no compiler, and an executor that answers by a script."""

from collections.abc import Callable, Generator
from typing import TypeVar, cast

from distbuild.command.model import CompileCommand, Family, Local
from distbuild.farm.executor import Execution, Task
from distbuild.farm.farm import Farm
from distbuild.one_shot import OneShot
from distbuild.protocol.messages import LeaseRequest, RenewRequest, ResultRequest, Toolchain

T = TypeVar("T")

COMMAND = CompileCommand(
    family=Family.GCC,
    compiler="gcc",
    arguments=(),
    cwd="/p",
    source="x.c",
    language="c",
    output="x.o",
    search_dirs=(),
    input_files=(),
    dependencies=None,
    output_dirs=("/p",),
    tied_by="",
)


def task(name: str = "x.c", toolchain: str = "gcc", generation: int = 1) -> Task:
    """A task that is known by its implicit include."""
    return Task(
        command=COMMAND,
        env={},
        toolchain=toolchain,
        generation=generation,
        files=(),
        search_dirs=(),
        builtin_dirs=(),
        implicit_include=name,
        output_dirs=("/p",),
        processor=(),
        terminal=None,
    )


def asking(
    worker: str, slots: int = 1, wait_s: float = 0.0, toolchain: str = "gcc"
) -> LeaseRequest:
    """A worker's request for work."""
    return LeaseRequest(worker, slots, wait_s, [Toolchain(toolchain, toolchain)])


def failed(lease: str, worker: str, stdout: bytes = b"") -> ResultRequest:
    """A verdict that needs no object: the compiler refused the source."""
    return ResultRequest(lease, worker, exit_code=1, stdout=stdout)


def happened() -> OneShot:
    """A signal of something that is over."""
    signal = OneShot()
    signal.set()
    return signal


class ScriptedExecutor:
    """An Executor: for each task the next answer of the script; keeps the tasks it was given."""

    def __init__(self) -> None:
        self.script: list[ResultRequest | Local | Callable[[Task], ResultRequest | Local]] = []
        self.tasks: list[Task] = []
        self.blocked: Local | None = None
        self.cancelled = 0

    def obstacle(self, command: CompileCommand, toolchain: str) -> Local | None:
        return self.blocked

    def execute(self, task: Task) -> Execution:
        self.tasks.append(task)
        answer = self.script.pop(0)
        try:
            yield happened()
        except GeneratorExit:
            self.cancelled += 1
            raise
        return answer(task) if callable(answer) else answer


def run(steps: Generator[OneShot, None, T]) -> T:
    """Run a generator to its end and return what it returns."""
    while True:
        try:
            next(steps).wait()
        except StopIteration as finished:
            return cast("T", finished.value)


def leased(farm: Farm, request: LeaseRequest) -> list[tuple[str, Task]]:
    """What a worker is given, once it is."""
    return run(farm.lease(request))


def renewed(farm: Farm, request: RenewRequest) -> list[str]:
    """The leases that have ended, once one has or the time is over."""
    return run(farm.renew(request))
