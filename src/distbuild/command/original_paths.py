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


_GCC = re.compile(r"gcc ([0-9]+)")
#: From this one on the assembler is told the source as file 0 of DWARF 5, by its mapped name.
_HAS_FILE_0 = 11
_OLD_FORMATS = ("-gdwarf-2", "-gdwarf-3", "-gdwarf-4")


def with_line_table(command: CompileCommand, version: str) -> CompileCommand:
    """``command``, tied to its paths if such a line table would tell them.

    ``version``: as ``toolchains.Identity`` has it. Measured with gcc 12; a relative source is no
    trouble, and assembler text has one name.
    """
    if command.family is not Family.GCC or not command.source.startswith("/"):
        return command
    if command.language == "assembler-with-cpp" or not _is_written(command, version):
        return command
    return msgspec.structs.replace(command, needs_original_paths=True)


def _is_written(command: CompileCommand, version: str) -> bool:
    options = [a.meaning + (a.value or "") for a in command.arguments]
    asked = [option for option in options if option.startswith("-g")]
    found = _GCC.match(version)
    if found is None or int(found[1]) < _HAS_FILE_0:
        return bool(asked)
    formats = [option for option in asked if option.startswith("-gdwarf-")]
    return bool(formats) and formats[-1] in _OLD_FORMATS
