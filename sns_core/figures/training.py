"""The losses of trainings, finished ones and running ones, against their steps."""

import math
from pathlib import Path

import pandas as pd

from sns_core.figures.style import MUTED, OTHER_COLOURS, empty_panel, page, wrapped

SERIES = {"loss": ("training", OTHER_COLOURS[4]), "validation": ("held out, averaged weights", OTHER_COLOURS[0])}
COLUMNS = 4


def plot_training(*, histories: dict[str, Path], steps: dict, dpi: int, output: Path) -> None:
    """Draw the loss and the held-out loss of each model, one panel per model.

    `histories`: model -> CSV file of its history.
    `steps`: model -> steps of its whole training.
    """
    rows = math.ceil(len(histories) / COLUMNS)
    columns = min(COLUMNS, len(histories))
    with page(output, dpi, 3.0 * columns, 2.4 * rows, layout="constrained") as figure:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(histories) :]:
            axis.set_axis_off()
        for axis, (name, path) in zip(axes, histories.items(), strict=False):
            history = pd.read_csv(path)
            axis.set_title(wrapped(name, 30), fontsize=8.5)
            if not len(history):
                empty_panel(axis, "no row yet")
                continue
            for column, (label, colour) in SERIES.items():
                axis.plot(history["step"], history[column], color=colour, label=label, marker=".", markersize=3)
            axis.axvline(steps[name], color=MUTED, linewidth=0.7, linestyle=(0, (2, 1.4)))
            axis.set(yscale="log", xlim=(0, 1.03 * steps[name]), xlabel="training steps")
        axes[0].legend(fontsize=7)
