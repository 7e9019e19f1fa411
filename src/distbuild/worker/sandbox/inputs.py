"""Makes a command that writes no dependency file list its inputs. Pure, but for reading the list.

Usually by -MD. Where a clang records its command line in the object, -MD would show there: the
variable CC_PRINT_HEADERS does the same. clang-cl writes its -cc1 arguments into the debug
information, and that variable changes them: clang-cl runs a second time, only to list its inputs.
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
    """A command line, the variables that it needs, and how to read the list that it writes."""

    argv: list[str]
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    #: The command's source, where the list has only headers.
    source: str = ""
    family: Family = Family.GCC
    #: Arguments after the compiler's name that make a second run list the inputs; empty: one run.
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
    """Make ``command`` list its inputs in ``path``, unless it writes a dependency file itself."""
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
    """The prerequisites in a dependency file's text; InfrastructureError if it is malformed."""
    try:
        found = parse_dependency_file(dependency_file, family)
    except ValueError as error:
        raise InfrastructureError(f"{_GARBAGE}: {error}") from error
    return _checked(tuple(map(os.fsencode, found)))


def _checked(paths: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if any(b"\0" in path for path in paths):
        raise InfrastructureError(_GARBAGE)
    return paths
