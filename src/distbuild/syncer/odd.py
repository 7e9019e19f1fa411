"""Mirrors what a text asks for outside the mirrored directories, or under an unusual name."""

import os
from collections.abc import Iterable

from distbuild.mirror.policy import is_unusual
from distbuild.mirror.text import odd_operands
from distbuild.syncer.mirroring import Mirroring


def cover_odd(
    mirroring: Mirroring, text: bytes, directory: str, search_dirs: Iterable[str]
) -> None:
    """Have the mirror answer for every odd include operand of ``text``, a file in ``directory``."""
    operands = odd_operands(text, is_unusual)
    if not operands:
        return
    for place in dict.fromkeys([directory, *search_dirs]):
        for operand in operands:
            path = os.path.join(place, operand)
            mirroring.cover(os.path.dirname(path))
            if is_unusual(operand) and os.path.isfile(path):
                mirroring.want(path)
