"""Figure 8: squared distance from the solver's own rollout, every member and the mean."""

from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.figures.inputs import lost_note, read, read_each, step_size
from sns_core.figures.style import FAINT, MUTED, clip, corner, looks, page, plain_minor, time_label
from sns_core.metrics.lost import is_alive, is_lost
from sns_core.metrics.zonal import step_of_frames

SATURATION = 2.0  # of two independent fields with mean 0 and variance 1
HIGHEST = 30.0
COLUMNS = 2


def plot_error(*, metrics: dict, reference: Path, labels: dict, dpi: int, output: Path) -> None:
    """Mean squared error to the solver against time, a panel a method.

    `metrics`: method -> file, with "solver" the one compared to; `labels`: method -> label, in order.
    """
    size, style = step_size(read(reference)), looks(labels)
    results = read_each(metrics, [name for name in labels if name != "solver"])
    rows = max(1, -(-len(results) // COLUMNS))
    error, means = {}, {}
    for method, result in results.items():
        before = is_alive(result["lost_step"], xr.DataArray(step_of_frames(result), dims="time"))
        mse = result["mse"].where(before & np.isfinite(result["mse"]))
        error[method] = mse.isel(time=slice(1, None)).dropna("time", how="all")  # all start from the same frame
        means[method] = error[method].mean("member")
    drawn = np.concatenate([e.values.ravel() for e in error.values()]) if error else np.ones(1)
    drawn = drawn[np.isfinite(drawn)]
    drawn = drawn[drawn > 0]
    low = 10 ** np.floor(np.log10(drawn.min())) if len(drawn) else 1e-3
    high = min(HIGHEST, max(4 * SATURATION, 1.5 * drawn.max())) if len(drawn) else HIGHEST
    start = min((float(e["time"][0]) for e in error.values() if e.sizes["time"]), default=1e-3)
    end = max((float(result["time"][-1]) for result in results.values()), default=1.0)

    with page(output, dpi, 10.4, 0.5 + 2.55 * rows, layout="constrained") as figure:
        axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
        for axis in axes.flat[len(results) :]:
            axis.remove()
        for index, (method, axis) in enumerate(zip(results, axes.flat, strict=False)):
            for other, mean in means.items():
                if other != method:
                    axis.plot(mean["time"], mean, color=FAINT, linewidth=1.0, zorder=1)
            colour = style[method]["color"]
            values = error[method]
            for member in values["member"].values:
                axis.plot(values["time"], values.sel(member=member), color=colour, alpha=0.35, linewidth=0.6)
            axis.plot(means[method]["time"], means[method], color=colour, linewidth=2.0)
            axis.set(xscale="log", yscale="log")
            axis.axhline(SATURATION, color=MUTED, linewidth=0.9, linestyle=(0, (4, 2)))
            if index == 0:
                axis.annotate("2: independent fields", (1, SATURATION), (-3, 7), ("axes fraction", "data"),
                              "offset points", ha="right", color=MUTED, fontsize=7.5)  # fmt: skip
            lost = results[method]["lost_step"].values
            times = np.clip(lost[is_lost(lost)] * size, start, end)
            if len(times):
                axis.plot(times, np.full(len(times), 0.97), "v", color=colour, markersize=5, clip_on=False,
                          transform=axis.get_xaxis_transform())  # fmt: skip
            clip(axis, low, high)
            note = lost_note(results[method])
            axis.set_title(style[method]["label"] + (f", {note} (▾)" if note else ""), color=colour)
            if len(values["time"]) and float(values.max()) > high:
                corner(axis, f"cut at {high:g}", "upper left")
            axis.set_xlim(start, end)
            lead = (1, 2, 5) if end < 100 * start else (1,)
            ticks = [m * 10.0**e for e in range(-6, 7) for m in lead if start <= m * 10.0**e <= end]
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            plain_minor(axis)
            units = results[method]["lag"].attrs.get("units", "1")
            if index + COLUMNS >= len(results):
                axis.set_xlabel(time_label(units))
                axis.tick_params(labelbottom=True)
            if index % COLUMNS == 0:
                axis.set_ylabel("mean squared error (σ²)")
