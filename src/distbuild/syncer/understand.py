"""Parses a submitted command and identifies its compiler, before any source is read.

Returns ``Understood``, or Local with the reason. May run compilers to identify them.
"""

import os
import stat
from collections.abc import Mapping

import msgspec

from distbuild.command import native, probe
from distbuild.command.cl import parse as cl
from distbuild.command.cl.scan import VARIABLES, with_environment
from distbuild.command.configured import configured_obstacle
from distbuild.command.driver import family_of
from distbuild.command.model import CompileCommand, Family, Local, LocalReason
from distbuild.command.original_paths import on_terminal, with_line_table
from distbuild.command.parse_cache import Recall
from distbuild.command.relocate import records_itself
from distbuild.command.side_effects import by_products, unknown_file
from distbuild.compiler.identity import Identity
from distbuild.farm.executor import Stopwatch
from distbuild.protocol.errors import CompilerScript, InfrastructureError
from distbuild.protocol.messages import Terminal
from distbuild.syncer.compilers import Compilers, Driver, find
from distbuild.system import disk

#: The largest response file that is read.
MAX_RESPONSE_BYTES = 16 * 1024 * 1024


class Submission(msgspec.Struct, frozen=True):
    """A command as the wrapper submitted it. ``env``: the wrapper's environment or a part of it.

    ``is_timed``: the wrapper prints the phases of its job. ``stopwatch`` None: a part of a command.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    terminal: Terminal | None = None
    stopwatch: Stopwatch | None = None
    is_timed: bool = False

    def shown_times(self) -> str:
        """The phases of its job for the wrapper; "": it did not ask."""
        return self.stopwatch.text() if self.stopwatch is not None and self.is_timed else ""

    def end(self, phase: str) -> None:
        """A phase of its job has ended."""
        if self.stopwatch is not None:
            self.stopwatch.end(phase)


class Understood(msgspec.Struct, frozen=True):
    """A parsed command whose arguments and compiler allow a remote compile."""

    command: CompileCommand
    driver: Driver
    identity: Identity
    #: The processor that ``-march=native`` finds on the dev box; see ``command.native``.
    processor: tuple[str, ...] = ()


def understand(submission: Submission, compilers: Compilers, recall: Recall) -> Understood | Local:
    """Parse a command and identify its compiler; Local: why it cannot be distributed."""
    argv, command = _parsed(submission, compilers, recall)
    if isinstance(command, Local):
        return command
    driver = _driver(submission)
    if driver is None:
        return Local(LocalReason.NOT_A_COMPILER, f"{submission.argv[0]}: not found")
    try:
        identity = compilers.identity(driver)
        if identity.family is not command.family:
            command = recall.parse(argv, submission.cwd, _read_response, family=identity.family)
        if isinstance(command, Local):
            return command
        processor = _processor(command, driver, compilers)
    except InfrastructureError as error:
        is_script = isinstance(error, CompilerScript)
        reason = LocalReason.COMPILER_SCRIPT if is_script else LocalReason.NOT_A_COMPILER
        return Local(reason, str(error))
    if isinstance(processor, Local):
        return processor
    if probe.is_odd_pwd(submission.env.get("PWD", "")):
        # The compiler records PWD as the directory, and not the one where the command runs.
        command = msgspec.structs.replace(command, tied_by="an unusual PWD")
    command = with_line_table(command, identity.version)
    if submission.terminal is not None:
        command = on_terminal(command, submission.env, identity.version)
    obstacle = configured_obstacle(identity.options, identity.family)
    obstacle = obstacle or probe.target_obstacle(command, argv[0], submission.env)
    obstacle = obstacle or probe.assembler_obstacle(command, argv[0])
    obstacle = obstacle or unknown_file(command, disk.lexists) or output_obstacle(command)
    return obstacle or Understood(command, driver, identity, processor)


def _parsed(
    submission: Submission, compilers: Compilers, recall: Recall
) -> tuple[tuple[str, ...], CompileCommand | Local]:
    """The arguments that were parsed, and the parsed command."""
    argv = spoken(submission)
    obstacle = probe.environment_obstacle(submission.env)
    if obstacle is not None:
        return argv, obstacle
    command = recall.parse(argv, submission.cwd, _read_response, _cl_family(submission, compilers))
    if isinstance(command, Local) and command.reason is LocalReason.NOT_A_COMPILER:
        argv = _renamed(submission)
        command = recall.parse(argv, submission.cwd, _read_response)
    return argv, command


def _cl_family(submission: Submission, compilers: Compilers) -> Family | None:
    """The family of a compiler named like cl: two compilers have this name and share most options.

    None: the name is enough, or the compiler is not found.
    """
    if family_of(submission.argv[0]) is not Family.CL:
        return None
    driver = _driver(submission)
    try:
        return compilers.identity(driver).family if driver is not None else None
    except InfrastructureError:
        return None  # ``understand`` asks again and reports the error


def _driver(submission: Submission) -> Driver | None:
    return find(submission.argv[0], submission.cwd, submission.env)


def _renamed(submission: Submission) -> tuple[str, ...]:
    """The command with the compiler's real name, if it was called by a symlink of another name.

    clang's name selects its mode (``-cl``, ``++``): of its symlinks only those with a name that
    ends in plain ``clang`` are replaced.
    """
    name = submission.argv[0]
    driver = _driver(submission)
    real = disk.realpath(driver.path) if driver is not None else name
    family = family_of(real)
    if family is None or (family is Family.CLANG and not name.endswith("clang")):
        return submission.argv
    return (real, *submission.argv[1:])


def spoken(submission: Submission) -> tuple[str, ...]:
    """The arguments that the compiler acts by: cl also reads some from its environment."""
    family = family_of(submission.argv[0]) if submission.argv else None
    if family is None or not family.speaks_cl:
        return submission.argv
    return tuple(with_environment(submission.argv, submission.env))


def parts(submission: Submission, compilers: Compilers) -> list[Submission]:
    """Split a command with several sources into one for each; empty: it cannot be split."""
    driver = _driver(submission)
    if driver is None:
        return []
    try:
        family = compilers.identity(driver).family
    except InfrastructureError:
        return []
    if not family.speaks_cl:
        return []
    commands = cl.split(spoken(submission), submission.cwd, _read_response, family)
    env = {name: value for name, value in submission.env.items() if name not in VARIABLES}
    # The parts are compiled at the same time, so that their phases are no phases of the whole.
    part = msgspec.structs.replace(submission, env=env, stopwatch=None)
    return [msgspec.structs.replace(part, argv=tuple(words)) for words in commands]


def _processor(
    command: CompileCommand, driver: Driver, compilers: Compilers
) -> tuple[str, ...] | Local:
    """The processor that ``-march=native`` finds; empty: the command does not use it."""
    if not native.is_wanted(command):
        return ()
    # For clang the processor is passed by other options, which would be recorded in the object.
    recorded = command.family is Family.CLANG and records_itself(command)
    words = None if recorded else compilers.processor(driver, command)
    return Local(LocalReason.NATIVE_TARGET) if words is None else words


def output_obstacle(command: CompileCommand) -> Local | None:
    """An output that only the local compiler can handle: special, read-only or impossible."""
    for directory in command.output_dirs:
        if not disk.is_writable_directory(directory):
            return Local(LocalReason.OUTPUT_SPECIAL, directory)
    named = map(command.absolute, command.output_files())
    for path in (*named, *by_products(command, _listed)):
        try:
            status = disk.lstat(path)
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode) or not disk.access(path, os.W_OK):
            return Local(LocalReason.OUTPUT_SPECIAL, path)
    return None


def _listed(directory: str) -> list[str]:
    try:
        return disk.listdir(directory)
    except OSError:
        return []


def _read_response(path: str) -> bytes | None:
    """The content of a regular file; opening a named pipe would wait for its writer."""
    try:
        if not stat.S_ISREG(disk.stat(path).st_mode):
            return None
        with disk.open_to_read(path) as file:
            return file.read(MAX_RESPONSE_BYTES)
    except OSError:
        return None
