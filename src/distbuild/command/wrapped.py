"""Judges options that hand words to another program: -Wp, -Wa, -Xclang -mllvm.

Duty: says which of those words are known to be harmless; every other one stays local. Unaware of
the rest of the command.
"""

from distbuild.command.model import Argument, Local, LocalReason

#: Preprocessor words that name no file.
_PREPROCESSOR = ("-D", "-U", "-W", "-w", "-pedantic", "-std=")
#: GNU as: words that name no file and write none; "Command-Line Options" of its manual.
_ASSEMBLER = (
    "--32",
    "--64",
    "--compress-debug-sections",
    "--execstack",
    "--fatal-warnings",
    "--generate-missing-build-notes=",
    "--no-warn",
    "--noexecstack",
    "--nocompress-debug-sections",
    "--size-check=",
    "--warn",
    "-W",
    "-m",
)
#: clang -cc1 words that name no file, seen in real builds.
_FRONTEND = frozenset(
    (
        "-disable-O0-optnone",
        "-disable-llvm-passes",
        "-disable-llvm-verifier",
        "-fno-pch-timestamp",
        "-fno-validate-pch",
        "-mconstructor-aliases",
        "-no-opaque-pointers",
        "-opaque-pointers",
    )
)
_LOADS_CODE = ("-load", "-plugin", "-add-plugin", "-fpass-plugin", "-fplugin", "--load")


def dependency_request(argument: Argument) -> tuple[str, str] | None:
    """("-MD" or "-MMD", file) for ``-Wp,-MD,file``; None for any other argument."""
    if argument.option != "-Wp," or argument.value is None:
        return None
    words = argument.value.split(",")
    if len(words) == 2 and words[0] in ("-MD", "-MMD"):
        return words[0], words[1]
    return None


def obstacle(argument: Argument) -> Local | None:
    """Why ``argument`` keeps its command local; None when it hands on nothing or known words."""
    value = argument.value or ""
    spelled = " ".join(argument.tokens())
    match argument.option:
        case "-Wp,":
            known = dependency_request(argument) is not None or _all(value, _PREPROCESSOR)
        case "-Wa,":
            known = _all(value, _ASSEMBLER)
        case "-Xclang":
            known = value in _FRONTEND
        case "-mllvm":
            known = "/" not in value and not value.startswith(_LOADS_CODE)
        case _:
            return None
    if known:
        return None
    loads = value.startswith(_LOADS_CODE)
    reason = LocalReason.RUNS_OTHER_CODE if loads else LocalReason.UNSUPPORTED_OPTION
    return Local(reason, spelled)


def _all(value: str, harmless: tuple[str, ...]) -> bool:
    return all(word.startswith(harmless) for word in value.split(","))
