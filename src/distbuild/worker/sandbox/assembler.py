"""Determines which files a compile's assembler reads by itself (``.incbin``, ``.include``).

No dependency file lists them, and no source text shows them, since macros make directives. gcc's
assembler, GNU as, lists them on request. clang's is built in and lists nothing: most sources have
no assembler, and prove that by compiling where it is an error; for the others the kernel reports
the opened files. Unaware of how processes are started.
"""

import os
import posixpath
import re
from collections.abc import Collection, Iterable

from distbuild.command.model import ASSEMBLER_LANGUAGES, CompileCommand, Family
from distbuild.command.relocate import records_itself
from distbuild.mirror.policy import is_pseudo_fs
from distbuild.protocol.errors import UnseenInputs
from distbuild.protocol.messages import DirectoryEntry, SymlinkEntry
from distbuild.system.paths import follow_links
from distbuild.worker.sandbox import worker_files
from distbuild.worker.sandbox.base import SandboxTask, resolved
from distbuild.worker.tree.tree import Tree

#: Characters to quote in a specs file ("Specifying Subprocesses" in gcc's manual).
_TO_QUOTE = re.compile(rb"[^A-Za-z0-9/._-]")
#: A line continuation in the list that gas writes (depend.c).
_CONTINUATION = b" \\\n"
_END_OF_TARGET = re.compile(rb":(?=[ \n])")
#: A name as gas quotes it: a backslash before a blank, and backslashes before that doubled.
_NAME = re.compile(rb"(?:\\[ \t\\]|[^ \t])+")
_ESCAPED = re.compile(rb"(\\*)\\([ \t])|\$(\$)")
#: gas quotes neither a newline nor a backslash at a name's end: any other name may be two, or half
#: of one.
_UNMISTAKABLE = re.compile(rb"[^\\\s]+")


def is_asked(command: CompileCommand) -> bool:
    """Whether the command runs GNU as, which then lists its inputs."""
    return command.family is Family.GCC and not any(
        argument.meaning in ("-S", "-fsyntax-only") for argument in command.arguments
    )


#: clang's option that makes inline assembler an error.
_FORBID = "-fno-gnu-inline-asm"
_ALLOWS = ("-fgnu-inline-asm", _FORBID)
#: Options for other kinds of inline assembler, which ``_FORBID`` does not forbid.
_BLOCKS = ("-fasm-blocks", "-fms-extensions", "-fms-compatibility", "-fborland-extensions")
#: Options that write the command line somewhere, beside those of ``records_itself``.
_RECORD = ("-MJ", "-gen-cdb-fragment-path", "-gcodeview", "-fembed-bitcode", "-fembed-offload")
#: How a program tests whether inline assembler is allowed: ``gnu_asm``, or two tokens that macros
#: join to it.
_ASKS = re.compile(rb"u_asm|\b(?:__)?gnu_(?:as?)?\b|\b_asm(?:__)?\b")
#: The directory of the compile's temporary files.
_TEMPORARY = "/tmp/"  # noqa: S108 - of a sandbox of its own
_SPLICE = re.compile(rb"(?:\\|\?\?/)[ \t\r]*\n")


def can_forbid(command: CompileCommand) -> bool:
    """Whether clang makes the same object where inline assembler is an error, if it has none.

    It does not where the command line is recorded: that would show the option. A precompiled header
    or module is for the option with which it was made; a compile with modules is watched anyway.
    """
    if command.family is not Family.CLANG or command.language in ASSEMBLER_LANGUAGES:
        return False
    if command.makes_ast or command.ast_files:
        return False
    for argument in command.arguments:
        word = argument.option + (argument.value or "")
        if word.startswith((*_ALLOWS, *_BLOCKS, *_RECORD)) or "windows" in word:
            return False
    return not records_itself(command)


def may_ask(text: bytes) -> bool:
    """Whether a source text may compile differently where inline assembler is an error: by
    ``__has_extension(gnu_asm)``, perhaps under a name that macros make."""
    if b"\n" in text and _SPLICE.search(text):
        text = _SPLICE.sub(b"", text)
    return _ASKS.search(text) is not None


def is_seen(task: SandboxTask) -> bool:
    """Whether the assembler's inputs are known without watching which files are opened.

    Microsoft's assembler has no such directives. gcc lists not all that it reads for modules.
    """
    if not task.command.family.is_clang:
        return not task.command.uses_modules
    return task.forbids_assembler


def options(task: SandboxTask, specs_path: bytes) -> list[bytes]:
    """Compiler options; ``specs_path``: the file with ``specs``, used where ``is_asked``."""
    if is_asked(task.command):
        return [b"-specs=" + specs_path]
    return [_FORBID.encode()] if task.forbids_assembler else []


def specs(path: bytes) -> bytes:
    """The text of a specs file by which gcc's assembler writes its list to ``path``.

    Not -Wa or -Xassembler: with -flto gcc records both in the object.
    """
    quoted = _TO_QUOTE.sub(rb"\\\g<0>", path)
    return b"*asm_options:\n+ --MD %s\n\n" % quoted


def listed(path: bytes) -> tuple[bytes, ...]:
    """The names in the list at ``path``: the assembler's source, the files it read, and the names
    in ``.file``, which need not exist. Raises UnseenInputs for a missing or malformed list."""
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
    task: SandboxTask, names: Iterable[bytes], written: Collection[bytes], *, is_listed: bool
) -> tuple[bytes, ...]:
    """The tree's files among those that were read by these names, at the dev box's own paths.

    A name need not exist. ``written``: the compile's outputs. ``is_listed``: the names are from the
    assembler's list. Raises UnseenInputs for a file that may be the worker's.
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
        is_own = worker_files.shows_own(task, os.fsencode(place)) and os.path.lexists(place)
        if is_own or is_pseudo_fs(place):
            raise UnseenInputs(f"{place} may be the worker's")
        if is_listed and not place.startswith(_TEMPORARY):
            _check_name(task, name)
    return tuple(_no_directories(found, task.tree))


def relocated(
    task: SandboxTask, names: Iterable[bytes], cwd: bytes, root: bytes, written: Collection[bytes]
) -> tuple[bytes, ...]:
    """The same for a relocated command, which ran in ``cwd`` of the tree at ``root``."""
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
    """Whether a path is the assembler source that the compiler left (``-save-temps``), or the
    module of which it then made the object."""
    return path.endswith((".s", ".pcm")) and resolved(task, os.fsencode(path)) in written


def _no_directories(paths: Iterable[bytes], tree: Tree) -> Iterable[bytes]:
    return (p for p in paths if not isinstance(tree.lookup(os.fsdecode(p)), DirectoryEntry))


def _check_name(task: SandboxTask, name: bytes) -> None:
    """Raise UnseenInputs for a name that does not exist and may be part of another name.

    The source's own name is in ``.file``, without its directory.
    """
    if os.fsdecode(name) == posixpath.basename(task.command.source):
        return
    if not _UNMISTAKABLE.fullmatch(name):
        raise UnseenInputs(f"the assembler may have read {os.fsdecode(name)!r}")


def _led_to(path: str, tree: Tree) -> str:
    """A path with the tree's symlinks followed, also where it leaves the tree."""
    place = follow_links(path, tree.lookup, SymlinkEntry)
    if place is None:
        raise UnseenInputs(f"too many symlinks in {path}")
    return place
