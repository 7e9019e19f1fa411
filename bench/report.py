"""What a benchmark hands back, and how it is shown: text, Markdown, JSON. Measures nothing."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

WIDTH = 100
Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """One table. ``measured`` says in one sentence what the figures are; a column names its unit.

    A cell that is None was not measured; a float is shown with three significant digits.
    """

    name: str
    measured: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Plot:
    """Curves to be drawn: points by the name of the curve."""

    name: str
    title: str
    x: str
    y: str
    curves: Mapping[str, Sequence[tuple[float, float]]]
    logarithmic: bool = False
    #: The last x that is drawn; None: all.
    until: float | None = None


@dataclass
class Result:
    """What one benchmark found."""

    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)


def shown(cell: Cell) -> str:
    """A cell as people read it."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        digits = 0 if abs(cell) >= 100 else 1 if abs(cell) >= 10 else 2 if abs(cell) >= 1 else 3
        return f"{cell:,.{digits}f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def as_text(table: Table) -> str:
    """For a terminal: columns aligned, the first one left."""
    heading = [list(table.columns)] if table.rows else []
    rows = [*heading, *([shown(cell) for cell in row] for row in table.rows)]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(len(table.columns))]
    lines = textwrap.wrap(f"{table.name}: {table.measured}", WIDTH)
    for row in rows:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(["  " + first, *rest]))
    notes = [line for note in table.notes for line in textwrap.wrap(note, WIDTH - 2)]
    return "\n".join([*lines, *(f"  {note}" for note in notes)]) + "\n"


def as_markdown(table: Table) -> str:
    """For a page: a heading, what was measured, the table, its notes."""
    align = ["---", *["---:"] * (len(table.columns) - 1)]
    rows = [table.columns, align, *([shown(cell) for cell in row] for row in table.rows)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    parts = [f"### {table.name}", _sentence(table.measured)]
    if table.rows:
        parts.append("\n".join(lines))
    if table.notes:
        parts.append("\n".join(f"- {_sentence(note)}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def as_image(plot: Plot) -> str:
    """A reference to the drawn plot, for a page in the same directory."""
    return f"![{plot.title}]({plot.name}.png)\n"


def as_json(machine: Mapping[str, str], results: Mapping[str, Result]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "machine": dict(machine),
        "benchmarks": {name: asdict(result) for name, result in results.items()},
    }


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
