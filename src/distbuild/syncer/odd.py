"""Mirrors files that a text asks for outside the mirrored directories, or under an unusual name."""

from collections.abc import Iterable

from distbuild import disk
from distbuild.command.style import HERE
from distbuild.mirror.policy import is_unusual
from distbuild.mirror.text import odd_operands
from distbuild.protocol.messages import FileEntry
from distbuild.syncer.mirroring import Mirroring


def cover_odd(
    mirroring: Mirroring, text: bytes, directory: str, search_dirs: Iterable[str]
) -> tuple[str, ...]:
    """Mirror what every odd include operand of ``text``, a file in ``directory``, may mean; the
    operands.

    Single files, where they exist: what does not exist is in no tree either. The directory that
    an operand leads to may be as wide as ``/usr``.
    """
    operands = odd_operands(text, is_unusual)
    places = dict.fromkeys([directory, *search_dirs]) if operands else {}
    for path in (HERE.absolute(place, operand) for place in places for operand in operands):
        if not disk.isfile(path):
            continue
        if not isinstance(mirroring.manifest.get(disk.realpath(path)), FileEntry):
            mirroring.want(path)
    return operands


def is_absolute(operand: str) -> bool:
    """Whether an operand means one place whatever directory it is looked for in."""
    return HERE.absolute("/C/1", operand) == HERE.absolute("/C/2", operand)
