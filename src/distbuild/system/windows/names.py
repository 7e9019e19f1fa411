"""Converts Windows paths to the internal form, one tree below "/", and back; decides which names
are valid on Windows, and folds spellings of one path to a common form.

The mirror and the wire have all paths in the internal form: ``C:\\Proj\\x.h`` is ``/C/Proj/x.h``,
and ``\\\\server\\share\\x`` is ``/UNC/server/share/x``. Pure, and the same on every system; unaware
of the file system. Rules: "Naming Files, Paths, and Namespaces" of the Windows documentation.
"""

import functools
import posixpath
import re

#: Win32 drops dots and spaces at a name's end: ``x.h.`` opens ``x.h``.
_TRAILING = re.compile(r"(?<=[^/. ])[. ]+(?=/|\Z)")
#: Forbidden in names. A colon begins an alternate data stream, a backslash is a separator.
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')
#: Names of devices, in every directory and with every suffix; Windows 11 has fewer of them.
_DEVICE = re.compile(
    r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|CLOCK\$|(?:COM|LPT)[0-9¹²³])\s*(?:[.:].*)?\Z",
    re.IGNORECASE | re.DOTALL,
)
#: The only small letter that NTFS's table maps although its capital has another small letter.
_FINAL_SIGMA = "\u03c2"


def is_nameable(name: str) -> bool:
    """Whether this name opens a file of exactly this name: no device, no stream, no other file."""
    return (
        name not in ("", ".", "..")
        and not name.endswith((".", " "))
        and not _FORBIDDEN.search(name)
        and not _DEVICE.match(name)
    )


def is_nameable_path(path: str) -> bool:
    """Whether each part of an absolute internal path ``is_nameable``."""
    return path.startswith("/") and all(map(is_nameable, path[1:].split("/")))


def fold(path: str) -> str:
    """The common form of all spellings of one path. ``.`` and ``..`` stay.

    NTFS compares by a table of single 16-bit characters, which is close to Unicode's simple
    capitals: sharp s and dotless i have none in it. Names that differ for the file system must not
    become equal here: in doubt a character stays. Short (8.3) names are not recognised.
    """
    if ". " in path or " ." in path or "./" in path or " /" in path or path.endswith((".", " ")):
        path = _TRAILING.sub("", path)
    return path.upper() if path.isascii() else "".join(map(_capital, path))


@functools.lru_cache(maxsize=4096)
def _capital(character: str) -> str:
    if character > "\uffff":
        return character
    capital = character.upper()
    if len(capital) != 1 or (capital.lower() != character and character != _FINAL_SIGMA):
        return character
    return capital


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
