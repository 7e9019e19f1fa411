"""How a compile is made to say which files its assembler reads by itself (``.incbin``,
``.include``): no dependency file lists them, and no text shows them, since macros make directives.

GNU as lists them when asked. Unaware of how processes are started.
"""

import os
import posixpath
import re
from collections.abc import Collection, Iterable, Sequence

from distbuild.command.model import CompileCommand, Family
from distbuild.mirror.manifest import MAX_SYMLINKS
from distbuild.mirror.policy import is_kernels
from distbuild.protocol.errors import UnseenInputs
from distbuild.protocol.messages import DirectoryEntry, SymlinkEntry
from distbuild.worker.sandbox import Task, resolved
from distbuild.worker.tree import Tree

#: What may mean something in a specs file ("Specifying Subprocesses" in gcc's manual).
_TO_QUOTE = re.compile(rb"[^A-Za-z0-9/._-]")
#: How gas ends a line of its list and goes on (depend.c).
_CONTINUATION = b" \\\n"
_END_OF_TARGET = re.compile(rb":(?=[ \n])")
#: A name as gas quotes it: blanks by a backslash, and the backslashes before them doubled.
_NAME = re.compile(rb"(?:\\[ \t\\]|[^ \t])+")
_ESCAPED = re.compile(rb"(\\*)\\([ \t])|\$(\$)")
#: gas quotes neither a newline nor a backslash at a name's end: other names may be two or half.
_UNMISTAKABLE = re.compile(rb"[^\\\s$]+")


def is_asked(command: CompileCommand) -> bool:
    """Whether the command runs GNU as, which then lists what it reads."""
    return command.family is Family.GCC and not any(
        argument.meaning in ("-S", "-fsyntax-only") for argument in command.arguments
    )


def specs(path: bytes) -> bytes:
    """A specs file that has gcc let it write its list to ``path``.

    Not -Wa or -Xassembler: with -flto gcc records both in the object.
    """
    quoted = _TO_QUOTE.sub(rb"\\\g<0>", path)
    return b"*asm_options:\n+ --MD %s\n\n" % quoted


def listed(path: bytes) -> tuple[bytes, ...]:
    """The names in the list at ``path``: the assembler's text, what it read, and what ``.file``
    names, which need not exist. Raises UnseenInputs for what is no such list."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise UnseenInputs("the assembler wrote no list of what it read") from None
    end = _END_OF_TARGET.search(data)
    body = b"" if end is None else data[end.end() :].replace(_CONTINUATION, b" ")
    if not body.endswith(b"\n") or b"\n" in body[:-1]:
        raise UnseenInputs("the assembler's list of what it read is garbage")
    return tuple(_ESCAPED.sub(_plain, name) for name in _NAME.findall(body[:-1]))


def _plain(match: re.Match[bytes]) -> bytes:
    backslashes, blank, dollar = match.groups()
    if blank:
        return bytes(backslashes[: len(backslashes) // 2]) + bytes(blank)
    return bytes(dollar)


def in_namespace(
    task: Task, names: Iterable[bytes], written: Collection[bytes], own: Sequence[bytes]
) -> tuple[bytes, ...]:
    """Of the files that were opened by these names at the dev box's own paths, those of the tree.

    ``written``: what the compile left; in the directories ``own`` is nothing else of the dev box
    but what the tree has. Raises UnseenInputs for a file that is the worker's.
    """
    found = []
    for name in names:
        path = task.command.absolute(os.fsdecode(name))
        if _is_own_text(task, path, written):
            continue
        real = task.tree.resolve(path)
        if real is not None and task.tree.lookup(real) is not None:
            found.append(os.fsencode(real))
            continue
        place = _led_to(path, task.tree)
        if os.fsencode(place).startswith(tuple(d + b"/" for d in own)):
            continue  # a temporary file
        if is_kernels(place) or os.path.lexists(place):
            raise UnseenInputs(f"{place} may be the worker's")
        _check_name(name)
    return tuple(_no_directories(found, task.tree))


def relocated(
    task: Task, names: Iterable[bytes], cwd: bytes, root: bytes, written: Collection[bytes]
) -> tuple[bytes, ...]:
    """The same for a command that ran in ``cwd``, in the tree that is at ``root``."""
    found = []
    for name in names:
        place = os.path.realpath(posixpath.join(cwd, name))
        if place.startswith(task.directory + b"/"):
            continue  # a temporary file
        if not os.path.lexists(place):
            _check_name(name)
        elif not place.startswith(root + b"/"):
            raise UnseenInputs(f"{os.fsdecode(place)} may be the worker's")
        elif not _is_own_text(task, os.fsdecode(place[len(root) :]), written):
            found.append(place[len(root) :])
    return tuple(_no_directories(found, task.tree))


def _is_own_text(task: Task, path: str, written: Collection[bytes]) -> bool:
    """Whether a path is that of the text which the compiler has left for the assembler
    (``-save-temps``)."""
    return path.endswith(".s") and resolved(task, os.fsencode(path)) in written


def _no_directories(paths: Iterable[bytes], tree: Tree) -> Iterable[bytes]:
    return (p for p in paths if not isinstance(tree.lookup(os.fsdecode(p)), DirectoryEntry))


def _check_name(name: bytes) -> None:
    """Raise UnseenInputs for a name that does not exist and may be another one's half."""
    if not _UNMISTAKABLE.fullmatch(name):
        raise UnseenInputs(f"the assembler may have read {os.fsdecode(name)!r}")


def _led_to(path: str, tree: Tree) -> str:
    """Where a path leads by the tree's symlinks, also where it leaves the tree."""
    pending = [part for part in reversed(path.split("/")) if part]
    place, followed = "", 0
    while pending:
        part = pending.pop()
        if part in (".", ".."):
            place = posixpath.dirname(place).rstrip("/") if part == ".." else place
            continue
        here = f"{place}/{part}"
        entry = tree.lookup(here)
        if not isinstance(entry, SymlinkEntry):
            place = here
            continue
        followed += 1
        if followed > MAX_SYMLINKS:
            raise UnseenInputs(f"too many symlinks in {path}")
        target = os.fsdecode(entry.target)
        place = "" if target.startswith("/") else place
        pending += [part for part in reversed(target.split("/")) if part]
    return place or "/"
