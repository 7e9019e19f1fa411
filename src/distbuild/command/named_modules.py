"""Interprets gcc's mappers of modules: which compiled modules a command may read, and which it
writes.

A mapper's file maps the names of modules to files ("C++ Module Mapper" in gcc's manual). It does
not say which of them the source provides; the source's text does. Where either is not plain, the
command is compiled locally. Knows no file system.
"""

import posixpath
import re
from collections.abc import Callable

import msgspec

from distbuild.command.decide import with_output
from distbuild.command.model import CompileCommand, Local, LocalReason
from distbuild.command.original_paths import special_input

#: The suffix of gcc's compiled modules. The mirror knows them by it.
SUFFIX = ".gcm"

_NAME = rb"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_ROOT = re.compile(rb"\$root (\S+)")
#: A line of a mapper; header units have paths instead of names.
_MAPPED = re.compile(rb"(%b(?::%b)?) (\S+\.gcm)" % (_NAME, _NAME))

_SPLICE = re.compile(rb"\\[ \t]*\r?\n")
#: Strings and comments. Those without an end match too, else each would be searched to the end.
_NO_CODE = re.compile(rb'"(?:\\.|[^"\\\n])*"?|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
#: What may be a module directive ("cpp.module" in the standard): those begin a line.
_DIRECTIVE = re.compile(rb"^[ \t]*(export\s+)?module\b([^;\n]*)(;?)", re.MULTILINE)
_PRIVATE_FRAGMENT = re.compile(rb"\s*:\s*private\s*")
_DECLARATION = re.compile(rb"\s*(%b)\s*(?::\s*(%b)\s*)?(?:\[\[.*)?" % (_NAME, _NAME))
#: After an identifier called ``module`` in other code.
_OPERATOR = re.compile(rb"\s*[^\s\w:]")

#: The beginning of the text in a compiled module that lists what it imports, and a line of it.
_README = b"GNU C++ "
_RECORDED = re.compile(rb"\0(?:import|export): [^\0\s]+ ([^\0\n]+)(?=\0)")
#: Such a text is shorter, and lists fewer.
_MAX_README, _MAX_RECORDED = 1 << 20, 10_000


class Mapper(msgspec.Struct, frozen=True):
    """A mapper's file. ``root``: the directory that its paths are relative to. ``files``: name of
    the module -> path, relative to the working directory."""

    root: str
    files: dict[str, str]


def read_mapper(text: bytes) -> Mapper | None:
    """A mapper's content; None: it has a line that is not known, or maps a header unit."""
    root = "."
    files: dict[str, str] = {}
    for number, line in enumerate(filter(None, text.split(b"\n"))):
        if number == 0 and (match := _ROOT.fullmatch(line)):
            root = _path(match[1])
            continue
        match = _MAPPED.fullmatch(line)
        if match is None or match[1].decode() in files:
            return None
        files[match[1].decode()] = below(root, _path(match[2]))
    return Mapper(root, files)


def below(root: str, path: str) -> str:
    """A path as gcc opens it that is recorded relative to ``root``."""
    return path if root == "." else posixpath.join(root, path)


def provided(source: bytes) -> str | None:
    """The module, or partition, whose compiled form gcc writes for a source; "": none.

    None: the text may declare one of several, by conditions or by macros.
    """
    found = set()
    for exported, rest, end in _DIRECTIVE.findall(_NO_CODE.sub(b" ", _SPLICE.sub(b"", source))):
        if _OPERATOR.match(rest) or (not rest.strip() and end and not exported):
            continue  # other code, or the beginning of the global module fragment
        if _PRIVATE_FRAGMENT.fullmatch(rest):
            continue
        match = _DECLARATION.fullmatch(rest)
        if match is None or not end:
            return None
        module, partition = match[1].decode(), (match[2] or b"").decode()
        name = f"{module}:{partition}" if partition else module
        found.add(name if partition or exported else "")
    return None if len(found) > 1 else next(iter(found), "")


def with_modules(
    command: CompileCommand, mapper: bytes, source: Callable[[], bytes]
) -> CompileCommand | Local:
    """``command`` with the compiled modules that it may read as inputs, and with the one that it
    writes as an output. ``mapper``, ``source``: what is in these files.

    An interface that is compiled again finds its old compiled module: that is no input.
    """
    read = read_mapper(mapper)
    unusable = Local(LocalReason.MODULES, command.module_mapper)
    if read is None or (read.root != "." and not read.files):
        return unusable
    if not read.files:
        return command
    name = provided(source())
    if name is None or (name and name not in read.files):
        return unusable
    inputs = [path for module, path in read.files.items() if module != name]
    if name and read.files[name] in inputs:
        return unusable
    found = msgspec.structs.replace(
        command, input_files=(*command.input_files, *inputs), module_root=read.root
    )
    return special_input(found) or (with_output(found, read.files[name]) if name else found)


def recorded_imports(compiled: bytes) -> list[str]:
    """The paths at which a compiled module expects those that it imports, as it records them.

    gcc ignores the mapper for a module that is imported only by another one.
    """
    start = max(compiled.rfind(_README), 0)
    found = _RECORDED.findall(compiled, start, start + _MAX_README)[:_MAX_RECORDED]
    return [path for path in map(_path, found) if path.endswith(SUFFIX)]


def _path(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
