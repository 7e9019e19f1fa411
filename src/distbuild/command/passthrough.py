"""Checks options that pass arguments to another program: -Wp, -Wa, -Xassembler, -Xclang, -mllvm.

Only arguments known to be harmless can be distributed; all others keep the command local. Knows
nothing of the rest of the command.
"""

import re
from collections.abc import Iterator, Sequence

from distbuild.command.model import Argument, Local, LocalReason, Role

#: Preprocessor arguments that name no file: prefixes, and whole arguments.
_PREPROCESSOR = ("-D", "-U", "-W", "-std=", "-fmessage-length=", "-ftabstop=")
_PREPROCESSOR_FLAGS = frozenset(
    "-C -CC -P -ansi -fopenmp -fopenmp-simd -fpch-preprocess -fno-show-column -pedantic"
    " -pedantic-errors -trigraphs -traditional-cpp -w".split()
)
#: GNU as: arguments that name no file and write none; "Command-Line Options" of its manual, 2.40.
#: Not -a (a listing, with the name of a temporary file), --MD, -o.
_ASSEMBLER = tuple(
    "--compress-debug-sections --elf-stt-common= --generate-missing-build-notes= --hash-size="
    " --multibyte-handling= --no-pad-sections --size-check= --warn -W -m".split()
)
_ASSEMBLER_FLAGS = frozenset(
    "--32 --64 --x32 --alternate --divide --execstack --fatal-warnings --keep-locals --no-warn"
    " --nocompress-debug-sections --noexecstack --reduce-memory-overheads --sectname-subst"
    " --strip-local-absolute --traditional-format -EB -EL -J -K -L -O -O1 -O2 -R -f -k -n".split()
)
#: GNU as: options whose value is the next argument.
_ASSEMBLER_VALUES = frozenset(("--defsym", "-I"))
#: GNU as: line numbers of its input; for C that is a temporary file, whose name they record.
_ASSEMBLER_DEBUG = re.compile(r"-g|--gen-debug|--?gdwarf-\w[\w=-]*")
#: clang -cc1: arguments that name no file, of those that real builds pass; ``clang -cc1 --help``.
_FRONTEND = ("-D", "-U", "-W", "-debug-info-kind=", "-fmessage-length=", "-std=", "-vectorize-")
_FRONTEND_FLAGS = frozenset(
    "-disable-O0-optnone -disable-free -disable-lifetime-markers -disable-llvm-optzns"
    " -disable-llvm-passes -disable-llvm-verifier -disable-red-zone -discard-value-names"
    " -emit-llvm-uselists -fallow-half-arguments-and-returns -fcuda-allow-variadic-functions"
    " -fexperimental-new-constant-interpreter -fhalf-no-semantic-interposition"
    " -fnative-half-type -fno-bitfield-type-align -fno-pch-timestamp -fno-signed-wchar"
    " -fno-validate-pch -fno-wchar -fvisibility-global-new-delete-hidden"
    " -mconstructor-aliases -mllvm -no-opaque-pointers -no-struct-path-tbaa -opaque-pointers"
    " -relaxed-aliasing -target-abi -target-cpu -target-feature -tune-cpu".split()
)
#: Those of them whose value is the next argument, passed by the next -Xclang.
_FRONTEND_VALUES = frozenset(("-target-abi", "-target-cpu", "-target-feature", "-tune-cpu"))
#: Those whose value, passed by the next -Xclang, is a file. CMake passes both for a precompiled
#: header.
_FRONTEND_FILES = {"-include": Role.INPUT_FILE, "-include-pch": Role.UNLISTED_FILE}
#: Makes a precompiled header of a header, and of a source too.
EMIT_PCH = "-emit-pch"
#: LLVM's own options that read or write a file; ``opt --help-hidden``.
_NAMES_FILE = re.compile(r"(?<!pro)file|output|dot|replay|export|mapping|(?:dir|path)=|-o=")
#: LLVM's own options that print and end the compiler, with one dash or two.
_LLVM_TELLS = frozenset("h help help-hidden help-list help-list-hidden version".split())
_LOADS_CODE = ("-load", "-plugin", "-add-plugin", "-fpass-plugin", "-fplugin", "--load")


def dependency_request(argument: Argument) -> tuple[str, str] | None:
    """("-MD" or "-MMD", file) for ``-Wp,-MD,file``; None for any other argument."""
    if argument.option != "-Wp," or argument.value is None:
        return None
    words = argument.value.split(",")
    if len(words) == 2 and words[0] in ("-MD", "-MMD"):
        return words[0], words[1]
    return None


