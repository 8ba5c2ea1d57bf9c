"""Figure 8: the squared distance of every rollout from the solver's own, each member and the mean."""

from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.figures.inputs import lost_note, read, read_each, step_of_frames, step_size, time_units
from sns_core.figures.style import (
    FAINT,
    MUTED,
    ON_WHITE,
    clip,
    corner,
    method_styles,
    note_at,
    page,
    plain_minor,
    readable,
    time_label,
    wrapped,
)
from sns_core.files import FileTree
from sns_core.metrics.lost import is_alive, is_lost

SATURATION = 2.0  # mean squared difference of two independent fields with mean 0 and variance 1
HIGHEST = 30.0  # the axis ends here at most
COLUMNS = 2


def plot_error(*, metrics: FileTree, reference: Path, labels: dict, dpi: int, output: Path) -> None:
    """Draw the mean squared distance from the solver against time, one panel per method.

    `metrics`: method -> file, of the methods that are compared with the solver; `labels`: method -> label, in order.
    """
    size, styles = step_size(read(reference)), method_styles(labels)
    results = read_each(metrics, [name for name in labels if name != "solver"])
    errors = {method: _before_loss(result) for method, result in results.items()}
    means = {method: error.mean("member") for method, error in errors.items()}
    limits = _limits(errors, results)
    rows = max(1, -(-len(results) // COLUMNS))
    with page(output, dpi, 10.4, 0.5 + 2.55 * rows, layout="constrained") as figure:
        axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
        for axis in axes.flat[len(results) :]:
            axis.remove()
        for index, (method, axis) in enumerate(zip(results, axes.flat, strict=False)):
            for rival, mean in means.items():
                if rival != method:
                    axis.plot(mean["time"], mean, color=FAINT, linewidth=1.0, zorder=1)
            _members(axis, errors[method], results[method], styles[method], size, limits)
            _decorate(axis, limits, first=index == 0)
            if index + COLUMNS >= len(results):
                axis.set_xlabel(time_label(time_units(results)))
                axis.tick_params(labelbottom=True)
            if index % COLUMNS == 0:
                axis.set_ylabel("mean squared error (σ²)")


def _before_loss(result: xr.Dataset) -> xr.DataArray:
    """Return the error (member, time) of each member before its loss, without the initial frame that all share."""
    before = is_alive(result["lost_step"], xr.DataArray(step_of_frames(result), dims="time"))
    error = result["mse"].where(before & np.isfinite(result["mse"]))
    return error.isel(time=slice(1, None)).dropna("time", how="all")


def _limits(errors: dict, results: dict) -> tuple[float, float, float, float]:
    """Return (first time, last time, lowest error, highest error) of the axes that all panels share."""
    drawn = np.concatenate([error.values.ravel() for error in errors.values()]) if errors else np.ones(1)
    drawn = drawn[np.isfinite(drawn)]
    drawn = drawn[drawn > 0]
    low = 10 ** np.floor(np.log10(drawn.min())) if len(drawn) else 1e-3
    high = min(HIGHEST, max(4 * SATURATION, 1.5 * drawn.max())) if len(drawn) else HIGHEST
    start = min((float(error["time"][0]) for error in errors.values() if error.sizes["time"]), default=1e-3)
    end = max((float(result["time"][-1]) for result in results.values()), default=1.0)
    return start, end, low, high


def _members(axis, error, result, style: dict, size: float, limits) -> None:
    """Draw the error of each member (thin) and their mean (bold), and a triangle at each loss."""
    start, end, low, high = limits
    colour = style["color"]
    for member in error["member"].values:
        axis.plot(error["time"], error.sel(member=member), color=colour, alpha=0.35, linewidth=0.6)
    axis.plot(error["time"], error.mean("member"), color=colour, linewidth=2.0)
    axis.set(xscale="log", yscale="log")
    lost = result["lost_step"].values
    times = np.clip(lost[is_lost(lost)] * size, start, end)
    if len(times):
        edge = {"clip_on": False, "transform": axis.get_xaxis_transform()}
        axis.plot(times, np.full(len(times), 0.97), "v", color=colour, markersize=5, **edge)
    clip(axis, low, high)
    note = lost_note(result)
    title = style["label"] + (f", {note} (▾)" if note else "")
    axis.set_title(wrapped(title, 46), color=readable(colour))
    if error.sizes["time"] and float(error.max()) > high:
        corner(axis, f"cut at {high:g}", "upper left")


def _decorate(axis, limits, first: bool) -> None:
    """Draw the level of independent fields and set the ticks of the time axis."""
    start, end, _, _ = limits
    axis.axhline(SATURATION, color=MUTED, linewidth=0.9, linestyle=(0, (4, 2)))
    if first:
        place = ((1, SATURATION), (-3, 7), ("axes fraction", "data"))
        note_at(axis, "2: independent fields", *place, ha="right", bbox=ON_WHITE)
    axis.set_xlim(start, end)
    factors = (1, 2, 5) if end < 100 * start else (1,)
    ticks = [factor * 10.0**power for power in range(-6, 7) for factor in factors]
    ticks = [tick for tick in ticks if start <= tick <= end]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    plain_minor(axis)
