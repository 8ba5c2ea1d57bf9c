"""Figure 12: how often each value of vorticity, its gradient and velocity occurs, beside the solver's ensemble."""

from pathlib import Path

import numpy as np

from sns_core.figures.inputs import living, lost_note, read, read_each
from sns_core.figures.style import REFERENCE, looks, page, panel_letter, plain_minor

DASHED = {"color": REFERENCE, "linewidth": 1.1, "linestyle": (0, (2, 1.4)), "zorder": 5}
RAREST = 1e-5  # share of a standard deviation below which nothing is drawn
QUANTITIES = {"vorticity": "vorticity", "velocity": "velocity", "gradient": "vorticity gradient"}


def plot_distributions(*, metrics: dict, reference: Path, labels: dict, dpi: int, output: Path) -> None:
    """Probability densities, a row a layer: `metrics`: method -> file; `labels`: method -> label, in order."""
    known, results, style = read(reference), read_each(metrics, labels), looks(labels)
    layers = [str(layer) for layer in known["layer"].values]
    with page(output, dpi, 11.4, 3.0 * len(layers) + 0.45, layout="constrained") as figure:
        axes = figure.subplots(len(layers), len(QUANTITIES), squeeze=False, sharey=True)
        for layer, label in enumerate(layers):
            suffix = "" if len(layers) == 1 else f", {label}"
            for column, (name, title) in enumerate(QUANTITIES.items()):
                axis = axes[layer, column]
                _densities(axis, known, results, style, name, layer)
                panel_letter(axis, "abc"[column], f"Density of the {title}{suffix}")
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 4), columnspacing=1.6)


def density(counts: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Histogram (..., bin) as a density over `bins`, their centres; NaN where nothing was counted."""
    total = counts.sum(-1, keepdims=True) * (bins[1] - bins[0])
    return np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)


def _densities(axis, known, results, style, name: str, layer: int) -> None:
    bins = known["bin"].values
    truth = density(known[f"{name}_counts"].isel(layer=layer).sum("member").values.astype(float), bins)
    for method, result in results.items():
        counts = living(result, f"{name}_counts").isel(layer=layer).sum("block")
        each = density(counts.values.astype(float), bins)
        each = each[np.isfinite(each).all(-1)]
        note = lost_note(result)
        axis.plot([], [], **{**style[method], "label": style[method]["label"] + (f" ({note})" if note else "")})
        if len(each):
            colour = style[method]["color"]
            axis.fill_between(bins, each.min(0), each.max(0), color=colour, alpha=0.15, linewidth=0)
            axis.plot(bins, np.where(each.mean(0) > 0, each.mean(0), np.nan), **{**style[method], "label": None})
    axis.plot(bins, np.where(truth > 0, truth, np.nan), **DASHED, label="Solver ensemble")
    axis.set_yscale("log")
    axis.set(ylim=(RAREST, 1.5), xlim=(bins[0], bins[-1]), xlabel="standard deviations of the solver", ylabel="density")
    plain_minor(axis)
