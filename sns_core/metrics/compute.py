"""The stages that turn frames and segments into scores: the solver's reference, and every method held against it.

The reference is an ensemble of the solver that is independent of every rollout (the test split), so the solver's own
rollout, scored like any other method, shows the floor that sampling sets.
"""

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sns_core.data.trajectories import open_frames
from sns_core.files import read_json, whole_file
from sns_core.metrics.spectra import kinetic_energy_spectrum, shell_wavenumbers, spectrum_error
from sns_core.metrics.temporal import centred, lagged_correlation
from sns_core.runtime import UserError, use_threads
from sns_core.systems import System, build_system

CHUNK = 128  # frames of one member in memory at a time


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


def zonal_velocity(frames: xr.DataArray, system: System) -> xr.DataArray:
    """Mean over x of the velocity along x, (member, time, layer, y), of frames (member, time, layer, y, x)."""
    parts = []
    for start in range(0, frames.sizes["time"], CHUNK):
        chosen = torch.from_numpy(frames.isel(time=slice(start, start + CHUNK)).values)
        u, _ = system.frame_velocity(chosen.flatten(0, 1))
        parts.append(u.mean(-1).unflatten(0, chosen.shape[:2]).numpy())
    return xr.DataArray(np.concatenate(parts, 1), dims=("member", "time", "layer", "y"))


def _system(manifest: dict) -> System:
    return build_system(manifest["system"]["name"], manifest["system"]["parameters"], dtype=torch.float32)


