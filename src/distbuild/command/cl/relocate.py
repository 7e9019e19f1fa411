"""Worker side: rewrites a cl.exe command to run in a mirrored tree, and maps its output back.

``tree``, a native Windows path, is the directory in which the dev box's drives are mirrored:
``C:\\Proj`` is ``TREE\\C\\Proj`` there. Pure: knows no file system and no processes.
"""

import json
import re
from collections.abc import Callable, Mapping

import msgspec

from distbuild.command.model import Argument, CompileCommand, Role
from distbuild.command.probe import CL_PATH_LISTS
from distbuild.system.windows.names import fold, from_windows, to_windows

_DRIVE = re.compile(r"([A-Za-z]):[\\/]")
_SEPARATORS = ("\\", "/")
_LISTING = "-sourceDependencies"
_PATHS = (Role.INPUT_DIR, Role.INPUT_FILE, Role.UNLISTED_FILE, Role.SOURCE)


class Moved(msgspec.Struct, frozen=True):
    """The rewritten command: ``words`` follow the compiler's name; all paths are native.

    ``listing`` is the file in which cl.exe lists its inputs (/sourceDependencies, since 19.27).
    """

    words: list[str]
    cwd: str
    output: str
    listing: str


def move(command: CompileCommand, tree: str, out_dir: str) -> Moved:
    """``command`` rewritten to read in ``tree`` and to write into ``out_dir``.

    Raises ValueError if the command needs the original paths.
    """
    if command.needs_original_paths:
        raise ValueError("this command needs the original paths")
    output = f"{out_dir}\\{command.style.base(command.output)}"
    listing = f"{out_dir}\\inputs.json"
    words = [f"/Fo{output}", f"/sourceDependencies{listing}"]
    for argument in command.arguments:
        if argument.meaning not in ("-Fo", _LISTING):
            words += _moved(argument, command.cwd, tree).tokens()
    return Moved(words, tree + "\\" + command.cwd[1:].replace("/", "\\"), output, listing)


def wanted_listing(command: CompileCommand) -> str | None:
    """The value of the command's own /sourceDependencies; None if it has none."""
    asked = [a.value for a in command.arguments if a.meaning == _LISTING]
    return asked[-1] if asked else None


def move_environment(env: Mapping[str, str], cwd: str, tree: str) -> dict[str, str]:
    """``env`` with the directories of INCLUDE and EXTERNAL_INCLUDE moved into ``tree``."""
    return {
        name: ";".join(rooted(part, cwd, tree) for part in value.split(";"))
        if name in CL_PATH_LISTS
        else value
        for name, value in env.items()
    }


def rooted(name: str, cwd: str, tree: str) -> str:
    """``name`` below ``tree``; a relative name is returned as it is. ``cwd`` is in internal form.

    A path without a drive gets a "." component, so that ``Unmapper`` restores it without a drive.
    """
    if _DRIVE.match(name):
        return f"{tree}\\{name[0].upper()}{name[2:]}"
    if name[1:2] == ":":  # a drive's current directory
        return f"{tree}\\" + from_windows(name, cwd)[1:].replace("/", "\\")
    if name.startswith(_SEPARATORS) and name[1:2] in _SEPARATORS:
        return f"{tree}\\UNC\\{name[2:]}"
    if name.startswith(_SEPARATORS):
        return f"{tree}\\{_top(cwd)}\\.{name}"
    return name


