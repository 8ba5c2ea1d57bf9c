"""Several seeds of one configuration, from the data on, side by side: what is the method's and what is luck."""

from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.errors import UserError
from sns_core.files import whole_file

PLACE = ["system", "method", "score", "layer", "lead"]
# Scores of the readable table, with the title of their column.
SHOWN = {
    "spectrum_error": "spectrum error", "kinetic_energy": "kinetic energy", "enstrophy": "enstrophy",
    "relative_change": "change a step", "decorrelation_time": "decorrelation time", "vorticity_distance": "W₁ of vorticity",
    "stability_horizon": "stability horizon", "calls_per_step": "calls a step",
}  # fmt: skip


def compare_seeds(*, scorecards: list[Path], seeds: list, output: Path, output_readable: Path) -> None:
    """Join the scorecards of the runs with these `seeds`, in order.

    Writes `output` (CSV, a row a method, score, layer and lead: mean, standard deviation over seeds, least, greatest, each
    seed's value, the floor's mean) and `output_readable` (Markdown, a row a method: mean ± standard deviation). UserError where the
    scorecards do not have the same methods.
    """
    tables = [
        pd.read_csv(path, dtype={"layer": str, "lead": str}).fillna({"layer": "", "lead": ""}) for path in scorecards
    ]
    methods = [list(dict.fromkeys(one["method"])) for one in tables]
    for path, found in zip(scorecards, methods, strict=True):
        if found != methods[0]:
            raise UserError(f"{path}: scores other methods than {scorecards[0]}; make both with one configuration")
    order = tables[0].set_index(PLACE).index
    values = pd.concat({seed: one.set_index(PLACE)["value"] for seed, one in zip(seeds, tables, strict=True)}, axis=1)
    values = values.reindex(order)
    joined = pd.DataFrame(
        {
            "mean": values.mean(axis=1, skipna=False), "deviation": values.std(axis=1, ddof=1, skipna=False),
            "least": values.min(axis=1), "greatest": values.max(axis=1),
            "floor": pd.concat([one.set_index(PLACE)["floor"] for one in tables], axis=1).mean(axis=1).reindex(order),
            **{f"seed_{seed}": values[seed] for seed in seeds},
        }
    )  # fmt: skip
    lost = sum(one.groupby("method")["members_lost"].first() for one in tables)
    members = sum(one.groupby("method")["members"].first() for one in tables)
    with whole_file(output) as temporary:
        joined.reset_index().to_csv(temporary, index=False)
    with whole_file(output_readable) as temporary:
        temporary.write_text(_markdown(joined.reset_index(), methods[0], lost, members, seeds))


def _markdown(joined: pd.DataFrame, methods: list[str], lost, members, seeds) -> str:
    """Mean ± standard deviation over the seeds; of several layers the first."""
    rows = ["| method | members lost | " + " | ".join(SHOWN.values()) + " |", "|---" * (2 + len(SHOWN)) + "|"]
    for method in methods:
        own = joined[joined["method"] == method].drop_duplicates("score").set_index("score")
        cells = [_cell(own.loc[name]) if name in own.index else "" for name in SHOWN]
        rows.append(f"| {method} | {lost[method]} of {members[method]} | " + " | ".join(cells) + " |")
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
