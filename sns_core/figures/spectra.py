"""Figure 9: time-averaged spectra and how far they lie from the solver's; space-time correlation, early and late."""

from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.figures.inputs import living, lost_note, read, read_each, shown_shells
from sns_core.figures.style import (
    INK,
    MUTED,
    REFERENCE,
    clip,
    empty_panel,
    looks,
    page,
    panel_letter,
    plain_minor,
    ratio_ticks,
    unit,
    wavenumber_axis,
    wrapped,
)  # fmt: skip
from sns_core.metrics.distances import WORST

DASHED = {"color": REFERENCE, "linewidth": 1.1, "linestyle": (0, (2, 1.4)), "zorder": 5}
RATIO = (0.1, 10.0)
CONTOURS = (0.0, 0.2, 0.5)


def plot_spectra(
    *, metrics: dict, reference: Path, windows: Path, labels: dict, shells: list, dpi: int, output: Path
) -> None:
    """Spectra, ratios and window errors (a row a layer) above the maps C(r, tau).

    `metrics`: method -> file; `windows`: the table of windows; `labels`: method -> label, in order; `shells`: first and
    last shell of the spectrum error.
    """
    known, results, style = read(reference), read_each(metrics, labels), looks(labels)
    table = pd.read_csv(windows)
    layers = [str(layer) for layer in known["layer"].values]
    maps = len(results) + 1
    width, upper, lower = 10.4, 2.9 * len(layers) + 0.35, 3.9
    with page(output, dpi, width, upper + lower, layout="constrained") as figure:
        top, bottom = figure.subfigures(2, 1, height_ratios=(upper, lower), hspace=0.02)
        axes = top.subplots(len(layers), 3, squeeze=False, gridspec_kw={"wspace": 0.05})
        for layer, label in enumerate(layers):
            suffix = "" if len(layers) == 1 else f", {label}"
            _spectrum(axes[layer, 0], known, results, style, layer)
            panel_letter(axes[layer, 0], "a", f"Mean energy spectrum{suffix}")
            _ratio(axes[layer, 1], known, results, style, layer, shells)
            panel_letter(axes[layer, 1], "b", f"Ratio to the solver's{suffix}")
            _errors(axes[layer, 2], table[table["layer"] == label], style)
            panel_letter(axes[layer, 2], "c", f"Spectrum error by window{suffix}")
        handles, names = axes[0, 0].get_legend_handles_labels()
        top.legend(handles, names, loc="outside lower center", ncols=min(len(names), 6), columnspacing=1.6)

        grid = bottom.subplots(2, maps, sharex=True, sharey=True, squeeze=False, gridspec_kw={"wspace": 0.02})
        _maps(bottom, grid, known, results, style)
        bottom.suptitle("d   Correlation C(r, τ) in space and time", weight="bold", fontsize=9.5, x=0.006, ha="left")


def _means(result, layer: int, shells: slice):
    """Time-mean spectrum of each member up to its loss, (member, shell); without those lost in the first block."""
    spectrum = living(result, "energy_spectrum").isel(layer=layer, wavenumber=shells)
    return spectrum.mean("block").dropna("member", how="all")


def _spectrum(axis, known, results, style, layer) -> None:
    truth = known["energy_spectrum"].isel(layer=layer).mean("member").values
    shells = shown_shells(truth)
    wavenumber, truth = known["wavenumber"].values[shells], truth[shells]
    for method, result in results.items():
        each, note = _means(result, layer, shells), lost_note(result)
        label = style[method]["label"] + (f" ({note})" if note else "")
        axis.plot([], [], **{**style[method], "label": label})
        if each.sizes["member"]:
            colour = style[method]["color"]
            axis.fill_between(wavenumber, each.min("member"), each.max("member"), color=colour, alpha=0.15, linewidth=0)
            axis.plot(wavenumber, each.mean("member"), **{**style[method], "label": None})
    axis.plot(wavenumber, truth, **DASHED, label="Solver ensemble")
    axis.set_yscale("log")
    wavenumber_axis(axis, wavenumber)
    axis.set_ylim(truth.min() / 5, truth.max() * 20)
    plain_minor(axis)
    axis.set(xlabel="wavenumber k", ylabel="E(k)")


