"""The stage that reduces the solver's ensemble to the reference of all scores.

The reference is an ensemble of its own, from states that no split saw, larger than any method's run. Without one
(`data.reference: null`) it is the test split: trajectories that no training saw, where some rollouts start. The solver's own
rollout is scored like any other method. C(r, tau) and the user's own metrics need frames, which the reference ensemble does
not keep, so they always come from the test split.
"""

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sns_core.data.attributes import described
from sns_core.data.frames import open_members
from sns_core.data.segments import CHUNK, open_segments
from sns_core.device import use_threads
from sns_core.files import read_json, whole_file
from sns_core.grids import Grid, longer_side
from sns_core.metrics.distances import CENTRES, correlation_pairs, weighted_correlation
from sns_core.metrics.distributions import component_scales
from sns_core.metrics.measures import COUNTED, measure
from sns_core.metrics.spectra import shell_wavenumbers
from sns_core.metrics.stationarity import thirds_difference
from sns_core.metrics.temporal import space_time_correlation
from sns_core.metrics.user_metrics import measured_by_user
from sns_core.metrics.zonal import NO_VELOCITY
from sns_core.systems import System, build_system

ENERGIES = ("kinetic_energy", "enstrophy")


def compute_reference(
    *,
    trajectories: list[Path],
    manifest: Path,
    lags: int,
    frame_stride: int,
    map_lags: int,
    output: Path,
    ensemble: list[Path] = (),
    user_metrics: list[str] = (),
    threads: int = 1,
) -> None:
    """Write the time-mean statistics of each member of the reference as netCDF.

    `trajectories`: files of the test split; `ensemble`: segments of the reference ensemble (none: the test split is the
    reference); `manifest`: of the data; `lags`: how many steps C(tau) looks back; `frame_stride`, `map_lags`: spacing and
    number of the lags of C(r, tau); `user_metrics`: the user's own metrics. One member of the test split is held in memory
    at a time. The attribute "ensemble" tells which of the two the reference is.
    """
    use_threads(threads)
    content = read_json(manifest)
    system, step = emulated_system(content), content["emulator"]["step"]
    dataset = open_members(trajectories, system.variable, member=1, time=CHUNK)
    scale = torch.tensor(content["statistics"]["std"], dtype=torch.float32)[:, None, None]
    maps, resolution = [], content["emulator"]["resolution"]
    for member in range(dataset.sizes["member"]):
        frames = dataset[system.variable].isel(member=member).values / scale.numpy()
        maps.append(space_time_correlation(frames[::frame_stride], map_lags))
    needing_frames = {"map": xr.DataArray(np.stack(maps), dims=("member", "map_lag", "distance"))}
    for name, series in measured_by_user(user_metrics, dataset[system.variable], system).items():
        needing_frames[name] = series.mean("time").drop_vars("member", errors="ignore")
    if ensemble:
        result = means_of_series(open_segments(ensemble, system.variable)[1].load(), resolution)
        # The members of the test split have lower numbers: no member of a rollout, which starts there, is one of these.
        numbers = dataset.sizes["member"] + result["member"].values
        needing_frames = {name: values.mean("member") for name, values in needing_frames.items()}
    else:
        states = torch.from_numpy(open_members(trajectories, "final_state")["final_state"].values)
        units = component_scales(system, states, resolution)
        fields = (dataset[system.variable].isel(member=m).values for m in range(dataset.sizes["member"]))
        members = [_means_of_frames(torch.from_numpy(f) / scale, system, scale, units, step, lags) for f in fields]
        result, numbers = xr.concat(members, "member"), dataset["member"].values
    result = result.assign(needing_frames)
    result.attrs["ensemble"] = "reference ensemble" if ensemble else "test split"
    if not system.has_velocity:
        result.attrs["velocity"] = NO_VELOCITY
    result = result.assign_coords(
        member=numbers,
        wavenumber=shell_wavenumbers(resolution, system.length),
        lag=np.arange(lags + 1) * step,
        map_lag=np.arange(map_lags + 1) * step * frame_stride,
        distance=np.arange(result.sizes["distance"]) * system.length / longer_side(resolution),
        layer=list(system.layers),
        bin=CENTRES,
    )
    title = f"{type(system).__name__}: time means of each member of the test split"
    write_results(result.assign_coords(y=dataset["y"]), system, output, title=title, stage="compute_reference")


def emulated_system(manifest: dict) -> System:
    """Return the system of a data manifest, in float32 on the CPU."""
    return build_system(manifest["system"]["name"], manifest["system"]["parameters"], dtype=torch.float32)


