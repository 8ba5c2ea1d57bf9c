"""The scorecard: every method by the same scores, each with its interval and the floor of runs of its size.

A rollout is cut into stretches of one member and one window of steps. Each stretch is reduced to means (of spectra,
shares of histogram bins, energies and their squares, C(tau), ...) over the blocks in which the member is alive. Every
score is a function of the mean over all stretches and of the means of the solver's members. Stretches are drawn with
replacement, and so are whole members of the solver's ensemble, which gives the intervals (see `bootstrap`; those of
distances come from the difference of two curves). Scores of the mean flow come from products of different members, with
the interval of a jackknife over members (see `zonal`).

The floor of a score is the band of what runs of the solver of the same members and steps score (see `floors`).
Forecasts are no such runs: their floor is the interval of the solver's own forecasts, which start at the same states.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sns_core.files import missing, whole_file
from sns_core.metrics.bootstrap import (
    distance_interval,
    in_stretches,
    interval,
    pooled,
    pooled_products,
    resampling_weights,
)
from sns_core.metrics.distances import (
    correlation_pairs,
    cumulative_difference,
    decorrelation_time,
    estimated_levels,
    log_ratio,
    spectrum_error,
    worst_window,
)
from sns_core.metrics.ensembles import ensemble_scores
from sns_core.metrics.floor_table import bands_of, inside, probability, read_floors
from sns_core.metrics.lost import count_lost, is_alive, is_lost, is_out_of_range, steps_alive
from sns_core.metrics.zonal import NO_VELOCITY, SILENT, Profiles, mean_flow_scores, zonal_variance

BLOCKS = ("energy_spectrum", "correlation", "zonal_profile", "zonal_square", "zonal_direction", "vorticity_counts", "velocity_counts",
          "gradient_counts")  # fmt: skip
STEPS = ("kinetic_energy", "enstrophy", "rate_of_change", "relative_change", "levels", "calls")

# Score -> (title, units, the value of a perfect method: 0, 1, or None).
SCORES = {
    "spectrum_error": ("Spectrum error (decades)", "decades", 0.0),
    "worst_window_spectrum_error": ("… of the worst window", "decades", 0.0),
    "vorticity_distance": ("Vorticity, W₁ (σ)", "standard deviations", 0.0),
    "velocity_distance": ("Velocity, W₁ (rms)", "root mean square", 0.0),
    "gradient_distance": ("Vorticity gradient, W₁ (rms)", "root mean square", 0.0),
    "kinetic_energy": ("Kinetic energy / solver", "1", 1.0),
    "kinetic_energy_variance": ("… its variance / solver", "1", 1.0),
    "enstrophy": ("Enstrophy / solver", "1", 1.0),
    "enstrophy_variance": ("… its variance / solver", "1", 1.0),
    "zonal_error": ("Zonal-mean flow, error (rms)", "root mean square of a velocity component", 0.0),
    "zonal_strength": ("… its strength / solver", "1", 1.0),
    "zonal_amplitude": ("… its share along the solver's", "1", 1.0),
    "zonal_variance": ("… its variance / solver", "1", 1.0),
    "decorrelation_time": ("Decorrelation time / solver", "1", 1.0),
    "correlation_error": ("Error of C(τ)", "1", 0.0),
    "fluctuation_time": ("Decorrelation time of fluctuations / solver", "1", 1.0),
    "fluctuation_error": ("Error of C(τ) of fluctuations", "1", 0.0),
    "rate_error": ("Error of R(t) / solver", "1", 0.0),
    "rate_of_change": ("Mean of R(t) / solver", "1", 1.0),
    "relative_change": ("Change per step / solver", "1", 1.0),
    "stability_horizon": ("Stability horizon (steps)", "steps", None),
    "out_of_range": ("Share of steps out of the solver's range", "1", 0.0),
    "refined_share": ("Share of steps refined", "1", None),
    "level_previous": ("Estimated level, previous frame", "level", None),
    "level_next": ("Estimated level, next frame", "level", None),
    "calls_per_step": ("Network calls per step, besides the surrogate's", "calls", None),
    "seconds_per_step": ("Seconds per step, all members", "s", None),
    "crps": ("CRPS of ensemble forecasts (σ)", "standard deviations", 0.0),
    "spread_skill": ("Spread / error of ensemble forecasts", "1", 1.0),
}
# Score -> the axis of the curves whose mean absolute difference it is.
DISTANCES = {
    "spectrum_error": "wavenumber", "vorticity_distance": "bin", "velocity_distance": "bin", "gradient_distance": "bin",
    "correlation_error": "lag", "fluctuation_error": "lag",
}  # fmt: skip
SIGNED = ("zonal_error", "zonal_strength", "zonal_amplitude")  # scores that may be negative, with linear intervals
# Scores of 0 whose floor has two ends. The solver's own blocks scatter, so an error of R(t) below its floor is a flow that
# is too steady.
TWO_SIDED = (*SIGNED, "rate_error")
# Scores of a velocity. Where a flow has none, a channel stands for it, and they would repeat those of the channel.
OF_VELOCITY = ("velocity_distance", "kinetic_energy", "kinetic_energy_variance", "zonal_error", "zonal_strength",
               "zonal_amplitude", "zonal_variance")  # fmt: skip
SHARES = ("out_of_range", "refined_share")  # scores from 0 to 1


# The means of a rollout and of the solver's ensemble


def stretches(result: xr.Dataset, ensemble: xr.Dataset, window: int) -> xr.Dataset:
    """Return means over stretches of `window` steps of a member, (unit, ...), the form that `pooled` takes.

    result: a method's series and blocks from `compute_metrics`; ensemble: result of `compute_reference`, for R(t) and
    the solver's range. Blocks from the one on in which a member is lost are left out.
    """
    parts = block_means(result, float(ensemble["rate_of_change"].mean()), is_out_of_range(result, ensemble))
    return in_stretches(parts, is_alive(result["lost_step"], result["block"]), window)


def block_means(result: xr.Dataset, rate: float, outside: xr.DataArray | None = None) -> xr.Dataset:
    """Return the means over each block of steps, (member, block, ...), that all scores of a rollout come from.

    rate: the solver's mean R(t); outside: True at the steps (member, step) out of the solver's range.
    """
    length = int(result["block"][0])
    blocks = result[list(BLOCKS)].astype(float)
    for name in BLOCKS:
        if name.endswith("_counts"):
            blocks[name] = blocks[name] / blocks[name].sum("bin")
    # The first blocks hold fewer pairs of frames at long lags than later ones, so means over blocks are weighted.
    pairs = xr.Variable(("block", "lag"), correlation_pairs(result["block"].values, result["lag"].values).astype(float))
    blocks["correlation_pairs"] = pairs
    blocks["correlation"] = xr.where(blocks["correlation_pairs"] > 0, blocks["correlation"] * pairs, 0.0)
    series = result[list(STEPS)].astype(float)
    for name in ("kinetic_energy", "enstrophy"):
        series[f"{name}_square"] = series[name] ** 2
    series["refined_share"] = (series["calls"] > 0).astype(float)
    series["levels"] = estimated_levels(series["levels"])
    if outside is not None:
        series["out_of_range"] = outside.astype(float)
    series = series.coarsen(step=length).mean().rename(step="block").assign_coords(block=result["block"])
    series["rate_error"] = abs(series["rate_of_change"] / rate - 1)
    blocks["zonal_mean"] = blocks["zonal_profile"]
    return xr.merge([blocks, series], join="exact", compat="override")


def solver_members(ensemble: xr.Dataset) -> xr.Dataset:
    """Return the solver's ensemble, one unit per member, under the names of `stretches`."""
    units = ensemble.rename(member="unit", zonal_velocity="zonal_profile", zonal_velocity_square="zonal_square")
    units = units.drop_vars("map")
    units["zonal_mean"] = units["zonal_profile"]
    units["correlation_pairs"] = xr.ones_like(units["correlation"])  # as many at each lag
    for name in BLOCKS:
        if name.endswith("_counts"):
            units[name] = units[name] / units[name].sum("bin")
    count = units.sizes["unit"]
    return units.assign(size=("unit", np.ones(count)), source=("unit", np.arange(count)))


