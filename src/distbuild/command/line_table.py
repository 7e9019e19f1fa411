"""Whether a gcc writes the source's path as it was told it, beside that in its debug information.

A prefix map reaches only the latter: relocated, the line table would name two files. Pure.
"""

import re

import msgspec

from distbuild.command.model import CompileCommand, Family

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
