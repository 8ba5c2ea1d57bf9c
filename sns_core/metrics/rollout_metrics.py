"""The stage that holds one method's rollout against the solver: its series, and its table of windows."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr

from sns_core.data.attributes import write_described
from sns_core.data.segments import open_segments
from sns_core.device import use_threads
from sns_core.errors import DamagedFile, UserError
from sns_core.files import read_json, whole_file
from sns_core.metrics.bootstrap import distance_interval, resampling_weights
from sns_core.metrics.dask_backend import ONE_THREAD, computed_by, each
from sns_core.metrics.distances import log_ratio, share_at_the_ends, wasserstein
from sns_core.metrics.lost import count_lost
from sns_core.metrics.measures import COUNTED
from sns_core.metrics.reference import emulated_system
from sns_core.metrics.temporal import space_time_correlation
from sns_core.metrics.user_metrics import measured_by_user, window_means
from sns_core.systems import System

MAP_FRAMES = 600  # frames that C(r, tau) is taken over, at the start of a rollout and at its end
BESIDE_SOLVER = ("kinetic_energy", "enstrophy", "relative_change")  # means that stand in a window beside the solver's


def compute_metrics(
    *,
    segments: list[Path],
    solver: list[Path],
    reference: Path,
    manifest: Path,
    window: int,
    shells: list,
    map_lags: int,
    output: Path,
    output_windows: Path,
    user_metrics: list[str] = (),
    dask: dict = ONE_THREAD,
) -> None:
    """Compute the metrics of one method's rollout.

    `segments`: all segments of the rollout. `solver`: the segments of the solver's rollout from the same initial
    states, for the squared error. `reference`: result of `compute_reference`. `manifest`: the data manifest. `window`:
    number of steps per window. `shells`: first and last shell of the spectrum error. `map_lags`: number of lags of C(r,
    tau). `user_metrics`: the user's own metrics, as module.function. `output`: the netCDF file of all series, the mean
    squared error, the steps of loss, and the early and late C(r, tau). `output_windows`: the CSV file with one row per
    window and layer. `dask`: where dask computes, as the arguments of `computed_by`.
    """
    use_threads(1)
    with computed_by(**dask):
        try:
            system = emulated_system(read_json(manifest))
            result, table = _score(segments, solver, reference, manifest, window, tuple(shells), map_lags, user_metrics)
            title = f"{type(system).__name__}: metrics of the rollout of {result.attrs['method']}"
            write_described(result, system, output, title=title, stage="compute_metrics")
        except DamagedFile:
            raise
        except (RuntimeError, UserError) as error:  # netCDF4 raises RuntimeError for a checksum that does not hold
            if broken := _damaged([*segments, *solver]):
                raise DamagedFile(broken, "damaged data (a checksum in it does not hold)") from error
            raise
    with whole_file(output_windows) as temporary:
        table.to_csv(temporary, index=False)


def _damaged(paths: list[Path]) -> Path | None:
    """Return the first file with data that cannot be read."""
    for path in paths:
        try:
            with xr.open_dataset(path) as dataset:
                for name in dataset.variables:
                    for member in range(dataset.sizes["member"]):
                        dataset[name].isel(member=member, missing_dims="ignore").load()
        except (OSError, RuntimeError):
            return path
    return None


def _score(segments, solver, reference, manifest, window, shells, map_lags, user_metrics):
    """Return the series of a rollout, lazily, beside what they are compared to, and the table of windows."""
    content = read_json(manifest)
    system = emulated_system(content)
    frames, statistics = open_segments(segments, system.variable)
    truth, _ = open_segments(solver, system.variable)
    ensemble = xr.open_dataset(reference).load()
    block = int(statistics["block"][0])
    if window % block:
        raise UserError(f"metrics.window: {window} is not a multiple of rollout.block_steps {block}; take a multiple")
    window = min(window, statistics.sizes["step"])

    std = xr.DataArray(np.asarray(content["statistics"]["std"]), dims="layer")
    field = frames[system.variable]
    common = min(field.sizes["time"], truth.sizes["time"])
    difference = (field.isel(time=slice(common)) - truth[system.variable].isel(time=slice(common))) / std
    error = (difference**2).mean(("layer", "y", "x")).compute()
    result = statistics.assign(mse=error.reindex(time=field["time"]))  # NaN where the solver's rollout is shorter
    result["zonal_velocity"] = zonal_velocity(field, system).compute()
    result = result.assign(measured_by_user(user_metrics, field, system))
    span = min(max(map_lags + 2, common // 6), max(map_lags + 2, MAP_FRAMES))
    for name, part in (("map_early", slice(0, span)), ("map_late", slice(max(0, field.sizes["time"] - span), None))):
        chosen = (field.isel(time=part) / std).transpose(*field.dims)
        maps = each(_map_of_living, [(member, map_lags) for member in chosen.data])
        maps = [one_map for one_map in maps if one_map is not None]
        empty = np.full((map_lags + 1, chosen.shape[-1] // 2 + 1), np.nan)
        result[name] = ("map_lag", "distance"), np.mean(maps, 0) if maps else empty
    result = result.assign_coords(map_lag=ensemble["map_lag"], distance=ensemble["distance"])
    table = window_table(result, ensemble, window, shells, user_metrics, content["emulator"]["step"])
    return result, table.assign(method=statistics.attrs["method"])


def _map_of_living(frames: np.ndarray, lags: int) -> np.ndarray | None:
    """Return C(r, tau) of a member, or None where a value is not finite."""
    return space_time_correlation(frames, lags) if np.isfinite(frames).all() else None


def zonal_velocity(frames: xr.DataArray, system: System) -> xr.DataArray:
    """Return the mean over x of the velocity along x, (member, time, layer, y), lazily where the frames are lazy.

    frames: (member, time, layer, y, x) in the system's units.
    """

    def apply(block: np.ndarray) -> np.ndarray:
        u, _ = system.frame_velocity(torch.from_numpy(block).flatten(0, 1))
        return u.mean(-1).unflatten(0, block.shape[:2]).numpy()

    return xr.apply_ufunc(
        apply,
        frames.drop_vars(frames.coords),
        input_core_dims=[["layer", "y", "x"]],
        output_core_dims=[["layer", "y"]],
        dask="parallelized",
        output_dtypes=[frames.dtype],
    )


def window_table(
    result: xr.Dataset, ensemble: xr.Dataset, window: int, shells: tuple[int, int], user_metrics: list[str], step: float
) -> pd.DataFrame:
    """Return one row per window and layer, with the solver's means beside the method's.

    A row is over the steps of its window and over all members, lost ones included: NaN of one member is NaN of the row.
    `window_spectrum_error` is the spectrum error of the mean spectrum over the window and all members.
    `share_beyond_bins` is the largest share, over the three histograms, of values in their first and last bins. These
    bins hold all values beyond them, so the distances of the row are lower bounds where that share is not small, as in
    windows with lost members.
    """
    block = int(result["block"][0])
    # Blocks that are drawn together reach twice as far as C(tau) looks back.
    length, together = window // block, -(-2 * (result.sizes["lag"] - 1) // block)
    series = [*BESIDE_SOLVER, "calls"]
    # In double precision: a float32 sum of a million equal numbers is off by half a per cent.
    windows = result[series].astype(float).coarsen(step=window, boundary="trim").reduce(np.mean)
    means = windows.mean("member", skipna=False).compute()
    solver, rows = ensemble.mean("member"), []
    lost = result["lost_step"].values
    for index in range(means.sizes["step"]):
        blocks = result[["energy_spectrum", *(f"{name}_counts" for name in COUNTED)]]
        blocks = blocks.isel(block=slice(index * length, (index + 1) * length)).load()
        window_mean, stop = means.isel(step=index), (index + 1) * window
        user_means = window_means(result, user_metrics, (stop - window + 0.5) * step, (stop + 0.5) * step)
        for layer, label in enumerate(ensemble["layer"].values):
            truth, mean, part = (data.isel(layer=layer) for data in (solver, window_mean, blocks))
            spectra = part["energy_spectrum"].transpose("member", "block", "wavenumber").values
            members = ensemble["energy_spectrum"].isel(layer=layer).transpose("member", "wavenumber").values
            error, low, high = spectrum_error_interval(spectra, members, shells, together)
            row = {
                "first_step": stop - window + 1, "last_step": stop, "layer": label,
                "window_spectrum_error": error, "window_spectrum_error_low": low, "window_spectrum_error_high": high,
            }  # fmt: skip
            beyond = []
            for name in COUNTED:
                counts = part[f"{name}_counts"].sum(("member", "block")).values
                distance = float(wasserstein(counts, truth[f"{name}_counts"].values))
                row[f"{name}_distance"] = distance if np.isfinite(spectra).all() else np.nan
                beyond.append(share_at_the_ends(counts))
            row["share_beyond_bins"] = max(beyond)
            for name in BESIDE_SOLVER:
                row |= {name: float(mean[name]), f"{name}_solver": float(truth[name])}
            for name, values in user_means.items():
                row |= {name: float(values.isel(layer=layer)), f"{name}_solver": float(truth[name])}
            row |= {"calls_per_step": float(mean["calls"]), "members_lost": count_lost(lost, stop)}
            rows.append(row)
    return pd.DataFrame(rows)


def spectrum_error_interval(
    spectra: np.ndarray, reference: np.ndarray, shells: tuple[int, int], together: int = 1
) -> tuple[float, float, float]:
    """Return the spectrum error of the mean of block spectra (member, block, K), with its block-bootstrap interval.

    reference: the mean spectra of the reference's members (member, K), or one spectrum (K,), which is then taken as
    exact. About `together` consecutive blocks of a member, longer than the flow remembers, are drawn with replacement
    as one, and so are whole members of the reference. NaN where a member is not finite; the ends are NaN where one
    group or one member of the reference is all that there is.
    """
    truth = reference[None]
    if reference.ndim == 2:
        drawn_members = resampling_weights(np.ones(len(reference)), seed=1)
        truth = drawn_members @ reference / drawn_members.sum(1, keepdims=True)

    groups = np.array_split(np.arange(spectra.shape[1]), max(1, spectra.shape[1] // together))
    drawn = np.concatenate([spectra[:, group].mean(1) for group in groups])
    weights = resampling_weights(np.repeat([len(group) for group in groups], len(spectra)))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        means = weights @ drawn / weights.sum(1, keepdims=True)
        value, low, high = distance_interval(log_ratio(means, truth, shells))
    return float(value), float(low), float(high)