def profiles(result: xr.Dataset) -> Profiles:
    """Return the mean profile of the zonal-mean velocity of each member, over the blocks before it is lost."""
    living = is_alive(result["lost_step"], result["block"]).transpose("member", "block")
    blocks = living.sum("block").values
    means = result["zonal_profile"].astype(float).where(living).mean("block").transpose("member", "layer", "y").values
    alive = blocks > 0
    return Profiles(means[alive], blocks[alive].astype(float), result["member"].values[alive])


def solver_profiles(ensemble: xr.Dataset) -> Profiles:
    """Return the mean profile of each member of the solver's ensemble."""
    means = ensemble["zonal_velocity"].astype(float).transpose("member", "layer", "y").values
    numbers = ensemble["member"].values if "member" in ensemble.coords else np.arange(len(means))
    return Profiles(means, np.ones(len(means)), numbers)


# The scores


def differences(mine: xr.Dataset, solver: xr.Dataset, shells: tuple[int, int]) -> xr.Dataset:
    """Return the differences (resample[, layer], axis) of pooled curves, whose mean absolute values are the distances.

    The axis of each is that of `DISTANCES`: shells of the spectrum in decades, bins of cumulative distributions, lags
    of C(tau).
    """

    def compare(function, name: str, axis: str) -> xr.DataArray:
        axes = {"input_core_dims": [[axis]] * 2, "output_core_dims": [[axis]], "exclude_dims": {axis}}
        return xr.apply_ufunc(function, mine[name], solver[name], **axes)

    curves = {
        f"{name}_distance": compare(cumulative_difference, f"{name}_counts", "bin")
        for name in ("vorticity", "velocity", "gradient")
    }
    curves["spectrum_error"] = compare(
        lambda energy, reference: log_ratio(energy, reference, shells), "energy_spectrum", "wavenumber"
    )
    correlations = _correlations(mine, solver)
    curves |= {f"{name}_error": left - right for name, (left, right) in correlations.items()}
    return xr.Dataset(curves)


