"""Worker side: maps diagnostics and dependency files from a mirrored tree to the original paths.

The result equals, byte for byte, what a local compile writes. Also parses dependency files. Knows
no commands and no file system.
"""

import re
from collections.abc import Callable

from distbuild.command.model import Family

#: Column limits: cpp's deps_write for gcc, DependencyFileGenerator for clang.
_GCC_COLUMNS = 72
_CLANG_COLUMNS = 75

#: A name as Make reads it: a backslash escapes any next character except a newline.
_NAME = re.compile(rb"(?:\\[^\n]|[^\\ \t\n])+")
#: A name as clang writes it: tabs are literal.
_CLANG_NAME = re.compile(rb"(?:\\[^\n]|[^\\ \n])+")
_END_OF_TARGETS = re.compile(rb"(?<!\\):(?=[ \t\n]|\Z)")
_END_OF_RULE = re.compile(rb"(?<!\\)\n|\Z")
#: The rules that gcc adds for modules. It names a module ``X.c++m``, from version 15 on
#: ``X.c++-module``.
_OF_MODULES = re.compile(
    rb"(?:CXX_IMPORTS \+=|.*:)(?: \S+\.c\+\+(?:m|-module))+"
    rb"|.*\.c\+\+(?:m|-module): \S.*|.*:\| \S.*",
    re.DOTALL,
)
_ESCAPED = re.compile(rb"(\\*)\\([ \t])|\\([#:])|\$(\$)")
_CLANG_ESCAPED = re.compile(rb"(\\*)\\( )|\\(#)|\$(\$)")


def unmap_text(data: bytes, tree: bytes) -> bytes:
    """``data`` without the prefix ``tree`` wherever it precedes an absolute path."""
    return data.replace(tree + b"/", b"/")


def parse_dependency_file(data: bytes, family: Family) -> list[str]:
    """The prerequisites of the first rule, unquoted; bytes that are no UTF-8 become surrogates.

    clang 14 writes a backslash in a name as a slash, so the original name is lost. gcc's rules for
    modules, which name no file but compiled modules, are left out. Raises ValueError if a name
    contains a newline, which neither compiler escapes.
    """
    _, names, rest = _split(data, family)
    lines = rest.replace(b" \\\n", b"").split(b"\n")
    if not all(not line or line.endswith(b":") or _OF_MODULES.fullmatch(line) for line in lines):
        raise ValueError("more than one rule with prerequisites")
    return [unquote(name, family).decode("utf-8", "surrogateescape") for name in names]


def unmap_dependency_file(data: bytes, tree: str, family: Family) -> bytes:
    """The dependency file as ``family``'s compiler writes it for the original paths."""
    quote, render = _FLAVOURS[family]
    prefix = quote(tree.encode("utf-8", "surrogateescape"))
    targets, names, rest = _split(data, family)
    if not targets:
        return data
    rule = render(targets, [_strip(name, prefix) for name in names])
    phony = (_strip(line, prefix) for line in rest.splitlines(keepends=True))
    return rule + b"".join(phony)


def unquote(name: bytes, family: Family) -> bytes:
    r"""A name of a dependency file without its quoting: ``\ ``, ``\#``, ``$$``; gcc: ``\:`` too."""
    escaped = _CLANG_ESCAPED if family is not Family.GCC else _ESCAPED
    return escaped.sub(_plain, name)


def quote_gcc(name: bytes) -> bytes:
    """Make quoting as gcc applies it."""
    name = re.sub(rb"(\\*)([ \t])", rb"\1\1\\\2", name)
    return re.sub(rb"([#:])", rb"\\\1", name).replace(b"$", b"$$")


def quote_clang(name: bytes) -> bytes:
    """Make quoting as clang applies it: neither colons nor tabs."""
    name = re.sub(rb"(\\*) ", rb"\1\1\\ ", name)
    return name.replace(b"#", b"\\#").replace(b"$", b"$$")


def render_gcc(targets: bytes, names: list[bytes]) -> bytes:
    """A rule with gcc's line breaks. ``targets`` ends in ":"; ``names`` are quoted."""
    parts = [targets]
    column = len(targets) - targets.rfind(b"\n") - 1
    for name in names:
        if column + len(name) > _GCC_COLUMNS:
            parts.append(b" \\\n")
            column = 0
        parts.append(b" " + name)
        column += len(name) + 1
    return b"".join(parts) + b"\n"


def render_clang(targets: bytes, names: list[bytes]) -> bytes:
    """A rule with clang's line breaks, whose columns count the names before quoting."""
    parts = [targets]
    column = len(targets) - targets.rfind(b"\n") - 1
    for name in names:
        length = len(unquote(name, Family.CLANG)) + 1
        if column + length + 2 > _CLANG_COLUMNS:
            parts.append(b" \\\n ")
            column = 2
        parts.append(b" " + name)
        column += length
    return b"".join(parts) + b"\n"


_FLAVOURS: dict[Family, tuple[Callable[[bytes], bytes], Callable[[bytes, list[bytes]], bytes]]] = {
    Family.GCC: (quote_gcc, render_gcc),
    Family.CLANG: (quote_clang, render_clang),
    Family.CLANG_CL: (quote_clang, render_clang),
    Family.CL: (quote_clang, render_clang),  # placeholder: cl.exe writes no such files
}


def _split(data: bytes, family: Family) -> tuple[bytes, list[bytes], bytes]:
    """(targets with their colon, quoted names, text after the first rule)."""
    colon = _END_OF_TARGETS.search(data)
    if colon is None:
        return b"", [], data
    end = _END_OF_RULE.search(data, colon.end())
    stop = end.start() if end else len(data)
    pattern = _CLANG_NAME if family is not Family.GCC else _NAME
    names = pattern.findall(data, colon.end(), stop)
    return data[: colon.end()], names, data[stop + 1 :]


def _strip(name: bytes, prefix: bytes) -> bytes:
    return name[len(prefix) :] if name.startswith(prefix + b"/") else name


def _plain(match: re.Match[bytes]) -> bytes:
    backslashes, space, special, dollar = match.groups()
    if space:
        return bytes(backslashes[: len(backslashes) // 2]) + bytes(space)
    return bytes(special or dollar)
