"""The wrapper's main function: submits a command to the syncer, or runs the real compiler.

0. called back?              by a wrapper that this program started: run the compiler behind it
1. a subcommand?             run it
2. submit the command        on any error: step 4, with one line of reason
3. done: apply the reply     outputs, stdout, stderr, exit code
4. compile locally           silently when that is by design
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from distbuild import __version__
from distbuild.command.model import Local, LocalReason
from distbuild.command.parse import parse
from distbuild.command.side_effects import Writable
from distbuild.compiler.find import passed
from distbuild.config import find_home
from distbuild.protocol.errors import (
    ConfigError,
    DistBuildError,
    InfrastructureError,
    ProtocolError,
)
from distbuild.protocol.messages import SubmitReply, SubmitRequest
from distbuild.protocol.names import one_line
from distbuild.wrapper import commands
from distbuild.wrapper.local import ADVICE, is_first, run_locally, take_turn
from distbuild.wrapper.syncer_client import (
    USAGE,
    NoSyncer,
    connect,
    find_terminal,
    request_of,
    verbosity,
    without_ourselves,
)
from distbuild.write_outputs import OUR_UMASK, Rights, is_same_directory, write_outputs

#: Set by the launcher: why the command is not to be submitted to the syncer.
OBSTACLE = "DIST_BUILD_OBSTACLE"
#: How long (seconds) a command waits for the syncer that it, or another one, has started.
AUTOSTART_S = 5.0
#: Exit code of an infrastructure failure when DIST_BUILD_FALLBACK=0 forbids the local compile.
NO_FALLBACK = 103
#: Commands that are no compile; ``dist_build.exe make`` would wait for its own children.
_TURNLESS = (LocalReason.NOT_A_COMPILER, LocalReason.INFORMATION)
#: Windows' exit code of a process that Ctrl-C ended (0xC000013A).
_CONTROL_C_EXIT = -1073741510

_HELP = ("help", "-h", "--help")
_VERSION = ("version", "--version")


def main(arguments: Sequence[str]) -> int:
    """Run the wrapper with its arguments; returns the exit code unless it execs."""
    if not arguments or arguments[0].startswith("-") or arguments[0] in (*_HELP, *_VERSION):
        return _about(arguments)
    subcommand = _subcommand(arguments[0])
    try:
        if subcommand is not None:
            return subcommand(arguments[1:])
        return compile_command(arguments, os.environ)
    except KeyboardInterrupt:
        _die_of(signal.SIGINT)
    except DistBuildError as error:
        print(f"dist_build: {error}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else 1


def client() -> int:
    """The Python client as a program of its own."""
    return main(command_words(sys.argv))


def _about(words: Sequence[str]) -> int:
    """Print the help or the version; for an unknown option the usage. Returns the exit code."""
    if len(words) == 1 and words[0] in (*_HELP, *_VERSION):
        print(commands.usage() if words[0] in _HELP else f"dist_build {__version__}")
        return 0
    print(commands.usage(), file=sys.stderr)
    return USAGE


def command_words(argv: Sequence[str]) -> list[str]:
    """The command to compile; a process that was called as gcc, through a link, stands for gcc."""
    name = os.path.basename(argv[0])
    if not name.startswith("dist_build"):
        return [name, *argv[1:]]
    return without_ourselves(argv[1:])


def _subcommand(word: str) -> Callable[[Sequence[str]], int] | None:
    if word not in commands.NAMES:
        return None
    from distbuild.wrapper import subcommands

    return subcommands.by_name(word)


def compile_command(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Compile on the farm or locally; does not return when the compiler replaces this process."""
    if passed(argv[0], env):
        return run_locally(argv, env)
    verbose, began = verbosity(env), time.monotonic()
    obstacle, env = env.get(OBSTACLE), {n: v for n, v in env.items() if n != OBSTACLE}
    try:
        if obstacle is not None:
            raise InfrastructureError(obstacle)
        request = request_of(argv, env, find_terminal())
        reply = submit(request)
        if reply.outcome == "done":
            _check(argv, os.fsdecode(request.cwd), reply)
            write_outputs(reply.outputs, reply.removed, Rights(OUR_UMASK), reply.rewritten)
            _say_worker(reply, verbose, began)
            return _give_back(reply)
    except DistBuildError as error:
        reply = _without_syncer(argv, str(error))
        may_run = reply.silent or env.get("DIST_BUILD_FALLBACK") != "0"
        if may_run and reply.reason not in _TURNLESS:
            env = take_turn(find_home().state / "turns", env)
    return _fall_back(reply, argv, env, verbose=verbose > 0)


