"""Figure 7: the noise levels that the heads estimate: in use, along a rollout that drifts, and against the truth."""

from pathlib import Path

import numpy as np
from matplotlib.ticker import NullLocator

from sns_core.figures.inputs import living, lost_note, read, read_each
from sns_core.figures.style import (
    FAINT,
    INK,
    NEXT,
    PREVIOUS,
    REFERENCE,
    clip,
    corner,
    empty_panel,
    integers,
    looks,
    page,
    panel_letter,
    plain_minor,
    ratio_ticks,
)  # fmt: skip
from sns_core.metrics.distances import estimated_levels
from sns_core.metrics.lost import is_alive, is_lost

ENERGY = (0.1, 100.0)  # of the solver's kinetic energy: the axis reaches no further
FRAMES = ((0, PREVIOUS, "$s_2$, previous frame"), (1, NEXT, "$s_1$, next frame"))


def plot_levels(
    *, metrics: dict, diagnostics: dict, surrogates: dict, reference: Path, labels: dict, dpi: int, output: Path
) -> None:
    """Estimated levels of each refinement method, a column a method.

    `metrics`: method -> file, of the refinements and their surrogates; `diagnostics`: refinement -> file;
    `surrogates`: refinement -> the method that runs its surrogate alone; `labels`: method -> label, in order.
    """
    known, style = read(reference), looks(labels)
    names = [name for name in labels if name in diagnostics]
    examined = read_each(diagnostics, names)
    results = read_each(metrics, dict.fromkeys([*names, *(surrogates[name] for name in names)]))
    with page(output, dpi, max(6.0, 5.4 * len(names)), 10.8, layout="constrained") as figure:
        for column, (name, part) in enumerate(
            zip(names, np.atleast_1d(figure.subfigures(1, len(names), wspace=0.03)), strict=True)
        ):
            part.suptitle(style[name]["label"], color=style[name]["color"], weight="bold", fontsize=12)
            grid = part.add_gridspec(4, 2, height_ratios=(1, 1, 1, 1.05))
            _histogram(part.add_subplot(grid[0, 0]), results[name], examined[name].attrs["levels"])
            _series(part.add_subplot(grid[0, 1]), results[name])
            upper = part.add_subplot(grid[1, :])
            _along(upper, examined[name], results[surrogates[name]], style[surrogates[name]]["label"])
            lower = part.add_subplot(grid[2, :], sharex=upper)
            _energy(lower, results[surrogates[name]], known, style[surrogates[name]])
            for axis, alarm in ((upper, "level_alarm"), (lower, "energy_alarm")):
                _alarm(axis, examined[name][alarm].values)
            _calibration(part.add_subplot(grid[3, 0]), examined[name])
            _given(part.add_subplot(grid[3, 1]), examined[name])
            if column == 0:
                upper.legend(loc="upper left")


def _level_axis(axis, highest: float, which: str = "x") -> None:
    """Levels from 0: linear for a few, logarithmic above 3 for many."""
    set_scale, set_limits = (axis.set_xscale, axis.set_xlim) if which == "x" else (axis.set_yscale, axis.set_ylim)
    scale = axis.xaxis if which == "x" else axis.yaxis
    if highest > 12:
        set_scale("symlog", linthresh=3, linscale=0.8)
        ticks = [t for t in (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000) if t <= highest]
        scale.set_ticks(ticks, [str(t) for t in ticks])
        scale.set_minor_locator(NullLocator())
    else:
        integers(axis, which)
    set_limits(-0.5 if which == "x" else -0.15, highest * 1.12 + 0.6)


def _histogram(axis, result, levels) -> None:
    """How often each level was estimated, over the steps of all members until they were lost."""
    panel_letter(axis, "a", "Levels in use")
    values, highest = estimated_levels(living(result, "levels")), 0
    if not np.isfinite(values).any():
        return empty_panel(axis, "every member\nlost at once")
    for index, colour, label in FRAMES:
        one = values.isel(frame=index).values
        one = one[np.isfinite(one)].astype(int)
        if not len(one):
            continue
        found, counts = np.unique(one, return_counts=True)
        highest = max(highest, int(found[-1]))
        axis.stairs(counts_of(found, counts) / len(one), np.arange(found[-1] + 2) - 0.5, color=colour, label=label,
                    linewidth=1.4, fill=False)  # fmt: skip
    axis.set_yscale("log")
    _level_axis(axis, highest)
    axis.set(xlabel=f"estimated level (of S = {int(levels)})", ylabel="share of looks")
    axis.legend(loc="upper right")
    plain_minor(axis)


