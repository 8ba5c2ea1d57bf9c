"""Floors as bands: the scores of solver runs that are as long, as many and as many windows as a method's.

A score of two samples of one law is not zero, and it depends on how long the samples are. So a method is compared with
runs of the solver itself: members and a stretch of time are drawn from a large stationary ensemble of the solver, and
scored against all other members. The floor of a score is the band from its 5 % to its 95 % quantile over the draws. A
method inside the band cannot be told from the solver by that score, and methods inside it must not be ranked.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sns_core.data.segments import open_segments
from sns_core.files import whole_file
from sns_core.metrics.bootstrap import weighted_means
from sns_core.metrics.distances import SKIPPED, spectrum_error, worst_window
from sns_core.metrics.floor_table import COLUMNS, QUANTILES
from sns_core.metrics.scorecard import block_means, scores
from sns_core.metrics.zonal import Profiles, mean_flow_squares, mean_flow_values, pair_mean

WITHOUT = ("level_previous", "level_next", "refined_share", "calls_per_step")  # the solver estimates and calls nothing


def draw_floors(*, ensemble: list[Path], members: int, steps: list, window: int, shells: list, output: Path) -> None:
    """Write the floors of all runs that a system's tables hold, one row per size, score and layer.

    Sizes are the runs of all members, each window of them, and the run of one member. Where rollouts have several
    members, only the spectra of one member have a floor. A size for which the ensemble is too small has one row without a
    band, whose column `reason` says why; the reason is printed, too.

    `ensemble`: segments of the reference ensemble (none: no band can be drawn). `members`: number of members of the
    rollouts. `steps`: numbers of steps of the rollouts. `window`: steps per window. `shells`: first and
    last shell of the spectrum error.
    """
    series = open_segments(ensemble)[1].load() if ensemble else None
    sizes = [(members, count) for count in sorted({*steps, *(min(window, count) for count in steps)})]
    sizes += [(1, count) for count in sorted(set(steps))]
    parts = [
        _floor_or_reason(series, *size, window, tuple(shells), only_spectra=size[0] != members)
        for size in dict.fromkeys(sizes)
    ]
    with whole_file(output) as temporary:
        pd.concat(parts).reindex(columns=list(COLUMNS)).to_csv(temporary, index=False)


def _floor_or_reason(
    series: xr.Dataset | None, members: int, steps: int, window: int, shells, only_spectra: bool
) -> pd.DataFrame:
    """Return the floor of runs of one size, or one row with the reason why there is none."""
    size = {"members": members, "steps": steps}
    try:
        if series is None:
            raise ValueError("this run has no reference ensemble (data.reference is null)")
        return floor_bands(series, members, steps, window, shells, only_spectra=only_spectra).assign(**size, reason="")
    except ValueError as error:
        print(f"floors: {error}", file=sys.stderr)
        return pd.DataFrame([{**size, "score": "", "layer": "", "reason": str(error)}])


def floor_bands(
    ensemble: xr.Dataset,
    members: int,
    steps: int,
    window: int,
    shells: tuple[int, int],
    *,
    draws: int = 200,
    seed: int = 0,
    skip: int = SKIPPED,
    only_spectra: bool = False,
) -> pd.DataFrame:
    """Return the floor of each score for runs of `members` members and `steps` steps, one row per score and layer.

    ensemble: series and blocks of many members of the solver, stationary from its first block on, as `compute_metrics`
    writes them; window: steps per window; skip: windows at the start of a run that the worst window leaves out, as for
    methods; shells: first and last shell of the spectrum error; only_spectra: the two spectrum errors alone. Columns:
    score, layer and QUANTILES. Raises ValueError where the ensemble is not at least twice as many members, or not as
    long, as the runs.
    """
    count, total = steps // int(ensemble["block"][0]), ensemble.sizes["block"]
    if 2 * members > ensemble.sizes["member"] or count > total:
        raise ValueError(
            f"{members} members of {steps} steps need an ensemble of at least {2 * members} members and {steps} "
            f"steps; it has {ensemble.sizes['member']} members and {ensemble.sizes['step']} steps"
        )
    chosen, starts = draw_runs(np.arange(ensemble.sizes["member"]), members, total - count, draws, seed)
    values = run_scores(ensemble, chosen, starts, steps, window, shells, skip=skip, only_spectra=only_spectra)
    rows = []
    for name, score in values.items():
        score = score if "layer" in score.dims else score.expand_dims(layer=[""])
        for layer in score["layer"].values:
            drawn = score.sel(layer=layer).values
            # A score that needs pairs of members has no value in a run of one member.
            drawn = drawn[~np.isnan(drawn)]
            quantiles = np.quantile(drawn, list(QUANTILES)) if len(drawn) else [np.nan] * len(QUANTILES)
            rows.append({"score": name, "layer": layer, **dict(zip(QUANTILES.values(), quantiles, strict=True))})
    return pd.DataFrame(rows)


def draw_runs(
    candidates: np.ndarray, members: int, latest: int, draws: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the members (draw, members) of each run, drawn from `candidates`, and its first block (draw,), at most
    `latest`."""
    rng = np.random.default_rng(seed)
    chosen = np.stack([rng.permutation(candidates)[:members] for _ in range(draws)])
    return chosen, rng.integers(0, latest + 1, draws)


