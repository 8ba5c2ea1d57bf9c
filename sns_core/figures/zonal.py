"""Figure 10: the zonal-mean flow, its mean profile with intervals and its course in time (Hovmoeller diagrams)."""

from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.figures.inputs import alive, layer_names, read, read_each, step_size, time_units
from sns_core.figures.style import (
    FAINT,
    MUTED,
    REFERENCE,
    colour_bar_outline,
    corner,
    empty_panel,
    method_styles,
    page,
    readable,
    time_label,
    unit,
    wrapped,
)
from sns_core.files import FileTree
from sns_core.metrics.bootstrap import in_stretches
from sns_core.metrics.zonal import SILENT, profile, zonal_blocks

COLUMNS = 4  # methods side by side: more would be too small to read at the width of a page
FURTHEST = 2.0  # the axis of the profiles ends at this many times the solver's own reach at most


def plot_zonal(
    *, metrics: FileTree, reference: Path, labels: dict, member: int, window: int, dpi: int, output: Path
) -> None:
    """Draw the mean over x of the velocity along x: two panels per layer and method, four methods side by side.

    Upper panel: the mean over the rollout and all members with its interval of 90 %, and a standard deviation to either
    side, over the solver's ensemble. Lower panel: the course of one member, time to the right.

    `metrics`: method -> file; `labels`: method -> label, in order; `window`: steps that the bootstrap draws as one.
    """
    solver, results, styles = read(reference), read_each(metrics, labels), method_styles(labels)
    layers, names = layer_names(solver), list(results)
    profiles = {name: profile(in_stretches(zonal_blocks(r), alive(r, "block"), window)) for name, r in results.items()}
    ensemble = profile(_ensemble(solver))
    wide = -(-len(names) // -(-len(names) // COLUMNS))  # rows of equal length as far as possible
    groups = [names[start : start + wide] for start in range(0, len(names), wide)]
    # A channel that is the velocity along y has none along x.
    moving = [layer for layer in range(len(layers)) if (solver["zonal_velocity"].isel(layer=layer) != 0).any()]
    shown = moving or list(range(len(layers)))
    with page(output, dpi, 1.4 + 2.5 * wide, 0.3 + 4.6 * len(shown) * len(groups), layout="constrained") as figure:
        parts = figure.subfigures(len(shown) * len(groups), 1, squeeze=False)[:, 0]
        for index, part in enumerate(parts):
            layer, group = shown[index // len(groups)], index % len(groups)
            axes = part.subplots(2, wide, squeeze=False, gridspec_kw={"wspace": 0.03}, sharey=True)
            courses = {name: _course(results[name], member, layer, step_size(solver)) for name in names}
            drawing = _Drawing(solver, ensemble, profiles, courses, layer)
            for column in range(wide):
                if column >= len(groups[group]):
                    axes[0, column].set_axis_off()
                    axes[1, column].set_axis_off()
                    continue
                name = groups[group][column]
                drawing.mean(axes[0, column], name, styles[name])
                image = drawing.course(axes[1, column], name, results[name], member)
            for axis in axes[:, 0]:
                layer_name = f"{layers[layer]}: " if len(layers) > 1 else ""
                axis.set_ylabel(f"{layer_name}y{unit(solver['y'].attrs.get('units', '1'))}")
            bar = part.colorbar(image, ax=axes[1], shrink=0.8, extend="both", pad=0.01)
            colour_bar_outline(bar)


class _Drawing:
    """The panels of one layer."""

    def __init__(self, solver: xr.Dataset, ensemble: xr.Dataset, profiles: dict, courses: dict, layer: int):
        self.solver, self.layer, self.courses = solver, layer, courses
        self.ensemble = ensemble.isel(layer=layer)
        self.profiles = {name: each.isel(layer=layer) for name, each in profiles.items()}
        self.y = solver["y"].values
        self.limit = float(np.nanmax(np.abs(courses.get("solver", next(iter(courses.values()))))))
        energy = float(solver["kinetic_energy"].isel(layer=layer).mean())
        self.removed = self.limit < SILENT * np.sqrt(2 * energy)
        solver_reach = _reach(self.ensemble)
        self.reach = 1.08 * min(
            FURTHEST * solver_reach, max(solver_reach, *(_reach(each) for each in self.profiles.values()))
        )

    def mean(self, axis, name: str, style: dict) -> None:
        """Draw the mean profile of a method over the solver's."""
        if self.removed:
            empty_panel(axis, "frames hold\nno zonal mean")
        else:
            _profile(axis, self.y, self.ensemble, MUTED, 0.35)
            colour = REFERENCE if name == "solver" else style["color"]
            _profile(axis, self.y, self.profiles[name], colour, 0.3)
            axis.axvline(0, color=FAINT, linewidth=0.8)
            axis.set_xlim(-self.reach, self.reach)
        axis.set_ylim(self.y[0], self.y[-1])
        axis.set_title(wrapped(style["label"], 24), color=readable(style["color"]))
        axis.set_xlabel("mean velocity" + unit(self.solver["zonal_velocity"].attrs.get("units", "1")))

    def course(self, axis, name: str, result: xr.Dataset, member: int):
        """Draw the course of one member; return its image."""
        axis.grid(False)
        image = axis.pcolormesh(
            result["time"].values,
            self.y,
            self.courses[name].T,
            cmap="RdBu_r",
            vmin=-self.limit,
            vmax=self.limit,
            shading="nearest",
            rasterized=True,
        )
        axis.set_facecolor(FAINT)
        lost = int(result["lost_step"].sel(member=member))
        if lost >= 0:
            corner(axis, f"lost at step {lost}", "lower right", REFERENCE, box=True)
        axis.set_xlabel(time_label(time_units({name: result})))
        return image


def _ensemble(solver: xr.Dataset) -> xr.Dataset:
    """Return the solver's ensemble as `profile` takes it, one unit per member."""
    units = solver[["zonal_velocity", "zonal_velocity_square"]].rename(
        member="unit", zonal_velocity="zonal_mean", zonal_velocity_square="zonal_square"
    )
    return units.assign(size=("unit", np.ones(units.sizes["unit"])))


def _reach(flow: xr.Dataset) -> float:
    """Return how far a profile reaches from zero with a standard deviation to either side; 0 if nothing is finite."""
    reach = (abs(flow["mean"]) + flow["spread"]).values
    return float(np.max(reach[np.isfinite(reach)], initial=0.0))


def _profile(axis, y: np.ndarray, flow: xr.Dataset, colour: str, alpha: float) -> None:
    """Draw a mean profile, velocity to the right, in its interval; dashed: a standard deviation to either side."""
    axis.fill_betweenx(y, flow["low"], flow["high"], color=colour, alpha=alpha, linewidth=0)
    axis.plot(flow["mean"], y, color=colour)
    for side in (-1, 1):
        axis.plot(flow["mean"] + side * flow["spread"], y, color=colour, linewidth=0.8, linestyle=(0, (3, 2)))


def _course(result, member: int, layer: int, size: float) -> np.ndarray:
    """Return the zonal mean (time, y) of one member and layer, NaN from the step on at which the member was lost."""
    values = result["zonal_velocity"].sel(member=member).isel(layer=layer).values.copy()
    lost = int(result["lost_step"].sel(member=member))
    if lost >= 0:
        values[result["time"].values >= (lost - 0.5) * size] = np.nan
    return values
