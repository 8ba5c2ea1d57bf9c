"""Figure 1: fields along the rollouts, and the kinetic-energy spectra at the same times."""

from pathlib import Path

import numpy as np

from sns_core.figures.frames import Rollout
from sns_core.figures.inputs import (
    alive,
    living,
    lost_by,
    lost_note,
    read,
    read_each,
    shown_shells,
    step_size,
)
from sns_core.figures.style import (
    INK,
    MUTED,
    REFERENCE,
    bare,
    corner,
    empty_panel,
    looks,
    page,
    wavenumber_axis,
    wrapped,
)  # fmt: skip
from sns_core.metrics.lost import LOST_BEYOND

COLOUR_LIMIT = 3.0  # standard deviations of the solver at the ends of the colour scale
PANEL, GAP = 1.75, 0.07  # inches
SPECTRUM_HEIGHT, ABOVE_SPECTRUM, BELOW_BLOCK = 1.65, 0.28, 0.62
LEFT, RIGHT, TOP = 0.62, 0.86, 0.62


def frame_at(paths: list[Path], member: int, step: int, size: float) -> tuple[int, np.ndarray | None, str]:
    """The stored frame (C, H, W) at or last before `step`: its own step, its values (None: not run so far), units of time."""
    with Rollout(paths, size) as rollout:
        found, values = rollout.frame(member, step) or (step, None)
        return found, values, rollout.time_units