def compute_reference(
    *, trajectories: Path, manifest: Path, lags: int, frame_stride: int, map_lags: int, output: Path, threads: int = 1
) -> None:
    """Time-mean statistics of the solver, per member of the test split, as netCDF.

    `lags`: steps that C(tau) looks back; `frame_stride`, `map_lags`: spacing and number of the lags of C(r, tau).
    """
    use_threads(threads)
    content = read_json(manifest, "run `snakemake data` again")
    system, step = _system(content), content["emulator"]["step"]
    dataset = open_frames(trajectories, system.variable, member=1, time=CHUNK)
    std = np.asarray(content["statistics"]["std"], dtype=np.float32)[:, None, None]
    members = []
    for member in range(dataset.sizes["member"]):
        frames = torch.from_numpy(dataset[system.variable].isel(member=member).values)
        u, v = system.frame_velocity(frames)
        spectra = [
            kinetic_energy_spectrum(u[:, [c]], v[:, [c]], system.length)[1].mean(0) for c in range(system.channels)
        ]
        scaled, change = frames / std, frames.diff(dim=0) / std
        unit = centred(scaled)[None]  # layers count alike, as they do along rollouts
        members.append(
            {
                "energy_spectrum": (("layer", "wavenumber"), torch.stack(spectra).numpy()),
                "kinetic_energy": (("layer",), (0.5 * (u**2 + v**2)).mean((0, 2, 3)).numpy()),
                "enstrophy": (("layer",), (0.5 * frames**2).mean((0, 2, 3)).numpy()),
                "rate_of_change": ((), float(change.abs().mean() / step)),
                "relative_change": (
                    (), float((change.square().mean((1, 2, 3)) / scaled[:-1].square().mean((1, 2, 3))).sqrt().mean()),
                ),
                "correlation": (("lag",), lagged_correlation(unit[:, :lags], unit[:, lags:])[0].mean(0).numpy()),
                "zonal_velocity": (("layer", "y"), u.mean(-1).mean(0).numpy()),
                "map": (("map_lag", "distance"), space_time_correlation(scaled.numpy()[::frame_stride], map_lags)),
            }
        )  # fmt: skip
    result = xr.concat([xr.Dataset(values) for values in members], "member")
    result = result.assign_coords(
        wavenumber=shell_wavenumbers(frames.shape[-1], system.length), lag=np.arange(lags + 1) * step,
        map_lag=np.arange(map_lags + 1) * step * frame_stride,
        distance=np.arange(result.sizes["distance"]) * system.length / frames.shape[-1], layer=list(system.layers),
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
    """A chain of segments as (lazily opened frames, statistics in memory), each along its own time axis."""
    opened = [open_frames(path, variable, member=1, time=CHUNK) for path in paths]
    frames = xr.concat([d[[variable]] for d in opened], "time")
    along = {"step": [], "block": [], None: []}
    for name in opened[0].data_vars:
        if name != variable:
            axis = next((a for a in ("step", "block") if a in opened[0][name].dims), None)
            along[axis].append(name)
    parts = [xr.concat([d[along[axis]].load() for d in opened], axis) for axis in ("step", "block")]
    last = opened[-1][along[None]].load()
    statistics = xr.merge([*parts, last], join="outer").drop_vars("time", errors="ignore")
    seconds = sum(float(d.attrs["seconds_stepping"]) for d in opened)
    statistics.attrs = {"method": opened[0].attrs["method"], "seconds_per_step": seconds / statistics.sizes["step"]}
    return frames, statistics


def compute_metrics(
    *, segments: list[Path], solver: list[Path], reference: Path, manifest: Path, window: int, shells: list, map_lags: int,
    output: Path, windows: Path, threads: int = 1,
) -> None:  # fmt: skip
    """Score one method's rollout.

    `segments`: its chain; `solver`: the solver's chain from the same initial states (for the squared error); `window`:
    steps a window; `shells`: first and last shell of the spectrum error. Writes `output` (netCDF: all series, mse, lost
    step, early and late C(r, tau)) and `windows` (CSV, one row a window and layer).
    """
    use_threads(threads)
    content = read_json(manifest, "run `snakemake data` again")
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
    result = statistics.assign(mse=(difference**2).mean(("layer", "y", "x")).compute())

    result["zonal_velocity"] = zonal_velocity(field, system)
    span = max(map_lags + 2, common // 6)
    late = slice(field.sizes["time"] - span, None)
    for name, part in (("map_early", slice(0, span)), ("map_late", late)):
        chosen = (field.isel(time=part) / std).transpose(*field.dims).values
        maps = [space_time_correlation(member, map_lags) for member in chosen if np.isfinite(member).all()]
        empty = np.full((map_lags + 1, chosen.shape[-1] // 2 + 1), np.nan)
        result[name] = ("map_lag", "distance"), np.mean(maps, 0) if maps else empty
    _write(result.assign_coords(map_lag=known["map_lag"], distance=known["distance"]), output)

    table = _windows(result, known, window, tuple(shells)).assign(method=statistics.attrs["method"])
    with whole_file(windows) as temporary:
        table.to_csv(temporary, index=False)


def _windows(result: xr.Dataset, known: xr.Dataset, window: int, shells: tuple[int, int]):
    """One row a window and layer: means over its steps and all members, lost ones included, beside the solver's."""
    import pandas as pd

    block, rows = int(result["block"][0]), []
    for start in range(0, result.sizes["step"] - window + 1, window):
        steps = result.isel(step=slice(start, start + window))
        blocks = result.isel(block=slice(start // block, (start + window) // block))
        lost = result["lost_step"]
        for layer, label in enumerate(known["layer"].values):
            reference = known.isel(layer=layer).mean("member")
            spectrum = blocks["energy_spectrum"].isel(layer=layer).mean(("member", "block")).values
            rows.append(
                {
                    "first_step": start + 1, "last_step": start + window, "layer": label,
                    "spectrum_error": float(spectrum_error(spectrum, reference["energy_spectrum"].values, shells)),
                    "kinetic_energy": float(steps["kinetic_energy"].isel(layer=layer).mean()),
                    "kinetic_energy_solver": float(reference["kinetic_energy"]),
                    "enstrophy": float(steps["enstrophy"].isel(layer=layer).mean()),
                    "enstrophy_solver": float(reference["enstrophy"]),
                    "relative_change": float(steps["relative_change"].mean()),
                    "relative_change_solver": float(reference["relative_change"]),
                    "calls_per_step": float(steps["calls"].mean()),
                    "members_lost": int(((lost >= 0) & (lost <= start + window)).sum()),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)