def _ratio(axis, known, results, style, layer, shells) -> None:
    ensemble = known["energy_spectrum"].isel(layer=layer).values
    shown = shown_shells(ensemble.mean(0))
    wavenumber, ensemble = known["wavenumber"].values[shown], ensemble[:, shown]
    truth = ensemble.mean(0)
    axis.fill_between(
        wavenumber, ensemble.min(0) / truth, ensemble.max(0) / truth, color=REFERENCE, alpha=0.1, linewidth=0
    )
    drawn = []
    for method, result in results.items():
        each = _means(result, layer, shown)
        if each.sizes["member"]:
            drawn.append(each.mean("member").values / truth)
            axis.plot(wavenumber, drawn[-1], **style[method])
    axis.axhline(1, **DASHED)
    axis.set_yscale("log")
    wavenumber_axis(axis, wavenumber)
    clip(axis, *RATIO, drawn)
    ratio_ticks(axis)
    outside = wavenumber[wavenumber > known["wavenumber"].values[min(shells[1], known.sizes["wavenumber"] - 1)]]
    if len(outside):
        axis.axvspan(outside[0] * 0.985, wavenumber[-1] * 1.1, color="#ececea", linewidth=0, zorder=0)
    axis.set_xlabel("wavenumber k" + (" (grey: not in the error)" if len(outside) else ""))


def _errors(axis, table, style) -> None:
    """The windows' errors as they stand in the table; what lies beyond the axis is marked at its edge."""
    finite = table["window_spectrum_error"][np.isfinite(table["window_spectrum_error"])].to_numpy()
    low = 10 ** np.floor(np.log10(max(finite.min(), 1e-3))) if len(finite) else 1e-2
    high = min(WORST, max(0.3, 1.5 * finite.max())) if len(finite) else WORST
    for method, look in style.items():
        rows = table[table["method"] == method]
        middle, value = 0.5 * (rows["first_step"] + rows["last_step"]), rows["window_spectrum_error"]
        inside = value <= high
        axis.fill_between(
            middle, rows["window_spectrum_error_low"].clip(upper=high), rows["window_spectrum_error_high"].clip(upper=high),
            color=look["color"], alpha=0.15, linewidth=0,
        )  # fmt: skip
        axis.plot(middle, value.where(inside), **look, marker="o", markersize=3)
        if not inside.all():
            axis.plot(middle[~inside], np.full((~inside).sum(), 0.985), "^", color=look["color"], markersize=4.5,
                      clip_on=False, transform=axis.get_xaxis_transform())  # fmt: skip
    axis.set_yscale("log")
    axis.set_ylim(low, high)
    axis.set(xlabel="step", ylabel="spectrum error (decades)", xlim=(0, float(table["last_step"].max())))
    plain_minor(axis)


def _maps(figure, grid, known, results, style) -> None:
    lag, distance = known["map_lag"].values, known["distance"].values
    units = next(iter(results.values()))["lag"].attrs.get("units", "1")
    image = None
    for row, part in enumerate(("early", "late")):
        shown = {"Solver ensemble": (known["map"].mean("member").values, REFERENCE)} | {
            style[method]["label"]: (result[f"map_{part}"].values, style[method]["color"])
            for method, result in results.items()
        }
        for column, (label, (values, colour)) in enumerate(shown.items()):
            axis = grid[row, column]
            axis.grid(False)
            if np.isfinite(values).all():
                image = axis.pcolormesh(distance, lag, values, cmap="RdBu_r", vmin=-1, vmax=1, shading="gouraud",
                                        rasterized=True)  # fmt: skip
                axis.contour(
                    distance, lag, values, levels=CONTOURS, colors=[MUTED, INK, INK], linewidths=(0.7, 0.5, 1.0)
                )
            else:
                empty_panel(axis, "no member\nis finite")
            if row == 0:
                axis.set_title(wrapped(label, 17 if len(shown) < 8 else 12), color=colour, fontsize=8.5)
            else:
                axis.set_xlabel("distance r in x")
            if column == 0:
                axis.set_ylabel(f"{part}\n\nlag τ{unit(units, 'time units')}")
    if image is not None:
        bar = figure.colorbar(image, ax=grid, shrink=0.7, aspect=30, pad=0.01, ticks=[-1, -0.5, 0, 0.5, 1])
        bar.ax.set_title("C(r, τ)", fontsize=8, weight="normal", loc="left", pad=8)
        bar.ax.grid(False)
        bar.outline.set_linewidth(0.5)
