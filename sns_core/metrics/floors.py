"""Floors as bands: the scores of solver runs that are as long, as many and as many windows as a method's.

A score of two samples of one law is not zero, and it depends on how long the samples are. So a method is compared with runs of
the solver itself: members and a stretch of time are drawn from a large stationary ensemble of the solver, and scored against
all other members. The floor of a score is the band from its 5 % to its 95 % quantile over the draws. A method inside the band
cannot be told from the solver by that score, and methods inside it must not be ranked.
"""

import numpy as np
import pandas as pd
import xarray as xr

from sns_core.metrics.distances import spectrum_error
from sns_core.metrics.scorecard import block_means, scores
from sns_core.metrics.zonal import Profiles, mean_flow_squares, mean_flow_values, pair_mean

BAND = (0.05, 0.5, 0.95)  # quantiles of a floor: its ends and its middle
WITHOUT = ("level_previous", "level_next", "refined_share", "calls_per_step")  # the solver estimates and calls nothing


def floor_bands(
    ensemble: xr.Dataset,
    members: int,
    steps: int,
    window: int,
    shells: tuple[int, int],
    *,
    draws: int = 200,
    seed: int = 0,
    skip: int = 0,
) -> pd.DataFrame:
    """Return the floor of each score for runs of `members` members and `steps` steps, one row per score and layer.

    ensemble: series and blocks of many members of the solver, stationary from its first block on, as `compute_metrics` writes
    them; window: steps per window; skip: windows at the start of a run that the worst window leaves out, as for methods;
    shells: first and last shell of the spectrum error. Columns: score, layer, low, middle, high. Beside the scores of the
    scorecard, "worst_window_spectrum_error" is the largest `window_spectrum_error` of a run. Raises ValueError where the
    ensemble is not at least twice as many members, or not as long, as the runs.
    """
    blocks = _blocks(ensemble)
    length = int(ensemble["block"][0])
    count = steps // length
    if 2 * members > blocks.sizes["member"] or count > blocks.sizes["block"]:
        raise ValueError(
            f"floors: {members} members of {steps} steps need an ensemble of at least {2 * members} members and {steps} "
            f"steps; it has {blocks.sizes['member']} members and {blocks.sizes['block'] * length} steps"
        )
    chosen, starts = _draws(blocks.sizes["member"], members, blocks.sizes["block"] - count, draws, seed)
    inside = np.zeros((draws, blocks.sizes["member"], blocks.sizes["block"]))
    for draw, (rows, start) in enumerate(zip(chosen, starts, strict=True)):
        inside[draw, rows, start : start + count] = 1.0
    outside = 1.0 - inside.any(2)
    mine = _weighted(blocks, xr.DataArray(inside, dims=("resample", "member", "block")))
    solver = _weighted(blocks.mean("block"), xr.DataArray(outside, dims=("resample", "member")))
    mine["constant"], solver["constant"] = _constants(blocks, chosen, starts, count)
    values = scores(mine, solver, shells).drop_vars(WITHOUT, errors="ignore")
    values["worst_window_spectrum_error"] = _worst_windows(
        blocks, solver, chosen, starts, count, window // length, shells, skip
    )
    values = values.merge(_mean_flow(blocks, chosen, starts, count))
    rows = []
    for name, score in values.items():
        score = score if "layer" in score.dims else score.expand_dims(layer=[""])
        for layer in score["layer"].values:
            low, middle, high = np.nanquantile(score.sel(layer=layer).values, BAND)
            rows.append({"score": name, "layer": layer, "low": low, "middle": middle, "high": high})
    return pd.DataFrame(rows)


def _blocks(ensemble: xr.Dataset) -> xr.Dataset:
    return block_means(ensemble, float(ensemble["rate_of_change"].mean()))


def _draws(total: int, members: int, latest: int, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the members (draw, members) and the first block (draw,) of each run."""
    rng = np.random.default_rng(seed)
    chosen = np.stack([rng.permutation(total)[:members] for _ in range(draws)])
    return chosen, rng.integers(0, latest + 1, draws)


def _weighted(blocks: xr.Dataset, weights: xr.DataArray) -> xr.Dataset:
    """Return weighted means over members and blocks, (resample, ...); NaN is left out."""
    over = [d for d in weights.dims if d != "resample"]

    def mean(values: xr.DataArray) -> xr.DataArray:
        present = values.notnull()
        total = xr.dot(weights, present.astype(float), dim=over)
        return xr.dot(weights, values.where(present, 0.0), dim=over) / total.where(total > 0)

    return blocks.map(mean)


def _runs(blocks: xr.Dataset, name: str, chosen, starts, count: int):
    """Yield the block means (members, block, layer, ...) of each run, and the time means of all members outside it."""
    values = blocks[name].transpose("member", "block", "layer", ...).values
    means = np.nanmean(values, 1)
    for rows, start in zip(chosen, starts, strict=True):
        yield rows, values[rows, start : start + count], np.delete(means, rows, 0)


def _constants(blocks: xr.Dataset, chosen, starts, count: int) -> tuple[tuple, tuple]:
    """Return the constant part of C(tau) of each run and of the members outside it, from products of different members."""
    mine, others = [], []
    for _, run, rest in _runs(blocks, "zonal_direction", chosen, starts, count):
        for target, profiles in ((mine, np.nanmean(run, 1)), (others, rest)):
            flat = profiles.reshape(len(profiles), -1)
            target.append(pair_mean(flat, np.ones(len(flat))) * flat.shape[1])
    return ("resample", np.array(mine)), ("resample", np.array(others))


def _mean_flow(blocks: xr.Dataset, chosen, starts, count: int) -> xr.Dataset:
    energy = blocks["kinetic_energy"].mean(("member", "block")).values
    values: dict[str, list] = {}
    for rows, run, rest in _runs(blocks, "zonal_profile", chosen, starts, count):
        left = np.setdiff1d(np.arange(blocks.sizes["member"]), rows)
        mine = Profiles(run.mean(1), np.ones(len(rows)), rows)
        solver = Profiles(rest, np.ones(len(left)), left)
        for name, value in mean_flow_values(mean_flow_squares(mine, solver, energy)).items():
            values.setdefault(name, []).append(value)
    return xr.Dataset(
        {name: (("resample", "layer"), np.array(v)) for name, v in values.items()}, {"layer": blocks["layer"]}
    )


def _worst_windows(blocks, solver, chosen, starts, count: int, length: int, shells, skip: int) -> xr.DataArray:
    """Return the largest spectrum error of the windows of each run, (resample, layer)."""
    truth = solver["energy_spectrum"].transpose("resample", "layer", "wavenumber").values
    worst = []
    for draw, (_, run, _) in enumerate(_runs(blocks, "energy_spectrum", chosen, starts, count)):
        windows = [
            run[:, i * length : (i + 1) * length].mean((0, 1)) for i in range(skip, max(skip + 1, count // length))
        ]
        worst.append(spectrum_error(np.stack(windows), truth[draw], shells).max(0))
    return xr.DataArray(np.stack(worst), dims=("resample", "layer"))
