"""Figure 15: error against seconds a time unit, of every method and of the solver on its grids."""

from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.figures.inputs import SHOWN_UNITS
from sns_core.figures.style import FAINT, INK, MUTED, empty_panel, looks, page, panel_letter, plain_minor
from sns_core.metrics.cost import frontier, read_cost

TITLES = {"crps": "CRPS after {lead} (σ)", "spectrum_error": "Spectrum error (decades)"}


def plot_cost(*, table: Path, labels: dict, dpi: int, output: Path) -> None:
    """A panel for the first and the last lead that all forecasts have, and one for the spectrum.

    `table`: the system's cost.csv; `labels`: method -> label, in order.
    """
    known, style = read_cost(table), looks(labels)
    units, factor = SHOWN_UNITS.get(known["time_units"].iloc[0], ("time unit", 1.0))
    known = known.assign(**{name: known[name] / factor for name in ("seconds", "seconds_low", "seconds_high")})
    counts = known[(known["kind"] == "method") & (known["score"] == "crps")].groupby("lead")["contender"].nunique()
    leads = counts[counts == counts.max()].index
    panels = [("crps", lead) for lead in dict.fromkeys([*leads[:1], *leads[-1:]])] + [("spectrum_error", np.nan)]
    limits = 0.6 * known["seconds_low"].min(), 1.8 * known["seconds_high"].max()
    with page(output, dpi, 11.4, 4.6, layout="constrained") as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for letter, axis, (score, lead) in zip("abc", axes, panels, strict=False):
            mine = known[(known["score"] == score) & (known["lead"].eq(lead) | known["lead"].isna())]
            panel_letter(axis, letter, TITLES[score].format(lead=f"{lead:g} step{'s' * (lead != 1)}"))
            axis.set(
                xscale="log", yscale="log", xlim=limits, xlabel=f"wall seconds a {'day' if units == 'd' else units}"
            )
            solver = (mine["kind"] == "grid") | (mine["contender"] == "solver")
            _panel(axis, mine[~solver], mine[solver], style)
            plain_minor(axis)
        others = [style[name] for name in labels if name != "solver"]
        handles = [axes[0].plot([], [], _marker(look), color=look["color"], label=look["label"])[0] for look in others]
        told = "Solver as configured, and on its grids"
        handles += axes[0].plot([], [], "-s", color=INK, markersize=4, label=told)
        where = {"loc": "outside lower center", "ncols": 5}
        figure.legend(handles=handles, title=known["machine"].iloc[0], title_fontsize=7, **where)


def _marker(look: dict) -> str:
    """A diamond for a method whose colour another one has, too."""
    return "o" if look["linestyle"] == "-" else "D"


def _panel(axis, methods: pd.DataFrame, solvers: pd.DataFrame, style: dict) -> None:
    drawn = pd.concat([methods[methods["members_lost"] == 0], solvers])
    drawn = drawn[np.isfinite(drawn["error"]) & (drawn["error"] > 0)]
    if not len(drawn):
        empty_panel(axis, "no error known")
        return
    axis.set_ylim(0.6 * drawn["error"].min(), 2.2 * drawn["error"].max())
    top = axis.get_ylim()[1]
    scored = solvers[np.isfinite(solvers["error"])]
    line = np.array(frontier(list(zip(scored["seconds"], scored["error"], strict=True))))
    axis.plot(*line.T, color=INK, linewidth=1.2, zorder=2)
    for _, row in scored.iterrows():
        own = row["kind"] == "method"
        axis.plot(row["seconds"], row["error"], "s" if own else "o", color=INK, markersize=6 if own else 4, zorder=3)
        if not own:
            axis.annotate(f"{row['grid']:g}²", (row["seconds"], row["error"]), (4, -9), textcoords="offset points",
                          color=MUTED, fontsize=7)  # fmt: skip
    for _, row in solvers[~np.isfinite(solvers["error"])].iterrows():
        axis.plot([row["seconds"]] * 2, [0, 0.03], color=INK, linewidth=1, transform=axis.get_xaxis_transform())
        axis.annotate(f"{row['grid']:g}²", (row["seconds"], 0.03), (0, 1), ("data", "axes fraction"), "offset points",
                      ha="center", va="bottom", color=MUTED, fontsize=7)  # fmt: skip
    for _, row in methods.iterrows():
        look, lost = style[row["contender"]], row["members_lost"] > 0
        marks = {"marker": _marker(look), "color": look["color"], "markersize": 6, "zorder": 5}
        if lost or not np.isfinite(row["error"]):
            axis.plot(row["seconds"], top, markerfacecolor="white", clip_on=False, **marks)
            continue
        ends = np.maximum([row["error_low"], row["error_high"]], axis.get_ylim()[0])
        axis.plot([row["seconds"]] * 2, ends, color=look["color"], linewidth=1.2, alpha=0.6, zorder=4)
        axis.plot(row["seconds"], row["error"], markeredgecolor=FAINT, markeredgewidth=0.4, **marks)
