"""Has a compiler colour its diagnostics as it would on the developer's terminal. Pure."""

import dataclasses
from collections.abc import Mapping

from distbuild.command.model import Argument, CompileCommand, Family
from distbuild.command.relocate import records_itself

_DECIDES = ("-fdiagnostics-color", "-fno-diagnostics-color", "-fcolor-diagnostics")
_DECIDES_TOO = ("-fno-color-diagnostics", "-fdiagnostics-plain-output")


def coloured(command: CompileCommand, env: Mapping[str, bytes], *, tty: bool) -> CompileCommand:
    """``command`` with colours switched on where its own standard error would have them.

    Both drivers colour on a terminal unless TERM is unset or ``dumb``, and keep the option out of
    what they write; only a clang that records its command line would not.
    """
    if not tty or env.get("TERM", b"dumb") == b"dumb":
        return command
    if command.family is Family.CLANG and records_itself(command):
        return command
    if any(argument.option.startswith(_DECIDES + _DECIDES_TOO) for argument in command.arguments):
        return command
    always = Argument("-fdiagnostics-color=always")
    return dataclasses.replace(command, arguments=(always, *command.arguments))
