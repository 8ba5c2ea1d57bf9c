"""Figure 12: how often each value of vorticity, its gradient and velocity occurs, beside the solver's ensemble."""

from pathlib import Path

import numpy as np

from sns_core.figures.inputs import layer_names, layer_suffix, living, lost_note, read, read_each
from sns_core.figures.style import DOTTED, method_styles, outer_legend, page, panel_letter, plain_minor
from sns_core.files import FileTree
from sns_core.metrics.zonal import NO_VELOCITY

RAREST = 1e-5  # density, per standard deviation, at which the axis begins
QUANTITIES = {"vorticity": "vorticity", "velocity": "velocity", "gradient": "vorticity gradient"}
WITHOUT_VELOCITY = {"vorticity": "values", "gradient": "gradient"}


def plot_distributions(*, metrics: FileTree, reference: Path, labels: dict, dpi: int, output: Path) -> None:
    """Draw probability densities, one row per layer and one column per quantity.

    `metrics`: method -> file; `labels`: method -> label, in order.
    """
    solver, results, styles = read(reference), read_each(metrics, labels), method_styles(labels)
    layers = layer_names(solver)
    with page(output, dpi, 11.4, 3.0 * len(layers) + 0.45, layout="constrained") as figure:
        quantities = WITHOUT_VELOCITY if solver.attrs.get("velocity") == NO_VELOCITY else QUANTITIES
        axes = figure.subplots(len(layers), len(quantities), squeeze=False, sharey=True)
        for layer in range(len(layers)):
            for letter, axis, (name, title) in zip("abc", axes[layer], quantities.items(), strict=False):
                _densities(axis, solver, results, styles, name, layer)
                panel_letter(axis, letter, f"Density of the {title}{layer_suffix(layers, layer)}")
        handles, _ = axes[0, 0].get_legend_handles_labels()
        outer_legend(figure, handles, "outside lower center", 4, columnspacing=1.6)


def density(counts: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Return a histogram (..., bin) as a density over `bins`, their centres; NaN if nothing was counted."""
    total = counts.sum(-1, keepdims=True) * (bins[1] - bins[0])
    return np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)


def _densities(axis, solver, results, styles, name: str, layer: int) -> None:
    bins = solver["bin"].values
    for method, result in results.items():
        counts = living(result, f"{name}_counts").isel(layer=layer).sum("block")
        each = density(counts.values.astype(float), bins)
        each = each[np.isfinite(each).all(-1)]
        note, colour = lost_note(result), styles[method]["color"]
        axis.plot([], [], **{**styles[method], "label": styles[method]["label"] + (f" ({note})" if note else "")})
        if len(each):
            axis.fill_between(bins[1:-1], each.min(0)[1:-1], each.max(0)[1:-1], color=colour, alpha=0.15, linewidth=0)
            _line(axis, bins, each.mean(0), **{**styles[method], "label": None})
    ensemble = solver[f"{name}_counts"].isel(layer=layer).sum("member").values.astype(float)
    _line(axis, bins, density(ensemble, bins), **DOTTED, label="Solver ensemble")
    axis.set_yscale("log")
    axis.set(ylim=(RAREST, 1.5), xlim=(bins[0], bins[-1]), xlabel="standard deviations of the solver", ylabel="density")
    plain_minor(axis)


def _line(axis, bins: np.ndarray, values: np.ndarray, **style) -> None:
    """Draw a density as a line; the two end bins, which hold everything beyond them, as triangles at the edges."""
    shown = np.where(values > 0, values, np.nan)
    axis.plot(bins[1:-1], shown[1:-1], **style)
    for marker, end in (("<", 0), (">", -1)):
        edge = {"color": style["color"], "markersize": 4, "clip_on": False, "zorder": 6}
        axis.plot(bins[end], shown[end] if shown[end] >= RAREST else np.nan, marker, **edge)
