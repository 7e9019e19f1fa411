"""Text of somebody else, made fit for one line of a log, a status or a terminal."""

import re

#: Longer ones say nothing more.
MAX_SAID = 300
#: Controls of C0 and C1, DEL, what ends a line elsewhere, and what turns the direction of text.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


def one_line(text: str, most: int = MAX_SAID) -> str:
    """``text`` with a space for what does not belong in a line, cut after ``most`` characters."""
    fit = _UNFIT.sub(" ", text[: 4 * most]).strip()
    return fit if len(fit) <= most else fit[: most - 3] + "..."
