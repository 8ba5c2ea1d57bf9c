"""Figure 3: the error of a denoised frame against the noise on the frame that conditions it."""

from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from sns_core.figures.inputs import read_each
from sns_core.figures.style import (
    COLOUR_LIMIT,
    FAINT,
    INK,
    MUTED,
    bare,
    method_styles,
    note_at,
    page,
    readable,
    wrapped,
)
from sns_core.files import FileTree

CELL, GAP = 1.55, 0.06  # inches
LEFT, RIGHT, TOP, BOTTOM, PLOT, BETWEEN = 1.0, 0.25, 0.48, 0.32, 2.3, 0.74


def plot_condition_error(*, diagnostics: FileTree, labels: dict, dpi: int, output: Path) -> None:
    """Draw the error of the denoised x_t against the level s2 of x_{t-1}, between the fields of one example.

    `diagnostics`: refinement method -> file; `labels`: method -> label of all methods, for their colours.
    """
    styles = method_styles(labels)
    results = read_each(diagnostics, [name for name in labels if name in diagnostics])
    first = next(iter(results.values()))
    layout = _Layout(examples=first.sizes["example"], rows=len(results))
    with page(output, dpi, layout.width, layout.height) as figure:
        _strips(figure, layout, results, styles)
        axis = figure.add_axes(layout.box(LEFT, layout.plot_top, layout.span, PLOT))
        _errors(axis, layout, results, styles)
        _links(figure, axis, layout, first)
        _legend(figure, axis, layout, first)


class _Layout:
    """Places in a figure: a strip of fields, the plot, another strip of fields; inches from the upper left corner."""

    def __init__(self, examples: int, rows: int):
        self.examples = examples
        strip = rows * (CELL + GAP)
        self.strip_end = TOP + strip
        self.plot_top = self.strip_end + BETWEEN / 2
        self.lower_top = self.plot_top + PLOT + BETWEEN
        self.span = examples * (CELL + GAP) - GAP
        self.beside = LEFT + self.span + 0.25 + GAP
        self.width = LEFT + (examples + 1) * (CELL + GAP) + 0.25 + RIGHT
        self.height = self.lower_top + strip + BOTTOM

    def box(self, left: float, top: float, wide: float, tall: float) -> tuple[float, float, float, float]:
        """Return a place for `add_axes` from inches."""
        return left / self.width, 1 - (top + tall) / self.height, wide / self.width, tall / self.height

    def cell(self, left: float, top: float, row: int):
        return self.box(left, top + row * (CELL + GAP), CELL, CELL)

    def column(self, example: int) -> float:
        return LEFT + example * (CELL + GAP)


def _strips(figure, layout: _Layout, results: dict, styles: dict) -> None:
    """Draw the estimates with the true frame above the plot, and the noised conditions below it."""

    def field(place, values):
        axis = figure.add_axes(place)
        bare(axis)
        aspect = "auto" if len(values) == 1 else "equal"  # a single row of points would be too low to see
        axis.imshow(values, origin="lower", cmap="RdBu_r", vmin=-COLOUR_LIMIT, vmax=COLOUR_LIMIT, aspect=aspect)
        return axis

    layer = "" if next(iter(results.values())).sizes["layer"] == 1 else ", first layer"
    for text, top in (("estimate of $x_t$", TOP), ("$x_{t-1}$ as the denoiser sees it", layout.lower_top)):
        height = 1 - (top - 0.1) / layout.height
        figure.text(LEFT / layout.width, height, text + layer, weight="bold", fontsize=9.5)
    for row, (method, result) in enumerate(results.items()):
        truth = field(layout.cell(layout.beside, TOP, row), result["example_truth"].values[0])
        if row == 0:
            truth.set_title("true $x_t$", fontsize=9.5)
        for example in range(layout.examples):
            left = layout.column(example)
            estimate, condition = (result[f"example_{name}"].values[example, 0] for name in ("estimate", "condition"))
            upper = field(layout.cell(left, TOP, row), estimate)
            lower = field(layout.cell(left, layout.lower_top, row), condition)
            if example == 0:
                for axis in (upper, lower):
                    colour = readable(styles[method]["color"])
                    axis.set_ylabel(wrapped(styles[method]["label"]), color=colour, weight="bold")
            if row == len(results) - 1:
                lower.set_xlabel(f"$s_2$ = {int(result['example_level'][example])}", fontsize=8.5, color=INK)


def _errors(axis, layout: _Layout, results: dict, styles: dict) -> None:
    """Draw mean and range of the error over the held-out pairs of each denoiser."""
    for method, result in results.items():
        error, level = result["condition_error"], result["level"].values
        low, high = error.quantile(0.1, "pair").values, error.quantile(0.9, "pair").values
        axis.fill_between(level, low, high, color=styles[method]["color"], alpha=0.15, linewidth=0)
        axis.plot(level, error.mean("pair").values, **styles[method], marker="o", markersize=3)
    first = next(iter(results.values()))
    top = float(first.attrs["levels"])
    half = 0.5 * top / (layout.examples - 1)
    # As wide as the strips of fields, so that a level's fields stand above and below its place on the axis.
    axis.set_xlim(-half, top + half)
    axis.set_ylim(bottom=0)
    if axis.get_ylim()[1] > 0.9:
        axis.axhline(1, color=MUTED, linewidth=0.8, linestyle=(0, (4, 2)))
        note_at(axis, "1: the error of answering the mean", (0, 1), (4, 3), ("axes fraction", "data"))
    axis.set_xticks(np.unique(first["example_level"].values))
    axis.grid(axis="x", visible=False)
    axis.set_xlabel(f"noise level $s_2$ of the conditioning frame $x_{{t-1}}$ (of S = {top:g})")
    axis.set_ylabel("RMS error of $x_t$\n(standard deviations)")


def _links(figure, axis, layout: _Layout, first) -> None:
    """Draw a line from each column of fields to the place of its level on the axis, which need not lie below it."""
    low, high = axis.get_xlim()
    ends = (layout.strip_end - GAP + 0.02, layout.plot_top)
    heights = [1 - end / layout.height for end in ends]
    for example, level in enumerate(first["example_level"].values):
        axis.axvline(level, color=FAINT, linewidth=0.7, zorder=0)
        places = layout.column(example) + CELL / 2, LEFT + layout.span * (level - low) / (high - low)
        line = [place / layout.width for place in places]
        figure.add_artist(Line2D(line, heights, color=FAINT, linewidth=0.8, transform=figure.transFigure))


def _legend(figure, axis, layout: _Layout, first) -> None:
    handles, names = axis.get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="upper left",
        title=f"$x_t$ at $s_1$ = 0.9 S = {round(0.9 * float(first.attrs['levels']))}",
        bbox_to_anchor=(layout.beside / layout.width, 1 - layout.plot_top / layout.height),
        alignment="left",
        title_fontsize=8.5,
        borderaxespad=0,
    )
