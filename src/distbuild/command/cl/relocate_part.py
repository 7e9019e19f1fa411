"""How a cl command is made to list what it reads, and to run at other places than the dev box's.

Duty: words. Unaware of files and processes.
"""

from distbuild.command.model import CompileCommand

#: Options for debug information: clang-cl writes the words for its own program into it.
_RECORDING = frozenset(
    ("-Z7", "-Zi", "-ZI", "-Zd", "-g", "-gcodeview", "-gline-tables-only", "-gline-directives-only")
)


def records_itself(command: CompileCommand) -> bool:
    """Whether the result tells by which words the compiler proper was started."""
    for argument in command.arguments:
        if argument.meaning == "-showIncludes:user":
            return True  # and with -MD that lists system headers too
        word = argument.value or "" if argument.meaning == "-clang:" else argument.meaning
        if word in _RECORDING or word.startswith(("-g", "-frecord", "-fembed-bitcode")):
            return True
    return False


def listing(path: str) -> list[str]:
    """Words that make clang-cl list the inputs of a compile in the file ``path``."""
    return ["/clang:-MD", f"/clang:-MF{path}"]


def listing_only(path: str) -> list[str]:
    """Words that make it list them and compile nothing."""
    return ["/clang:-M", f"/clang:-MF{path}"]
