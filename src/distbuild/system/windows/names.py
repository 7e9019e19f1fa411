"""Which names Windows programs can give a file, and when two of them mean the same one.

Pure, and the same on every system. Works on names and paths in the internal form
(``windows_paths``). Rules: "Naming Files, Paths, and Namespaces" of the Windows documentation.
"""

import functools
import re

#: Win32 leaves dots and spaces at a name's end away: ``x.h.`` opens ``x.h``.
_TRAILING = re.compile(r"(?<=[^/. ])[. ]+(?=/|\Z)")
#: What no name has. The colon begins an alternate data stream, the backslash is a separator.
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')
#: Names of devices, in every directory and with every suffix; Windows 11 has fewer of them.
_DEVICE = re.compile(
    r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|CLOCK\$|(?:COM|LPT)[0-9¹²³])\s*(?:[.:].*)?\Z",
    re.IGNORECASE | re.DOTALL,
)
#: The one small letter that the file system's table maps although its capital has another.
_FINAL_SIGMA = "\u03c2"


def is_nameable(name: str) -> bool:
    """Whether a program can open a file of just this name: no device, no stream, no other file."""
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
    """What all spellings of one path have in common. ``.`` and ``..`` stay.

    NTFS compares by a table of single 16-bit characters, which is close to Unicode's simple
    capitals: a sharp s has none there, nor a dotless i. What the file system keeps apart must not
    become one here, so that in doubt a character stays. Other names of a file (8.3) are not seen.
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
