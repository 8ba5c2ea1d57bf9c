"""Figure 15: the error of every method, and of the solver on its grids, against seconds per time unit."""

from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.figures.inputs import SHOWN_UNITS
from sns_core.figures.style import (
    FAINT,
    INK,
    ON_WHITE,
    empty_panel,
    literal,
    method_styles,
    note_at,
    outer_legend,
    page,
    panel_letter,
    plain_minor,
)
from sns_core.metrics.cost import frontier, read_cost
from sns_core.wording import count_of

TITLES = {"crps": "CRPS after {lead} (σ)", "spectrum_error": "Spectrum error (decades)"}
GRID_NOTE = {"fontsize": 7, "bbox": ON_WHITE}


def plot_cost(*, table: Path, labels: dict, dpi: int, output: Path) -> None:
    """Draw one panel for the first and one for the last lead that all forecasts have, and one for the spectrum.

    `table`: the system's cost.csv; `labels`: method -> label, in order. Raises UserError if the table is missing.
    """
    costs, styles = read_cost(table), method_styles(labels)
    units, factor = SHOWN_UNITS.get(costs["time_units"].iloc[0], ("time unit", 1.0))
    costs = costs.assign(**{name: costs[name] / factor for name in ("seconds", "seconds_low", "seconds_high")})
    panels = _panels(costs)
    limits = 0.4 * costs["seconds_low"].min(), 1.8 * costs["seconds_high"].max()
    with page(output, dpi, 11.4, 4.6, layout="constrained") as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for letter, axis, (score, lead) in zip("abc", axes, panels, strict=False):
            rows = costs[(costs["score"] == score) & (costs["lead"].eq(lead) | costs["lead"].isna())]
            panel_letter(axis, letter, TITLES[score].format(lead=count_of(lead, "step")))
            axis.set(xscale="log", yscale="log", xlim=limits)
            axis.set_xlabel(f"wall seconds per {'day' if units == 'd' else units}")
            is_solver = (rows["kind"] == "grid") | (rows["contender"] == "solver")
            _panel(axis, rows[~is_solver], rows[is_solver], styles)
            plain_minor(axis)
        _legend(figure, axes[0], styles, literal(costs["machine"].iloc[0]))


def _panels(costs: pd.DataFrame) -> list[tuple[str, float]]:
    """Return (score, lead) of each panel."""
    forecasts = costs[(costs["kind"] == "method") & (costs["score"] == "crps")]
    counts = forecasts.groupby("lead")["contender"].nunique()
    leads = counts[counts == counts.max()].index
    return [("crps", lead) for lead in dict.fromkeys([*leads[:1], *leads[-1:]])] + [("spectrum_error", np.nan)]


def _legend(figure, axis, styles: dict, machine: str) -> None:
    shown = [style for name, style in styles.items() if name != "solver"]
    handles = [axis.plot([], [], _marker(style), color=style["color"], label=style["label"])[0] for style in shown]
    solver = {"color": INK, "markersize": 4, "label": "Solver as configured, and on its grids"}
    handles += axis.plot([], [], "-s", **solver)
    title = {"title": machine, "title_fontsize": 7}
    outer_legend(figure, handles, "outside lower center", 5, **title)


def _marker(style: dict) -> str:
    """Return a diamond for a method whose colour another method has too, else a circle."""
    return "o" if style["linestyle"] == "-" else "D"


def _panel(axis, methods: pd.DataFrame, solvers: pd.DataFrame, styles: dict) -> None:
    drawn = pd.concat([methods[methods["members_lost"] == 0], solvers])
    drawn = drawn[np.isfinite(drawn["error"]) & (drawn["error"] > 0)]
    if not len(drawn):
        empty_panel(axis, "no error was measured")
        return
    low = 0.6 * drawn["error"].min()
    axis.set_ylim(low, 2.2 * drawn["error"].max())
    floor = drawn["floor"].where(drawn["floor"] > 0).min()
    if floor > low:
        axis.axhspan(low, floor, color=FAINT, alpha=0.7, linewidth=0, zorder=0)
    _solvers(axis, solvers)
    for _, row in methods.iterrows():
        _method(axis, row, styles[row["contender"]])


def _solvers(axis, solvers: pd.DataFrame) -> None:
    """Draw the solver's errors and the line of what it can be had for; ticks below for grids that were only timed."""
    scored = solvers[np.isfinite(solvers["error"])]
    line = np.array(frontier(list(zip(scored["seconds"], scored["error"], strict=True))))
    axis.plot(*line.T, color=INK, linewidth=1.2, zorder=2)
    for _, row in scored.iterrows():
        configured = row["kind"] == "method"
        marker = {"marker": "s" if configured else "o", "markersize": 6 if configured else 4}
        axis.plot(row["seconds"], row["error"], color=INK, zorder=3, **marker)
        if not configured:
            note_at(axis, row["points"], (row["seconds"], row["error"]), (-5, -5), ha="right", va="top", **GRID_NOTE)
    for _, row in solvers[~np.isfinite(solvers["error"])].iterrows():
        axis.plot([row["seconds"]] * 2, [0, 0.03], color=INK, linewidth=1, transform=axis.get_xaxis_transform())
        place = ((row["seconds"], 0.03), (0, 1), ("data", "axes fraction"))
        note_at(axis, row["points"], *place, ha="center", va="bottom", **GRID_NOTE)


def _method(axis, row: pd.Series, style: dict) -> None:
    """Draw a method with the interval of its error; hollow at the upper edge if it lost members."""
    low, high = axis.get_ylim()
    marks = {"marker": _marker(style), "color": style["color"], "markersize": 6, "zorder": 5}
    if row["members_lost"] > 0 or not np.isfinite(row["error"]):
        axis.plot(row["seconds"], high, markerfacecolor="white", clip_on=False, **marks)
        return
    ends = np.maximum([row["error_low"], row["error_high"]], low)
    axis.plot([row["seconds"]] * 2, ends, color=style["color"], linewidth=1.2, alpha=0.6, zorder=4)
    axis.plot(row["seconds"], row["error"], markeredgecolor=FAINT, markeredgewidth=0.4, **marks)