def counts_of(found: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Counts of 0 .. found[-1], with the levels that never came."""
    full = np.zeros(found[-1] + 1)
    full[found] = counts
    return full


def _series(axis, result) -> None:
    panel_letter(axis, "b", "Mean level")
    values = estimated_levels(living(result, "levels")).mean("member")
    if not np.isfinite(values).any():
        return empty_panel(axis, lost_note(result))
    blocks = values.coarsen(step=int(result["block"][0])).mean()
    highest = 0.0
    for index, colour, _ in FRAMES:
        mean = blocks.isel(frame=index).values
        axis.plot(blocks["step"], mean, color=colour)
        highest = max(highest, np.nanmax(mean, initial=0.0))
    _level_axis(axis, highest, "y")
    axis.set(xlabel="step", ylabel="mean level", xlim=(0, float(result["step"][-1])))
    if lost_note(result):
        corner(axis, lost_note(result), "upper right")


def _lost_marks(axis, result) -> None:
    for step in result["lost_step"].values:
        if is_lost(step):
            axis.plot(step, 0.985, "v", color=INK, markersize=4, transform=axis.get_xaxis_transform(), clip_on=False)


def _along(axis, examined, surrogate, label) -> None:
    """Levels that the heads give to the surrogate's own rollout, to each member until it was lost."""
    lost = surrogate["lost_step"].values
    steps, length = examined["rollout_step"].values, int(surrogate["block"][0])
    before = is_alive(lost[None, :], steps[:, None])
    highest = 0.0
    for index, colour, name in FRAMES:
        values = np.where(before, examined["rollout_level"].isel(frame=index).values, np.nan)
        shown = before.any(1)
        low, high = np.nanpercentile(values[shown], (10, 90), axis=1)
        mean = np.nanmean(values[shown], 1)
        axis.fill_between(steps[shown], low, high, color=colour, alpha=0.15, linewidth=0)
        axis.plot(steps[shown], mean, color=colour, linewidth=0.6, alpha=0.4)
        block = steps[shown] // length
        inside = [block == b for b in np.unique(block)]
        axis.plot([steps[shown][i].mean() for i in inside], [mean[i].mean() for i in inside], color=colour, label=name)
        highest = max(highest, float(high.max()))
    _level_axis(axis, highest, "y")
    axis.set_ylabel("estimated level")
    axis.tick_params(labelbottom=False)
    _lost_marks(axis, surrogate)
    panel_letter(axis, "c", f"Levels given to the rollout of {label} alone")


def _energy(axis, surrogate, known, look) -> None:
    """Kinetic energy of the surrogate alone relative to the solver's mean, layers together."""
    truth = known["kinetic_energy"].mean("layer")
    ratio = living(surrogate, "kinetic_energy").mean("layer") / float(truth.mean())
    spread = truth.values / float(truth.mean())
    axis.axhspan(spread.min(), spread.max(), color=REFERENCE, alpha=0.12, linewidth=0)
    axis.axhline(1, color=REFERENCE, linewidth=1.0, linestyle=(0, (2, 1.4)))
    for member in ratio["member"].values:
        axis.plot(ratio["step"], ratio.sel(member=member), color=look["color"], alpha=0.35, linewidth=0.6)
    axis.plot(ratio["step"], ratio.mean("member"), color=look["color"], linewidth=1.8)
    axis.set_yscale("log")
    finite = np.concatenate([ratio.values[np.isfinite(ratio.values)], spread.ravel()])
    clip(axis, max(ENERGY[0], 0.7 * finite.min()), min(ENERGY[1], max(2.0, 1.4 * finite.max())), [finite])
    ratio_ticks(axis)
    axis.set(xlabel="step", ylabel="kinetic energy / solver's", xlim=(0, float(surrogate["step"][-1])))
    _lost_marks(axis, surrogate)
    lost = " (▾ a member is lost)" if lost_note(surrogate) else ""
    panel_letter(axis, "d", f"Kinetic energy of {look['label']} alone{lost}")


def _alarm(axis, steps: np.ndarray) -> None:
    """Where each member is first out of the range of the solver's members."""
    out = steps[steps >= 0]
    for step in out:
        axis.plot(step, 0.03, "|", color=INK, markersize=7, transform=axis.get_xaxis_transform())
    told = f"out of the solver's range: {len(out)} of {len(steps)}"
    corner(axis, f"{told}, median step {np.median(out):.0f}" if len(out) else told, "lower right")


def _calibration(axis, examined) -> None:
    level, top = examined["level"].values, float(examined.attrs["levels"])
    axis.plot([0, top], [0, top], color=FAINT, linewidth=1.0, linestyle=(0, (4, 2)))
    for index, colour, _ in FRAMES:
        given = examined["estimated_level"].isel(frame=index)
        axis.fill_between(level, given.quantile(0.1, "pair"), given.quantile(0.9, "pair"), color=colour, alpha=0.15,
                          linewidth=0)  # fmt: skip
        axis.plot(level, given.mean("pair"), color=colour, marker="o", markersize=2.5, linewidth=1.1)
    axis.set(xlim=(0, top), ylim=(0, top), xlabel="true level of both frames", ylabel="estimated level")
    panel_letter(axis, "e", "Calibration")


def _given(axis, examined) -> None:
    """Distribution of the levels given to clean true pairs and to the surrogate's one step after a true frame."""
    highest = 1.0
    for index, colour, name in FRAMES:
        for source, dashes, label in (
            ("level_of_true_pair", (0, (2, 1.4)), "true pair"), ("level_of_surrogate", "-", "surrogate's step"),
        ):  # fmt: skip
            values = np.sort(examined[source].isel(frame=index).values)
            share = np.arange(1, len(values) + 1) / len(values)
            axis.step(np.concatenate([[0], values]), np.concatenate([[0], share]), where="post", color=colour,
                      linestyle=dashes, linewidth=1.3, label=f"{name.split(',')[0]}, {label}")  # fmt: skip
            highest = max(highest, float(values[-1]))
    _level_axis(axis, highest)
    axis.set(ylim=(0, 1.02), xlabel="estimated level", ylabel="share at or below")
    panel_letter(axis, "f", "Level of clean pairs")
    axis.legend(loc="lower right", fontsize=7)
