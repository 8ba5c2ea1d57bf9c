"""The stage that measures the solver's ensemble, the reference of all scores.

The reference is the test split: trajectories of the solver that no training saw. Rollouts start where some of them end. The
solver's own rollout is scored like any other method, and shows the floor that sampling sets.
"""

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sns_core.data.attributes import described
from sns_core.data.frames import open_members
from sns_core.data.segments import CHUNK
from sns_core.device import use_threads
from sns_core.files import read_json, whole_file
from sns_core.metrics.distances import CENTRES
from sns_core.metrics.distributions import component_scales
from sns_core.metrics.measures import COUNTED, measure
from sns_core.metrics.spectra import shell_wavenumbers
from sns_core.metrics.stationarity import thirds_difference
from sns_core.metrics.temporal import space_time_correlation, zonal_direction
from sns_core.metrics.user_metrics import measured_by_user
from sns_core.systems import System, build_system


def compute_reference(
    *,
    trajectories: list[Path],
    manifest: Path,
    lags: int,
    frame_stride: int,
    map_lags: int,
    output: Path,
    user_metrics: list[str] = (),
    threads: int = 1,
) -> None:
    """Write the time-mean statistics of each member of the test split as netCDF.

    `trajectories`: files of the test split; `manifest`: of the data; `lags`: how many steps C(tau) looks back;
    `frame_stride`, `map_lags`: spacing and number of the lags of C(r, tau); `user_metrics`: the user's own
    metrics. One member is held in memory at a time.
    """
    use_threads(threads)
    content = read_json(manifest)
    system, step = emulated_system(content), content["emulator"]["step"]
    dataset = open_members(trajectories, system.variable, member=1, time=CHUNK)
    states = torch.from_numpy(open_members(trajectories, "final_state")["final_state"].values)
    scale = torch.tensor(content["statistics"]["std"], dtype=torch.float32)[:, None, None]
    units = component_scales(system, states, dataset.sizes["x"])
    members = []
    for member in range(dataset.sizes["member"]):
        frames = torch.from_numpy(dataset[system.variable].isel(member=member).values) / scale
        before = torch.full((1, lags, *frames.shape[1:]), float("nan"))  # nothing comes before a trajectory
        measured = measure(frames[None], before, system=system, scale=scale, component_scales=units, step_size=step)
        means = _means({name: values[0] for name, values in measured.items()}, frames, lags)
        means["map"] = ("map_lag", "distance"), space_time_correlation(frames.numpy()[::frame_stride], map_lags)
        members.append(xr.Dataset(means))
    result = xr.concat(members, "member")
    for name, series in measured_by_user(user_metrics, dataset[system.variable], system).items():
        result[name] = series.mean("time")
    resolution = dataset.sizes["x"]
    result = result.assign_coords(
        member=dataset["member"].values,
        wavenumber=shell_wavenumbers(resolution, system.length),
        lag=np.arange(lags + 1) * step,
        map_lag=np.arange(map_lags + 1) * step * frame_stride,
        distance=np.arange(result.sizes["distance"]) * system.length / resolution,
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


def _means(measured: dict[str, torch.Tensor], frames: torch.Tensor, lags: int) -> dict[str, tuple]:
    """Reduce the measures of one trajectory, each (time, ...), to (dimensions, mean over time)."""
    energy, enstrophy = measured["kinetic_energy"].double(), measured["enstrophy"].double()
    zonal = measured["zonal_velocity"]
    means = {
        "energy_spectrum": (("layer", "wavenumber"), measured["energy_spectrum"].mean(0)),
        "kinetic_energy": (("layer",), energy.mean(0)),
        "kinetic_energy_square": (("layer",), energy.square().mean(0)),
        "kinetic_energy_min": (("layer",), energy.amin(0)),
        "kinetic_energy_max": (("layer",), energy.amax(0)),
        "max_abs": ((), measured["max_abs"].amax()),
        "enstrophy": (("layer",), enstrophy.mean(0)),
        "enstrophy_square": (("layer",), enstrophy.square().mean(0)),
        # The first frame follows on nothing, and the first `lags` frames have no whole history.
        "rate_of_change": ((), measured["rate_of_change"][1:].double().mean()),
        "relative_change": ((), measured["relative_change"][1:].double().mean()),
        "correlation": (("lag",), measured["correlation"][lags:].mean(0)),
        "zonal_velocity": (("layer", "y"), zonal.mean(0)),
        "zonal_velocity_square": (("layer", "y"), zonal.double().square().mean(0)),
        "zonal_direction": (("layer", "y"), zonal_direction(frames).mean(0)),
    }
    # Whole shells only, and without the mean: see `kinetic_energy_spectrum`.
    spectrum = measured["energy_spectrum"][..., 1 : frames.shape[-1] // 2].double().log10().mean(-1)
    for name, series in (("kinetic_energy", energy), ("enstrophy", enstrophy), ("spectrum", spectrum)):
        means[f"{name}_drift"] = ("layer",), torch.from_numpy(thirds_difference(series[None].numpy())[0])
    for name in COUNTED:
        means[f"{name}_counts"] = ("layer", "bin"), measured[f"{name}_counts"]
    return {name: (dimensions, values.numpy()) for name, (dimensions, values) in means.items()}