def submit(request: SubmitRequest) -> SubmitReply:
    """Submit a command; first start a syncer if there is none, and ``setup`` was asked for that."""
    home, deadline = find_home(), time.monotonic() + AUTOSTART_S
    is_started = False
    while True:
        connection = connect()
        try:
            return connection.compile(request)
        except InfrastructureError as error:
            if connection.is_outdated():
                continue
            if not isinstance(error, NoSyncer):
                raise
            if not is_started and home.autostart.exists():
                from distbuild.wrapper.setup import start_syncer

                is_started = start_syncer(home)
            if not is_started or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _check(argv: Sequence[str], cwd: str, reply: SubmitReply) -> None:
    """Raise ProtocolError if the reply has a file that the command does not write. A command that
    only the syncer can parse is not checked."""
    command = parse(argv, cwd, lambda _: None)
    if isinstance(command, Local):
        return
    writable = Writable(command, is_same_directory)
    for path in (*(file.path for file in reply.outputs), *reply.removed):
        if not writable.has(os.fsdecode(path)):
            said = one_line(os.fsdecode(path))
            raise ProtocolError(
                f"the syncer answers with {said}, which this command does not write"
            )


def _say_worker(reply: SubmitReply, verbose: int, began: float) -> None:
    if verbose == 1:
        _say(f"compiled by {reply.worker}")
    elif verbose == 2:
        phases = f"{reply.times}, " if reply.times else ""
        total_ms = 1000 * (time.monotonic() - began)
        _say(f"compiled by {reply.worker}: {phases}total {total_ms:.1f} ms")


def _give_back(reply: SubmitReply) -> int:
    for stream, data in ((sys.stdout, reply.stdout), (sys.stderr, reply.stderr)):
        if stream is not None:  # the build closed it
            stream.buffer.write(data)
            stream.flush()
    return reply.exit_code


def _without_syncer(argv: Sequence[str], error: str) -> SubmitReply:
    """The reply in the syncer's place: local by design for a link, a failure for a compile."""
    known = parse(argv, "/anywhere", lambda _: None)
    if isinstance(known, Local) and known.reason is not LocalReason.RESPONSE_FILE:
        return SubmitReply("local", reason=known.reason, detail=known.detail, silent=True)
    return SubmitReply("local", reason="unreachable", detail=error)


def _fall_back(
    reply: SubmitReply, argv: Sequence[str], env: Mapping[str, str], *, verbose: bool
) -> int:
    why = reply.detail if reply.reason == "unreachable" else f"{reply.reason}: {reply.detail}"
    if not reply.silent and env.get("DIST_BUILD_FALLBACK") == "0":
        _say(f"not compiled: {why.rstrip(': ')}")
        return NO_FALLBACK
    if verbose:
        _say(f"compiled locally: {why.rstrip(': ')}")
    else:
        _say_once(reply, why.rstrip(": "))
    return run_locally(argv, env)


def _say_once(reply: SubmitReply, why: str) -> None:
    """Print a failure, or a reason by design that the user does not expect; each once a build."""
    if reply.silent and reply.reason != LocalReason.OTHER_FILES:
        return
    if is_first(find_home().state / "said", reply.reason, unknown=not reply.silent):
        _say(f"compiled locally: {why}{ADVICE}")


def _die_of(number: signal.Signals) -> NoReturn:
    """End as the compiler would: make distinguishes an interrupted command from a failed one."""
    if sys.platform == "win32":
        sys.exit(_CONTROL_C_EXIT)
    else:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        raise SystemExit(128 + number)


def _say(text: str) -> None:
    if sys.stderr is not None:  # with None, print uses standard output
        print(f"dist_build: {' '.join(text.split())}", file=sys.stderr)