def write_results(dataset: xr.Dataset, system: System, path: Path, *, title: str, stage: str) -> None:
    """Write results of a system as a whole netCDF file with the attributes of `described`, or not at all."""
    # Characters instead of variable-length strings, on which HDF5 fails where a file is open more than once.
    encoding = {"layer": {"dtype": "S1"}} if "layer" in dataset.coords else {}
    with whole_file(path) as temporary:
        results = described(dataset, system, title=title, stage=stage)
        results.to_netcdf(temporary, engine="netcdf4", format="NETCDF4", encoding=encoding)


def means_of_series(series: xr.Dataset, resolution: Grid) -> xr.Dataset:
    """Return the means over time of each member, (member, ...), from the series and blocks of a run of the solver."""
    blocks, lags = series["block"].values, np.arange(series.sizes["lag"])
    energy, enstrophy = (series[name].transpose("member", "step", "layer").astype(float) for name in ENERGIES)
    correlation = series["correlation"].transpose("member", "block", "lag").values
    spectra = series["energy_spectrum"].transpose("member", "block", "layer", "wavenumber").astype(float)
    means = {
        **{name: series[name].astype(float).mean("step") for name in ("rate_of_change", "relative_change")},
        "energy_spectrum": spectra.mean("block"),
        "correlation": (("member", "lag"), weighted_correlation(correlation, correlation_pairs(blocks, lags))),
        "zonal_velocity": series["zonal_profile"].astype(float).mean("block"),
        "zonal_velocity_square": series["zonal_square"].astype(float).mean("block"),
        "zonal_direction": series["zonal_direction"].astype(float).mean("block"),
        "max_abs": series["max_abs"].max("step"),
        **{f"{name}_counts": series[f"{name}_counts"].sum("block") for name in COUNTED},
    }
    whole_shells = np.log10(spectra.values[..., 1 : longer_side(resolution) // 2]).mean(-1)
    means |= _moments_of_energies(energy.values, enstrophy.values, whole_shells)
    return xr.Dataset(means).drop_vars(("step", "block"), errors="ignore").assign_coords(member=series["member"])


def _means_of_frames(frames: torch.Tensor, system: System, scale, units: dict, step: float, lags: int) -> xr.Dataset:
    """Return the means over time of one trajectory (time, C, H, W), in units of `scale`."""
    before = torch.full((1, lags, *frames.shape[1:]), float("nan"))  # nothing comes before a trajectory
    measured = measure(frames[None], before, system=system, scale=scale, component_scales=units, step_size=step)
    measured = {name: values[0] for name, values in measured.items()}
    zonal = measured["zonal_velocity"]
    means = {
        "energy_spectrum": (("layer", "wavenumber"), measured["energy_spectrum"].mean(0)),
        "max_abs": ((), measured["max_abs"].amax()),
        # The first frame follows on nothing, and the first `lags` frames have no whole history.
        "rate_of_change": ((), measured["rate_of_change"][1:].double().mean()),
        "relative_change": ((), measured["relative_change"][1:].double().mean()),
        "correlation": (("lag",), measured["correlation"][lags:].mean(0)),
        "zonal_velocity": (("layer", "y"), zonal.mean(0)),
        "zonal_velocity_square": (("layer", "y"), zonal.double().square().mean(0)),
        "zonal_direction": (("layer", "y"), measured["zonal_direction"].mean(0)),
        **{f"{name}_counts": (("layer", "bin"), measured[f"{name}_counts"]) for name in COUNTED},
    }
    means = {name: (dimensions, values.numpy()) for name, (dimensions, values) in means.items()}
    # Whole shells only, and without the mean: see `kinetic_energy_spectrum`.
    whole_shells = (
        measured["energy_spectrum"][None, ..., 1 : longer_side(frames.shape[-2:]) // 2].double().log10().mean(-1)
    )
    energy, enstrophy = (measured[name][None].double().numpy() for name in ENERGIES)
    moments = xr.Dataset(_moments_of_energies(energy, enstrophy, whole_shells.numpy())).isel(member=0)
    return xr.Dataset(means).merge(moments)


def _moments_of_energies(energy: np.ndarray, enstrophy: np.ndarray, spectrum: np.ndarray) -> dict[str, tuple]:
    """Return means, mean squares, range and drift of series (member, time, layer): name -> (dimensions, values).

    spectrum: mean over whole shells of log10 E.
    """
    moments = {"kinetic_energy_min": energy.min(1), "kinetic_energy_max": energy.max(1)}
    for name, series in zip(ENERGIES, (energy, enstrophy), strict=True):
        moments |= {name: series.mean(1), f"{name}_square": (series**2).mean(1)}
    for name, series in zip((*ENERGIES, "spectrum"), (energy, enstrophy, spectrum), strict=True):
        moments[f"{name}_drift"] = thirds_difference(series)
    return {name: (("member", "layer"), values) for name, values in moments.items()}
