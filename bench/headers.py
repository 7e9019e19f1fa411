"""Makes a large tree of headers out of the text of real ones; the same for every run."""

import random
from pathlib import Path

SOURCE = Path("/usr/include")
#: Sizes are log-normal, as in large projects.
SIGMA = 1.3
LEAST, MOST = 120, 2_000_000
PER_DIRECTORY = 25
ENOUGH = 20_000_000


def make_tree(root: Path, files: int, total: int, seed: int = 1) -> None:
    """``files`` headers of about ``total`` bytes together, some 25 to a directory."""
    choose = random.Random(seed)
    weights = [choose.lognormvariate(0, SIGMA) for _ in range(files)]
    texts = _real_text()
    for number, weight in enumerate(weights):
        part = number // PER_DIRECTORY
        directory = root / f"lib{part % 20:02}" / f"part{part:03}"
        if number % PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        size = int(min(max(weight * total / sum(weights), LEAST), MOST))
        text = f"/* header {number} */\n#pragma once\n" + _pieces(choose, texts, size)
        (directory / f"h{number:05}.h").write_text(text[:size])


def _real_text() -> list[list[str]]:
    """Lines of real headers, by file."""
    texts, size = [], 0
    for path in sorted(SOURCE.rglob("*.h")):
        if size > ENOUGH:
            break
        if path.is_file():
            text = path.read_text(errors="replace")
            texts.append(text.splitlines(keepends=True))
            size += len(text)
    return [lines for lines in texts if lines] or [["extern int declared(void);\n"] * 100]


def _pieces(choose: random.Random, texts: list[list[str]], size: int) -> str:
    """Real lines, with an identifier of its own before each stretch: no two headers are alike."""
    pieces, length = [], 0
    while length < size:
        lines = choose.choice(texts)
        begin = choose.randrange(max(1, len(lines) - 20))
        own = f"int value_{choose.getrandbits(32):08x}(void);\n"
        piece = own + "".join(lines[begin : begin + choose.randrange(60, 300)])
        pieces.append(piece)
        length += len(piece)
    return "".join(pieces)
