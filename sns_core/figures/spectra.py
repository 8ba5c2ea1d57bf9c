"""Figure 9: time-averaged spectra, their distance from the solver's, and the space-time correlation, early and late."""

from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.figures.inputs import (
    layer_names,
    layer_suffix,
    living,
    lost_note,
    read,
    read_each,
    shown_shells,
    time_units,
)
from sns_core.figures.style import (
    DOTTED,
    FAINT,
    INK,
    MUTED,
    REFERENCE,
    clip,
    colour_bar_outline,
    empty_panel,
    method_styles,
    outer_legend,
    page,
    panel_letter,
    plain_minor,
    ratio_ticks,
    readable,
    unit,
    wavenumber_axis,
    wrapped,
)
from sns_core.files import FileTree
from sns_core.metrics.distances import WORST

RATIO = (0.1, 10.0)
MAPS_BESIDE = 8  # maps that have room beside each other
CONTOURS = (0.0, 0.2, 0.5)
OUTSIDE = "#ececea"  # behind the shells that the spectrum error leaves out


def plot_spectra(
    *, metrics: FileTree, reference: Path, windows: Path, labels: dict, shells: list, dpi: int, output: Path
) -> None:
    """Draw spectra, ratios and window errors (one row per layer) above the maps C(r, tau).

    `metrics`: method -> file; `windows`: the table of windows; `labels`: method -> label, in order; `shells`: first and
    last shell of the spectrum error.
    """
    solver, results, styles = read(reference), read_each(metrics, labels), method_styles(labels)
    table, layers = pd.read_csv(windows, dtype={"layer": str}), layer_names(solver)
    lines = -(-(1 + len(results)) // MAPS_BESIDE)
    width, upper, lower = 10.4, 2.9 * len(layers) + 0.35, 3.7 * lines + 0.2
    with page(output, dpi, width, upper + lower, layout="constrained") as figure:
        top, bottom = figure.subfigures(2, 1, height_ratios=(upper, lower), hspace=0.02)
        axes = top.subplots(len(layers), 3, squeeze=False, gridspec_kw={"wspace": 0.05})
        for layer, label in enumerate(layers):
            suffix = layer_suffix(layers, layer)
            _spectrum(axes[layer, 0], solver, results, styles, layer)
            panel_letter(axes[layer, 0], "a", f"Mean energy spectrum{suffix}")
            _ratio(axes[layer, 1], solver, results, styles, layer, shells)
            panel_letter(axes[layer, 1], "b", f"Ratio to the solver's{suffix}")
            _errors(axes[layer, 2], table[table["layer"] == label], styles)
            panel_letter(axes[layer, 2], "c", f"Spectrum error by window{suffix}")
        handles, _ = axes[0, 0].get_legend_handles_labels()
        outer_legend(top, handles, "outside lower center", 6, columnspacing=1.6)
        columns = -(-(1 + len(results)) // lines)
        grid = bottom.subplots(
            2 * lines, columns, sharex=True, sharey=True, squeeze=False, gridspec_kw={"wspace": 0.02}
        )
        _maps(bottom, grid, solver, results, styles)
        bottom.suptitle("d   Correlation C(r, τ) in space and time", weight="bold", fontsize=9.5, x=0.006, ha="left")


def _means(result, layer: int, shells: slice):
    """Return the time-mean spectrum (member, shell) of each member up to its loss."""
    spectrum = living(result, "energy_spectrum").isel(layer=layer, wavenumber=shells)
    return spectrum.mean("block").dropna("member", how="all")


def _spectrum(axis, solver, results, styles, layer) -> None:
    mean = solver["energy_spectrum"].isel(layer=layer).mean("member").values
    shells = shown_shells(mean)
    wavenumber, mean = solver["wavenumber"].values[shells], mean[shells]
    for method, result in results.items():
        each, note = _means(result, layer, shells), lost_note(result)
        label = styles[method]["label"] + (f" ({note})" if note else "")
        axis.plot([], [], **{**styles[method], "label": label})
        if each.sizes["member"]:
            low, high, colour = each.min("member"), each.max("member"), styles[method]["color"]
            axis.fill_between(wavenumber, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.plot(wavenumber, each.mean("member"), **{**styles[method], "label": None})
    axis.plot(wavenumber, mean, **DOTTED, label="Solver ensemble")
    axis.set_yscale("log")
    wavenumber_axis(axis, wavenumber)
    axis.set_ylim(mean.min() / 5, mean.max() * 20)
    plain_minor(axis)
    axis.set(xlabel="wavenumber k", ylabel="E(k)")


def _ratio(axis, solver, results, styles, layer, shells) -> None:
    ensemble = solver["energy_spectrum"].isel(layer=layer).values
    shown = shown_shells(ensemble.mean(0))
    wavenumber, ensemble = solver["wavenumber"].values[shown], ensemble[:, shown]
    mean = ensemble.mean(0)
    low, high = ensemble.min(0) / mean, ensemble.max(0) / mean
    axis.fill_between(wavenumber, low, high, color=REFERENCE, alpha=0.1, linewidth=0)
    drawn = []
    for method, result in results.items():
        each = _means(result, layer, shown)
        if each.sizes["member"]:
            drawn.append(each.mean("member").values / mean)
            axis.plot(wavenumber, drawn[-1], **styles[method])
    axis.axhline(1, **DOTTED)
    axis.set_yscale("log")
    wavenumber_axis(axis, wavenumber)
    clip(axis, *RATIO, drawn)
    ratio_ticks(axis)
    last_counted = solver["wavenumber"].values[min(shells[1], solver.sizes["wavenumber"] - 1)]
    outside = wavenumber[wavenumber > last_counted]
    if len(outside):
        axis.axvspan(outside[0] * 0.985, wavenumber[-1] * 1.1, color=OUTSIDE, linewidth=0, zorder=0)
    axis.set_xlabel("wavenumber k" + (" (grey: not in the error)" if len(outside) else ""))


def _errors(axis, table, styles) -> None:
    """Draw the errors of the windows over their floor; a triangle at the upper edge for those beyond the axis."""
    finite = table["window_spectrum_error"][np.isfinite(table["window_spectrum_error"])].to_numpy()
    low = 10 ** np.floor(np.log10(max(finite.min(), 1e-3))) if len(finite) else 1e-2
    high = min(WORST, max(0.3, 1.5 * finite.max())) if len(finite) else WORST
    floor = table[["floor_low", "floor_high"]].dropna().to_numpy()
    if len(floor):
        axis.axhspan(*floor[0], color=FAINT, alpha=0.7, linewidth=0, zorder=0)
    for method, style in styles.items():
        rows = table[table["method"] == method]
        middle, value = 0.5 * (rows["first_step"] + rows["last_step"]), rows["window_spectrum_error"]
        inside = value <= high
        ends = (rows[f"window_spectrum_error_{end}"].clip(upper=high) for end in ("low", "high"))
        axis.fill_between(middle, *ends, color=style["color"], alpha=0.15, linewidth=0)
        axis.plot(middle, value.where(inside), **style, marker="o", markersize=3)
        if not inside.all():
            edge = {"clip_on": False, "transform": axis.get_xaxis_transform()}
            heights = np.full((~inside).sum(), 0.985)
            axis.plot(middle[~inside], heights, "^", color=style["color"], markersize=4.5, **edge)
    axis.set_yscale("log")
    axis.set_ylim(low, high)
    axis.set(xlabel="step", ylabel="spectrum error (decades)", xlim=(0, float(table["last_step"].max())))
    plain_minor(axis)


def _maps(figure, grid, solver, results, styles) -> None:
    """Draw the maps C(r, tau) of the solver's ensemble and of each method, early above late, in lines of equal length."""
    lag, distance = solver["map_lag"].values, solver["distance"].values
    for row, part in enumerate(("early", "late")):
        places = grid[row::2]
        solver_map = solver["map"].mean([dimension for dimension in ("member",) if dimension in solver["map"].dims])
        maps = [("Solver ensemble", REFERENCE, solver_map.values)]
        for name, result in results.items():
            maps.append((styles[name]["label"], styles[name]["color"], result[f"map_{part}"].values))
        for axis, (label, colour, values) in zip(places.flat, maps, strict=False):
            _map(axis, distance, lag, values)
            if row == 0:
                width = 17 if grid.shape[1] < MAPS_BESIDE else 14
                axis.set_title(wrapped(label, width), color=readable(colour), fontsize=8.5)
            else:
                axis.set_xlabel("distance r in x")
                axis.tick_params(labelbottom=True)
        for axis in places.flat[len(maps) :]:
            axis.set_axis_off()
        for axis in places[:, 0]:
            axis.set_ylabel(f"{part}\n\nlag τ{unit(time_units(results), 'time units')}")
    drawn = [axis.collections[0] for axis in grid.flat if axis.collections]
    if drawn:
        bar = figure.colorbar(drawn[-1], ax=grid, shrink=0.7, aspect=30, pad=0.01, ticks=[-1, -0.5, 0, 0.5, 1])
        bar.ax.set_title("C(r, τ)", fontsize=8, weight="normal", loc="left", pad=8)
        colour_bar_outline(bar)


def _map(axis, distance: np.ndarray, lag: np.ndarray, values: np.ndarray) -> None:
    axis.grid(False)
    if not np.isfinite(values).all():
        empty_panel(axis, "no member\nis finite")
        return
    colours = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
    axis.pcolormesh(distance, lag, values, shading="gouraud", rasterized=True, **colours)
    axis.contour(distance, lag, values, levels=CONTOURS, colors=[MUTED, INK, INK], linewidths=(0.7, 0.5, 1.0))
