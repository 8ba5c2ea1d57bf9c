"""Figure 14: what held-out frames tell of a denoiser, against what its rollout then does."""

from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.figures.style import FAINT, MUTED, looks, page, panel_letter, plain_minor, wrapped
from sns_core.metrics.distances import WORST
from sns_core.metrics.held_out import MEASURES

COLUMNS = 4


def plot_held_out(*, table: Path, agreement: Path, labels: dict, dpi: int, output: Path) -> None:
    """A panel a measure of held-out frames, a point a denoiser, the spectrum error of its rollout upwards.

    `table`, `agreement`: of `compare_held_out`; `labels`: method -> label.
    """
    rows, ranks = pd.read_csv(table), pd.read_csv(agreement).set_index("measure")["agreement"]
    style = looks(labels)
    height = -(-(len(MEASURES) + 1) // COLUMNS)
    with page(output, dpi, 11.4, 2.75 * height, layout="constrained") as figure:
        axes = figure.subplots(height, COLUMNS, sharey=True).ravel()
        for index, (axis, (name, (title, better))) in enumerate(zip(axes, MEASURES.items(), strict=False)):
            for number, (_, row) in enumerate(rows.iterrows(), 1):
                look, error = style[row["method"]], np.clip(row["rollout_error"], 1e-4, WORST)
                axis.plot(row[name], error, "o", color=look["color"], markersize=4, alpha=0.85)
                axis.annotate(str(number), (row[name], error), (3, 3), textcoords="offset points",
                              color=look["color"], fontsize=7)  # fmt: skip
            axis.set_yscale("log")
            axis.axhline(WORST, color=FAINT, linewidth=0.9)
            panel_letter(axis, "abcdefgh"[index], wrapped(title, 30))
            said = f"agreement {ranks[name]:.2f}" if np.isfinite(ranks[name]) else "all alike"
            axis.set_xlabel(f"{'more' if better else 'less'} should be better: {said}", color=MUTED, fontsize=7.5)
            plain_minor(axis)
        for axis in axes[::COLUMNS]:
            axis.set_ylabel("spectrum error of the rollout (decades)")
        key = axes[len(MEASURES)]
        key.axis("off")
        for line, (_, row) in enumerate(rows.iterrows()):
            look = style[row["method"]]
            key.text(0.5 * (line // 14), 1 - (line % 14) / 14, f"{line + 1}  {look['label']}", transform=key.transAxes,
                     color=look["color"], fontsize=6.5, va="top")  # fmt: skip
        for axis in axes[len(MEASURES) + 1 :]:
            axis.axis("off")