def _correlations(mine: xr.Dataset, solver: xr.Dataset) -> dict[str, tuple[xr.DataArray, xr.DataArray]]:
    """Return C(tau) of both, (resample, lag), as it is and, where the constant part is known, of fluctuations."""
    whole = tuple(source["correlation"] / source["correlation_pairs"] for source in (mine, solver))
    if "constant" not in mine or "constant" not in solver:
        return {"correlation": whole}
    parts = zip(whole, (mine["constant"], solver["constant"]), strict=True)
    return {"correlation": whole, "fluctuation": tuple((c - m) / (1 - m) for c, m in parts)}


def scores(mine: xr.Dataset, solver: xr.Dataset, shells: tuple[int, int]) -> xr.Dataset:
    """Return scores (resample[, layer]) of pooled means against the solver's."""
    times = {"correlation": "decorrelation_time", "fluctuation": "fluctuation_time"}
    values = {name: abs(curve).mean(DISTANCES[name]) for name, curve in differences(mine, solver, shells).items()}
    values |= {
        times[name]: _halved(left) / _halved(right) for name, (left, right) in _correlations(mine, solver).items()
    }
    values |= {
        "rate_error": mine["rate_error"],
        "level_previous": mine["levels"].isel(frame=0),
        "level_next": mine["levels"].isel(frame=1),
        "refined_share": mine["refined_share"],
        "calls_per_step": mine["calls"],
    }
    if "out_of_range" in mine:
        values["out_of_range"] = mine["out_of_range"]
    shown = _has_mean_flow(solver)
    values["zonal_variance"] = zonal_variance(mine).mean("y") / zonal_variance(solver).mean("y").where(shown)
    for name in ("kinetic_energy", "enstrophy", "rate_of_change", "relative_change"):
        values[name] = mine[name] / solver[name]
    for name in ("kinetic_energy", "enstrophy"):
        variances = [source[f"{name}_square"] - source[name] ** 2 for source in (mine, solver)]
        values[f"{name}_variance"] = variances[0] / variances[1]
    return xr.Dataset(values)


