"""The table of floors: written by `draw_floors`, read by every table that says whether a score is inside its band."""

from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.files import missing

# Shares of the solver's runs -> columns with the score that so many of them do not pass. A floor is the band low .. high.
QUANTILES = {
    0.0: "least", 0.01: "q01", 0.05: "low", 0.1: "q10", 0.25: "q25", 0.5: "middle", 0.75: "q75", 0.9: "q90", 0.95: "high",
    0.99: "q99", 1.0: "most",
}  # fmt: skip
COLUMNS = ("members", "steps", "score", "layer", *QUANTILES.values(), "reason")


def read_floors(path: Path) -> pd.DataFrame:
    """Return the table of `draw_floors`, with layer "" and reason "" where there is none.

    Raises UserError where the file is missing.
    """
    if not Path(path).exists():
        raise missing(Path(path))
    table = pd.read_csv(path, dtype={"layer": str, "score": str, "reason": str})
    return table.assign(**{name: table[name].fillna("") for name in ("layer", "score", "reason")})


def bands_of(floors: pd.DataFrame, members: int, steps: int) -> pd.DataFrame:
    """Return the bands of runs of one size; no row without a band.

    Columns: score, layer, and the quantiles under names that begin with "floor_", such as floor_low and floor_high.
    """
    rows = floors[(floors["members"] == members) & (floors["steps"] == steps) & (floors["reason"] == "")]
    names = list(QUANTILES.values())
    return rows[["score", "layer", *names]].rename(columns={name: f"floor_{name}" for name in names})


def reasons(floors: pd.DataFrame, members: int) -> list[str]:
    """Return why runs of so many members have no band, one sentence per number of steps."""
    rows = floors[(floors["members"] == members) & (floors["reason"] != "")]
    return list(dict.fromkeys(rows["reason"]))


def inside(table: pd.DataFrame, value: str, distance) -> pd.Series:
    """Return True or False per row of a table with bands: whether its `value` is inside; missing without value or band.

    `distance`: True where a score is a distance that cannot be below zero. Of its band only the upper end counts, since
    a smaller distance than the solver's own is no fault.
    """
    low = np.where(distance, -np.inf, table["floor_low"])
    within = (table[value] >= low) & (table[value] <= table["floor_high"])
    comparable = table[value].notna() & table["floor_high"].notna()
    return within.astype("boolean").where(comparable)


def probability(table: pd.DataFrame, value: str, one_sided: pd.Series) -> np.ndarray:
    """Return the probability per row that a run of the solver of the same size is at least as far off; NaN without a band.

    one_sided: True where only larger scores are further off. Elsewhere the smaller of the two tails counts twice. The
    quantiles of the bands are joined by straight lines.
    """
    shares, names = np.array(list(QUANTILES)), [f"floor_{name}" for name in QUANTILES.values()]
    result = np.full(len(table), np.nan)
    if not set(names) <= set(table.columns):
        return result
    for row, (score, larger) in enumerate(zip(table[value], one_sided, strict=True)):
        quantiles = table[names].iloc[row].to_numpy(dtype=float)
        if np.isfinite(quantiles).all() and np.isfinite(score):
            # A score that many runs share, such as 0, is no less and no more than theirs: they count in both tails.
            equal = shares[quantiles == score]
            between = np.interp(score, quantiles, shares, left=0.0, right=1.0)
            below, above = (equal[-1], 1 - equal[0]) if len(equal) else (between, 1 - between)
            result[row] = above if larger else min(1.0, 2 * min(below, above))
    return result
