"""Figure 6: every method by what it costs and how far from the solver it ends."""

from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.errors import UserError
from sns_core.figures.inputs import read
from sns_core.figures.style import FAINT, MUTED, looks, page, panel_letter, plain_minor
from sns_core.metrics.distances import WORST
from sns_core.metrics.lost import is_lost

FEW = 12  # methods that all get a label in the lower row
COLUMNS = {
    "member_spectrum_error": "spectrum error of members (decades)",
    "correlation_error": "error of C(τ)",
    "early_error": "mean squared error (σ²), early",
}


def plot_ablation(*, tables: Path, metrics: dict, reference: Path, labels: dict, dpi: int, output: Path) -> None:
    """A row a method: spectrum error, error of C(tau), early mean squared error, each against network calls a step too.

    `tables`: the run's metrics.csv; `metrics`: method -> file; `labels`: method -> label, in the order of the rows.
    Dots are members, bars their mean; lost members count at the edge.
    """
    known, style = read(reference), looks(labels)
    table = pd.read_csv(tables)
    truth = known["correlation"].mean("member").values
    scores = {name: _scores(table[table["method"] == name], read(metrics[name]), truth) for name in labels}
    if not scores:
        raise UserError("figures: no method to compare")
    rows = np.arange(len(labels))[::-1]
    with page(output, dpi, 11.4, 1.9 + 0.3 * len(labels) + 2.6, layout="constrained") as figure:
        upper, lower = figure.subfigures(2, 1, height_ratios=(0.9 + 0.3 * len(labels), 2.8))
        axes = upper.subplots(1, 3, sharey=True)
        for index, (axis, (column, label)) in enumerate(zip(axes, COLUMNS.items(), strict=True)):
            for row, (name, score) in zip(rows, scores.items(), strict=True):
                values = np.clip(np.nan_to_num(score[column], nan=np.inf), 1e-4, WORST)
                axis.plot(values, np.full(len(values), row), "o", color=style[name]["color"], markersize=3.5, alpha=0.5)
                axis.plot(values.mean(), row, "|", color=style[name]["color"], markersize=13, markeredgewidth=2)
            axis.set_xscale("log")
            axis.axvline(WORST, color=FAINT, linewidth=0.9)
            axis.set(xlabel=label, ylim=(-0.7, len(labels) - 0.3))
            axis.set_yticks(rows, [style[name]["label"] for name in labels])
            panel_letter(axis, "abc"[index], label[0].upper() + label[1:].split(" (")[0])
            plain_minor(axis)
        lower_axes = lower.subplots(1, 2)
        for index, (axis, column) in enumerate(
            zip(lower_axes, ("member_spectrum_error", "correlation_error"), strict=True)
        ):
            points = {
                name: (score["calls"], np.clip(np.nan_to_num(score[column], nan=np.inf), 1e-4, WORST).mean())
                for name, score in scores.items()
            }
            shown = list(points) if len(points) <= FEW else sorted(best(points), key=points.get)
            for name, point in points.items():
                size, alpha = (6, 1) if name in shown else (3, 0.5)
                axis.plot(*point, "o", color=style[name]["color"], markersize=size, alpha=alpha)
            for number, name in enumerate(shown, 1):
                label, colour, crowded = style[name]["label"], style[name]["color"], len(points) > FEW
                axis.annotate(str(number) if crowded else label, points[name], (5, 3), textcoords="offset points",
                              color=colour, fontsize=7)  # fmt: skip
                if crowded:
                    axis.text(0.99, 0.97 - 0.07 * number, f"{label}  {number}", transform=axis.transAxes, ha="right",
                              color=colour, fontsize=7)  # fmt: skip
            axis.set_xscale("symlog", linthresh=0.5)
            axis.set_yscale("log")
            axis.set(xlabel="network calls a step, besides the surrogate", ylabel=COLUMNS[column])
            axis.axhline(WORST, color=FAINT, linewidth=0.9)
            panel_letter(axis, "de"[index], "Accuracy against cost")
            plain_minor(axis)
        axes[0].annotate("at the edge: lost, or beyond", (WORST, len(labels) - 0.4), (-3, 0), textcoords="offset points",
                         ha="right", color=MUTED, fontsize=7)  # fmt: skip


def best(points: dict[str, tuple[float, float]]) -> list[str]:
    """Names of the points (cost, error) that no other point undercuts in one without losing in the other."""
    return [
        name
        for name, point in points.items()
        if not any(all(np.less_equal(other, point)) and other != point for other in points.values())
    ]


def _scores(rows: pd.DataFrame, result, truth: np.ndarray) -> dict:
    """Return the scores of a method by member, means over layers, NaN for a lost member; `rows`: its rows of metrics.csv."""
    members = rows.groupby("member")[["member_spectrum_error", "lost_step"]].mean()
    lost = is_lost(members["lost_step"].to_numpy())
    block = result["correlation"].values
    # C(tau) over the last third of the blocks; a lost member has none.
    late = block[:, -max(1, block.shape[1] // 3) :].mean(1)
    correlation = np.abs(late - truth).mean(-1)
    count = max(2, result.sizes["time"] // 20)
    early = result["mse"].transpose("member", "time").values[:, 1 : count + 1].mean(1)
    return {
        "member_spectrum_error": np.where(lost, np.nan, members["member_spectrum_error"].to_numpy()),
        "correlation_error": np.where(lost, np.nan, correlation),
        "early_error": early,
        "calls": float(rows["calls_per_step"].mean()),
    }