class Unmapper:
    """Removes ``tree`` from the compiler's output, ignoring case, which cl.exe changes."""

    def __init__(self, tree: str) -> None:
        self._text = _pattern(tree, "\\")
        self._json = _pattern(tree, "\\\\")
        plain = tree.lower()
        self._traces = (plain.encode("utf-8", "surrogatepass"), plain.encode("utf-16-le"))
        self._tree = from_windows(tree)

    def text(self, data: bytes) -> bytes:
        """The compiler's messages at the original paths."""
        return self._text.sub(_original(b"\\"), data)

    def json(self, data: bytes) -> bytes:
        """A listing of inputs, whose backslashes are doubled, at the original paths."""
        return self._json.sub(_original(b"\\\\"), data)

    def is_in(self, content: bytes) -> bool:
        """Whether an object contains the path of ``tree``."""
        small = content.lower()
        return any(trace in small for trace in self._traces)

    def inputs(self, listing: bytes) -> tuple[str, ...]:
        """The inputs that a listing names, as native paths of the dev box.

        Raises ValueError for a malformed listing, and for an input outside of ``tree``.
        """
        try:
            data = json.loads(listing)["Data"]
            names = [data["Source"], *data["Includes"]]
            more = [data.get("PCH"), data.get("ImportedModules"), data.get("ImportedHeaderUnits")]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the compiler's list of inputs is garbage: {error}") from error
        if any(more):
            raise ValueError("the compiler read more than sources")
        return tuple(self._inside(str(name)) for name in names)

    def _inside(self, name: str) -> str:
        path = from_windows(name)
        if fold(path[: len(self._tree) + 1]) != fold(self._tree + "/"):
            raise ValueError(f"the compiler read {name}, which is not mirrored")
        drive, _, rest = path[len(self._tree) + 1 :].partition("/")
        return to_windows(f"/{drive.upper()}/{rest}")


def _moved(argument: Argument, cwd: str, tree: str) -> Argument:
    if argument.role not in _PATHS or argument.value is None:
        return argument
    return msgspec.structs.replace(argument, value=rooted(argument.value, cwd, tree))


def _top(cwd: str) -> str:
    """The drive or share of the internal path ``cwd``, as a native path relative to a tree."""
    top = to_windows(cwd).rstrip("\\")
    return cwd[1] if top[1:2] == ":" else "\\".join(cwd.split("/")[1:4])


def _pattern(tree: str, separator: str) -> "re.Pattern[bytes]":
    """Matches ``tree`` in place of a drive (``drive``), of a share (``unc``), or of nothing."""
    split = re.escape(separator)
    place = split.join(map(re.escape, tree.split("\\")))
    end = r"(?=[\\/])"
    share = rf"UNC{split}[^\\/]+{split}[^\\/]+"
    nothing, drive = rf"(?:[A-Z]|{share}){split}\.{end}", rf"(?P<drive>[A-Z]){end}"
    text = rf"{place}{split}(?:{nothing}|{drive}|(?P<unc>UNC){split})"
    return re.compile(text.encode("utf-8", "surrogatepass"), re.IGNORECASE)


def _original(separator: bytes) -> Callable[["re.Match[bytes]"], bytes]:
    def original(match: "re.Match[bytes]") -> bytes:
        if match["drive"]:
            return match["drive"] + b":"
        return 2 * separator if match["unc"] else b""

    return original


#: Options for debug information, into which clang-cl writes its cc1 arguments.
_RECORDING = frozenset(
    ("-Z7", "-Zi", "-ZI", "-Zd", "-g", "-gcodeview", "-gline-tables-only", "-gline-directives-only")
)


def records_itself(command: CompileCommand) -> bool:
    """Whether clang-cl's result contains the arguments of the compiler proper (cc1)."""
    for argument in command.arguments:
        if argument.meaning == "-showIncludes:user":
            return True  # with -MD it lists system headers too
        word = argument.value or "" if argument.meaning == "-clang:" else argument.meaning
        if word in _RECORDING or word.startswith(("-g", "-frecord", "-fembed-bitcode")):
            return True
    return False


def listing(path: str) -> list[str]:
    """Arguments that make clang-cl list the inputs of a compile in the file ``path``."""
    return ["/clang:-MD", f"/clang:-MF{path}"]


def listing_only(path: str) -> list[str]:
    """Arguments that make clang-cl list the inputs in ``path`` without compiling."""
    return ["/clang:-M", f"/clang:-MF{path}"]
