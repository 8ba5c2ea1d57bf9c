"""The scores of a sweep: mean and 90 % interval of each setting and method."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.errors import UserError
from sns_core.figures.style import FAINT, INK, empty_panel, method_styles, outer_legend, page, wrapped
from sns_core.files import missing
from sns_core.metrics.scorecard import SCORES

PANELS = (
    "spectrum_error",
    "kinetic_energy",
    "enstrophy",
    "vorticity_distance",
    "decorrelation_time",
    "stability_horizon",
)
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
FARTHEST = 5.0  # medians of a score at which its axis ends


def plot_sweep(*, table: Path, axes: list, labels: dict, dpi: int, output: Path) -> None:
    """Draw six scores of all runs, one row of panels per system and layer.

    The first axis of the grid besides the seed runs along x, and further axes have line styles. Without such an axis,
    the methods stand side by side, with the value of each seed.

    `table`: result of `tabulate_sweep`.
    `axes`: names of the grid's axes.
    """
    if not Path(table).exists():
        raise missing(table)
    scores = _read(table)
    settings = [name for name in axes if name != "seed"]
    if absent := [name for name in settings if name not in scores]:
        raise UserError(f"{table}: has no column {absent[0]!r}; run the stage that makes it")
    scores = scores[scores["score"].isin(PANELS) & scores["method"].isin(labels)]
    names = [name for name in labels if name in set(scores["method"])]
    styles = {name: style for name, style in method_styles(labels).items() if name in names}
    rows = _rows(scores)
    with page(output, dpi, 2.5 * len(PANELS), 2.6 * len(rows) + 0.5, layout="constrained") as figure:
        grid = figure.subplots(len(rows), len(PANELS), squeeze=False)
        for line, ((system, layer), panels) in zip(grid, rows.items(), strict=True):
            for axis, score in zip(line, PANELS, strict=True):
                axis.set_title(wrapped(SCORES[score][0], 24), fontsize=8.5)
                part = panels[panels["score"] == score]
                if part["mean"].notna().any():
                    _panel(axis, part, score, settings, styles)
                else:
                    empty_panel(axis, "no value")
            line[0].set_ylabel(_title(system, layer, list(rows)))
        handles, _ = grid[0, 0].get_legend_handles_labels()
        if settings:
            outer_legend(figure, handles, "outside lower center", 4, fontsize=7.5)


def _read(table: Path) -> pd.DataFrame:
    """Return the table of a sweep, with layer "" where a score has none; the settings true, false and null are text."""
    scores = pd.read_csv(table, dtype={"layer": str}, keep_default_na=False, na_values=[""]).fillna({"layer": ""})
    switches = {name: scores[name].map({True: "true", False: "false"}) for name in scores.select_dtypes("bool")}
    return scores.assign(**switches)


def _rows(scores: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Return (system, layer) -> rows; a score without layers stands in the rows of all layers."""
    rows = {}
    for system, part in scores.groupby("system", sort=False):
        layers = [layer for layer in dict.fromkeys(part["layer"]) if layer] or [""]
        rows |= {(system, layer): part[part["layer"].isin((layer, ""))] for layer in layers}
    return rows


def _title(system: str, layer: str, rows: list[tuple[str, str]]) -> str:
    """Return the title of a row of panels: the system among several, and the layer of a system that has several.

    `rows`: (system, layer) of all rows.
    """
    systems = {name for name, _ in rows}
    layers = [row for row in rows if row[0] == system]
    return " ".join(filter(None, (system * (len(systems) > 1), layer * (len(layers) > 1))))


def _panel(axis, table: pd.DataFrame, score: str, settings: list[str], styles: dict) -> None:
    """Draw one score: the floor in grey, means with their intervals, and a black line where a perfect method stands."""
    ideal = SCORES[score][2]
    if ideal == 1.0:
        axis.axhline(1, color=INK, linewidth=0.7, zorder=1)
    low, high = table["floor_low"].mean(), table["floor_high"].mean()
    if np.isfinite(high):
        axis.axhspan(0 if ideal == 0.0 else low, high, color=FAINT, alpha=0.5, linewidth=0, zorder=0)
    if settings:
        _along(axis, table, settings, styles)
    else:
        _side_by_side(axis, table, styles)
    _limit(axis, table, ideal)


def _along(axis, table: pd.DataFrame, settings: list[str], styles: dict) -> None:
    """Draw a line per method and further settings along the values of the first axis."""
    first, *further = settings
    values = list(dict.fromkeys(table[first]))
    numeric = all(isinstance(value, int | float | np.number) for value in values)
    places = dict(zip(values, values if numeric else range(len(values)), strict=True))
    combinations = list(dict.fromkeys(table[further].itertuples(index=False, name=None))) if further else [()]
    for (name, style), (number, place) in itertools.product(styles.items(), enumerate(combinations)):
        rows = table[(table["method"] == name) & (table[further] == list(place)).all(axis=1)]
        label = ", ".join([style["label"], *(f"{key} {value}" for key, value in zip(further, place, strict=True))])
        x, mean = rows[first].map(places), rows["mean"]
        bars = np.array([mean - rows["low"], rows["high"] - mean]).clip(min=0)
        dashes = {"linestyle": DASHES[number % len(DASHES)] if further else style["linestyle"], "label": label}
        axis.errorbar(x, mean, np.nan_to_num(bars), color=style["color"], marker="o", markersize=3, capsize=2, **dashes)
    axis.set_xlabel(first.replace("_", " "))
    if numeric and min(values) > 0 and max(values) > 8 * min(values):
        axis.set_xscale("log")
        axis.minorticks_off()
    axis.set_xticks([places[value] for value in values], [f"{value:g}" if numeric else str(value) for value in values])


def _side_by_side(axis, table: pd.DataFrame, styles: dict) -> None:
    """Draw a mean with its interval per method, and small dots for its seeds."""
    seeds = [column for column in table if column.startswith("seed_")]
    for place, (name, style) in enumerate(styles.items()):
        for _, row in table[table["method"] == name].iterrows():
            bars = np.nan_to_num(np.clip([[row["mean"] - row["low"]], [row["high"] - row["mean"]]], 0, None))
            axis.errorbar(place, row["mean"], bars, color=style["color"], marker="o", markersize=4, capsize=3)
            values = row[seeds].to_numpy(dtype=float)
            axis.plot(place + np.linspace(0.15, 0.35, len(seeds)), values, ".", color=style["color"], markersize=3)
    axis.set_xticks(range(len(styles)), [style["label"] for style in styles.values()], rotation=90, fontsize=7)


def _limit(axis, table: pd.DataFrame, ideal: float | None) -> None:
    """End the axis where one diverging run would hide all others."""
    means = table["mean"].to_numpy(dtype=float)
    means = means[np.isfinite(means)]
    farthest = FARTHEST * max(float(np.median(np.abs(means))), 1.0 if ideal == 1.0 else 0.0)
    bottom, top = axis.get_ylim()
    axis.set_ylim(max(bottom, -farthest), min(top, farthest) if farthest > 0 else top)
