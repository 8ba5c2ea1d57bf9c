"""Measures of a denoiser on held-out frames, beside its rollouts: can a setting be chosen without a rollout?

The measures come from true frames that no training saw, and from one step of the surrogate. The last columns of a row
are of the rollout. `agreement` ranks the methods by each measure and by the error of their rollouts: a rank correlation
of 1 would mean that the measure always picks the better setting, 0 that it says nothing.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sns_core.files import FileTree, whole_file
from sns_core.metrics.distances import WORST
from sns_core.metrics.lost import count_lost, is_lost
from sns_core.shells import mode_weight, shell_index

# Measure -> (title, True where a larger value should mean a better rollout).
MEASURES = {
    "one_step": ("Error of a refined step / the surrogate's", False),
    "one_step_large": ("The same, shells 1 to 4", False),
    "calibration": ("Error of the level of noised pairs (of S)", False),
    "false_alarms": ("Share of true frames refined", False),
    "surrogate_found": ("Share of the surrogate's steps refined", True),
    "signed_strong": ("Share of drifts of 1.2 found too strong", True),
    "signed_weak": ("Share of drifts of 0.8 found too weak", True),
    "restored_strong": ("Share taken back of a drift of 1.2", True),
    "restored_weak": ("Share taken back of a drift of 0.8", True),
}
LARGE = 4  # the large scales are the shells 1 .. LARGE


def held_out_measures(examined: xr.Dataset) -> dict[str, float]:
    """Return the MEASURES of a denoiser from a result of `diagnose_denoiser`; NaN for those that it does not hold."""
    measures = dict.fromkeys(MEASURES, np.nan)
    level, last = examined["level"], examined.attrs["levels"]
    measures["calibration"] = float((abs(examined["estimated_level"] - level)).median("pair").mean()) / last
    measures["false_alarms"] = float((examined["level_of_true_pair"].isel(frame=1) > 0).mean())
    measures["surrogate_found"] = float((examined["level_of_surrogate"].isel(frame=1) > 0).mean())
    if "one_step_error" in examined:
        shells, grid = np.arange(examined.sizes["shell"]), (examined.sizes["y"], examined.sizes["x"])
        counts = np.bincount(shell_index(grid).ravel(), mode_weight(grid).ravel())
        power = examined["one_step_error"] ** 2 * xr.DataArray(counts, dims="shell")
        for name, inside in (("one_step", shells >= 0), ("one_step_large", (shells >= 1) & (shells <= LARGE))):
            total = power.isel(shell=inside).sum("shell")
            measures[name] = float(np.sqrt(total.sel(when="refined") / total.sel(when="surrogate")))
    if "amplitude_detected" in examined:
        for name, drift in (("strong", 1.2), ("weak", 0.8)):
            measures[f"signed_{name}"] = float(examined["amplitude_detected"].sel(drift=drift, sign=name))
    if "restored" in examined:
        measures["restored_strong"] = float(examined["restored"].sel(drift=1.2))
        measures["restored_weak"] = float(examined["restored"].sel(drift=0.8))
    return measures


def rollout_error(rows: pd.DataFrame) -> float:
    """Return the mean of `member_spectrum_error` over layers, then over members, each at most WORST decades.

    `rows`: those of one method in metrics.csv. A lost member counts as WORST decades.
    """
    members = rows.groupby("member")[["member_spectrum_error", "lost_step"]].mean()
    errors = members["member_spectrum_error"].mask(is_lost(members["lost_step"]), WORST)
    return float(errors.clip(upper=WORST).mean())


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rank correlation over the methods of each measure with the rollout's accuracy.

    The sign of a measure is turned so that 1 means agreement. NaN where all methods tie.
    """
    accuracy = -table["rollout_error"].rank()
    ranks = {name: (1 if better else -1) * table[name].rank().corr(accuracy) for name, (_, better) in MEASURES.items()}
    return pd.DataFrame({"measure": list(ranks), "agreement": list(ranks.values()), "methods": len(table)})


def compare_held_out(*, diagnostics: FileTree, metrics: Path, output: Path, output_agreement: Path) -> None:
    """Tabulate the measures of each denoiser on held-out frames beside those of its rollout, and their agreement.

    `diagnostics`: refinement method -> result of `diagnose_denoiser`.
    `metrics`: the run's metrics.csv.
    `output`: the CSV file with one row per denoiser.
    `output_agreement`: the CSV file of rank correlations.
    """
    members, rows = pd.read_csv(metrics), []
    for name, path in diagnostics.items():
        with xr.open_dataset(path) as examined:
            measures = held_out_measures(examined.load())
        mine = members[members["method"] == name]
        layers = [part for _, part in mine.groupby("layer")]
        ratios = [(part["kinetic_energy"] / part["kinetic_energy_solver"]).mean() for part in layers]
        lost = layers[0]["lost_step"].to_numpy()
        rows.append(
            {
                "method": name, **measures, "rollout_error": rollout_error(mine), "kinetic_energy": float(np.mean(ratios)),
                "calls_per_step": layers[0]["calls_per_step"].mean(), "members_lost": count_lost(lost),
                "members": len(lost),
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    for path, content in ((output, table), (output_agreement, agreement(table))):
        with whole_file(path) as temporary:
            content.to_csv(temporary, index=False)
