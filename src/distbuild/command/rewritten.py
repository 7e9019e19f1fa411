"""Which of its outputs a compiler writes into the old file, and which it makes anew.

Duty: the rules of gcc 12 and clang 14, measured by inode, mode and links. A file that is written
into keeps its mode, its owner and its other names. Unaware of the disk.
"""

from distbuild.command.model import ASSEMBLER_LANGUAGES, CompileCommand, Family

#: clang: temporary files that are renamed; so are its main output and serialized diagnostics.
_RENAMED = (".i", ".ii", ".mi", ".mii", ".s", ".bc", ".ll")
_ASSEMBLERS = ("-fintegrated-as", "-integrated-as", "-fno-integrated-as", "-no-integrated-as")
_TEMPORARY = ("-save-temps", "--save-temps")


def is_rewritten(command: CompileCommand, path: str, *, empty: bool = False) -> bool:
    """Whether the compiler opens an old file at ``path``, which it has written, and truncates it.

    GNU as and objcopy (.dwo) remove the old one, unless it is ``empty`` (``-o $(mktemp)``). The cl
    family is taken to remove it always.
    """
    if command.family.speaks_cl:
        return False
    name = path.rpartition("/")[2]
    if command.dependencies is not None and name == _base(command.dependencies.path):
        return True
    is_main = name == _base(command.output)
    if command.family is Family.GCC:
        if is_main:
            return empty or any(argument.meaning == "-S" for argument in command.arguments)
        return empty or not name.endswith(".dwo")
    if is_main:
        return _is_assembled_by_clang(command) or (empty and _is_assembled_by_gnu_as(command))
    return not (name.endswith(_RENAMED) or _is_serialized(command, name))


def _is_assembled_by_clang(command: CompileCommand) -> bool:
    """Whether the object comes from clang's assembler alone, which knows no temporary files."""
    options = [argument.meaning for argument in command.arguments]
    if "-fno-temp-file" in options:
        return True
    assembles = command.language in ASSEMBLER_LANGUAGES or any(
        option.rstrip("=") in _TEMPORARY for option in options
    )
    return assembles and not _is_assembled_by_gnu_as(command) and "-c" in options


def _is_assembled_by_gnu_as(command: CompileCommand) -> bool:
    """Whether clang leaves it to another assembler."""
    options = (argument.meaning for argument in reversed(command.arguments))
    return next((o for o in options if o in _ASSEMBLERS), "").startswith(("-no-", "-fno-"))


def _is_serialized(command: CompileCommand, name: str) -> bool:
    return any(
        argument.meaning.endswith("-serialize-diagnostics") and _base(argument.value or "") == name
        for argument in command.arguments
    )


def _base(path: str) -> str:
    return path.rpartition("/")[2]
