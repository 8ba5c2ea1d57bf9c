"""Runs of a grid of settings in one table: the scores of each setting, and how much of a score is luck.

Runs that differ in the seed alone are repetitions of one setting.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.errors import UserError
from sns_core.files import whole_file
from sns_core.metrics.bootstrap import student_quantile
from sns_core.metrics.scorecard import SCORES, SHARES, SIGNED, read_scorecard

SEED = "seed"
PLACE = ["system", "method", "score", "layer", "lead"]
# Scores of the readable table, with the titles of their columns.
SHOWN = {
    "spectrum_error": "spectrum error", "kinetic_energy": "kinetic energy", "enstrophy": "enstrophy",
    "relative_change": "change per step", "decorrelation_time": "decorrelation time", "vorticity_distance": "W₁ of vorticity",
    "stability_horizon": "stability horizon", "calls_per_step": "calls per step",
}  # fmt: skip


def tabulate_sweep(*, scorecards: list[Path], places: list, output: Path, output_readable: Path) -> None:
    """Join the scorecards of runs that differ in some settings, and take means over their seeds.

    A row holds a setting, system, method, score, layer and lead; the number of runs; the mean over them with its 90 %
    interval (`low`, `high`: by Student's distribution over the seeds, cut where a score can be no less or no more, and
    of a single run the interval of its scorecard); their standard deviation, least and greatest value; the mean ends of
    the floor, and the number of runs inside it; the value of each seed.

    Raises UserError where the runs of one setting score different methods.

    `scorecards`: the scorecard of each run and system.
    `places`: the settings of each scorecard's run, axis -> value.
    `output`: the CSV file.
    `output_readable`: the Markdown file with one row per setting, method and layer: mean ± standard deviation.
    """
    axes = [name for name in places[0] if name != SEED]
    runs = pd.concat(_of_run(path, place) for path, place in zip(scorecards, places, strict=True))
    _check_methods(runs, axes)
    keys = [*axes, *PLACE]
    groups = runs.groupby(keys, sort=False, dropna=False)
    table = groups.agg(
        runs=("value", "size"),
        mean=("value", lambda values: values.mean(skipna=False)),
        deviation=("value", lambda values: values.std(ddof=1, skipna=False)),
        least=("value", "min"),
        greatest=("value", "max"),
        low=("low", "first"),
        high=("high", "first"),
        floor_low=("floor_low", "mean"),
        floor_high=("floor_high", "mean"),
        inside=("inside", lambda inside: int((inside == True).sum())),  # noqa: E712
        members_lost=("members_lost", "sum"),
        members=("members", "sum"),
    )
    reach = table["runs"].map(lambda runs: student_quantile(runs - 1)) * table["deviation"] / np.sqrt(table["runs"])
    several = table["runs"] > 1
    table["low"] = table["low"].where(~several, table["mean"] - reach)
    table["high"] = table["high"].where(~several, table["mean"] + reach)
    if SEED in places[0]:
        by_seed = runs.pivot_table("value", keys, SEED, sort=False, dropna=False, aggfunc="first", observed=True)
        table = table.join(by_seed.add_prefix("seed_"))
    table = _cut_intervals(table.reset_index(), axes)
    with whole_file(output) as temporary:
        table.to_csv(temporary, index=False)
    with whole_file(output_readable) as temporary:
        temporary.write_text(_markdown(table, axes))


def _of_run(path: Path, place: dict) -> pd.DataFrame:
    """Return the scorecard of a run with its settings in the first columns."""
    table = read_scorecard(path).assign(**place)
    # Text, because keys of groups must not be missing.
    return table.assign(lead=table["lead"].map(lambda lead: "" if math.isnan(lead) else f"{lead:g}"))


def _cut_intervals(table: pd.DataFrame, axes: list[str]) -> pd.DataFrame:
    """Cut intervals where their scores can be no less or no more: Student's distribution has no such ends.

    No score of the package but the signed ones is negative, no share exceeds 1, and no member lives longer than a
    rollout, whose length is the horizon of the method that lives longest, the solver's.
    """
    horizons = table["greatest"].where(table["score"] == "stability_horizon")
    upper = horizons.groupby([table[name] for name in [*axes, "system"]], dropna=False).transform("max")
    upper = upper.where(table["score"] == "stability_horizon", np.inf).where(~table["score"].isin(SHARES), 1.0)
    lower = np.where(table["score"].isin(set(SCORES) - set(SIGNED)), 0.0, -np.inf)
    return table.assign(low=table["low"].clip(lower=lower), high=table["high"].clip(upper=upper))


def _check_methods(runs: pd.DataFrame, axes: list[str]) -> None:
    """Raise UserError where the runs of one setting score different methods."""
    if SEED not in runs:
        return
    methods = runs.groupby([*axes, "system", SEED], sort=False)["method"].agg(lambda names: tuple(dict.fromkeys(names)))
    settings = [level for level in methods.index.names if level != SEED]
    for place, names in methods.groupby(settings, sort=False):
        if names.nunique() > 1:
            raise UserError(f"{place}: runs of two seeds score different methods; make both with one configuration")


def _markdown(table: pd.DataFrame, axes: list[str]) -> str:
    """Return the readable table, one row per setting, system and method and, where there are several, per layer."""
    layered = bool((table[table["layer"] != ""].groupby("system")["layer"].nunique() > 1).any())
    systems = ["system"] * (table["system"].nunique() > 1)
    keys = [*axes, *systems, "method"]
    columns = [*keys, *["layer"] * layered, "members lost", *SHOWN.values()]
    rows = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for place, mine in table.groupby(keys, sort=False, dropna=False):
        layers = [layer for layer in dict.fromkeys(mine["layer"]) if layer]
        for layer in layers if layered else [None]:
            part = mine if layer is None else mine[mine["layer"].isin((layer, ""))]
            scores = part.drop_duplicates("score").set_index("score")
            lost, members = scores[["members_lost", "members"]].iloc[0]
            cells = [*map(str, place), *[layer] * (layer is not None), f"{lost} of {members}"]
            cells += [_cell(scores.loc[name]) if name in scores.index else "" for name in SHOWN]
            rows.append("| " + " | ".join(cells) + " |")
    runs = sorted(set(table["runs"]))
    several = f"Mean ± standard deviation over {' or '.join(map(str, runs))} seeds, each from its own data on."
    return "\n".join([several if runs != [1] else "One run per row.", "", *rows, ""])


def _cell(row: pd.Series) -> str:
    if not np.isfinite(row["mean"]):
        return "lost" if row["members_lost"] else "–"
    deviation = 0.0 if math.isnan(row["deviation"]) else row["deviation"]
    size = max(abs(row["mean"]), abs(deviation))
    digits = 0 if size >= 20 else 3 if size < 0.2 else 2
    if size > 1e5:
        return "diverges"
    value = f"{row['mean']:,.{digits}f}"
    return value if row["runs"] == 1 else f"{value} ± {deviation:,.{digits}f}"