def run_scores(
    ensemble: xr.Dataset,
    chosen: np.ndarray,
    starts: np.ndarray,
    steps: int,
    window: int,
    shells: tuple[int, int],
    *,
    skip: int = SKIPPED,
    reference: np.ndarray | None = None,
    only_spectra: bool = False,
) -> xr.Dataset:
    """Return the scores (resample[, layer]) of runs of an ensemble against its other members.

    ensemble, window, skip, shells, only_spectra: as for `floor_bands`; chosen: (draw, members), positions of the
    members of each run; starts: (draw,), first block of each; steps: of each run; reference: positions of the members
    that the runs are scored against, by default all members outside each run.
    """
    blocks = block_means(ensemble, float(ensemble["rate_of_change"].mean()))
    length, total = int(ensemble["block"][0]), ensemble.sizes["member"]
    count = steps // length
    inside, outside = np.zeros((len(chosen), total, blocks.sizes["block"])), np.zeros((len(chosen), total))
    left = [np.setdiff1d(np.arange(total) if reference is None else reference, rows) for rows in chosen]
    for draw, (rows, start) in enumerate(zip(chosen, starts, strict=True)):
        inside[draw, rows, start : start + count] = 1.0
        outside[draw, left[draw]] = 1.0
    runs = list(zip(chosen, left, starts, strict=True))
    used = blocks[["energy_spectrum"]] if only_spectra else blocks
    mine = weighted_means(used, xr.DataArray(inside, dims=("resample", "member", "block")))
    solver = weighted_means(used.mean("block"), xr.DataArray(outside, dims=("resample", "member")))
    spectra = [means["energy_spectrum"].transpose("resample", "layer", "wavenumber") for means in (mine, solver)]
    if only_spectra:
        values = xr.Dataset(
            {"spectrum_error": (("resample", "layer"), spectrum_error(*(s.values for s in spectra), shells))}
        )
        values = values.assign_coords(layer=blocks["layer"])
    else:
        mine["constant"], solver["constant"] = _constants(blocks, runs, count)
        values = scores(mine, solver, shells).drop_vars(WITHOUT, errors="ignore").merge(_mean_flow(blocks, runs, count))
        values["out_of_range"] = _out_of_range(ensemble, runs, length, count)
    worst = _worst_windows(blocks, spectra[1].values, runs, count, window // length, shells, skip)
    return values.assign(worst_window_spectrum_error=worst)


def _means_of_runs(blocks: xr.Dataset, name: str, runs: list, count: int):
    """Yield the block means (member, block, layer, ...) of each run, and the time means of its reference."""
    values = blocks[name].transpose("member", "block", "layer", ...).values
    means = np.nanmean(values, 1)
    for rows, left, start in runs:
        yield values[rows, start : start + count], means[left]


def _constants(blocks: xr.Dataset, runs: list, count: int) -> tuple[tuple, tuple]:
    """Return the constant part of C(tau) of each run and of its reference, from products of different members."""
    mine, solver = [], []
    for run, reference in _means_of_runs(blocks, "zonal_direction", runs, count):
        for target, profiles in ((mine, np.nanmean(run, 1)), (solver, reference)):
            flat = profiles.reshape(len(profiles), -1)
            target.append(pair_mean(flat, np.ones(len(flat))) * flat.shape[1])
    return ("resample", np.array(mine)), ("resample", np.array(solver))


def _mean_flow(blocks: xr.Dataset, runs: list, count: int) -> xr.Dataset:
    energy = blocks["kinetic_energy"].mean(("member", "block")).values
    values: dict[str, list] = {}
    means = _means_of_runs(blocks, "zonal_profile", runs, count)
    for (rows, left, _), (run, reference) in zip(runs, means, strict=True):
        mine = Profiles(run.mean(1), np.ones(len(rows)), rows)
        solver = Profiles(reference, np.ones(len(left)), left)
        for name, value in mean_flow_values(mean_flow_squares(mine, solver, energy)).items():
            values.setdefault(name, []).append(value)
    layers = {"layer": blocks["layer"]}
    return xr.Dataset({name: (("resample", "layer"), np.array(v)) for name, v in values.items()}, layers)


def _worst_windows(blocks, spectra: np.ndarray, runs, count: int, length: int, shells, skip: int) -> xr.DataArray:
    """Return the largest spectrum error of the windows of each run, (resample, layer); spectra: of their references."""
    worst = []
    for truth, (run, _) in zip(spectra, _means_of_runs(blocks, "energy_spectrum", runs, count), strict=True):
        means = [run[:, i * length : (i + 1) * length].mean((0, 1)) for i in range(max(1, count // length))]
        worst.append(worst_window(spectrum_error(np.stack(means), truth, shells), skip))
    return xr.DataArray(np.stack(worst), dims=("resample", "layer"))


def _out_of_range(ensemble: xr.Dataset, runs, length: int, count: int) -> xr.DataArray:
    """Return the share of the steps of each run that lie out of the range of the other members, (resample,)."""
    energy = ensemble["kinetic_energy"].transpose("member", "step", "layer").values
    peaks = ensemble["max_abs"].transpose("member", "step").values
    least, most, largest = energy.min(1), energy.max(1), peaks.max(1)
    shares = []
    for rows, left, start in runs:
        steps = slice(start * length, (start + count) * length)
        mine, peak = energy[rows, steps], peaks[rows, steps]
        inside = ((mine >= least[left].min(0)) & (mine <= most[left].max(0))).all(-1) & (peak <= largest[left].max())
        shares.append(1 - inside.mean())
    return xr.DataArray(shares, dims="resample")
