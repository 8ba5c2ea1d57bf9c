"""The stages that turn frames and segments into scores: the solver's reference, and every method held against it.

The reference is an ensemble of the solver that is independent of every rollout (the test split), so the solver's own
rollout, scored like any other method, shows the floor that sampling sets.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr

from sns_core.data.frames import open_frames, open_members
from sns_core.files import read_json, whole_file
from sns_core.metrics.bootstrap import interval, resampling_weights
from sns_core.metrics.distributions import component_scales, components, histogram
from sns_core.metrics.extra import measured, window_means
from sns_core.metrics.spectra import kinetic_energy_spectrum, shell_wavenumbers
from sns_core.metrics.summaries import CENTRES, spectrum_error, wasserstein
from sns_core.metrics.temporal import centred, lagged_correlation
from sns_core.metrics.workers import ONE_THREAD, computed_by, each
from sns_core.runtime import DamagedFile, UserError, use_threads
from sns_core.systems import System, build_system

CHUNK = 128  # frames of one member in memory at a time
LONG = {"step": 20_000, "block": 400}  # steps and blocks of one member in memory at a time
MAP_FRAMES = 600  # frames that C(r, tau) is taken over, at the start of a rollout and at its end
HISTOGRAMS = ("vorticity", "velocity", "gradient")


def space_time_correlation(frames: np.ndarray, lags: int) -> np.ndarray:
    """C(r, tau): correlation of spatially centred frames r apart in x and tau frames apart in time.

    frames: (T, C, H, W). Returns (lags + 1, W // 2 + 1), mean over time, channels and the circle's two directions.
    """
    anomaly = frames - frames.mean((-2, -1), keepdims=True)
    spectrum = np.fft.rfft(anomaly, axis=-1)
    variance = (anomaly**2).mean()
    rows = []
    for lag in range(lags + 1):
        cross = (spectrum[: len(frames) - lag].conj() * spectrum[lag:]).mean((0, 1, 2))
        covariance = np.fft.irfft(cross, n=frames.shape[-1]) / frames.shape[-1]
        mirrored = 0.5 * (covariance + np.roll(covariance[::-1], 1))
        rows.append(mirrored[: frames.shape[-1] // 2 + 1] / variance)
    return np.stack(rows)


def _map_of_living(frames: np.ndarray, lags: int) -> np.ndarray | None:
    return space_time_correlation(frames, lags) if np.isfinite(frames).all() else None


def zonal_velocity(frames: xr.DataArray, system: System) -> xr.DataArray:
    """Mean over x of the velocity along x, (member, time, layer, y), of frames (member, time, layer, y, x), lazily where
    they are lazy."""

    def mean(block: np.ndarray) -> np.ndarray:
        u, _ = system.frame_velocity(torch.from_numpy(block).flatten(0, 1))
        return u.mean(-1).unflatten(0, block.shape[:2]).numpy()

    return xr.apply_ufunc(
        mean, frames.drop_vars(frames.coords), input_core_dims=[["layer", "y", "x"]], output_core_dims=[["layer", "y"]],
        dask="parallelized", output_dtypes=[frames.dtype],
    )  # fmt: skip


def _system(manifest: dict) -> System:
    return build_system(manifest["system"]["name"], manifest["system"]["parameters"], dtype=torch.float32)


def compute_reference(
    *, trajectories: list[Path], manifest: Path, lags: int, frame_stride: int, map_lags: int, output: Path,
    extra: list[str] = (), threads: int = 1,
) -> None:  # fmt: skip
    """Time-mean statistics of the solver, per member of the test split, as netCDF.

    `lags`: steps that C(tau) looks back; `frame_stride`, `map_lags`: spacing and number of the lags of C(r, tau);
    `extra`: measures of the user's own. One member is held in memory at a time.
    """
    use_threads(threads)
    content = read_json(manifest)
    system, step = _system(content), content["emulator"]["step"]
    dataset = open_members(trajectories, system.variable, member=1, time=CHUNK)
    states = torch.from_numpy(open_members(trajectories, "final_state")["final_state"].values)
    units = component_scales(system, states, dataset.sizes["x"])
    std = np.asarray(content["statistics"]["std"], dtype=np.float32)[:, None, None]
    members = []
    for member in range(dataset.sizes["member"]):
        frames = torch.from_numpy(dataset[system.variable].isel(member=member).values)
        vectors = components(system, frames)
        u, v = vectors["velocity"].unbind(2)
        energy, enstrophy = (0.5 * (u**2 + v**2)).mean((2, 3)).double(), (0.5 * frames**2).mean((2, 3)).double()
        spectra = [
            kinetic_energy_spectrum(u[:, [c]], v[:, [c]], system.length)[1].mean(0) for c in range(system.channels)
        ]
        scaled, change = frames / std, frames.diff(dim=0) / std
        aligned = centred(scaled)[None]  # layers count alike, as they do along rollouts
        members.append(
            {
                "energy_spectrum": (("layer", "wavenumber"), torch.stack(spectra).numpy()),
                "kinetic_energy": (("layer",), energy.mean(0).numpy()),
                "kinetic_energy_square": (("layer",), energy.square().mean(0).numpy()),
                "enstrophy": (("layer",), enstrophy.mean(0).numpy()),
                "enstrophy_square": (("layer",), enstrophy.square().mean(0).numpy()),
                "rate_of_change": ((), float(change.abs().mean() / step)),
                "relative_change": (
                    (), float((change.square().mean((1, 2, 3)) / scaled[:-1].square().mean((1, 2, 3))).sqrt().mean()),
                ),
                "vorticity_counts": (("layer", "bin"), histogram(scaled.transpose(0, 1)[None])[0].numpy()),
                **{f"{name}_counts": (("layer", "bin"), histogram((values / units[name]).transpose(0, 1)[None])[0].numpy())
                   for name, values in vectors.items()},
                "correlation": (("lag",), lagged_correlation(aligned[:, :lags], aligned[:, lags:])[0].mean(0).numpy()),
                "zonal_velocity": (("layer", "y"), u.mean(-1).mean(0).numpy()),
                "zonal_velocity_square": (("layer", "y"), u.mean(-1).double().square().mean(0).numpy()),
                "map": (("map_lag", "distance"), space_time_correlation(scaled.numpy()[::frame_stride], map_lags)),
            }
        )  # fmt: skip
    result = xr.concat([xr.Dataset(values) for values in members], "member")
    for name, series in measured(extra, dataset[system.variable], system).items():
        result[name] = series.mean("time")
    result = result.assign_coords(
        wavenumber=shell_wavenumbers(frames.shape[-1], system.length), lag=np.arange(lags + 1) * step,
        map_lag=np.arange(map_lags + 1) * step * frame_stride,
        distance=np.arange(result.sizes["distance"]) * system.length / frames.shape[-1], layer=list(system.layers),
        bin=CENTRES,
    )  # fmt: skip
    per = {"lag": system.time_units, "map_lag": system.time_units, "distance": system.length_units,
           "wavenumber": f"1/({system.length_units})", "rate_of_change": f"1/({system.time_units})"}  # fmt: skip
    for name, units in per.items():
        result[name].attrs["units"] = units
    result = result.assign_coords(y=dataset["y"])
    _write(result, output)


def _write(dataset: xr.Dataset, path: Path) -> None:
    # Characters instead of variable-length strings, on which HDF5 fails where a file is open more than once.
    encoding = {"layer": {"dtype": "S1"}} if "layer" in dataset.coords else {}
    with whole_file(path) as temporary:
        dataset.to_netcdf(temporary, engine="netcdf4", format="NETCDF4", encoding=encoding)


def open_segments(paths: list[Path], variable: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Chains of segments, one for each group of members, as (frames, statistics), both lazily opened, each along its own
    time axis.

    Raises UserError where the chains of two groups differ in length.
    """
    groups: dict[tuple, list[xr.Dataset]] = {}
    for path in paths:
        opened = open_frames(path, variable, member=1, time=CHUNK, **LONG)
        groups.setdefault(tuple(opened["member"].values), []).append(opened)
    if len({sum(int(d.attrs["steps"]) for d in chain) for chain in groups.values()}) > 1:
        raise UserError(f"{paths[0].parent.parent}: groups of members have come to different steps; run again")
    chains = [_chained(chain, variable) for chain in groups.values()]
    frames, statistics = (xr.concat([chain[i] for chain in chains], "member", data_vars="minimal") for i in (0, 1))
    # Wall time of each block of steps, that of all groups of members together.
    seconds = sum(
        np.concatenate([np.atleast_1d(d.attrs["seconds_of_blocks"]) for d in chain]) for chain in groups.values()
    )
    statistics.attrs = {
        "method": opened.attrs["method"], "seconds_of_blocks": seconds, "seconds_per_step": seconds.sum() / statistics.sizes["step"],
    }  # fmt: skip
    return frames, statistics


def _chained(opened: list[xr.Dataset], variable: str) -> tuple[xr.Dataset, xr.Dataset]:
    """The segments of one group one after the other."""
    frames = xr.concat([d[[variable]] for d in opened], "time")
    along = {"step": [], "block": [], None: []}
    for name in opened[0].data_vars:
        if name != variable:
            axis = next((a for a in ("step", "block") if a in opened[0][name].dims), None)
            along[axis].append(name)
    parts = [xr.concat([d[along[axis]] for d in opened], axis) for axis in ("step", "block")]
    last = opened[-1][along[None]].load()
    return frames, xr.merge([*parts, last], join="outer").drop_vars("time", errors="ignore")


def compute_metrics(
    *, segments: list[Path], solver: list[Path], reference: Path, manifest: Path, window: int, shells: list, map_lags: int,
    output: Path, output_windows: Path, extra: list[str] = (), dask: dict = ONE_THREAD,
) -> None:  # fmt: skip
    """Score one method's rollout.

    `segments`: its chain; `solver`: the solver's chain from the same initial states (for the squared error); `window`:
    steps a window; `shells`: first and last shell of the spectrum error; `extra`: measures of the user's own. Writes
    `output` (netCDF: all series, mse, lost step, early and late C(r, tau)) and `output_windows` (CSV, one row a window
    and layer). `dask`: who computes, as arguments of `computed_by`.
    """
    use_threads(1)
    with computed_by(**dask):
        try:
            result, table = _score(segments, solver, reference, manifest, window, tuple(shells), map_lags, extra)
            _write(result, output)
        except DamagedFile:
            raise
        except (RuntimeError, UserError) as error:  # netCDF4's word for a checksum that does not hold is RuntimeError
            if broken := _damaged([*segments, *solver]):
                raise DamagedFile(broken, "damaged data (a checksum in it does not hold)") from error
            raise
    with whole_file(output_windows) as temporary:
        table.to_csv(temporary, index=False)


def _damaged(paths: list[Path]) -> Path | None:
    """The first file of which some data cannot be read."""
    for path in paths:
        try:
            with xr.open_dataset(path) as dataset:
                for name in dataset.variables:
                    for member in range(dataset.sizes["member"]):
                        dataset[name].isel(member=member, missing_dims="ignore").load()
        except (OSError, RuntimeError):
            return path
    return None


def _score(segments, solver, reference, manifest, window, shells, map_lags, extra):
    """The series, lazily, with what they are compared to, and the table of windows."""
    content = read_json(manifest)
    system = _system(content)
    frames, statistics = open_segments(segments, system.variable)
    truth, _ = open_segments(solver, system.variable)
    known = xr.open_dataset(reference).load()
    block = int(statistics["block"][0])
    if window % block:
        raise UserError(f"metrics.window {window} is not a multiple of the block {block}")
    window = min(window, statistics.sizes["step"])

    std = xr.DataArray(np.asarray(content["statistics"]["std"]), dims="layer")
    field = frames[system.variable]
    common = min(field.sizes["time"], truth.sizes["time"])
    difference = (field.isel(time=slice(common)) - truth[system.variable].isel(time=slice(common))) / std
    error = (difference**2).mean(("layer", "y", "x")).compute()
    result = statistics.assign(mse=error.reindex(time=field["time"]))  # NaN where the solver's rollout is shorter
    result["zonal_velocity"] = zonal_velocity(field, system).compute()
    result = result.assign(measured(extra, field, system))
    span = min(max(map_lags + 2, common // 6), max(map_lags + 2, MAP_FRAMES))
    for name, part in (("map_early", slice(0, span)), ("map_late", slice(field.sizes["time"] - span, None))):
        chosen = (field.isel(time=part) / std).transpose(*field.dims)
        maps = each(_map_of_living, [(member, map_lags) for member in chosen.data])
        maps = [found for found in maps if found is not None]
        empty = np.full((map_lags + 1, chosen.shape[-1] // 2 + 1), np.nan)
        result[name] = ("map_lag", "distance"), np.mean(maps, 0) if maps else empty
    result = result.assign_coords(map_lag=known["map_lag"], distance=known["distance"])
    table = _windows(result, known, window, shells, extra, content["emulator"]["step"])
    return result, table.assign(method=statistics.attrs["method"])


def _windows(
    result: xr.Dataset, known: xr.Dataset, window: int, shells: tuple[int, int], extra: list[str], step: float
) -> pd.DataFrame:
    """One row a window and layer: means over its steps and all members, lost ones included, so that NaN of one is NaN of
    the row; beside the solver's."""
    block = int(result["block"][0])
    length, together = window // block, -(-2 * (result.sizes["lag"] - 1) // block)  # twice as far as C(tau) looks back
    names = ["kinetic_energy", "enstrophy", "relative_change", "calls"]
    means = result[names].coarsen(step=window, boundary="trim").reduce(np.mean).mean("member", skipna=False).compute()
    reference, rows = known.mean("member"), []
    lost = result["lost_step"].values
    for index in range(means.sizes["step"]):
        blocks = result[["energy_spectrum", *(f"{name}_counts" for name in HISTOGRAMS)]]
        blocks = blocks.isel(block=slice(index * length, (index + 1) * length)).load()
        here, stop = means.isel(step=index), (index + 1) * window
        own_means = window_means(result, extra, (stop - window + 0.5) * step, (stop + 0.5) * step)
        for layer, label in enumerate(known["layer"].values):
            there, own, part = reference.isel(layer=layer), here.isel(layer=layer), blocks.isel(layer=layer)
            spectra = part["energy_spectrum"].transpose("member", "block", "wavenumber").values
            error, low, high = spectrum_error_interval(spectra, there["energy_spectrum"].values, shells, together)
            row = {
                "first_step": stop - window + 1, "last_step": stop, "layer": label,
                "spectrum_error": error, "spectrum_error_low": low, "spectrum_error_high": high,
            }  # fmt: skip
            for name in HISTOGRAMS:
                counts = part[f"{name}_counts"].sum(("member", "block")).values
                distance = float(wasserstein(counts, there[f"{name}_counts"].values))
                row[f"{name}_distance"] = distance if np.isfinite(spectra).all() else np.nan
            for name in names[:3]:
                row |= {name: float(own[name]), f"{name}_solver": float(there[name])}
            for name, series in own_means.items():
                row |= {name: float(series.isel(layer=layer)), f"{name}_solver": float(there[name])}
            row |= {"calls_per_step": float(own["calls"]), "members_lost": int(((lost >= 0) & (lost <= stop)).sum())}
            rows.append(row)
    return pd.DataFrame(rows)


def spectrum_error_interval(
    spectra: np.ndarray, reference: np.ndarray, shells: tuple[int, int], together: int = 1
) -> tuple[float, float, float]:
    """Spectrum error of the mean of block spectra (member, block, K), with its block-bootstrap interval.

    About `together` consecutive blocks of a member, longer than the flow remembers, are drawn with replacement as one.
    NaN where a member is not finite.
    """
    groups = np.array_split(np.arange(spectra.shape[1]), max(1, spectra.shape[1] // together))
    drawn = np.concatenate([spectra[:, group].mean(1) for group in groups])
    weights = resampling_weights(np.repeat([len(group) for group in groups], len(spectra)))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        means = weights @ drawn / weights.sum(1, keepdims=True)
        value, low, high = interval(spectrum_error(means, reference, shells), "positive")
    return float(value), float(low), float(high)
