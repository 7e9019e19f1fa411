"""Draws a benchmark's curves into small PNG files. Needs matplotlib, which nothing else does."""

from pathlib import Path

import matplotlib as mpl

from bench.report import Plot

mpl.use("agg")  # before pyplot chooses a backend

from matplotlib import pyplot as plt
from matplotlib.ticker import StrMethodFormatter


def draw(plot: Plot, directory: Path) -> Path:
    """Write ``directory/NAME.png``."""
    figure, axes = plt.subplots(figsize=(7.0, 3.5), dpi=90)
    for name, points in plot.curves.items():
        shown = [(x, y) for x, y in points if plot.until is None or x <= plot.until]
        marker = "o" if plot.logarithmic else ""
        axes.plot(*zip(*shown, strict=True), label=name, marker=marker, linewidth=1.2)
    if plot.logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    else:
        axes.set_ylim(bottom=0)
    axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{plot.name}.png"
    figure.savefig(path)
    plt.close(figure)
    return path
