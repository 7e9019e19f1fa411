"""How a command that asks for no dependency file is made to say what it read. Pure but for files.

Usually by -MD. Where a clang records its own command line in the object, that would show: there
its CC_PRINT_HEADERS does the same, through the environment. clang-cl puts the words for its own
program into the debug information, which that variable changes too: it runs a second time, only
to list its inputs.
"""

import os
from collections.abc import Mapping, Sequence

import msgspec

from distbuild.command.cl import relocate as cl
from distbuild.command.dependency_file import parse_dependency_file
from distbuild.command.model import CompileCommand, Family
from distbuild.command.relocate import observed, records_itself
from distbuild.protocol.errors import InfrastructureError

_GARBAGE = "the compiler's list of inputs is garbage"


class Observer(msgspec.Struct, frozen=True):
    """The words of a command, the variables that it needs, and how to read what it leaves."""

    argv: list[str]
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    #: The command's source, where the list that it leaves has only headers.
    source: str = ""
    family: Family = Family.GCC
    #: Words after the compiler's name that make a second run of it list the inputs; none: one run.
    again: Sequence[str] = ()

    def read(self, path: bytes) -> tuple[bytes, ...] | None:
        """The inputs listed in the file at ``path``; None if the compiler wrote no list."""
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        if self.source:
            return _checked((os.fsencode(self.source), *data.splitlines()))
        return names(data, self.family)


def observe(command: CompileCommand, path: str) -> Observer:
    """Have ``command`` list its inputs in ``path`` unless it has a dependency file of its own."""
    if command.dependencies is not None:
        return Observer(command.argv(), family=command.family)
    if command.family is Family.CLANG_CL:
        words = command.argv()
        if cl.records_itself(command):
            return Observer(words, family=command.family, again=cl.listing_only(path))
        return Observer([words[0], *cl.listing(path), *words[1:]], family=command.family)
    if command.family is Family.CLANG and records_itself(command):
        env = {"CC_PRINT_HEADERS": "1", "CC_PRINT_HEADERS_FILE": path}
        return Observer(command.argv(), env, command.source)
    return Observer(observed(command, path), family=command.family)


def names(dependency_file: bytes, family: Family) -> tuple[bytes, ...]:
    """The prerequisites in a dependency file's text; InfrastructureError if they cannot be."""
    try:
        found = parse_dependency_file(dependency_file, family)
    except ValueError as error:
        raise InfrastructureError(f"{_GARBAGE}: {error}") from error
    return _checked(tuple(map(os.fsencode, found)))


def _checked(paths: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if any(b"\0" in path for path in paths):
        raise InfrastructureError(_GARBAGE)
    return paths
