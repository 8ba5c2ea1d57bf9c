"""Figure 11: the solver's kinetic energy from its random initial state through the spin-up and the data."""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sns_core.data.frames import open_members
from sns_core.errors import DamagedFile
from sns_core.figures.inputs import in_shown_units, layer_names
from sns_core.figures.style import (
    DOTTED,
    INK,
    MUTED,
    SPLIT_COLOURS,
    corner,
    note_at,
    page,
    panel_letter,
    time_label,
    unit,
)
from sns_core.files import FileTree
from sns_core.metrics.stationarity import drift, mser, stationary_from, thirds_difference
from sns_core.wording import count_of

QUANTITIES = {"kinetic_energy": "energy", "enstrophy": "enstrophy", "spectrum": "spectrum"}


def plot_spin_up(*, trajectories: FileTree, stationarity: Path | None = None, dpi: int, output: Path) -> None:
    """Draw the mean kinetic energy of every trajectory against time, one panel per layer.

    `trajectories`: split -> its files. `stationarity`: result of `check_stationarity`, if there is one: the legend tells
    the drifts. Two detectors say from when on a split is stationary, `stationary_from` and
    `mser`. The latest times of all splits are drawn.
    """
    results = {split: _energies(paths) for split, paths in trajectories.items()}
    drifts = pd.read_csv(stationarity, dtype={"layer": str}) if stationarity else None
    first = next(iter(results.values()))
    layers = layer_names(first)
    with page(output, dpi, 10.4, 0.5 + 2.6 * len(layers), layout="constrained") as figure:
        axes = figure.subplots(len(layers), 1, sharex=True, squeeze=False)[:, 0]
        for index, (layer, axis) in enumerate(zip(layers, axes, strict=True)):
            _layer(axis, results, index, None if drifts is None else drifts[drifts["layer"] == layer])
            suffix = "" if len(layers) == 1 else f", {layer}"
            panel_letter(axis, "abcd"[index % 4], f"Kinetic energy{suffix}")
        axes[-1].set_xlabel(time_label(first["clock"].attrs.get("units", "1")))


def _layer(axis, results: dict, index: int, drifts: pd.DataFrame | None) -> None:
    """Draw the energies of one layer, of all splits; `drifts`: of the layer."""
    first = next(iter(results.values()))
    starts, detected = [], []
    for split, result in results.items():
        clock, energy = result["clock"].values, result["kinetic_energy"].isel(layer=index).values
        axis.plot(clock, energy.T, color=SPLIT_COLOURS[split], linewidth=0.5, alpha=0.3)
        words = _drift_of_frames(result, energy) if drifts is None else _drifts_of(drifts[drifts["split"] == split])
        label = f"{split}, {count_of(len(energy), 'member')}: last third of the frames less the first {words}"
        axis.plot(clock, energy.mean(0), color=SPLIT_COLOURS[split], linewidth=1.8, label=label)
        starts.append(stationary_from(clock, energy))
        detected.append(mser(clock, energy.mean(0)))
    frames_begin = first["clock"].values[-1] - first["time"].values[-1]
    axis.axvspan(0, frames_begin, color=MUTED, alpha=0.1, linewidth=0)
    settled, least = max(starts, key=lambda start: (np.isnan(start), start)), max(detected)
    if np.isnan(settled):
        corner(axis, "still differs from its last third", "upper left", INK)
    else:
        axis.axvline(settled, color=INK, linewidth=1.1, linestyle=(0, (4, 2)))
        place = ((settled, 1), (3, -3), ("data", "axes fraction"))
        text = f"stationary from {settled:.3g} on; least error from {least:.3g} on"
        note_at(axis, text, *place, color=INK, va="top")
    if frames_begin > 0:
        corner(axis, "grey: spin-up; no frame of it is kept", "lower right")
        below_words = {"loc": "upper right", "bbox_to_anchor": (1, 0.94)}
        axis.legend(**({"loc": "center right"} if energy[:, 0].mean() < energy.mean() else below_words))
    else:  # frames from files fill the panel, so the words stand above the energies
        axis.set_ylim(top=axis.get_ylim()[1] + 0.5 * np.ptp(axis.get_ylim()))
        axis.legend(loc="upper right", bbox_to_anchor=(1, 0.94), fontsize=7.5)
    axis.set_yscale("log" if np.ptp(np.log10(energy[:, 0] / energy[:, -1])) > 2 else "linear")
    axis.set_ylabel("kinetic energy" + unit(first["kinetic_energy"].attrs.get("units", "1")))
    axis.axhline(energy[:, -len(clock) // 3 :].mean(), **DOTTED)
    axis.set_xlim(0, clock[-1])


def _drift_of_frames(result: xr.Dataset, energy: np.ndarray) -> str:
    """Return how much the energy (member, clock) of the frames changes from their first to their last third."""
    stored = energy[:, -result.sizes["time"] :]
    mean, error = (100 * part / stored.mean() for part in drift(thirds_difference(stored)))
    return f"{mean:+.2g}{_give_or_take(error)} %"


def _drifts_of(rows: pd.DataFrame) -> str:
    """Return the drifts of a split, with a mark where one is more than sampling explains."""
    words = []
    for row in rows.itertuples():
        factor, unit = (1, "decades") if row.quantity == "spectrum" else (100, "%")
        mark = " (!)" if row.drifts else ""
        words.append(
            f"{QUANTITIES[row.quantity]} {factor * row.drift:+.2g}{_give_or_take(factor * row.error)} {unit}{mark}"
        )
    return ", ".join(words)


def _give_or_take(error: float) -> str:
    """Return a standard error in one digit as " ± 0.2"; nothing for that of a single member, which has none."""
    return "" if np.isnan(error) else f" ± {float(f'{error:.1g}'):g}"


def _energies(paths: list[Path]) -> xr.Dataset:
    """Return kinetic energy and times of a split, in the figures' units; the frames are not loaded."""
    try:
        with open_members(paths, "kinetic_energy") as dataset:
            return in_shown_units(dataset[["kinetic_energy", "time"]].load())
    except RuntimeError as error:
        raise DamagedFile(paths[0], f"damaged data ({error})") from None
