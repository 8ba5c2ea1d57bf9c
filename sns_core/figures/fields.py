"""Figure 1: fields along the rollouts, and the kinetic-energy spectra at the same times."""

from pathlib import Path

import numpy as np

from sns_core.figures.frames import Rollout
from sns_core.figures.inputs import (
    alive,
    field_scale,
    layer_names,
    living,
    lost_by,
    lost_note,
    read,
    read_each,
    shown_shells,
    step_of_frames,
    step_size,
)
from sns_core.figures.style import (
    COLOUR_LIMIT,
    DOTTED,
    INK,
    MUTED,
    bare,
    colour_bar_outline,
    corner,
    empty_panel,
    method_styles,
    note_at,
    page,
    readable,
    wavenumber_axis,
    wrapped,
)
from sns_core.files import FileTree
from sns_core.metrics.lost import LOST_BEYOND

PANEL, GAP = 1.75, 0.07  # inches
SPECTRUM_HEIGHT, ABOVE_SPECTRUM, BELOW_BLOCK = 1.65, 0.28, 0.62
LEFT, RIGHT, TOP = 0.62, 0.86, 0.62


def frame_at(paths: list[Path], member: int, step: int, size: float) -> tuple[int, np.ndarray | None, str]:
    """Return (its step, values (C, H, W), units of time) of the picture at `step`; a single row of points is shown with its past.

    The values are None if the rollout ends earlier.
    """
    with Rollout(paths, size) as rollout:
        return *(rollout.picture(member, step) or (step, None)), rollout.time_units


def plot_fields(
    *,
    segments: FileTree,
    metrics: FileTree,
    reference: Path,
    labels: dict,
    steps: list,
    member: int,
    dpi: int,
    output: Path,
) -> None:
    """Draw fields of one member, one row per method and one column per step, above the spectra of all members.

    `segments`: method -> files of its rollout; `metrics`: method -> file; `labels`: method -> label, in the order of
    the rows; `steps`: one per column. Every layer is a block of rows with its own spectra. The last stored step takes the
    place of steps that no rollout of this system reaches, because a system may override the lengths of a run. Raises
    UserError for an unknown member or a missing file.
    """
    solver, results, styles = read(reference), read_each(metrics, labels), method_styles(labels)
    size, layers, steps = step_size(solver), layer_names(solver), _reached(steps, results)
    frames = {name: [frame_at(segments[name], member, step, size) for step in steps] for name in labels}
    lost = {name: int(result["lost_step"].sel(member=member)) for name, result in results.items()}
    height, width = next(values.shape[-2:] for row in frames.values() for _, values, _ in row if values is not None)
    layout = _Layout(rows=len(labels), columns=len(steps), layers=len(layers), tall=PANEL * height / width)
    with page(output, dpi, layout.width, layout.height) as figure:
        for layer, name_of_layer in enumerate(layers):
            std = float(field_scale(solver)[layer])
            image = _field_rows(figure, layout, layer, frames, lost, styles, std)
            if len(layers) > 1:
                top = 1 - (layout.top(layer) - 0.08) / layout.height
                figure.text(0.06 / layout.width, top, name_of_layer, weight="bold", fontsize=11)
            if image is not None:
                _colour_bar(figure, layout, layer, image, std)
            for column, step in enumerate(steps):
                axis = figure.add_axes(layout.spectrum(layer, column))
                _spectra(axis, solver, results, styles, layer, step, first=column == 0)
        titled = frames["solver"] if "solver" in frames else [(step, None, "") for step in steps]
        units = frames[next(iter(labels))][0][2]
        for axis, (step, _, _) in zip(figure.axes, titled, strict=False):
            _column_title(axis, step, size, units)


def _reached(steps: list[int], results: dict) -> list[int]:
    """Return the steps that some rollout reaches, and the last stored step in place of those beyond."""
    inside = [step for step in steps if any(step <= int(result["step"][-1]) for result in results.values())]
    if len(inside) == len(steps):
        return inside
    return sorted({*inside, max(int(step_of_frames(result)[-1]) for result in results.values())})


class _Layout:
    """Places of the panels in a figure, in shares of its width and height; `tall`: height of a field, inches."""

    def __init__(self, rows: int, columns: int, layers: int, tall: float):
        self.rows, self.columns, self.tall = rows, columns, tall
        self.fields = rows * (tall + GAP)
        self.block = self.fields + ABOVE_SPECTRUM + SPECTRUM_HEIGHT + BELOW_BLOCK
        self.width, self.height = LEFT + columns * (PANEL + GAP) + RIGHT, TOP + layers * self.block

    def top(self, layer: int) -> float:
        """Distance of a layer's fields from the upper edge, inches."""
        return TOP + layer * self.block

    def box(self, left: float, top: float, wide: float, tall: float) -> tuple[float, float, float, float]:
        """Return a place for `add_axes` from inches."""
        return left / self.width, 1 - (top + tall) / self.height, wide / self.width, tall / self.height

    def field(self, layer: int, row: int, column: int):
        return self.box(LEFT + column * (PANEL + GAP), self.top(layer) + row * (self.tall + GAP), PANEL, self.tall)

    def spectrum(self, layer: int, column: int):
        top = self.top(layer) + self.fields + ABOVE_SPECTRUM
        return self.box(LEFT + column * (PANEL + GAP), top, PANEL, SPECTRUM_HEIGHT)


