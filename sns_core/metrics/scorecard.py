"""The scorecard: every method by the same scores, each with its interval, beside what the solver gives against itself.

A rollout is cut into stretches of one member and one window of steps; each is reduced to means (of spectra, shares of
histogram bins, energies and their squares, C(tau), …) over the blocks in which the member was not lost yet. Every score is a
function of the mean over all stretches and of the solver's own means; drawing stretches with replacement, and whole
members of the solver's ensemble, gives the intervals (see `bootstrap`).

The floor is the score of one half of the solver's ensemble against the other, two sets of members that share no initial
state: the solver's own rollout, which may be longer or shorter than a method's, against those trajectories of the test split
from which no rollout starts. Where rollouts start from all of them, the first half of the rollouts' members stand
against the test trajectories of the second half.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sns_core.files import missing, whole_file
from sns_core.metrics.bootstrap import in_stretches, interval, pooled, resampling_weights
from sns_core.metrics.distances import decorrelation_time, estimated_levels, spectrum_error, wasserstein
from sns_core.metrics.ensembles import ensemble_scores
from sns_core.metrics.lost import count_lost, is_alive, is_lost, steps_alive
from sns_core.metrics.zonal import SILENT, zonal_blocks, zonal_variance

BLOCKS = ("energy_spectrum", "correlation", "zonal_profile", "vorticity_counts", "velocity_counts", "gradient_counts")
STEPS = ("kinetic_energy", "enstrophy", "rate_of_change", "relative_change", "levels", "calls")

# Score -> (title, units, what a perfect method gets: 0, 1, or nothing to say).
SCORES = {
    "spectrum_error": ("Spectrum error (decades)", "decades", 0.0),
    "vorticity_distance": ("Vorticity, W₁ (σ)", "standard deviations", 0.0),
    "velocity_distance": ("Velocity, W₁ (rms)", "root mean square", 0.0),
    "gradient_distance": ("Vorticity gradient, W₁ (rms)", "root mean square", 0.0),
    "kinetic_energy": ("Kinetic energy / solver", "1", 1.0),
    "kinetic_energy_variance": ("… its variance / solver", "1", 1.0),
    "enstrophy": ("Enstrophy / solver", "1", 1.0),
    "enstrophy_variance": ("… its variance / solver", "1", 1.0),
    "zonal_error": ("Zonal-mean flow, error (rms)", "root mean square of a velocity component", 0.0),
    "zonal_strength": ("… its strength / solver", "1", 1.0),
    "zonal_variance": ("… its variance / solver", "1", 1.0),
    "decorrelation_time": ("Decorrelation time / solver", "1", 1.0),
    "correlation_error": ("Error of C(τ)", "1", 0.0),
    "rate_error": ("Error of R(t) / solver", "1", 0.0),
    "rate_of_change": ("Mean of R(t) / solver", "1", 1.0),
    "relative_change": ("Change a step / solver", "1", 1.0),
    "stability_horizon": ("Stability horizon (steps)", "steps", None),
    "refined_share": ("Share of steps refined", "1", None),
    "level_previous": ("Estimated level, previous frame", "level", None),
    "level_next": ("Estimated level, next frame", "level", None),
    "calls_per_step": ("Denoiser calls a step", "calls", None),
    "seconds_per_step": ("Seconds a step, all members", "s", None),
    "crps": ("CRPS of ensemble forecasts (σ)", "standard deviations", 0.0),
    "spread_skill": ("Spread / error of ensemble forecasts", "1", 1.0),
}


# What a rollout and the solver's ensemble are reduced to


def stretches(result: xr.Dataset, known: xr.Dataset, window: int) -> xr.Dataset:
    """Means over stretches of `window` steps of a member, (unit, ...), as `pooled` wants them.

    result: a method's series and blocks, as `compute_metrics` writes them; known: what the solver's ensemble gives, for R(t).
    Blocks from the one on in which a member is lost are left out.
    """
    length = int(result["block"][0])
    blocks = result[list(BLOCKS)].astype(float)
    for name in BLOCKS:
        if name.endswith("_counts"):
            blocks[name] = blocks[name] / blocks[name].sum("bin")
    series = result[list(STEPS)].astype(float)
    for name in ("kinetic_energy", "enstrophy"):
        series[f"{name}_square"] = series[name] ** 2
    series["refined_share"] = (series["calls"] > 0).astype(float)
    series["levels"] = estimated_levels(series["levels"])
    series = series.coarsen(step=length).mean().rename(step="block").assign_coords(block=result["block"])
    series["rate_error"] = abs(series["rate_of_change"] / known["rate_of_change"].mean("member") - 1)
    living = is_alive(result["lost_step"], result["block"])
    every = xr.merge([blocks, series, zonal_blocks(result)], join="exact", compat="override")
    return in_stretches(every, living, window)


def solver_members(known: xr.Dataset) -> xr.Dataset:
    """The solver's ensemble, a unit a member, under the names of `stretches`."""
    units = known.rename(member="unit", zonal_velocity="zonal_profile", zonal_velocity_square="zonal_square").drop_vars(
        "map"
    )
    units["zonal_mean"] = units["zonal_profile"]
    for name in BLOCKS:
        if name.endswith("_counts"):
            units[name] = units[name] / units[name].sum("bin")
    return units.assign(size=("unit", np.ones(units.sizes["unit"])))


