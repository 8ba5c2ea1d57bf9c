"""Figure 3: how much of x_t a denoiser recovers, against the noise on the frame that it is conditioned on."""

from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from sns_core.figures.inputs import read_each
from sns_core.figures.style import FAINT, INK, MUTED, bare, looks, page, wrapped

CELL, GAP = 1.55, 0.06  # inches
LEFT, RIGHT, TOP, BOTTOM, PLOT, BETWEEN = 1.0, 0.25, 0.48, 0.32, 2.3, 0.74
COLOUR_LIMIT = 3.0  # standard deviations


def plot_condition_error(*, diagnostics: dict, labels: dict, dpi: int, output: Path) -> None:
    """Error of the denoised x_t against the level s2 of x_{t-1}, between the fields that go with it.

    `diagnostics`: refinement method -> file; `labels`: all methods -> label, for their colours.
    """
    style = looks(labels)
    results = read_each(diagnostics, [name for name in labels if name in diagnostics])
    first = next(iter(results.values()))
    examples, rows = first.sizes["example"], len(results)
    strip = rows * (CELL + GAP)
    width = LEFT + (examples + 1) * (CELL + GAP) + 0.25 + RIGHT
    height = TOP + strip + BETWEEN / 2 + PLOT + BETWEEN + strip + BOTTOM

    with page(output, dpi, width, height) as figure:

        def place(left: float, top: float, wide: float, tall: float):
            return figure.add_axes((left / width, 1 - (top + tall) / height, wide / width, tall / height))

        def field(left, top, values):
            axis = place(left, top, CELL, CELL)
            bare(axis)
            axis.imshow(values, origin="lower", cmap="RdBu_r", vmin=-COLOUR_LIMIT, vmax=COLOUR_LIMIT)
            return axis

        span = examples * (CELL + GAP) - GAP
        beside = LEFT + span + 0.25 + GAP
        below = TOP + strip + BETWEEN / 2 + PLOT + BETWEEN
        layer = "" if first.sizes["layer"] == 1 else ", first layer"
        for text, y in (("estimate of $x_t$", TOP), ("$x_{t-1}$ as the denoiser sees it", below)):
            figure.text(LEFT / width, 1 - (y - 0.1) / height, text + layer, weight="bold", fontsize=9.5)
        for row, (method, result) in enumerate(results.items()):
            truth = field(beside, TOP + row * (CELL + GAP), result["example_truth"].values[0])
            if row == 0:
                truth.set_title("true $x_t$", fontsize=9.5)
            for example in range(examples):
                left = LEFT + example * (CELL + GAP)
                top = field(left, TOP + row * (CELL + GAP), result["example_estimate"].values[example, 0])
                bottom = field(left, below + row * (CELL + GAP), result["example_condition"].values[example, 0])
                if example == 0:
                    for axis in (top, bottom):
                        axis.set_ylabel(wrapped(style[method]["label"]), color=style[method]["color"], weight="bold")
                if row == rows - 1:
                    bottom.set_xlabel(f"$s_2$ = {int(result['example_level'][example])}", fontsize=8.5, color=INK)

        axis = place(LEFT, TOP + strip + BETWEEN / 2, span, PLOT)
        for method, result in results.items():
            error, level = result["condition_error"], result["level"].values
            low, high = error.quantile(0.1, "pair").values, error.quantile(0.9, "pair").values
            axis.fill_between(level, low, high, color=style[method]["color"], alpha=0.15, linewidth=0)
            axis.plot(level, error.mean("pair").values, **style[method], marker="o", markersize=3)
        top = float(first.attrs["levels"])
        half = 0.5 * top / (examples - 1)
        # As wide as the strips, so that each level's fields stand above and below its own place on the axis.
        axis.set_xlim(-half, top + half)
        axis.set_ylim(bottom=0)
        limit = axis.get_ylim()[1]
        for example, level in enumerate(first["example_level"].values):
            axis.axvline(level, color=FAINT, linewidth=0.7, zorder=0)
            # From the middle of the column of fields to the place of its level, which need not lie below it.
            column = LEFT + example * (CELL + GAP) + CELL / 2
            place_of_level = LEFT + span * (level + half) / (top + 2 * half)
            ends = (TOP + strip - GAP + 0.02, TOP + strip + BETWEEN / 2)
            figure.add_artist(
                Line2D([column / width, place_of_level / width], [1 - end / height for end in ends], color=FAINT,
                       linewidth=0.8, transform=figure.transFigure)
            )  # fmt: skip
        if limit > 0.9:
            axis.axhline(1, color=MUTED, linewidth=0.8, linestyle=(0, (4, 2)))
            axis.annotate("1: the error of answering the mean", (0, 1), (4, 3), ("axes fraction", "data"),
                          "offset points", color=MUTED, fontsize=7.5)  # fmt: skip
        axis.set_xticks(np.unique(first["example_level"].values))
        axis.grid(axis="x", visible=False)
        axis.set_xlabel(f"noise level $s_2$ of the conditioning frame $x_{{t-1}}$ (of S = {top:g})")
        axis.set_ylabel("RMS error of $x_t$\n(standard deviations)")
        handles, names = axis.get_legend_handles_labels()
        figure.legend(handles, names, loc="upper left", title=f"$x_t$ at $s_1$ = 0.9 S = {round(0.9 * top)}",
                      bbox_to_anchor=(beside / width, 1 - (TOP + strip + BETWEEN / 2) / height), alignment="left",
                      title_fontsize=8.5, borderaxespad=0)  # fmt: skip
