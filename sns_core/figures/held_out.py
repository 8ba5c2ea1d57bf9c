"""Figure 14: measures of a denoiser on held-out frames, against the error of its rollout."""

from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.figures.style import (
    FAINT,
    MUTED,
    method_styles,
    numbered,
    page,
    panel_letter,
    plain_minor,
    readable,
    wrapped,
)
from sns_core.metrics.distances import WORST
from sns_core.metrics.held_out import MEASURES

COLUMNS = 4
LEAST = 1e-4  # decades: smaller errors are drawn here
KEY_LINES = 14  # lines per column of the key


def plot_held_out(*, table: Path, agreement: Path, labels: dict, dpi: int, output: Path) -> None:
    """Draw one panel per measure of held-out frames and one point per denoiser, its rollout's spectrum error upwards.

    `table`, `agreement`: the tables of `compare_held_out`; `labels`: method -> label, of all methods.
    """
    rows, ranks = pd.read_csv(table), pd.read_csv(agreement).set_index("measure")["agreement"]
    styles = method_styles(labels)
    count = -(-(len(MEASURES) + 1) // COLUMNS)
    with page(output, dpi, 11.4, 2.75 * count, layout="constrained") as figure:
        axes = figure.subplots(count, COLUMNS, sharey=True).ravel()
        for letter, axis, (name, (title, better)) in zip("abcdefghijkl", axes, MEASURES.items(), strict=False):
            _points(axis, rows, name, styles)
            panel_letter(axis, letter, wrapped(title, 30))
            rank = f"agreement {ranks[name]:.2f}" if np.isfinite(ranks[name]) else "all alike"
            words = f"{'more' if better else 'less'} should be better: {rank}"
            axis.set_xlabel(words, color=MUTED, fontsize=7.5)
        for axis in axes[::COLUMNS]:
            axis.set_ylabel("spectrum error of the rollout (decades)")
        for axis in axes[len(MEASURES) :]:
            axis.axis("off")
        _key(axes[len(MEASURES)], rows, styles)
        for axis, name in zip(axes, MEASURES, strict=False):
            _numbers(axis, rows, name, styles)


def _errors(rows: pd.DataFrame) -> np.ndarray:
    return np.clip(rows["rollout_error"].to_numpy(dtype=float), LEAST, WORST)


def _points(axis, rows: pd.DataFrame, name: str, styles: dict) -> None:
    for (_, row), error in zip(rows.iterrows(), _errors(rows), strict=True):
        axis.plot(row[name], error, "o", color=styles[row["method"]]["color"], markersize=4, alpha=0.85)
    axis.set_yscale("log")
    axis.axhline(WORST, color=FAINT, linewidth=0.9)
    plain_minor(axis)


def _numbers(axis, rows: pd.DataFrame, name: str, styles: dict) -> None:
    """Write the number of each denoiser beside its point."""
    values, errors = rows[name].to_numpy(dtype=float), _errors(rows)
    finite = np.flatnonzero(np.isfinite(values) & np.isfinite(errors))
    colours = [styles[rows["method"].iloc[index]]["color"] for index in finite]
    numbered(axis, list(zip(values[finite], errors[finite], strict=True)), [str(i + 1) for i in finite], colours)


def _key(axis, rows: pd.DataFrame, styles: dict) -> None:
    """Write the numbers and labels of the denoisers."""
    for line, method in enumerate(rows["method"]):
        place = 0.5 * (line // KEY_LINES), 1 - (line % KEY_LINES) / KEY_LINES
        words, colour = f"{line + 1}  {styles[method]['label']}", readable(styles[method]["color"])
        axis.text(*place, words, transform=axis.transAxes, color=colour, fontsize=7.5, va="top")
