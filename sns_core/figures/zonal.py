"""Zonal-mean flow: profiles of the velocity along x with their intervals, and their course in time (Hovmoeller diagrams)."""

from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.figures.inputs import alive, read, read_each, step_size
from sns_core.figures.style import FAINT, MUTED, REFERENCE, corner, empty_panel, looks, page, time_label, unit, wrapped
from sns_core.metrics.bootstrap import in_stretches
from sns_core.metrics.zonal import SILENT, profile, zonal_blocks


def plot_zonal(
    *, metrics: dict, reference: Path, labels: dict, member: int, window: int, dpi: int, output: Path
) -> None:
    """Mean over x of the velocity along x: two rows a layer, a panel a method. Above, its mean over the rollout and all members
    with the interval of 90 %, and a standard deviation to either side, over the solver's ensemble; below, the course of one
    member, time to the right.

    `metrics`: method -> file; `labels`: method -> label, in order; `window`: steps that the bootstrap draws as one.
    """
    known, results, style = read(reference), read_each(metrics, labels), looks(labels)
    layers, size = [str(layer) for layer in known["layer"].values], step_size(known)
    y, solver = known["y"].values, profile(_ensemble(known))
    profiles = {name: profile(in_stretches(zonal_blocks(r), alive(r, "block"), window)) for name, r in results.items()}
    with page(output, dpi, 0.9 + 2.3 * len(results), 0.5 + 4.6 * len(layers), layout="constrained") as figure:
        axes = figure.subplots(2 * len(layers), len(results), squeeze=False, gridspec_kw={"wspace": 0.03})
        for row, layer in enumerate(layers):
            fields = {name: _course(result, member, row, size) for name, result in results.items()}
            limit = float(np.nanmax(np.abs(fields.get("solver", next(iter(fields.values()))))))
            energy = float(known["kinetic_energy"].isel(layer=row).mean())
            removed = limit < SILENT * np.sqrt(2 * energy)
            for column, (name, course) in enumerate(fields.items()):
                upper, lower = axes[2 * row : 2 * row + 2, column]
                if removed:
                    empty_panel(upper, "frames hold\nno zonal mean")
                else:
                    _profile(upper, y, solver.isel(layer=row), MUTED, 0.35)
                    own = REFERENCE if name == "solver" else style[name]["color"]
                    _profile(upper, y, profiles[name].isel(layer=row), own, 0.3)
                    upper.axvline(0, color=FAINT, linewidth=0.8)
                upper.set(xlim=(-1.6 * limit, 1.6 * limit) if limit else None, ylim=(y[0], y[-1]))
                upper.tick_params(labelleft=column == 0)
                upper.set_xlabel("mean velocity" + unit(known["zonal_velocity"].attrs.get("units", "1")))
                lower.grid(False)
                image = lower.pcolormesh(
                    results[name]["time"].values, y, course.T, cmap="RdBu_r", vmin=-limit, vmax=limit, shading="nearest",
                    rasterized=True,
                )  # fmt: skip
                lower.set_facecolor(MUTED)
                lower.tick_params(labelleft=column == 0)
                lost = int(results[name]["lost_step"].sel(member=member))
                if lost >= 0:
                    corner(lower, f"lost at step {lost}", "lower right", REFERENCE, box=True)
                if row == 0:
                    upper.set_title(wrapped(style[name]["label"]), color=style[name]["color"])
                lower.set_xlabel(time_label(results[name]["lag"].attrs.get("units", "1")))
            for axis in axes[2 * row : 2 * row + 2, 0]:
                axis.set_ylabel(
                    (f"{layer}: " if len(layers) > 1 else "") + "y" + unit(known["y"].attrs.get("units", "1"))
                )
            bar = figure.colorbar(image, ax=axes[2 * row + 1, -1], shrink=0.8, extend="both")
            bar.outline.set_linewidth(0.5)


def _ensemble(known: xr.Dataset) -> xr.Dataset:
    """The solver's ensemble, a unit a member."""
    units = known[["zonal_velocity", "zonal_velocity_square"]].rename(
        member="unit", zonal_velocity="zonal_mean", zonal_velocity_square="zonal_square"
    )
    return units.assign(size=("unit", np.ones(units.sizes["unit"])))


def _profile(axis, y: np.ndarray, found: xr.Dataset, colour: str, alpha: float) -> None:
    """A mean profile, velocity to the right, in its interval; dashed, a standard deviation to either side."""
    axis.fill_betweenx(y, found["low"], found["high"], color=colour, alpha=alpha, linewidth=0)
    axis.plot(found["mean"], y, color=colour)
    for side in (-1, 1):
        axis.plot(found["mean"] + side * found["spread"], y, color=colour, linewidth=0.8, linestyle=(0, (3, 2)))


def _course(result, member: int, layer: int, size: float) -> np.ndarray:
    """(time, y) of one member and layer, NaN from the step at which the member was lost."""
    values = result["zonal_velocity"].sel(member=member).isel(layer=layer).values.copy()
    lost = int(result["lost_step"].sel(member=member))
    if lost >= 0:
        values[result["time"].values >= (lost - 0.5) * size] = np.nan
    return values