def plot_fields(
    *, segments: dict, metrics: dict, reference: Path, labels: dict, steps: list, member: int, dpi: int, output: Path,
) -> None:  # fmt: skip
    """Fields of one member, a row a method and a column a step, above the spectra of all members at those steps.

    `segments`: method -> its rollout's files; `metrics`: method -> file; `labels`: method -> label, in the order of
    the rows; `steps`: columns. Every layer is a block of rows with its own spectra.
    """
    known, results, style = read(reference), read_each(metrics, labels), looks(labels)
    size = step_size(known)
    columns, layers = len(steps), [str(layer) for layer in known["layer"].values]
    frames = {name: [frame_at(segments[name], member, step, size) for step in steps] for name in labels}
    units = frames[next(iter(labels))][0][2]
    block_height = len(labels) * (PANEL + GAP) + ABOVE_SPECTRUM + SPECTRUM_HEIGHT + BELOW_BLOCK
    width, height = LEFT + columns * (PANEL + GAP) + RIGHT, TOP + len(layers) * block_height

    with page(output, dpi, width, height) as figure:

        def place(column: int, top: float, tall: float):
            left = LEFT + column * (PANEL + GAP)
            return figure.add_axes((left / width, 1 - (top + tall) / height, PANEL / width, tall / height))

        for layer, name_of_layer in enumerate(layers):
            # Mean enstrophy is half the mean square of a field whose mean is zero.
            std = float(np.sqrt(2 * known["enstrophy"].isel(layer=layer).mean()))
            top, image = TOP + layer * block_height, None
            for row, method in enumerate(labels):
                for column in range(columns):
                    axis = place(column, top + row * (PANEL + GAP), PANEL)
                    bare(axis)
                    step, field, _ = frames[method][column]
                    lost = int(results[method]["lost_step"].sel(member=member))
                    text = f"lost at step {lost}" if 0 <= lost <= step else ""
                    values = None if field is None else field[layer]
                    if values is None:
                        empty_panel(axis, "not run")
                    elif not (np.abs(values) <= LOST_BEYOND * std).all():
                        empty_panel(axis, text or f"beyond {LOST_BEYOND:g} σ")
                    else:
                        limit = COLOUR_LIMIT * std
                        image = axis.imshow(values, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
                        if text:
                            corner(axis, text, "lower left", INK)
                    if column == 0:
                        axis.set_ylabel(
                            wrapped(style[method]["label"], 20), color=style[method]["color"], weight="bold", labelpad=6
                        )
                    if row == 0 and layer == 0:
                        _column_title(axis, frames["solver"][column][0] if "solver" in frames else step, size, units)
            if len(layers) > 1:
                figure.text(0.06 / width, 1 - (top - 0.08) / height, name_of_layer, weight="bold", fontsize=11)
            if image is not None:
                _colour_bar(figure, image, width, height, top, len(labels), columns, limit)
            top += len(labels) * (PANEL + GAP) + ABOVE_SPECTRUM
            for column, step in enumerate(steps):
                axis = place(column, top, SPECTRUM_HEIGHT)
                _spectra(axis, known, results, style, layer, step, first=column == 0)


def _column_title(axis, step: int, size: float, units: str) -> None:
    axis.annotate(f"t = {step * size:g}" + ("" if units == "1" else f" {units}"), (0.5, 1), (0, 17), "axes fraction", "offset points",
                  ha="center", weight="bold", fontsize=10)  # fmt: skip
    axis.annotate(f"step {step}", (0.5, 1), (0, 5), "axes fraction", "offset points", ha="center", color=MUTED,
                  fontsize=8)  # fmt: skip


def _colour_bar(figure, image, width, height, top, rows, columns, limit) -> None:
    tall = min(rows * (PANEL + GAP) - GAP, 2.6)
    left = LEFT + columns * (PANEL + GAP) + 0.08
    middle = top + 0.5 * (rows * (PANEL + GAP) - GAP)
    axis = figure.add_axes((left / width, 1 - (middle + tall / 2) / height, 0.12 / width, tall / height))
    ticks = np.arange(-COLOUR_LIMIT, COLOUR_LIMIT + 1)
    bar = figure.colorbar(image, cax=axis, ticks=ticks / COLOUR_LIMIT * limit, extend="both")
    bar.ax.set_yticklabels([f"{tick:+.0f} σ" if tick else "0" for tick in ticks])
    bar.ax.grid(False)
    bar.outline.set_linewidth(0.5)
    bar.ax.set_title(f"σ = {limit / COLOUR_LIMIT:.3g}", fontsize=8, weight="normal", pad=12, loc="left", color=MUTED)


def _spectra(axis, known, results, style, layer: int, step: int, first: bool) -> None:
    """Spectra of the block that holds `step` (the first block for the initial state), mean and range of the members."""
    truth = known["energy_spectrum"].isel(layer=layer).mean("member").values
    shells = shown_shells(truth)
    wavenumber, truth, line = known["wavenumber"].values[shells], truth[shells], 0
    for method, result in results.items():
        blocks = result["block"].values
        if step > blocks[-1]:
            continue
        index = int(np.searchsorted(blocks, step))
        if alive(result, "block").isel(block=index).any():
            spectrum = living(result, "energy_spectrum").isel(layer=layer, block=index, wavenumber=shells)
            colour, look = style[method]["color"], {**style[method], "label": None}
            low, high = spectrum.min("member"), spectrum.max("member")
            axis.fill_between(wavenumber, low, high, color=colour, alpha=0.13, linewidth=0)
            axis.plot(wavenumber, spectrum.mean("member"), **look, linewidth=1.3, alpha=0.95)
        if lost_by(result, int(blocks[index])):
            corner(axis, lost_note(result, int(blocks[index])), "upper right", style[method]["color"], line=line)
            line += 1
    axis.plot(wavenumber, truth, color=REFERENCE, linewidth=1.0, linestyle=(0, (2, 1.4)), zorder=5)
    axis.set_yscale("log")
    wavenumber_axis(axis, wavenumber)
    axis.set_ylim(truth.min() / 10, truth.max() * 30)
    axis.set_xlabel("wavenumber k", labelpad=2)
    if first:
        axis.set_ylabel("energy density E(k)")
        axis.plot([], [], color=REFERENCE, linewidth=1.0, linestyle=(0, (2, 1.4)), label="solver ensemble")
        axis.legend(loc="lower left", handlelength=1.4, borderpad=0.1, fontsize=7.5)
    else:
        axis.tick_params(axis="y", labelleft=False)
