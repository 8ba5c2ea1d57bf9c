"""The stage that checks whether the frames of each split are stationary, before anything learns from them.

Energy, enstrophy and spectrum of the last third of the frames are held against the first third, within the standard error
from the spread over members. The energy since the initial state, spin-up included, says which spin-up would do.
"""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import torch
import xarray as xr

from sns_core.data.frames import blocks_of, open_each_member, open_members
from sns_core.device import use_threads
from sns_core.errors import UserError
from sns_core.files import FileTree, read_json, whole_file
from sns_core.grids import longer_side
from sns_core.metrics.reference import emulated_system
from sns_core.metrics.spectra import kinetic_energy_spectrum
from sns_core.metrics.stationarity import drift, is_drifting, mser, stationary_from, thirds_difference, way_out
from sns_core.systems import System

FALSE_ALARMS = 0.05  # probability that any of all tests of a stationary flow fails


def check_stationarity(
    *, trajectories: FileTree, manifest: Path, spin_up: float, required: bool, output: Path, threads: int = 1
) -> None:
    """Write the drift of each split, one row per split, quantity and layer.

    `drift` and `error` are shares of the mean (energy, enstrophy) or decades (spectrum, the mean of log10 E over whole
    shells). `drifts` is true beyond the error's limit, which is as many standard errors as keep the probability of a false
    alarm among all rows at 5 %. `settled` is the time from which the energy of the split is stationary by both detectors,
    empty where its series is too short to tell. Raises UserError, after the file is written, where something drifts and
    `required` is true.

    `trajectories`: split -> its files. `manifest`: of the data. `spin_up`: time units before the first frame. `required`:
    whether a drift is an error.
    """
    use_threads(threads)
    system = emulated_system(read_json(manifest))
    rows = []
    for split, paths in trajectories.items():
        files = [Path(path) for path in paths]
        dataset = open_members(files, system.variable)
        clock, energy = dataset["clock"].values, dataset["kinetic_energy"].transpose("member", "clock", "layer").values
        for name, (differences, mean) in _differences(open_each_member(files, system.variable), system).items():
            shift, error = (part / mean for part in drift(differences))
            for layer, label in enumerate(system.layers):
                rows.append({
                    "split": split, "members": len(energy), "quantity": name, "layer": label, "drift": shift[layer],
                    "error": error[layer], "differences": differences[:, [layer]],
                    "settled": settled_from(clock, energy[..., layer]),
                })  # fmt: skip
    limit = NormalDist().inv_cdf(1 - FALSE_ALARMS / 2 / len(rows))
    for row in rows:
        row["drifts"] = bool(is_drifting(row.pop("differences"), limit)[0])
    table = pd.DataFrame(rows).assign(spin_up=spin_up)
    with whole_file(output) as temporary:
        table.to_csv(temporary, index=False)
    if required and table["drifts"].any():
        raise UserError(f"data.require_stationary: {way_out(table)}")


def settled_from(clock: np.ndarray, energy: np.ndarray) -> float:
    """Return the time from which energy (member, clock) is stationary by both detectors; NaN where it is too short."""
    return float(np.maximum(stationary_from(clock, energy), mser(clock, energy.mean(0))))


def _differences(members: list[xr.DataArray], system: System) -> dict[str, tuple[np.ndarray, np.ndarray | float]]:
    """Return quantity -> (last third less first third (member, layer), unit (layer,)), one block of frames in memory at a time."""
    series: dict[str, list[np.ndarray]] = {"kinetic_energy": [], "enstrophy": [], "spectrum": []}
    means: dict[str, list[np.ndarray]] = {name: [] for name in series}
    for frames in members:
        parts = [_quantities(torch.from_numpy(block), system) for block in blocks_of(frames)]
        for name in series:
            values = torch.cat([part[name] for part in parts]).numpy()
            series[name].append(thirds_difference(values[None])[0])
            means[name].append(values.mean(0))
    units = {name: np.mean(values, 0) for name, values in means.items()} | {"spectrum": 1.0}
    return {name: (np.stack(values), units[name]) for name, values in series.items()}


def _quantities(frames: torch.Tensor, system: System) -> dict[str, torch.Tensor]:
    """Return energy, enstrophy and the mean over whole shells of log10 E, each (time, C), of frames (time, C, H, W)."""
    u, v = system.frame_velocity(frames)
    shells = slice(1, longer_side(frames.shape[-2:]) // 2)
    spectra = [kinetic_energy_spectrum(u[:, [c]], v[:, [c]], system.length)[1] for c in range(frames.shape[1])]
    return {
        "kinetic_energy": 0.5 * (u.square() + v.square()).mean((-2, -1)).double(),
        "enstrophy": 0.5 * frames.square().mean((-2, -1)).double(),
        "spectrum": torch.stack(spectra, 1)[..., shells].double().log10().mean(-1),
    }
