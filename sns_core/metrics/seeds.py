"""Runs of one configuration with several seeds, side by side: how much of a score is the method's and how much is luck."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.errors import UserError
from sns_core.files import whole_file

PLACE = ["system", "method", "score", "layer", "lead"]
# Scores of the readable table, with the titles of their columns.
SHOWN = {
    "spectrum_error": "spectrum error", "kinetic_energy": "kinetic energy", "enstrophy": "enstrophy",
    "relative_change": "change a step", "decorrelation_time": "decorrelation time", "vorticity_distance": "W₁ of vorticity",
    "stability_horizon": "stability horizon", "calls_per_step": "calls a step",
}  # fmt: skip


def compare_seeds(*, scorecards: list[Path], seeds: list, output: Path, output_readable: Path) -> None:
    """Join the scorecards of several runs that differ in the seed.

    The rows hold the mean and the standard deviation over the seeds, the least and the greatest value, the mean ends of the
    floor, the number of seeds inside it, and the value of each seed. Raises UserError where the scorecards do not have the same methods.

    `scorecards`: the scorecard of each run.
    `seeds`: the seed of each run, in the order of the scorecards.
    `output`: the CSV file with one row per method, score, layer and lead.
    `output_readable`: the Markdown file with one row per method and layer: mean ± standard deviation.
    """
    tables = [
        pd.read_csv(path, dtype={"layer": str, "lead": str}).fillna({"layer": "", "lead": ""}) for path in scorecards
    ]
    methods = [list(dict.fromkeys(table["method"])) for table in tables]
    for path, names in zip(scorecards, methods, strict=True):
        if names != methods[0]:
            raise UserError(f"{path}: scores other methods than {scorecards[0]}; make both with one configuration")
    order = tables[0].set_index(PLACE).index
    by_seed = dict(zip(seeds, tables, strict=True))
    values = pd.concat({seed: table.set_index(PLACE)["value"] for seed, table in by_seed.items()}, axis=1)
    values = values.reindex(order)
    joined = pd.DataFrame(
        {
            "mean": values.mean(axis=1, skipna=False), "deviation": values.std(axis=1, ddof=1, skipna=False),
            "least": values.min(axis=1), "greatest": values.max(axis=1),
            **{end: _over_seeds(tables, end).mean(axis=1).reindex(order) for end in ("floor_low", "floor_high")},
            "inside": (_over_seeds(tables, "inside") == True).sum(axis=1).reindex(order),  # noqa: E712
            **{f"seed_{seed}": values[seed] for seed in seeds},
        }
    )  # fmt: skip
    lost = sum(table.groupby("method")["members_lost"].first() for table in tables)
    members = sum(table.groupby("method")["members"].first() for table in tables)
    with whole_file(output) as temporary:
        joined.reset_index().to_csv(temporary, index=False)
    with whole_file(output_readable) as temporary:
        temporary.write_text(_markdown(joined.reset_index(), methods[0], lost, members, seeds))


def _over_seeds(tables: list[pd.DataFrame], column: str) -> pd.DataFrame:
    return pd.concat([table.set_index(PLACE)[column] for table in tables], axis=1)


def _markdown(joined: pd.DataFrame, methods: list[str], lost, members, seeds) -> str:
    """Return the readable table, one row per method and, where there are several, per layer."""
    layers = [layer for layer in dict.fromkeys(joined["layer"]) if layer]
    columns = ["method", *["layer"] * (len(layers) > 1), "members lost", *SHOWN.values()]
    rows = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for method, layer in itertools.product(methods, layers if len(layers) > 1 else [None]):
        mine = joined[joined["method"] == method]
        mine = mine if layer is None else mine[mine["layer"].isin((layer, ""))]
        scores = mine.drop_duplicates("score").set_index("score")
        cells = [method, *[layer] * (layer is not None), f"{lost[method]} of {members[method]}"]
        cells += [_cell(scores.loc[name]) if name in scores.index else "" for name in SHOWN]
        rows.append("| " + " | ".join(cells) + " |")
    note = f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}, each from its own data on."
    return "\n".join([note, "", *rows, ""])


def _cell(row: pd.Series) -> str:
    if not np.isfinite(row["mean"]):
        return "lost"
    size = max(abs(row["mean"]), abs(row["deviation"]))
    if size >= 1e3:
        return "diverges" if size > 1e5 else f"{row['mean']:,.0f} ± {row['deviation']:,.0f}"
    digits = 3 if size < 0.2 else 2 if size < 20 else 0
    return f"{row['mean']:.{digits}f} ± {row['deviation']:.{digits}f}"
