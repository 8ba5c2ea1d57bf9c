"""Figure 5: temporal coherence, C(tau) and R(t), early and late."""

from pathlib import Path

import numpy as np

from sns_core.figures.inputs import living, lost_note, read, read_each, step_size, thirds
from sns_core.figures.style import FAINT, MUTED, REFERENCE, corner, looks, page, panel_letter, short, time_label, unit
from sns_core.metrics.distances import correlation_pairs, weighted_correlation

DOTTED = {"color": REFERENCE, "linewidth": 1.2, "linestyle": (0, (2, 1.4))}
BEYOND = 2.0  # R(t) is drawn up to this many times the solver's mean


def plot_temporal(*, metrics: dict, reference: Path, labels: dict, dpi: int, output: Path) -> None:
    """C(tau) in the first and the last third of each rollout, and R(t) all along, beside the solver's ensemble.

    `metrics`: method -> file; `labels`: method -> label, in order.
    """
    known, results, style = read(reference), read_each(metrics, labels), looks(labels)
    lag, size = known["lag"].values, step_size(known)
    time_units = next(iter(results.values()))["lag"].attrs.get("units", "1")
    longest = max(int(result["step"][-1]) for result in results.values())

    with page(output, dpi, 10.4, 6.7, layout="constrained") as figure:
        grid = figure.add_gridspec(2, 2, height_ratios=(1.15, 1), hspace=0.06, wspace=0.04)
        for column, part in enumerate(("early", "late")):
            axis = figure.add_subplot(grid[0, column])
            truth = known["correlation"].values
            axis.fill_between(lag, truth.min(0), truth.max(0), color=REFERENCE, alpha=0.13, linewidth=0)
            axis.plot(lag, truth.mean(0), **DOTTED, zorder=5)
            for method, result in results.items():
                chosen = thirds(result)[part]
                values = living(chosen, "correlation").transpose("member", "block", "lag").values
                pairs = correlation_pairs(result["block"].values, lag)
                pairs = pairs[np.isin(result["block"].values, chosen["block"].values)]
                mean = weighted_correlation(values.reshape(-1, len(lag)), np.tile(pairs, (len(values), 1)))
                if np.isfinite(mean).any():
                    axis.plot(lag, mean, **style[method])
            axis.set(xlim=(0, lag[-1]), xlabel=f"lag τ{unit(time_units, 'time units')}", ylim=(-0.1, 1.03))
            axis.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
            panel_letter(axis, "ab"[column], f"Correlation C(τ), {'first' if part == 'early' else 'last'} third")
            if column:
                axis.tick_params(labelleft=False)
            else:
                axis.set_ylabel("correlation with the frame τ before")
                axis.plot([], [], **DOTTED, label="Solver ensemble, range")
                axis.legend(loc="upper right")

        axis = figure.add_subplot(grid[1, :])
        truth = known["rate_of_change"].values
        axis.axhspan(truth.min(), truth.max(), color=REFERENCE, alpha=0.13, linewidth=0)
        axis.axhline(truth.mean(), **DOTTED, zorder=5)
        drawn = {}
        for method, result in results.items():
            rate = living(result, "rate_of_change")
            each, steps = rate.mean("member").values, result["step"].values
            length = int(result["block"][0])
            block = each.reshape(-1, length).mean(1)
            axis.plot(steps * size, each, color=style[method]["color"], alpha=0.28, linewidth=0.6)
            axis.plot((result["block"].values - (length - 1) / 2) * size, block, **style[method])
            drawn[method] = block
        for cut in (longest / 3, 2 * longest / 3):
            axis.axvline(cut * size, color=FAINT, linewidth=0.9, linestyle=(0, (1, 2)))
        for x, text, side in ((longest / 3, "◂ first third", "right"), (2 * longest / 3, "last third ▸", "left")):
            axis.annotate(text, (x * size, 0), (-3 if side == "right" else 3, 4), ("data", "axes fraction"),
                          "offset points", ha=side, color=MUTED, fontsize=7.5)  # fmt: skip
        axis.set(xlim=(0, longest * size), xlabel=time_label(time_units), ylabel="R(t) (σ per unit of time)")
        inside = np.concatenate([truth, *drawn.values()])
        high = 1.25 * inside[inside <= BEYOND * truth.mean()].max()
        axis.set_ylim(0, high)
        panel_letter(axis, "c", "Rate of change R(t), mean over members; bold: over a block of steps")
        notes = []
        for method, result in results.items():
            beyond = np.nanmax(drawn[method], initial=0)
            found = [lost_note(result), f"up to {short(beyond)}, beyond the axis" if beyond > high else ""]
            if any(found):
                notes.append((f"{style[method]['label']}: {', '.join(filter(None, found))}", style[method]["color"]))
        for line, (note, colour) in enumerate(notes):
            corner(axis, note, "upper right", colour, line=line, box=True)
