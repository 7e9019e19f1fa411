"""Converts Windows paths to the internal form, one tree below "/", and back. The mirror and the
wire have all paths in that form.

``C:\\Proj\\x.h`` is ``/C/Proj/x.h``, and ``\\\\server\\share\\x`` is ``/UNC/server/share/x``. Pure,
and the same on every system; unaware of the file system and of the case of names on the disk.
Rules: "Naming Files, Paths, and Namespaces" of the Windows documentation.
"""

import posixpath
import re

_DRIVE = re.compile(r"([A-Za-z]):")
_EXTENDED = re.compile(r"//[?.]/(UNC/)?", re.IGNORECASE)
_INTERNAL = re.compile(
    r"/(?:UNC/(?P<share>[^/]+/[^/]+)|(?P<drive>[A-Z]))(?P<rest>/.*)?\Z", re.DOTALL
)


def is_absolute(path: str) -> bool:
    """Whether a Windows path needs no current directory: ``C:\\x``, ``\\\\server\\share``."""
    plain = path.replace("\\", "/")
    return plain.startswith("//") or bool(re.match(r"[A-Za-z]:/", plain))


def from_windows(path: str, cwd: str = "/C") -> str:
    """The internal form of a Windows path that a process in ``cwd`` (internal form) names.

    ``x`` is below ``cwd``, ``\\x`` on its drive. ``D:x`` is relative to D's own current directory,
    which is not known: it is treated as ``D:\\x`` unless D is the drive of ``cwd``. ``..`` stays.
    """
    plain = path.replace("\\", "/")
    if extended := _EXTENDED.match(plain):
        rest = plain[extended.end() :]
        plain = "//" + rest if extended[1] else rest
    if drive := _DRIVE.match(plain):
        top = "/" + drive[1].upper()
        rest = plain[2:]
        if rest.startswith("/") or not (cwd + "/").startswith(top + "/"):
            return _joined(top, rest)
        return posixpath.join(cwd, rest) if rest else cwd
    if plain.startswith("//"):
        return _joined("/UNC", plain)
    if plain.startswith("/"):
        return _joined(_top(cwd), plain)
    return posixpath.join(cwd, plain) if plain else cwd


def to_windows(path: str) -> str:
    """The Windows form of an internal path. Raises ValueError for a path on no drive or share."""
    match = _INTERNAL.match(path)
    if match is None:
        raise ValueError(f"{path!r} is on no drive")
    rest = (match["rest"] or "").replace("/", "\\")
    if match["drive"]:
        return f"{match['drive']}:{rest or chr(92)}"
    return "\\\\" + match["share"].replace("/", "\\") + rest


def _top(cwd: str) -> str:
    """The drive, or the share, of an internal path."""
    match = _INTERNAL.match(cwd)
    if match is None:
        return "/C"
    return "/" + (match["drive"] or "UNC/" + match["share"])


def _joined(top: str, rest: str) -> str:
    rest = rest.lstrip("/")
    return f"{top}/{rest}" if rest else top
