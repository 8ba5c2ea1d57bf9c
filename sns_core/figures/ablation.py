"""Figure 6: the errors of every method and the network calls that they cost."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from sns_core.errors import UserError
from sns_core.figures.inputs import layer_names, read
from sns_core.figures.style import (
    FAINT,
    MARKERS,
    MUTED,
    method_styles,
    note_at,
    numbered,
    page,
    panel_letter,
    plain_minor,
)
from sns_core.files import FileTree
from sns_core.metrics.distances import WORST
from sns_core.metrics.lost import is_lost

ALL_NUMBERED = 12  # up to so many methods, every point of the lower row has a number
LEAST = 1e-4  # smaller errors are drawn here
# Error -> (title, label of its axis).
ERRORS = {
    "spectrum_error": ("Spectrum error of members", "spectrum error of members (decades)"),
    "correlation_error": ("Error of C(τ)", "error of C(τ)"),
    "early_error": ("Mean squared error, early", "mean squared error (σ²), early"),
}


def plot_ablation(*, tables: Path, metrics: FileTree, reference: Path, labels: dict, dpi: int, output: Path) -> None:
    """Draw three errors of each method, one row per method, and below two of them against network calls per step.

    `tables`: the run's metrics.csv; `metrics`: method -> file; `labels`: method -> label, in the order of the rows.
    Dots are members (one marker per layer), bars their mean; lost members count at the edge. Raises UserError if
    `labels` is empty.
    """
    if not labels:
        raise UserError("figures: no method to compare")
    solver, styles, table = read(reference), method_styles(labels), pd.read_csv(tables, dtype={"layer": str})
    layers = layer_names(solver)
    results = {name: read(metrics[name]) for name in labels}
    early = early_frames(results)
    scores = {
        name: _scores(table[table["method"] == name], result, solver, layers, 0 if name == "solver" else early)
        for name, result in results.items()
    }
    numbers = {name: index for index, name in enumerate(labels, 1)}
    height = 4.5 + 0.3 * len(labels) + 0.4 * (len(layers) > 1)
    with page(output, dpi, 11.4, height, layout="constrained") as figure:
        upper, lower = figure.subfigures(2, 1, height_ratios=(0.9 + 0.3 * len(labels), 2.8))
        for letter, axis, name in zip("abc", upper.subplots(1, 3, sharey=True), ERRORS, strict=True):
            _members(axis, scores, styles, name, letter)
        first = upper.axes[0]
        rows = np.arange(len(labels))[::-1]
        first.set_yticks(rows, [f"{styles[name]['label']}   {numbers[name]}" for name in labels])
        _edge_note(first, len(labels))
        if len(layers) > 1:
            style = {"color": MUTED, "markersize": 3.5, "linestyle": "none"}
            handles = [Line2D([], [], marker=m, label=name, **style) for m, name in zip(MARKERS, layers, strict=False)]
            upper.legend(handles=handles, loc="outside upper right", ncols=len(layers), title="layers of a and d")
        axes = lower.subplots(1, 2)
        for letter, axis, name in zip("de", axes, ERRORS, strict=False):
            _axes_of_cost(axis, scores, styles, name, letter)
        for axis, name in zip(axes, ERRORS, strict=False):
            points = mean_points(scores, name)
            shown = list(points) if len(points) <= ALL_NUMBERED else sorted(best(points), key=points.get)
            places, colours = [points[n] for n in shown], [styles[n]["color"] for n in shown]
            numbered(axis, places, [str(numbers[n]) for n in shown], colours)


def mean_points(scores: dict[str, dict], name: str) -> dict[str, tuple[float, float]]:
    """Return method -> (network calls per step, mean error over members and layers)."""
    return {method: (score["calls"], float(score[name].mean())) for method, score in scores.items()}


def best(points: dict[str, tuple[float, float]]) -> list[str]:
    """Return the names of the points (cost, error) that no other point beats in one and equals in the other."""
    return [
        name
        for name, point in points.items()
        if not any(all(np.less_equal(rival, point)) and rival != point for rival in points.values())
    ]


def early_frames(results: dict) -> int:
    """Return the number of stored frames that the early error is a mean over: a twentieth of the shortest rollout's.

    It is the same for all methods, because the error grows with time.
    """
    return max(2, min(result.sizes["time"] for result in results.values()) // 20)


def _scores(rows: pd.DataFrame, result, solver, layers: list[str], early: int) -> dict:
    """Return the errors of a method, (layer, member), a lost member at WORST; "calls" per step.

    `early`: frames of the early error, 0 for the solver. That error compares a method with the solver's own rollout, so
    the solver has none (NaN).
    """
    errors = rows.pivot(index="layer", columns="member", values="member_spectrum_error").loc[layers].to_numpy()
    lost = is_lost(rows.groupby("member")["lost_step"].first().to_numpy())
    block = result["correlation"].values
    # C(tau) over the last third of the blocks.
    late = block[:, -max(1, block.shape[1] // 3) :].mean(1)
    correlation = np.abs(late - solver["correlation"].mean("member").values).mean(-1)
    if early:
        error = result["mse"].transpose("member", "time").values[:, 1 : early + 1].mean(1)
        early_error = _drawn(error, np.isnan(error))[None]
    else:
        early_error = np.full((1, len(lost)), np.nan)
    return {
        "spectrum_error": _drawn(errors, lost),
        "correlation_error": _drawn(correlation, lost)[None],
        "early_error": early_error,
        "calls": float(rows["calls_per_step"].mean()),
    }


def _drawn(values: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Return errors between the ends of the axis; those of lost members, and NaN, at its upper end."""
    return np.clip(np.where(lost | np.isnan(values), np.inf, values), LEAST, WORST)


