"""Figure 5: temporal coherence, the correlation C(tau) and the rate of change R(t), early and late."""

from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from sns_core.figures.inputs import living, lost_note, read, read_each, step_size, thirds, time_units
from sns_core.figures.style import (
    DOTTED,
    FAINT,
    REFERENCE,
    corner,
    method_styles,
    note_at,
    outer_legend,
    page,
    panel_letter,
    time_label,
    unit,
)
from sns_core.files import FileTree
from sns_core.metrics.distances import correlation_pairs, weighted_correlation
from sns_core.wording import short

LARGEST_RATE = 2.0  # the axis of R(t) ends at this many times the solver's mean at most


def plot_temporal(*, metrics: FileTree, reference: Path, labels: dict, dpi: int, output: Path) -> None:
    """Draw C(tau) in the first and the last third of each rollout, and R(t), beside the solver's ensemble.

    `metrics`: method -> file; `labels`: method -> label, in order.
    """
    solver, results, styles = read(reference), read_each(metrics, labels), method_styles(labels)
    with page(output, dpi, 10.4, 7.0, layout="constrained") as figure:
        grid = figure.add_gridspec(2, 2, height_ratios=(1.15, 1), hspace=0.06, wspace=0.04)
        for column, part in enumerate(("early", "late")):
            axis = figure.add_subplot(grid[0, column])
            _correlations(axis, solver, results, part, styles)
            panel_letter(axis, "ab"[column], f"Correlation C(τ), {'first' if part == 'early' else 'last'} third")
            if column:
                axis.tick_params(labelleft=False)
            else:
                axis.set_ylabel("correlation with the frame τ before")
        legend_styles = [*styles.values(), {**DOTTED, "label": "Solver ensemble, range"}]
        handles = [Line2D([], [], **style) for style in legend_styles]
        outer_legend(figure, handles, "outside upper center", 5, columnspacing=1.6)
        axis = figure.add_subplot(grid[1, :])
        rates = _rates(axis, solver, results, styles)
        _thirds_marks(axis, results, step_size(solver))
        _rate_notes(axis, results, rates, styles)
        panel_letter(axis, "c", "Rate of change R(t), mean over members; bold: over a block of steps")


def _correlations(axis, solver, results: dict, part: str, styles: dict) -> None:
    """Draw C(tau) of each method over the blocks of its early or late `part`.

    The mean over members and blocks weighs each block by its pairs of frames; the first blocks have few pairs.
    """
    lag, ensemble = solver["lag"].values, solver["correlation"].values
    axis.fill_between(lag, ensemble.min(0), ensemble.max(0), color=REFERENCE, alpha=0.13, linewidth=0)
    axis.plot(lag, ensemble.mean(0), **DOTTED)
    for method, result in results.items():
        chosen = thirds(result)[part]
        values = living(chosen, "correlation").transpose("member", "block", "lag").values
        pairs = correlation_pairs(result["block"].values, lag)
        pairs = pairs[np.isin(result["block"].values, chosen["block"].values)]
        mean = weighted_correlation(values.reshape(-1, len(lag)), np.tile(pairs, (len(values), 1)))
        if np.isfinite(mean).any():
            axis.plot(lag, mean, **styles[method])
    axis.set(xlim=(0, lag[-1]), xlabel=f"lag τ{unit(time_units(results), 'time units')}", ylim=(-0.1, 1.03))
    axis.axhline(0, color=FAINT, linewidth=0.8, zorder=0)


def _rates(axis, solver, results: dict, styles: dict) -> dict[str, np.ndarray]:
    """Draw R(t) of each method; return method -> its means over blocks."""
    ensemble, size, rates = solver["rate_of_change"].values, step_size(solver), {}
    axis.axhspan(ensemble.min(), ensemble.max(), color=REFERENCE, alpha=0.13, linewidth=0)
    axis.axhline(ensemble.mean(), **DOTTED)
    for method, result in results.items():
        each, length = living(result, "rate_of_change").mean("member").values, int(result["block"][0])
        rates[method] = each.reshape(-1, length).mean(1)
        axis.plot(result["step"].values * size, each, color=styles[method]["color"], alpha=0.28, linewidth=0.6)
        axis.plot((result["block"].values - (length - 1) / 2) * size, rates[method], **styles[method])
    inside = np.concatenate([ensemble, *rates.values()])
    axis.set_ylim(0, 1.25 * inside[inside <= LARGEST_RATE * ensemble.mean()].max())
    axis.set(xlabel=time_label(time_units(results)), ylabel="R(t) (σ per unit of time)")
    return rates


def _thirds_marks(axis, results: dict, size: float) -> None:
    """Mark the thirds of the longest rollout."""
    last = max(int(result["step"][-1]) for result in results.values()) * size
    for time, text, side in ((last / 3, "◂ first third", "right"), (2 * last / 3, "last third ▸", "left")):
        axis.axvline(time, color=FAINT, linewidth=0.9, linestyle=(0, (1, 2)))
        note_at(axis, text, (time, 0), (-3 if side == "right" else 3, 4), ("data", "axes fraction"), ha=side)
    axis.set_xlim(0, last)


def _rate_notes(axis, results: dict, rates: dict, styles: dict) -> None:
    """Write into the corner which methods lost members, and which rates lie beyond the axis."""
    line, high = 0, axis.get_ylim()[1]
    for method, result in results.items():
        largest = np.nanmax(rates[method], initial=0)
        notes = [lost_note(result), f"up to {short(largest)}, beyond the axis" if largest > high else ""]
        if any(notes):
            text = f"{styles[method]['label']}: {', '.join(filter(None, notes))}"
            corner(axis, text, "upper right", styles[method]["color"], line=line, box=True)
            line += 1
