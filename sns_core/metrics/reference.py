"""The stage that reduces the solver's ensemble to the reference of all scores.

The reference is an ensemble of its own, from states that no split saw, larger than any method's run. Without one
(`data.reference: null`) it is the test split: trajectories that no training saw, where some rollouts start. The
solver's own rollout is scored like any other method. C(r, tau) and the user's own metrics need frames, which the
reference ensemble does not keep, so they always come from the test split.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sns_core.data.attributes import write_described
from sns_core.data.frames import blocks_of, open_each_member, open_members
from sns_core.data.segments import open_segments
from sns_core.device import use_threads
from sns_core.files import read_json
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
AVERAGED = {  # dimensions of what is averaged over time
    "energy_spectrum": ("layer", "wavenumber"), "rate_of_change": (), "relative_change": (), "correlation": ("lag",),
    "zonal_velocity": ("layer", "y"), "zonal_velocity_square": ("layer", "y"), "zonal_direction": ("layer", "y"),
}  # fmt: skip


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
    reference); `manifest`: of the data; `lags`: how many steps C(tau) looks back; `frame_stride`, `map_lags`: spacing
    and number of the lags of C(r, tau); `user_metrics`: the user's own metrics. A block of frames of the test split is
    in memory at a time. The attribute "ensemble" tells which of the two the reference is.
    """
    use_threads(threads)
    content = read_json(manifest)
    system, step = emulated_system(content), content["emulator"]["step"]
    dataset, members = open_members(trajectories, system.variable), open_each_member(trajectories, system.variable)
    scale = torch.tensor(content["statistics"]["std"], dtype=torch.float32)[:, None, None]
    resolution = content["emulator"]["resolution"]
    needing_frames = _measures_of_frames(members, system, scale, frame_stride, map_lags, user_metrics)
    if ensemble:
        result = means_of_series(open_segments(ensemble, system.variable)[1].load(), resolution)
        # The members of the test split have lower numbers: no member of a rollout, which starts there, is one of these.
        numbers = dataset.sizes["member"] + result["member"].values
        needing_frames = {name: values.mean("member") for name, values in needing_frames.items()}
    else:
        states = torch.from_numpy(open_members(trajectories, "final_state")["final_state"].values)
        units = component_scales(system, states, resolution)
        means = [
            _means_of_frames((torch.from_numpy(b) / scale for b in blocks_of(frames)), system, scale, units, step, lags)
            for frames in members
        ]
        result, numbers = xr.concat(means, "member"), dataset["member"].values
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
    title = f"{type(system).__name__}: time means of each member of the {result.attrs['ensemble']}"
    write_described(result.assign_coords(y=dataset["y"]), system, output, title=title, stage="compute_reference")


def _measures_of_frames(
    members: list, system: System, scale: torch.Tensor, frame_stride: int, map_lags: int, user_metrics: list[str]
) -> dict[str, xr.DataArray]:
    """Return C(r, tau) and the time means of the user's metrics, (member, ...): they need frames, not statistics alone.

    `members`: frames (time, layer, y, x) of each member, read lazily; `scale` (C, 1, 1): the unit of C(r, tau)'s
    frames.
    """
    maps = [space_time_correlation(frames[::frame_stride], map_lags, scale.numpy()) for frames in members]
    measures = {"map": xr.DataArray(np.stack(maps), dims=("member", "map_lag", "distance"))}
    for name, series in measured_by_user(user_metrics, members, system).items():
        measures[name] = series.mean("time").drop_vars("member", errors="ignore")
    return measures


def emulated_system(manifest: dict) -> System:
    """Return the system of a data manifest, in float32 on the CPU."""
    return build_system(manifest["system"]["name"], manifest["system"]["parameters"], dtype=torch.float32)


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


def _means_of_frames(
    blocks: Iterable[torch.Tensor], system: System, scale, units: dict, step: float, lags: int
) -> xr.Dataset:
    """Return the means over time of one trajectory.

    `blocks`: its frames (time, C, H, W) in units of `scale`, in successive blocks.
    """
    sums, extremes, counts = dict.fromkeys(AVERAGED, 0.0), [], dict.fromkeys(COUNTED, 0)
    series: dict[str, list] = {name: [] for name in (*ENERGIES, "spectrum")}
    # The first frame follows on nothing, and the first `lags` frames have no whole history.
    left_out = dict.fromkeys(AVERAGED, 0) | {"rate_of_change": 1, "relative_change": 1, "correlation": lags}
    before, past = None, 0
    for frames in blocks:
        if before is None:  # nothing comes before a trajectory
            before = torch.full((1, lags, *frames.shape[1:]), float("nan"))
        measured = measure(frames[None], before, system=system, scale=scale, component_scales=units, step_size=step)
        measured = {name: values[0] for name, values in measured.items()}
        measured["zonal_velocity_square"] = measured["zonal_velocity"].double().square()
        for name in AVERAGED:
            sums[name] = sums[name] + measured[name][max(0, left_out[name] - past) :].double().sum(0)
        extremes.append(measured["max_abs"].amax())
        counts = {name: counts[name] + measured[f"{name}_counts"] for name in COUNTED}
        # Whole shells only, and without the mean: see `kinetic_energy_spectrum`.
        whole_shells = measured["energy_spectrum"][..., 1 : longer_side(frames.shape[-2:]) // 2]
        measured["spectrum"] = whole_shells.double().log10().mean(-1)
        for name, parts in series.items():
            parts.append(measured[name].double())
        before, past = torch.cat([before, frames[None]], 1)[:, -lags:], past + len(frames)
    means = {
        **{name: (AVERAGED[name], sums[name] / max(0, past - left_out[name])) for name in AVERAGED},
        "max_abs": ((), torch.stack(extremes).amax()),
        **{f"{name}_counts": (("layer", "bin"), values) for name, values in counts.items()},
    }
    means = {name: (dimensions, values.numpy()) for name, (dimensions, values) in means.items()}
    energy, enstrophy, spectrum = (torch.cat(parts)[None].numpy() for parts in series.values())
    moments = xr.Dataset(_moments_of_energies(energy, enstrophy, spectrum)).isel(member=0)
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
