"""Decides which file names are valid on Windows, and folds spellings of one name to a common form.

Pure, and the same on every system. Names and paths are in the internal form (``paths``). Rules:
"Naming Files, Paths, and Namespaces" of the Windows documentation.
"""

import functools
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
