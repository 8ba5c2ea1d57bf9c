"""Figure 13: the scorecard, all scores of all methods with intervals, over the floors of runs of their sizes."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.figures.style import (
    FAINT,
    INK,
    MARKERS,
    MUTED,
    REFERENCE,
    corner,
    empty_panel,
    method_styles,
    page,
    wrapped,
)
from sns_core.metrics.scorecard import SCORES, SIGNED, read_scorecard
from sns_core.wording import short

FORECASTS = ("crps", "spread_skill")
KINDS = {0.0: "log", 1.0: "ratio", None: "linear"}  # score of a perfect method -> kind of axis
COUNTS = ("level_previous", "level_next", "calls_per_step")  # scores that run from 0 to hundreds
COLUMNS = 4
WIDTH = 11.4  # of the page, in inches
TITLE_WIDTH = 32  # characters of a title over a panel, at most
NARROW, WIDE = 1.25, 10.0  # an axis of ratios spans at least and at most this factor to both sides of 1
DECADES = 4  # a logarithmic axis spans so many at most


def plot_scorecard(*, table: Path, labels: dict, dpi: int, output: Path) -> None:
    """Draw one panel per score with one row per method; below, the scores of forecasts against their lead.

    `table`: the system's scorecard.csv; `labels`: method -> label, in the order of the rows. Raises UserError if the
    table is missing.
    """
    scores, styles = read_scorecard(table), method_styles(labels)
    panels = [score for score in SCORES if score not in FORECASTS and (scores["score"] == score).any()]
    layers = [layer for layer in dict.fromkeys(scores["layer"]) if layer]
    rows, tall = -(-len(panels) // COLUMNS), 0.75 + 0.17 * len(labels) * max(1, 0.6 * len(layers))
    with page(output, dpi, WIDTH, rows * tall + 3.4, layout="constrained") as figure:
        upper, lower = figure.subfigures(2, 1, height_ratios=(rows * tall, 3.4))
        axes = upper.subplots(rows, COLUMNS, sharey=True, squeeze=False).flat
        for axis, score in itertools.zip_longest(axes, panels):
            if score is None:
                axis.set_axis_off()
            else:
                axis.set_title(wrapped(SCORES[score][0], _title_width(labels)), fontsize=8.5)
                _panel(axis, scores[scores["score"] == score], score, styles)
        _forecasts(lower, scores, styles, layers)


def _title_width(labels: dict) -> int:
    """Return how many characters of a title fit over a panel: long labels of methods leave narrow panels."""
    panel = (WIDTH - 0.058 * max(map(len, labels.values()))) / COLUMNS - 0.22
    return min(TITLE_WIDTH, int(panel / 0.073))


def _panel(axis, table: pd.DataFrame, score: str, styles: dict) -> None:
    """Draw one score: per method and layer, the floor in grey and a marker with its interval over it."""
    ideal = SCORES[score][2]
    kind = "log" if score == "seconds_per_step" else "counts" if score in COUNTS else KINDS[ideal]
    kind = "signed" if score in SIGNED else kind
    axes = {"ratio": _ratios, "linear": _linear, "counts": _counts, "log": _decades, "signed": _signed}
    scale = axes[kind](axis, table)
    layers, methods = list(dict.fromkeys(table["layer"])), list(styles)
    if kind in ("ratio", "signed"):
        axis.axvline(ideal, color=INK, linewidth=0.7, zorder=1)
    for _, row in table.dropna(subset="value").iterrows():
        place = layers.index(row["layer"])
        height = len(methods) - 1 - methods.index(row["method"]) + 0.25 - 0.5 * (place + 0.5) / len(layers)
        if np.isfinite(row["floor_high"]):
            low, high = np.clip([row["floor_low"], row["floor_high"]], *scale)
            thick = 0.8 / len(layers)
            axis.barh(height, high - low, thick, low, color=FAINT, alpha=0.7, linewidth=0, zorder=0)
        _entry(axis, row, height, scale, styles[row["method"]]["color"], MARKERS[place % len(MARKERS)])
    axis.set(ylim=(-0.6, len(methods) - 0.4))
    axis.set_yticks(np.arange(len(methods))[::-1], [styles[name]["label"] for name in methods], fontsize=7.5)
    axis.tick_params(axis="x", labelsize=7, which="both")
    axis.tick_params(axis="y", length=0)


def _entry(axis, row, height: float, scale: tuple[float, float], colour: str, marker: str) -> None:
    """Draw a value with its interval: a triangle at the end of the axis beyond it, hollow if members were lost."""
    if np.isfinite(row["low"]) and np.isfinite(row["high"]):
        axis.plot(np.clip([row["low"], row["high"]], *scale), [height] * 2, color=colour, linewidth=1.4, alpha=0.6)
    shape = ">" if row["value"] > scale[1] else "<" if row["value"] < scale[0] else marker
    style = {"color": colour, "markerfacecolor": "white" if row["members_lost"] else colour, "markersize": 4.5}
    axis.plot(np.clip(row["value"], *scale), height, shape, clip_on=False, zorder=4, **style)


# Axes. Each function sets limits and ticks and returns the two ends between which values are drawn.


def _finite(table: pd.DataFrame, *names: str) -> np.ndarray:
    values = table[list(names)].to_numpy(dtype=float).ravel()
    return values[np.isfinite(values)]


def _ratios(axis, table: pd.DataFrame) -> tuple[float, float]:
    values = _finite(table, "value", "low", "high", "floor_low", "floor_high")
    values = values[values > 0]
    reach = float(np.clip(1.05 * np.exp(np.abs(np.log(values)).max(initial=0)), NARROW, WIDE))
    axis.set_xscale("log")
    axis.set_xlim(1 / reach, reach)
    factors = (1.1, 1.2) if reach < 1.5 else (1.5,) if reach < 2.5 else (2, 4) if reach < 8 else (3, 10)
    inside = [factor for factor in factors if factor <= reach]
    ticks = [*(1 / factor for factor in inside[::-1]), 1, *inside]
    axis.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axis.minorticks_off()
    return 1 / reach, reach


def _linear(axis, table: pd.DataFrame) -> tuple[float, float]:
    high = 1.08 * _finite(table, "value", "high").max(initial=0) or 1.0
    axis.set_xlim(0, high)
    axis.locator_params(axis="x", nbins=5)
    return 0.0, high


def _signed(axis, table: pd.DataFrame) -> tuple[float, float]:
    """Linear, with 0 and 1 in sight."""
    values = _finite(table, "value", "low", "high", "floor_low", "floor_high")
    low, high = np.clip([values.min(initial=0), values.max(initial=1)], -WIDE, WIDE)
    margin = 0.06 * (high - low)
    axis.set_xlim(low - margin, high + margin)
    axis.locator_params(axis="x", nbins=5)
    return low - margin, high + margin


def _counts(axis, table: pd.DataFrame) -> tuple[float, float]:
    """Linear up to 1, logarithmic beyond."""
    high = max(1.1, 1.3 * _finite(table, "value", "high").max(initial=0))
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(0, high)
    ticks = [tick for tick in (0, 0.5, 1, 10, 100, 1000) if tick <= high]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    return 0.0, high


def _decades(axis, table: pd.DataFrame) -> tuple[float, float]:
    values = _finite(table, "value", "floor_high")
    values = values[values > 0]
    if not len(values):
        empty_panel(axis, "no value")
        return 0.0, 1.0
    low = 0.5 * values.min()
    high = min(max(6 * low, 1.5 * values.max()), 10.0**DECADES * low)
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.minorticks_off()
    factors = (1,) if high > 30 * low else (1, 2, 5)
    ticks = [10.0**power * factor for power in range(-12, 9) for factor in factors]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axis.set_xticks(ticks, [short(tick) for tick in ticks])
    return low, high


# Forecasts


def _forecasts(figure, scores: pd.DataFrame, styles: dict, layers: list[str]) -> None:
    """Draw the scores of forecasts against their lead, and the legend of the whole figure beside them."""
    *axes, words = figure.subplots(1, 3, width_ratios=(1, 1, 0.7))
    for axis, score in zip(axes, FORECASTS, strict=True):
        table = scores[scores["score"] == score].sort_values("lead")
        axis.set_title(SCORES[score][0], fontsize=8.5)
        for method in styles:
            for index, layer in enumerate(layers):
                rows = table[(table["method"] == method) & (table["layer"] == layer)]
                style = styles[method] | {"marker": MARKERS[index % len(MARKERS)], "markersize": 3}
                axis.plot(rows["lead"], rows["value"], **style)
                axis.fill_between(
                    rows["lead"], rows["low"], rows["high"], color=style["color"], alpha=0.15, linewidth=0
                )
        leads = table["lead"].unique()
        axis.set(xscale="log", yscale="log", xlabel="lead (steps)")
        axis.set_xticks(leads, [f"{lead:g}" for lead in leads])
        axis.minorticks_off()
    axes[1].axhline(1, color=REFERENCE, linewidth=0.8)
    words.set_axis_off()
    for style in styles.values():
        words.plot([], [], **style)
    for index, layer in enumerate(layers if len(layers) > 1 else []):
        words.plot([], [], MARKERS[index % len(MARKERS)], color=MUTED, markersize=4.5, label=layer)
    words.legend(loc="upper left")
    for line, note in enumerate(_notes(scores, styles)[::-1]):
        corner(words, note, "lower left", line=line)


def _notes(scores: pd.DataFrame, styles: dict) -> list[str]:
    """Return the lost members of each method that lost some, and what hollow and grey mean."""
    counts = scores.drop_duplicates("method").set_index("method")
    lost = counts[counts["members_lost"] > 0]
    notes = [f"{styles[m]['label']}: {row['members_lost']} of {row['members']} lost" for m, row in lost.iterrows()]
    hollow = ["hollow: over the steps before the loss"] if notes else []
    bands = scores[np.isfinite(scores["floor_high"]) & ~scores["score"].isin(FORECASTS)]
    grey = ["grey: solver runs of the same size, 5 to 95 %"] if len(bands) else ["no floor: the reference is too small"]
    return [*notes, *hollow, *grey]
