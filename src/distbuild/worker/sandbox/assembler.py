"""How a compile is made to say which files its assembler reads by itself (``.incbin``,
``.include``): no dependency file lists them, and no text shows them, since macros make directives.

gcc's, GNU as, lists them when asked. clang's is part of it and lists nothing: most of its sources
have no assembler, and prove that by compiling where it is an error; for the others the kernel tells
which files are opened. Unaware of how processes are started.
"""

import os
import posixpath
import re
from collections.abc import Collection, Iterable

from distbuild.command.model import ASSEMBLER_LANGUAGES, CompileCommand, Family
from distbuild.command.relocate import records_itself
from distbuild.mirror.manifest import MAX_SYMLINKS
from distbuild.mirror.policy import is_pseudo_fs
from distbuild.protocol.errors import UnseenInputs
from distbuild.protocol.messages import DirectoryEntry, SymlinkEntry
from distbuild.worker.sandbox import worker_files
from distbuild.worker.sandbox.base import SandboxTask, resolved
from distbuild.worker.tree.tree import Tree

#: What may mean something in a specs file ("Specifying Subprocesses" in gcc's manual).
_TO_QUOTE = re.compile(rb"[^A-Za-z0-9/._-]")
#: How gas ends a line of its list and goes on (depend.c).
_CONTINUATION = b" \\\n"
_END_OF_TARGET = re.compile(rb":(?=[ \n])")
#: A name as gas quotes it: blanks by a backslash, and the backslashes before them doubled.
_NAME = re.compile(rb"(?:\\[ \t\\]|[^ \t])+")
_ESCAPED = re.compile(rb"(\\*)\\([ \t])|\$(\$)")
#: gas quotes neither a newline nor a backslash at a name's end: other names may be two or half.
_UNMISTAKABLE = re.compile(rb"[^\\\s]+")


def is_asked(command: CompileCommand) -> bool:
    """Whether the command runs GNU as, which then lists what it reads."""
    return command.family is Family.GCC and not any(
        argument.meaning in ("-S", "-fsyntax-only") for argument in command.arguments
    )


#: clang's option.
_FORBID = "-fno-gnu-inline-asm"
_ALLOWS = ("-fgnu-inline-asm", _FORBID)
#: Other kinds of inline assembler, which that does not forbid.
_BLOCKS = ("-fasm-blocks", "-fms-extensions", "-fms-compatibility", "-fborland-extensions")
#: What writes the command's words somewhere, beside what ``records_itself``.
_RECORD = ("-MJ", "-gen-cdb-fragment-path", "-gcodeview", "-fembed-bitcode", "-fembed-offload")
#: What tells a program whether inline assembler is allowed: ``gnu_asm``, or two words that make it.
_ASKS = re.compile(rb"u_asm|\b(?:__)?gnu_(?:as?)?\b|\b_asm(?:__)?\b")
#: Where the compile leaves what it removes again.
_TEMPORARY = "/tmp/"  # noqa: S108 - of a sandbox of its own
_SPLICE = re.compile(rb"(?:\\|\?\?/)[ \t\r]*\n")


def can_forbid(command: CompileCommand) -> bool:
    """Whether a clang makes the same object where inline assembler is an error, if there is none.

    A command line that is recorded would show the option.
    """
    if command.family is not Family.CLANG or command.language in ASSEMBLER_LANGUAGES:
        return False
    for argument in command.arguments:
        word = argument.option + (argument.value or "")
        if word.startswith((*_ALLOWS, *_BLOCKS, *_RECORD)) or "windows" in word:
            return False
    return not records_itself(command)


def may_ask(text: bytes) -> bool:
    """Whether a text may let the program be another one where inline assembler is an error: by
    ``__has_extension(gnu_asm)``, perhaps by a name that macros make."""
    if b"\n" in text and _SPLICE.search(text):
        text = _SPLICE.sub(b"", text)
    return _ASKS.search(text) is not None


def is_seen(task: SandboxTask) -> bool:
    """Whether it is known what the assembler reads without a look at what is opened.

    Microsoft's has no such directives.
    """
    return not task.command.family.is_clang or task.forbids_assembler


def options(task: SandboxTask, specs_path: bytes) -> list[bytes]:
    """Words for the compiler; ``specs_path`` is for ``specs``, where that ``is_asked``."""
    if is_asked(task.command):
        return [b"-specs=" + specs_path]
    return [_FORBID.encode()] if task.forbids_assembler else []


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
    task: SandboxTask, names: Iterable[bytes], written: Collection[bytes]
) -> tuple[bytes, ...]:
    """Of the files that were read by these names at the dev box's own paths, those of the tree.

    A name need not exist. ``written``: what the compile left. Raises UnseenInputs for a file that
    is the worker's.
    """
    is_listed = is_asked(task.command)
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
        is_own = worker_files.shows_own(task, os.fsencode(place)) and os.path.lexists(place)
        if is_own or is_pseudo_fs(place):
            raise UnseenInputs(f"{place} may be the worker's")
        if is_listed and not place.startswith(_TEMPORARY):
            _check_name(task, name)
    return tuple(_no_directories(found, task.tree))


def relocated(
    task: SandboxTask, names: Iterable[bytes], cwd: bytes, root: bytes, written: Collection[bytes]
) -> tuple[bytes, ...]:
    """The same for a command that ran in ``cwd``, in the tree that is at ``root``."""
    is_listed = is_asked(task.command)
    found = []
    for name in names:
        place = os.path.realpath(posixpath.join(cwd, name))
        if place.startswith(task.directory + b"/"):
            continue  # a temporary file
        if not os.path.lexists(place):
            if is_listed:
                _check_name(task, name)
        elif not place.startswith(root + b"/"):
            raise UnseenInputs(f"{os.fsdecode(place)} may be the worker's")
        elif not _is_own_text(task, os.fsdecode(place[len(root) :]), written):
            found.append(place[len(root) :])
    return tuple(_no_directories(found, task.tree))


def _is_own_text(task: SandboxTask, path: str, written: Collection[bytes]) -> bool:
    """Whether a path is that of the text which the compiler has left for the assembler
    (``-save-temps``)."""
    return path.endswith(".s") and resolved(task, os.fsencode(path)) in written


def _no_directories(paths: Iterable[bytes], tree: Tree) -> Iterable[bytes]:
    return (p for p in paths if not isinstance(tree.lookup(os.fsdecode(p)), DirectoryEntry))


def _check_name(task: SandboxTask, name: bytes) -> None:
    """Raise UnseenInputs for a name that does not exist and may be another one's half.

    The source's own comes from ``.file``, without its directory.
    """
    if os.fsdecode(name) == posixpath.basename(task.command.source):
        return
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