# The scores


def scores(mine: xr.Dataset, solver: xr.Dataset, shells: tuple[int, int]) -> xr.Dataset:
    """Scores (resample[, layer]) of pooled means against the solver's."""
    found = {
        "spectrum_error": xr.apply_ufunc(
            lambda one, other: spectrum_error(one, other, shells), mine["energy_spectrum"], solver["energy_spectrum"],
            input_core_dims=[["wavenumber"]] * 2,
        ),
        "zonal_error": np.sqrt(((mine["zonal_profile"] - solver["zonal_profile"]) ** 2).mean("y"))
        / np.sqrt(solver["kinetic_energy"]),
        "decorrelation_time": _halved(mine["correlation"]) / _halved(solver["correlation"]),
        "correlation_error": abs(mine["correlation"] - solver["correlation"]).mean("lag"),
        "rate_error": mine["rate_error"],
        "level_previous": mine["levels"].isel(frame=0), "level_next": mine["levels"].isel(frame=1),
        "refined_share": mine["refined_share"], "calls_per_step": mine["calls"],
    }  # fmt: skip
    # Frames without their zonal mean hold rounding errors of it, which have no ratio.
    strength = np.sqrt((solver["zonal_profile"] ** 2).mean("y"))
    shown = strength > SILENT * np.sqrt(2 * solver["kinetic_energy"])
    found["zonal_strength"] = np.sqrt((mine["zonal_profile"] ** 2).mean("y")) / strength.where(shown)
    found["zonal_variance"] = zonal_variance(mine).mean("y") / zonal_variance(solver).mean("y").where(shown)
    for name in ("vorticity", "velocity", "gradient"):
        counts = f"{name}_counts"
        found[f"{name}_distance"] = xr.apply_ufunc(
            wasserstein, mine[counts], solver[counts], input_core_dims=[["bin"]] * 2
        )
    for name in ("kinetic_energy", "enstrophy", "rate_of_change", "relative_change"):
        found[name] = mine[name] / solver[name]
    for name in ("kinetic_energy", "enstrophy"):
        one, other = (source[f"{name}_square"] - source[name] ** 2 for source in (mine, solver))
        found[f"{name}_variance"] = one / other
    return xr.Dataset(found)


def _halved(correlation: xr.DataArray) -> xr.DataArray:
    return xr.apply_ufunc(
        decorrelation_time, correlation["lag"], correlation, input_core_dims=[["lag"]] * 2, vectorize=True
    )


def horizon(lost_step: np.ndarray, steps: int) -> np.ndarray:
    """Steps that a member lives on average, (1 + RESAMPLES,), of those that lost_step (member,) tells, -1 for none."""
    lived = steps_alive(lost_step, steps)
    weights = resampling_weights(np.ones(len(lived)))
    return weights @ lived / weights.sum(1)


def seconds_per_step(seconds: np.ndarray, block: int) -> np.ndarray:
    """Wall time of a step, (1 + RESAMPLES,), from that of each block of so many steps."""
    weights = resampling_weights(np.ones(len(seconds)))
    return weights @ seconds / weights.sum(1) / block


def _rollout_scores(result: xr.Dataset, known: xr.Dataset, window: int, shells: tuple[int, int]) -> xr.Dataset:
    """All that a rollout tells of itself, against the solver's ensemble `known`."""
    mine = pooled(stretches(result, known, window))
    found = scores(mine, pooled(solver_members(known), seed=1), shells)
    found["stability_horizon"] = ("resample", horizon(result["lost_step"].values, result.sizes["step"]))
    seconds = np.atleast_1d(result.attrs["seconds_of_blocks"])
    found["seconds_per_step"] = ("resample", seconds_per_step(seconds, int(result["block"][0])))
    return found


