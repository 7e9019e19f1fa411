"""What the dev box knows of its terminal, as a variable that needs no files where it is used.

clang colours where the terminfo entry of TERM has colours, and a worker may know fewer terminals.
"""

import base64
import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

#: Where ncurses looks (terminfo(5), "Fetching Compiled Descriptions"), as distributions build it.
DATABASES = ("/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo", "/usr/lib/terminfo")
#: The terminals that have no colours whatever a database says, or says not.
_COLOURLESS = ("", "dumb")
#: Real ones have some 4 KB.
_MAX_ENTRY_BYTES = 32 * 1024


def describe(env: Mapping[str, str], home: str) -> dict[str, str] | None:
    """``TERMINFO`` with the entry of TERM in it; None when there is no such entry here."""
    name, given = env.get("TERM", ""), env.get("TERMINFO", "")
    if name in _COLOURLESS or given.startswith(("b64:", "hex:")):
        return {}
    if "/" in name:
        return None
    for directory in _directories(env, home):
        for letter in (name[0], f"{ord(name[0]):x}"):
            with contextlib.suppress(OSError, ValueError):
                file = Path(directory, letter, name)
                if file.stat().st_size <= _MAX_ENTRY_BYTES:
                    return {"TERMINFO": "b64:" + base64.b64encode(file.read_bytes()).decode()}
    return None


def _directories(env: Mapping[str, str], home: str) -> Iterator[str]:
    if given := env.get("TERMINFO"):
        yield given
    yield os.path.join(home, ".terminfo")
    for directory in env.get("TERMINFO_DIRS", "").split(":"):
        if directory:
            yield directory
    yield from DATABASES