def _has_mean_flow(solver: xr.Dataset) -> xr.DataArray:
    """Return False where frames without their zonal mean hold only rounding errors of it, which have no ratio."""
    strength = np.sqrt((solver["zonal_profile"] ** 2).mean("y"))
    return strength > SILENT * np.sqrt(2 * solver["kinetic_energy"])


def _halved(correlation: xr.DataArray) -> xr.DataArray:
    return xr.apply_ufunc(
        decorrelation_time, correlation["lag"], correlation, input_core_dims=[["lag"]] * 2, vectorize=True
    )


def horizon(lost_step: np.ndarray, steps: int) -> np.ndarray:
    """Return how many of `steps` a member is alive on average, (1 + RESAMPLES,); lost_step: (member,)."""
    lived = steps_alive(lost_step, steps)
    weights = resampling_weights(np.ones(len(lived)))
    return weights @ lived / weights.sum(1)


def seconds_per_step(seconds: np.ndarray, block: int) -> np.ndarray:
    """Return the wall seconds of a step, (1 + RESAMPLES,); `seconds` (block,): those of each block of `block` steps."""
    weights = resampling_weights(np.ones(len(seconds)))
    return weights @ seconds / weights.sum(1) / block


def _rollout_scores(result: xr.Dataset, ensemble: xr.Dataset, window: int, shells: tuple[int, int]) -> pd.DataFrame:
    """Return the rows of all scores of a rollout against the solver's ensemble."""
    members, seconds = solver_members(ensemble), np.atleast_1d(result.attrs["seconds_of_blocks"])
    run = {
        "stability_horizon": horizon(result["lost_step"].values, result.sizes["step"]),
        "seconds_per_step": seconds_per_step(seconds, int(result["block"][0])),
    }
    of_run = _rows(xr.Dataset({name: ("resample", values) for name, values in run.items()}))
    longest = of_run["high"].clip(upper=result.sizes["step"])  # no member lives longer than the run
    of_run["high"] = longest.where(of_run["score"] == "stability_horizon", of_run["high"])
    shown = _has_mean_flow(members.mean("unit"))
    energy = ensemble["kinetic_energy"].mean("member").values
    return pd.concat([
        score_stretches(stretches(result, ensemble, window), members, shells),
        of_run,
        _worst_window_rows(result, ensemble, window, shells),
        _mean_flow_rows(profiles(result), solver_profiles(ensemble), energy, shown),
    ])  # fmt: skip


def score_stretches(parts: xr.Dataset, members: xr.Dataset, shells: tuple[int, int]) -> pd.DataFrame:
    """Return the rows of all scores that come from means.

    parts: of a method, as `stretches` returns them; members: of the solver, as `solver_members` returns them.
    """
    mine, solver = pooled(parts), pooled(members, seed=1)
    if "zonal_direction" in members:
        mine["constant"] = "resample", pooled_products(parts, "zonal_direction")
        solver["constant"] = "resample", pooled_products(members, "zonal_direction", seed=1)
    return _rows(scores(mine, solver, shells), differences(mine, solver, shells))


