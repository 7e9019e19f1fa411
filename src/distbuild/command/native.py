"""Resolves ``-march=native`` with the dev box's compiler and rewrites it for a worker's processor.

The syncer parses the probe; the worker applies the result. Pure: the caller runs the probe.
"""

import itertools
import re
import shlex
from collections.abc import Iterator, Sequence

import msgspec

from distbuild.command.model import Argument, CompileCommand, Family

NATIVE = frozenset(("-march=native", "-mtune=native"))
#: The source file of a probe, which compiles nothing.
PROBED = "/dev/null"

#: The part of gcc's specs that detects the processor ("Specifying Subprocesses" in its manual).
_CC1_CPU = re.compile(r"^\*cc1_cpu:\n(?P<spec>.*)\n", re.MULTILINE)
_WORD = re.compile(r"-m[a-z][\w.=+-]*|--param|l[12]-cache-(?:line-)?size=[0-9]+")
_CLANG_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
_CLANG_FEATURE = re.compile(r"[+-][\w.+-]+")
_MAX_WORDS = 2000


def is_wanted(command: CompileCommand) -> bool:
    """Whether the command's result depends on the processor that it runs on."""
    words = [a for a in command.arguments if a.option.startswith("-m")]
    return any(map(_is_native, words))


def probe(command: CompileCommand) -> tuple[str, ...]:
    """Arguments that make the compiler print the command of its compiler proper."""
    kept = (a for a in command.arguments if a.option.startswith(("-m", "-target", "--target")))
    words = [word for argument in kept for word in argument.tokens()]
    return (*words, "-###", "-x", "c", "-c", PROBED)


def parse_probe(stderr: str, specs: str, family: Family) -> tuple[str, ...] | None:
    """The processor that the compiler detected, as words for ``applied``.

    ``specs`` is gcc's output for -dumpspecs. Returns None if the output has an unknown form.
    """
    starts = (line for line in stderr.splitlines() if line.startswith(" ") and PROBED in line)
    try:
        words = shlex.split(next(starts, ""))
    except ValueError:
        return None
    if family is Family.CLANG:
        return _checked_clang(tuple(_clang_words(words)))
    found = _CC1_CPU.search(specs)
    if found is None or "local_cpu_detect" not in found["spec"] or PROBED not in words:
        return None
    begin = words.index(PROBED) + 1
    if "-quiet" not in words[begin:]:
        return None
    return _checked_gcc(tuple(words[begin : words.index("-quiet", begin)]))


def checked(words: Sequence[str], family: Family) -> tuple[str, ...]:
    """Validates words from the network; raises ValueError if one is no processor option."""
    check = _checked_clang if family is Family.CLANG else _checked_gcc
    known = check(tuple(words))
    if known is None:
        raise ValueError("a processor is not described like this")
    return known


def specs_text(words: Sequence[str]) -> str:
    """A specs file that makes gcc use these words instead of detecting the processor."""
    gone = " ".join(f"%{{{word[1:]}:%>{word[1:]}}}" for word in sorted(NATIVE))
    return f"*cc1_cpu:\n{gone} {' '.join(words)}\n\n"


def applied(command: CompileCommand, words: Sequence[str], specs: str) -> CompileCommand:
    """The command for the processor in ``words``; ``specs``: file of ``specs_text(words)``.

    The words stand where gcc itself puts them, before all options, because -g records them.
    """
    if command.family is Family.GCC:
        first = Argument("-specs=", specs)
        return msgspec.structs.replace(command, arguments=(first, *command.arguments))
    named = dict(zip(words[::2], words[1::2], strict=True))
    spelled = {
        "-march=native": f"-march={named.get('-target-cpu')}",
        "-mtune=native": f"-mtune={named.get('-tune-cpu')}",
    }
    stated = (
        Argument(spelled["".join(argument.tokens())]) if _is_native(argument) else argument
        for argument in command.arguments
    )
    # All resulting features, including those of the command's own -m options.
    more = (
        Argument("-Xclang", word, separate=True)
        for option, feature in zip(words[::2], words[1::2], strict=True)
        if option == "-target-feature"
        for word in (option, feature)
    )
    return msgspec.structs.replace(command, arguments=(*stated, *more))


def _is_native(argument: Argument) -> bool:
    return argument.option.startswith("-m") and "".join(argument.tokens()) in NATIVE


def _clang_words(words: Sequence[str]) -> Iterator[str]:
    """(-target-cpu, NAME), (-tune-cpu, NAME) and each (-target-feature, +NAME) of a cc1 command."""
    for option, value in itertools.pairwise(words):
        if option in ("-target-cpu", "-tune-cpu", "-target-feature"):
            yield option
            yield value


def _checked_gcc(words: tuple[str, ...]) -> tuple[str, ...] | None:
    fine = len(words) <= _MAX_WORDS and all(_WORD.fullmatch(word) for word in words)
    return words if fine else None


def _checked_clang(words: tuple[str, ...]) -> tuple[str, ...] | None:
    if len(words) > _MAX_WORDS or len(words) % 2:
        return None
    for option, value in zip(words[::2], words[1::2], strict=True):
        pattern = _CLANG_FEATURE if option == "-target-feature" else _CLANG_NAME
        if option not in ("-target-cpu", "-tune-cpu", "-target-feature"):
            return None
        if not pattern.fullmatch(value):
            return None
    return words
