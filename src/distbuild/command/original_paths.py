"""What a command does with a terminal, apart from showing it colours. Pure."""

import re
from collections.abc import Mapping

import msgspec

from distbuild.command.model import CompileCommand, Family

_DECIDES = "-fmessage-length="
#: What atoi(3) makes a number above zero of.
_POSITIVE = re.compile(r"[ \t\n\v\f\r]*\+?0*[1-9]")
_CLANG = re.compile(r"clang ([0-9]+)")
#: This one takes the width from nothing but COLUMNS. Measured; older ones may ask the terminal.
_ASKS_NO_TERMINAL = 14
#: From this one on, only TERM itself counts.
_ASKS_NO_TERMINFO = 19


def on_terminal(command: CompileCommand, env: Mapping[str, str], version: str) -> CompileCommand:
    """``command`` as it is with a terminal as its standard error.

    clang wraps its messages there, and counts the path in front of them. gcc only cuts source
    lines. ``version``: as ``toolchains.Identity`` has it.
    """
    if command.family is not Family.CLANG or not _wraps(command, env, version):
        return command
    return msgspec.structs.replace(command, needs_original_paths=True)


def _wraps(command: CompileCommand, env: Mapping[str, str], version: str) -> bool:
    if any(argument.option.startswith(_DECIDES) for argument in command.arguments):
        return False  # a matter of the command alone: its row says what it needs
    if _POSITIVE.match(env.get("COLUMNS", "")):
        return True
    return _is_before(_ASKS_NO_TERMINAL, version)


def asks_terminfo(command: CompileCommand, version: str) -> bool:
    """Whether colours depend on what a machine's database says of the terminal."""
    return command.family is Family.CLANG and _is_before(_ASKS_NO_TERMINFO, version)


def _is_before(major: int, version: str) -> bool:
    found = _CLANG.match(version)
    return found is None or int(found[1]) < major
