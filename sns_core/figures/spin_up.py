"""How the solver came to its statistics: kinetic energy from the random start through the spin-up and the data."""

from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.data.frames import open_members
from sns_core.errors import DamagedFile
from sns_core.figures.inputs import in_shown_units
from sns_core.figures.style import MUTED, NEXT, REFERENCE, corner, page, panel_letter, time_label, unit
from sns_core.metrics.stationarity import drift, mser, stationary_from, thirds_difference

COLOURS = {"train": "#0072b2", "validation": "#009e73", "test": "#d55e00"}


def plot_spin_up(*, trajectories: dict, dpi: int, output: Path) -> None:
    """Draw the mean kinetic energy of every trajectory against time, one panel per layer; `trajectories`: split -> its files.

    Two detectors say from when on a split is stationary, `stationary_from` and `mser`. The latest times of all splits are
    drawn.
    """
    results = {split: _energies(paths) for split, paths in trajectories.items()}
    first = next(iter(results.values()))
    layers = [str(layer) for layer in first["layer"].values]
    with page(output, dpi, 10.4, 0.5 + 2.6 * len(layers), layout="constrained") as figure:
        axes = figure.subplots(len(layers), 1, sharex=True, squeeze=False)[:, 0]
        for index, (layer, axis) in enumerate(zip(layers, axes, strict=True)):
            starts, detected, drifts = [], [], []
            for split, result in results.items():
                clock, energy = result["clock"].values, result["kinetic_energy"].isel(layer=index).values
                axis.plot(clock, energy.T, color=COLOURS[split], linewidth=0.5, alpha=0.3)
                label = f"{split}, {len(energy)} members"
                axis.plot(clock, energy.mean(0), color=COLOURS[split], linewidth=1.8, label=label)
                starts.append(stationary_from(clock, energy))
                detected.append(mser(clock, energy.mean(0)))
                drifts.append(_drift_of_frames(split, result, energy))
            frames_from = first["clock"].values[-1] - first["time"].values[-1]
            axis.axvspan(0, frames_from, color=MUTED, alpha=0.1, linewidth=0)
            units = first["clock"].attrs.get("units", "1")
            settled, least = max(starts, key=lambda start: (np.isnan(start), start)), max(detected)
            if np.isnan(settled):
                corner(axis, "still differs from its last third", "upper left", NEXT)
            else:
                axis.axvline(settled, color=NEXT, linewidth=1.1, linestyle=(0, (4, 2)))
                text = f"stationary from {settled:.3g} on; least error from {least:.3g} on"
                axis.annotate(text, (settled, 1), (3, -3), ("data", "axes fraction"), "offset points", va="top", color=NEXT,
                              fontsize=7.5)  # fmt: skip
            corner(axis, "grey: spin-up; its frames are not kept", "lower right")
            for line, text in enumerate(drifts[::-1], 1):
                corner(axis, text, "lower right", line=line)
            axis.set_yscale("log" if np.ptp(np.log10(energy[:, 0] / energy[:, -1])) > 2 else "linear")
            suffix = "" if len(layers) == 1 else f", {layer} layer"
            panel_letter(axis, "abcd"[index], f"Kinetic energy of the solver{suffix}")
            axis.set_ylabel("kinetic energy" + unit(first["kinetic_energy"].attrs.get("units", "1")))
            axis.axhline(energy[:, -len(clock) // 3 :].mean(), color=REFERENCE, linewidth=1.0, linestyle=(0, (2, 1.4)))
            axis.set_xlim(0, clock[-1])
        axes[0].legend(loc="upper right" if energy[:, 0].mean() < energy.mean() else "right")
        axes[-1].set_xlabel(time_label(units))


def _drift_of_frames(split: str, result: xr.Dataset, energy: np.ndarray) -> str:
    """Return how much the energy (member, clock) of the stored frames changes from their first to their last third."""
    stored = energy[:, -result.sizes["time"] :]
    mean, error = (100 * part / stored.mean() for part in drift(thirds_difference(stored)))
    return f"{split}: last third of the frames less the first {mean:+.2g} ± {error:.2g} %"


def _energies(paths: list[Path]) -> xr.Dataset:
    """Kinetic energy and times of a split, in the figures' units; the frames are left where they are."""
    try:
        with open_members(paths, "kinetic_energy") as dataset:
            return in_shown_units(dataset[["kinetic_energy", "time"]].load())
    except RuntimeError as error:
        raise DamagedFile(paths[0], f"damaged data ({error})") from None