def obstacle(argument: Argument, before: Sequence[Argument] = ()) -> Local | None:
    """Why ``argument`` keeps its command local; None if it passes on none or known ones.

    ``before``: the argument before this one, if there is one.
    """
    value = argument.value or ""
    if _is_question(argument.meaning, value, before):
        return Local(LocalReason.INFORMATION, " ".join(argument.tokens()))
    match argument.meaning:
        case "-Wp,":
            known = dependency_request(argument) is not None or all(
                _is_known(word, _PREPROCESSOR, _PREPROCESSOR_FLAGS) for word in value.split(",")
            )
        case "-Xpreprocessor":
            known = _is_known(value, _PREPROCESSOR, _PREPROCESSOR_FLAGS)
        case "-Wa,":
            known = _are_for_assembler(value.split(","))
        case "-Xassembler":
            known = _are_for_assembler([value])
        case "-Xclang":
            known = _is_for_frontend(value, _handed_on(before))
        case "-mllvm":
            known = _is_for_llvm(value)
        case _:
            return None
    if known:
        return None
    loads = value.startswith(_LOADS_CODE)
    reason = LocalReason.RUNS_OTHER_CODE if loads else LocalReason.UNSUPPORTED_OPTION
    return Local(reason, " ".join(argument.tokens()))


def is_for_assembler_sources(argument: Argument) -> bool:
    """Whether the argument is no obstacle if the assembler reads the source itself."""
    if argument.meaning not in ("-Wa,", "-Xassembler"):
        return False
    words = (
        (argument.value or "").split(",") if argument.meaning == "-Wa," else [argument.value or ""]
    )
    return _are_for_assembler([word for word in words if not _ASSEMBLER_DEBUG.fullmatch(word)])


def assembler_dirs(argument: Argument) -> Iterator[str]:
    """Search directories for the assembler; clang's preprocessor searches them too."""
    if argument.meaning not in ("-Wa,", "-Xassembler"):
        return
    value = argument.value or ""
    words = iter(value.split(",") if argument.meaning == "-Wa," else [value])
    for word in words:
        if word == "--defsym":
            next(words, None)
        elif word.startswith("-I"):
            yield word[2:] or next(words, "")


def frontend_file(argument: Argument, before: Sequence[Argument]) -> Role | None:
    """The role of an argument for cc1 that is the file of the one before it; None: it is none."""
    if argument.meaning != "-Xclang":
        return None
    return _FRONTEND_FILES.get(_handed_on(before))


def guess(argument: Argument) -> str:
    """The argument for cc1 or LLVM if it has a value, which might be a file's name; else empty."""
    value = argument.value or ""
    return value if argument.meaning in ("-Xclang", "-mllvm") and "=" in value else ""


def _is_question(option: str, value: str, before: Sequence[Argument]) -> bool:
    """Whether LLVM only prints information about itself and compiles nothing."""
    asked = option == "-mllvm" or (option == "-Xclang" and _handed_on(before) == "-mllvm")
    return asked and value.removeprefix("-").removeprefix("-") in _LLVM_TELLS


def _is_known(word: str, beginnings: tuple[str, ...], whole: frozenset[str]) -> bool:
    return word in whole or word.startswith(beginnings)


def _are_for_assembler(words: Sequence[str]) -> bool:
    rest = iter(words)
    for word in rest:
        if word in _ASSEMBLER_VALUES:
            if next(rest, None) is None:
                return False  # the value would be in another option
        elif not (word.startswith("-I") or _is_known(word, _ASSEMBLER, _ASSEMBLER_FLAGS)):
            return False
    return True


def _handed_on(before: Sequence[Argument]) -> str:
    """What the previous argument passed to the front end; "" if it passed nothing there."""
    return next((a.value or "" for a in before if a.meaning == "-Xclang"), "")


def _is_for_frontend(word: str, before: str) -> bool:
    if before == "-mllvm":
        return _is_for_llvm(word)
    if before in _FRONTEND_VALUES:
        return "/" not in word
    if before in _FRONTEND_FILES or word in _FRONTEND_FILES or word == EMIT_PCH:
        return True
    return _is_known(word, _FRONTEND, _FRONTEND_FLAGS)


def _is_for_llvm(word: str) -> bool:
    named = "/" in word or _NAMES_FILE.search(word)
    return not (named or word.startswith(_LOADS_CODE))
