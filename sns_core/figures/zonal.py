"""Zonal-mean flow: profiles of the velocity along x, and their course in time (Hovmoeller diagrams)."""

from pathlib import Path

import numpy as np

from sns_core.figures.inputs import read, read_each, step_size
from sns_core.figures.style import FAINT, MUTED, REFERENCE, corner, empty_panel, looks, page, time_label, unit, wrapped

SILENT = 1e-5  # of the root-mean-square velocity: frames whose zonal mean was removed


def plot_zonal(*, metrics: dict, reference: Path, labels: dict, member: int, dpi: int, output: Path) -> None:
    """Mean over x of the velocity along x, of one member: a row a layer; its mean over the last third of the rollout, then
    a panel a method with time to the right and y upwards.

    `metrics`: method -> file; `labels`: method -> label, in order.
    """
    known, results, style = read(reference), read_each(metrics, labels), looks(labels)
    layers, size = [str(layer) for layer in known["layer"].values], step_size(known)
    y = known["y"].values
    with page(output, dpi, 2.6 + 2.3 * len(results), 0.5 + 2.7 * len(layers), layout="constrained") as figure:
        axes = figure.subplots(len(layers), len(results) + 1, squeeze=False, gridspec_kw={"wspace": 0.03})
        for row, layer in enumerate(layers):
            fields = {name: _course(result, member, row, size) for name, result in results.items()}
            solver = fields.get("solver", next(iter(fields.values())))
            limit = float(np.nanmax(np.abs(solver)))
            energy = float(known["kinetic_energy"].isel(layer=row).mean())
            profile = axes[row, 0]
            profile.axvline(0, color=FAINT, linewidth=0.8)
            removed = limit < SILENT * np.sqrt(2 * energy)
            if removed:
                empty_panel(profile, "frames hold\nno zonal mean")
            for name, course in fields.items():
                late = course[-(len(course) // 3) :]
                late = late[np.isfinite(late).all(1)]
                if len(late) and not removed:
                    profile.plot(late.mean(0), y, **style[name])
            profile.set(xlim=(-1.6 * limit, 1.6 * limit) if limit else None, ylim=(y[0], y[-1]))
            if len(layers) > 1:
                profile.set_title(layer)
            profile.set_ylabel("y" + unit(known["y"].attrs.get("units", "1")))
            for column, (name, course) in enumerate(fields.items(), 1):
                axis = axes[row, column]
                axis.grid(False)
                time = results[name]["time"].values
                image = axis.pcolormesh(
                    time, y, course.T, cmap="RdBu_r", vmin=-limit, vmax=limit, shading="nearest", rasterized=True
                )
                axis.set_facecolor(MUTED)
                axis.tick_params(labelleft=False)
                lost = int(results[name]["lost_step"].sel(member=member))
                if lost >= 0:
                    corner(axis, f"lost at step {lost}", "lower right", REFERENCE, box=True)
                if row == 0:
                    axis.set_title(wrapped(style[name]["label"]), color=style[name]["color"])
                if row == len(layers) - 1:
                    axis.set_xlabel(time_label(results[name]["lag"].attrs.get("units", "1")))
            if row == len(layers) - 1:
                profile.set_xlabel("zonal-mean velocity, last third")
            bar = figure.colorbar(image, ax=axes[row, -1], shrink=0.8, extend="both")
            bar.outline.set_linewidth(0.5)


def _course(result, member: int, layer: int, size: float) -> np.ndarray:
    """(time, y) of one member and layer, NaN from the step at which the member was lost."""
    values = result["zonal_velocity"].sel(member=member).isel(layer=layer).values.copy()
    lost = int(result["lost_step"].sel(member=member))
    if lost >= 0:
        values[result["time"].values >= (lost - 0.5) * size] = np.nan
    return values