def _field_rows(figure, layout: _Layout, layer: int, frames: dict, lost: dict, styles: dict, std: float):
    """Draw the fields of a layer; return the last image, or None if no field is shown."""
    image = None
    for row, (method, stored) in enumerate(frames.items()):
        for column, (step, field, _) in enumerate(stored):
            axis = figure.add_axes(layout.field(layer, row, column))
            bare(axis)
            note = f"lost at step {lost[method]}" if 0 <= lost[method] <= step else ""
            if field is None:
                empty_panel(axis, "not run")
            elif not _is_drawable(field[layer], LOST_BEYOND * std):
                empty_panel(axis, note or f"beyond {LOST_BEYOND:g} σ")
            else:
                limit = COLOUR_LIMIT * std
                image = axis.imshow(field[layer], origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
                if note:
                    corner(axis, note, "lower left", INK, box=True)
            if column == 0:
                label, colour = (
                    wrapped(styles[method]["label"], max(8, round(20 * layout.tall / PANEL))),
                    readable(styles[method]["color"]),
                )
                axis.set_ylabel(label, color=colour, weight="bold", labelpad=6)
    return image


def _is_drawable(picture: np.ndarray, limit: float) -> bool:
    """Return whether no value of a picture (H, W) is NaN or beyond the limit, but for rows before the first frame."""
    rows = picture[~np.isnan(picture).all(-1)]
    return len(rows) > 0 and bool((np.abs(rows) <= limit).all())


def _column_title(axis, step: int, size: float, units: str) -> None:
    time = f"t = {step * size:g}" + ("" if units == "1" else f" {units}")
    note_at(axis, time, (0.5, 1), (0, 17), "axes fraction", INK, ha="center", weight="bold", fontsize=10)
    note_at(axis, f"step {step}", (0.5, 1), (0, 5), "axes fraction", ha="center", fontsize=8)


def _colour_bar(figure, layout: _Layout, layer: int, image, std: float) -> None:
    fields = layout.fields - GAP
    tall = min(fields, 2.6)
    left = LEFT + layout.columns * (PANEL + GAP) + 0.08
    axis = figure.add_axes(layout.box(left, layout.top(layer) + 0.5 * (fields - tall), 0.12, tall))
    ticks = np.arange(-COLOUR_LIMIT, COLOUR_LIMIT + 1)
    bar = figure.colorbar(image, cax=axis, ticks=ticks * std, extend="both")
    bar.ax.set_yticklabels([f"{tick:+.0f} σ".replace("-", "−") if tick else "0" for tick in ticks])
    bar.ax.set_title(f"σ = {std:.3g}", fontsize=8, weight="normal", pad=12, loc="left", color=MUTED)
    colour_bar_outline(bar)


def _spectra(axis, solver, results, styles, layer: int, step: int, first: bool) -> None:
    """Draw spectra of the block that holds `step` (the first block for step 0): mean and range of the members."""
    mean = solver["energy_spectrum"].isel(layer=layer).mean("member").values
    shells = shown_shells(mean)
    wavenumber, mean, line = solver["wavenumber"].values[shells], mean[shells], 0
    for method, result in results.items():
        blocks = result["block"].values
        if step > blocks[-1]:
            continue
        index = int(np.searchsorted(blocks, step))
        colour = styles[method]["color"]
        if alive(result, "block").isel(block=index).any():
            spectrum = living(result, "energy_spectrum").isel(layer=layer, block=index, wavenumber=shells)
            low, high = spectrum.min("member"), spectrum.max("member")
            axis.fill_between(wavenumber, low, high, color=colour, alpha=0.13, linewidth=0)
            line_style = {**styles[method], "label": None, "linewidth": 1.3, "alpha": 0.95}
            axis.plot(wavenumber, spectrum.mean("member"), **line_style)
        if lost_by(result, int(blocks[index])):
            corner(axis, lost_note(result, int(blocks[index])), "upper right", colour, line=line)
            line += 1
    axis.plot(wavenumber, mean, **DOTTED, label="solver ensemble")
    axis.set_yscale("log")
    wavenumber_axis(axis, wavenumber)
    axis.set_ylim(mean.min() / 10, mean.max() * 30)
    axis.set_xlabel("wavenumber k", labelpad=2)
    if first:
        axis.set_ylabel("energy density E(k)")
        axis.legend(loc="lower left", handlelength=1.4, borderpad=0.1, fontsize=7.5)
    else:
        axis.tick_params(axis="y", labelleft=False)