def halves(result: xr.Dataset, known: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """The two halves of the solver's ensemble that give the floor: (rollout, trajectories of the test split)."""
    rolled = result["member"].values
    others = np.setdiff1d(np.arange(known.sizes["member"]), rolled)
    if len(others) > 1:
        return result, known.isel(member=others)
    cut = -(-len(rolled) // 2)
    return result.isel(member=slice(cut)), known.isel(member=rolled[cut:])


def forecast_scores(forecast: xr.Dataset, truth: xr.DataArray) -> xr.Dataset:
    """Scores (resample, lead, layer) of an ensemble forecast, over its starts."""
    leads = np.intersect1d(forecast["lead"], truth["lead"])
    each = ensemble_scores(forecast["forecast"].sel(lead=leads), truth.sel(lead=leads)).rename(start="unit")
    # What is not finite at one start has no mean over the starts: `pooled` would leave it out.
    each = each.where(np.isfinite(each).all("unit"))
    means = pooled(each.assign(size=("unit", np.ones(each.sizes["unit"]))))
    ratio = np.sqrt(means["variance"] / means["squared_error"].where(means["squared_error"] > 0))
    return xr.Dataset({"crps": means["crps"], "spread_skill": ratio})


# The table


def read_scorecard(path: Path) -> pd.DataFrame:
    """The table of `score_methods`; layer "" and lead NaN where a score has none. UserError where it is missing."""
    if not Path(path).exists():
        raise missing(Path(path))
    table = pd.read_csv(path, dtype={"layer": str})
    return table.assign(layer=table["layer"].fillna(""))


def _rows(found: xr.Dataset) -> pd.DataFrame:
    """A row a score, layer and lead, with value and interval."""
    rows = []
    for name, values in found.items():
        others = [d for d in values.dims if d != "resample"]
        values = values.transpose("resample", *others)
        triple = interval(values.values, "ratio" if SCORES[name][2] == 1.0 else "positive")
        for index in np.ndindex(values.shape[1:]):
            place = {d: values[d].values[i] for d, i in zip(others, index, strict=True)}
            value, low, high = (float(part[index]) for part in triple)
            rows.append({"score": name, "layer": place.get("layer", ""), "lead": place.get("lead", -1),
                         "value": value, "low": low, "high": high})  # fmt: skip
    return pd.DataFrame(rows)


def score_methods(
    *, metrics: list[Path], ensembles: list[Path], reference: Path, system: str, window: int, shells: list, output: Path,
) -> None:  # fmt: skip
    """Write the scorecard of a system, one row a method, score, layer and lead.

    `metrics`: results of `compute_metrics`, the solver's among them; `ensembles`: those of `rollout_ensemble`, the
    solver's among them (a method without one has no scores of forecasts); `window`: steps that are drawn as one;
    `shells`: first and last shell of the spectrum error. Columns: value, low and high (interval of 90 %), the same of the
    floor, units, what a perfect method would have (ideal), members lost and share of the steps that count.
    """
    with xr.set_options(arithmetic_join="exact"):
        _write(*_tables(metrics, ensembles, reference, window, tuple(shells)), system, output)


def _tables(metrics, ensembles, reference, window, shells) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of all methods, and those of the floor."""
    known = xr.open_dataset(reference).load()
    forecasts = {found.attrs["method"]: found for found in map(xr.load_dataset, ensembles)}
    tables, floor = [], None
    for path in metrics:
        with xr.open_dataset(path) as opened:
            result = opened[[*BLOCKS, *STEPS, "zonal_velocity", "lost_step"]].load()
        name = result.attrs["method"]
        found = [_rows(_rollout_scores(result, known, window, shells))]
        if name in forecasts:
            found.append(_rows(forecast_scores(forecasts[name], forecasts["solver"]["truth"])))
        if name == "solver":
            part, others = halves(result, known)
            floor = pd.concat([_rows(_rollout_scores(part, others, window, shells)), *found[1:]])
        lost, block = result["lost_step"].values, int(result["block"][0])
        lived = steps_alive(lost, result.sizes["step"])
        counted = np.where(is_lost(lost), lived // block * block, lived)  # a block with a lost step counts nowhere
        tables.append(
            pd.concat(found).assign(
                method=name,
                members_lost=count_lost(lost),
                members=result.sizes["member"],
                counted=float(counted.mean() / result.sizes["step"]),
            )
        )
    return pd.concat(tables), floor


def _write(table: pd.DataFrame, floor: pd.DataFrame, system: str, output: Path) -> None:
    place = ["score", "layer", "lead"]
    without = [name for name, (_, _, ideal) in SCORES.items() if ideal is None and name != "stability_horizon"]
    floor = floor[~floor["score"].isin(without)]
    names = {name: f"floor_{name}" for name in ("low", "high")} | {"value": "floor"}
    table = table.merge(floor.rename(columns=names), on=place, how="left").assign(system=system)
    table["units"] = [SCORES[score][1] for score in table["score"]]
    table["ideal"] = [SCORES[score][2] for score in table["score"]]
    order = {method: index for index, method in enumerate(dict.fromkeys(table["method"]))}
    rank = {score: index for index, score in enumerate(SCORES)}
    table = table.sort_values(
        ["method", "score", "lead"], kind="stable",
        key=lambda column: column.map(order if column.name == "method" else rank) if column.name != "lead" else column,
    )  # fmt: skip
    table["lead"] = [lead if lead >= 0 else "" for lead in table["lead"]]
    columns = ["system", "method", "score", "layer", "lead", "value", "low", "high", "floor", "floor_low", "floor_high",
               "ideal", "units", "members_lost", "members", "counted"]  # fmt: skip
    with whole_file(output) as temporary:
        table[columns].to_csv(temporary, index=False)