def _worst_window_rows(result: xr.Dataset, ensemble: xr.Dataset, window: int, shells: tuple[int, int]) -> pd.DataFrame:
    """Return the largest `window_spectrum_error` of a rollout per layer; it has no interval, but a floor."""
    spectra = result["energy_spectrum"].mean("member", skipna=False).transpose("block", "layer", "wavenumber")
    length = min(window // int(result["block"][0]), spectra.sizes["block"])
    windows = spectra.coarsen(block=length, boundary="trim").reduce(np.mean).values
    truth = ensemble["energy_spectrum"].mean("member").transpose("layer", "wavenumber").values
    errors = worst_window(spectrum_error(windows, truth, shells))
    rows = {"score": "worst_window_spectrum_error", "layer": ensemble["layer"].values, "lead": -1, "value": errors}
    return pd.DataFrame({**rows, "low": np.nan, "high": np.nan})


def _mean_flow_rows(mine: Profiles, solver: Profiles, energy: np.ndarray, shown: xr.DataArray) -> pd.DataFrame:
    rows = []
    for name, triple in mean_flow_scores(mine, solver, energy).items():
        for layer, label in enumerate(shown["layer"].values):
            ratio = SCORES[name][2] == 1.0 and not bool(shown[layer])
            value, low, high = (np.nan if ratio else float(part[layer]) for part in triple)
            rows.append({"score": name, "layer": label, "lead": -1, "value": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def forecast_scores(forecast: xr.Dataset, truth: xr.DataArray) -> xr.Dataset:
    """Return scores (resample, lead, layer) of an ensemble forecast, over its starts.

    "crps" is the mean of the fair score. "spread_skill" is sqrt(variance / squared_error), both freed of the number of
    members (see `ensemble_scores`): 1 for a perfect ensemble. It equals the usual sqrt((M + 1) / M) spread / error at 1
    only.
    """
    leads = np.intersect1d(forecast["lead"], truth["lead"])
    starts = ensemble_scores(forecast["forecast"].sel(lead=leads), truth.sel(lead=leads)).rename(start="unit")
    # A score that is not finite at some start has no mean over the starts, and `pooled` would leave that start out.
    starts = starts.where(np.isfinite(starts).all("unit"))
    means = pooled(starts.assign(size=("unit", np.ones(starts.sizes["unit"]))))
    ratio = np.sqrt(means["variance"] / means["squared_error"].where(means["squared_error"] > 0))
    return xr.Dataset({"crps": means["crps"], "spread_skill": ratio})


# The table


def read_scorecard(path: Path) -> pd.DataFrame:
    """Return the table of `score_methods`, with layer "" and lead NaN where a score has none.

    Raises UserError where the file is missing.
    """
    if not Path(path).exists():
        raise missing(Path(path))
    table = pd.read_csv(path, dtype={"layer": str, "inside": "boolean"})
    return table.assign(layer=table["layer"].fillna(""))


def with_intervals(values: xr.Dataset, curves: xr.Dataset | None = None) -> xr.Dataset:
    """Return scores (resample, ...) as (end, ...): their value, low and high.

    Curves: the `differences` of distances.
    """
    ends = {}
    for name, score in values.items():
        axes = [d for d in score.dims if d != "resample"]
        kind = "share" if name in SHARES else "ratio" if SCORES[name][2] == 1.0 else "positive"
        if name in DISTANCES:
            triple = distance_interval(curves[name].transpose("resample", *axes, DISTANCES[name]).values)
        else:
            triple = interval(score.transpose("resample", *axes).values, kind)
        ends[name] = ("end", *axes), np.stack(triple)
    return xr.Dataset(ends, {"end": ["value", "low", "high"], **values.drop_vars("resample", errors="ignore").coords})


def _rows(values: xr.Dataset, curves: xr.Dataset | None = None) -> pd.DataFrame:
    """Return one row per score, layer and lead, with value and interval; curves: the `differences` of distances."""
    rows = []
    for name, score in with_intervals(values, curves).items():
        axes = [d for d in score.dims if d != "end"]
        for index in np.ndindex(score.shape[1:]):
            place = {d: score[d].values[i] for d, i in zip(axes, index, strict=True)}
            value, low, high = (float(end) for end in score.values[(slice(None), *index)])
            rows.append({"score": name, "layer": place.get("layer", ""), "lead": place.get("lead", -1),
                         "value": value, "low": low, "high": high})  # fmt: skip
    return pd.DataFrame(rows)


def score_methods(
    *,
    metrics: list[Path],
    ensembles: list[Path],
    reference: Path,
    floors: Path,
    system: str,
    window: int,
    shells: list,
    output: Path,
) -> None:
    """Write the scorecard of a system, one row per method, score, layer and lead.

    `metrics`: results of `compute_metrics`, the solver's among them; `ensembles`: those of `rollout_ensemble`, the
    solver's among them (a method without one has no scores of forecasts; recorded trajectories in the solver's place
    hold the truth, and give forecasts no floor); `reference`: result of `compute_reference`; `floors`: result of
    `draw_floors`; `system`: its name; `window`: steps that are drawn as one; `shells`: first and last shell of the
    spectrum error. Columns: value, low and high (interval of 90 %), the ends of the floor and whether the value is
    inside, the probability that a run of the solver is at least as far off (p), units, the value of a perfect method
    (ideal), members lost, members, and the share of the steps that count.
    """
    with xr.set_options(arithmetic_join="exact"):
        _write(_tables(metrics, ensembles, reference, read_floors(floors), window, tuple(shells)), system, output)


def _tables(metrics, ensembles, reference, floors: pd.DataFrame, window, shells) -> pd.DataFrame:
    """Return the rows of all methods with their floors."""
    ensemble = xr.open_dataset(reference).load()
    forecasts = {forecast.attrs["method"]: forecast for forecast in map(xr.load_dataset, ensembles)}
    truth = forecasts["solver"].get("truth")
    scored = {
        name: _rows(forecast_scores(forecast, truth))
        for name, forecast in forecasts.items()
        if truth is not None and "forecast" in forecast
    }
    if "solver" in scored:
        of_forecasts = scored["solver"].rename(columns={"low": "floor_low", "high": "floor_high"}).drop(columns="value")
        scored = {
            name: rows.merge(of_forecasts, on=["score", "layer", "lead"], how="left") for name, rows in scored.items()
        }
    tables = []
    for path in metrics:
        with xr.open_dataset(path) as opened:
            result = opened[[*BLOCKS, *STEPS, "max_abs", "lost_step"]].load()
        name = result.attrs["method"]
        bands = bands_of(floors, result.sizes["member"], result.sizes["step"])
        rows = [_rollout_scores(result, ensemble, window, shells).merge(bands, on=["score", "layer"], how="left")]
        if name in scored:
            rows.append(scored[name])
        lost, block = result["lost_step"].values, int(result["block"][0])
        lived = steps_alive(lost, result.sizes["step"])
        counted = np.where(is_lost(lost), lived // block * block, lived)  # a block with a lost step counts nowhere
        tables.append(
            pd.concat(rows).assign(
                method=name,
                members_lost=count_lost(lost),
                members=result.sizes["member"],
                counted=float(counted.mean() / result.sizes["step"]),
            )
        )
    table = pd.concat(tables)
    return table[~table["score"].isin(OF_VELOCITY)] if ensemble.attrs.get("velocity") == NO_VELOCITY else table


def _write(table: pd.DataFrame, system: str, output: Path) -> None:
    table = table.assign(system=system, units=[SCORES[score][1] for score in table["score"]])
    table["ideal"] = [SCORES[score][2] for score in table["score"]]
    one_sided = (table["ideal"] == 0) & ~table["score"].isin(TWO_SIDED)
    table["inside"], table["p"] = inside(table, "value", one_sided), probability(table, "value", one_sided)
    order = {method: index for index, method in enumerate(dict.fromkeys(table["method"]))}
    rank = {score: index for index, score in enumerate(SCORES)}
    table = table.sort_values(
        ["method", "score", "lead"], kind="stable",
        key=lambda column: column.map(order if column.name == "method" else rank) if column.name != "lead" else column,
    )  # fmt: skip
    table["lead"] = [lead if lead >= 0 else "" for lead in table["lead"]]
    columns = ["system", "method", "score", "layer", "lead", "value", "low", "high", "floor_low", "floor_high", "inside", "p",
               "ideal", "units", "members_lost", "members", "counted"]  # fmt: skip
    with whole_file(output) as temporary:
        table[columns].to_csv(temporary, index=False)