def _members(axis, scores: dict, styles: dict, name: str, letter: str) -> None:
    """Draw the error of every member, and their mean, one row per method."""
    title, label = ERRORS[name]
    for row, (method, score) in enumerate(reversed(scores.items())):
        colour, values = styles[method]["color"], score[name]
        shifts = 0.16 * (np.arange(len(values))[::-1] - (len(values) - 1) / 2)
        if np.isnan(values).all():
            note_at(axis, "the solver itself", (0.02, row), (0, 0), ("axes fraction", "data"), va="center", fontsize=7)
            continue
        for layer, (members, shift) in enumerate(zip(values, shifts, strict=True)):
            height = np.full(len(members), row + shift)
            axis.plot(members, height, MARKERS[layer % len(MARKERS)], color=colour, markersize=3.5, alpha=0.5)
            size = 13 if len(values) == 1 else 8
            axis.plot(members.mean(), row + shift, "|", color=colour, markersize=size, markeredgewidth=2)
    axis.set_xscale("log")
    axis.axvline(WORST, color=FAINT, linewidth=0.9)
    axis.set(xlabel=label, ylim=(-0.7, len(scores) - 0.3))
    panel_letter(axis, letter, title)
    plain_minor(axis)


def _edge_note(axis, count: int) -> None:
    note = "at the edge: lost, or beyond"
    note_at(axis, note, (WORST, count - 0.4), (-3, 0), ha="right", fontsize=7)


def _axes_of_cost(axis, scores: dict, styles: dict, name: str, letter: str) -> None:
    """Draw the mean error of each method against its calls, with a smaller marker per layer if there are several."""
    title, label = ERRORS[name]
    crowded = len(scores) > ALL_NUMBERED
    for method, (calls, error) in mean_points(scores, name).items():
        colour, layers = styles[method]["color"], scores[method][name].mean(1)
        if len(layers) > 1:
            axis.plot([calls] * 2, [layers.min(), layers.max()], color=colour, linewidth=1, alpha=0.6)
            for layer, value in enumerate(layers):
                axis.plot(calls, value, MARKERS[layer % len(MARKERS)], color=colour, markersize=3.5, alpha=0.6)
        axis.plot(calls, error, "_" if len(layers) > 1 else "o", color=colour, markersize=4 if crowded else 6)
    axis.set_xscale("symlog", linthresh=0.5)
    axis.set_yscale("log")
    axis.set(xlabel="network calls per step, besides the surrogate's", ylabel=label)
    axis.margins(x=0.08)
    axis.axhline(WORST, color=FAINT, linewidth=0.9)
    panel_letter(axis, letter, f"{title} against cost")
    plain_minor(axis)
