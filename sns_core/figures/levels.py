"""Figure 7: the noise levels that a denoiser estimates, in use, along a drifting rollout, and against true levels."""

import math
from pathlib import Path

import numpy as np
from matplotlib.ticker import NullLocator

from sns_core.figures.inputs import living, lost_note, read, read_each
from sns_core.figures.style import (
    DOTTED,
    FAINT,
    INK,
    NEXT,
    PREVIOUS,
    REFERENCE,
    clip,
    corner,
    empty_panel,
    integers,
    method_styles,
    page,
    panel_letter,
    ratio_ticks,
    readable,
)
from sns_core.files import FileTree
from sns_core.metrics.distances import estimated_levels
from sns_core.metrics.lost import is_alive, is_lost

ENERGY = (0.1, 100.0)  # times the solver's kinetic energy: the axis ends here at most
FRAMES = ((0, PREVIOUS, "$s_2$, previous frame"), (1, NEXT, "$s_1$, next frame"))
DASHED = (0, (2, 1.4))


def plot_levels(
    *, metrics: FileTree, diagnostics: FileTree, surrogates: dict, reference: Path, labels: dict, dpi: int, output: Path
) -> None:
    """Draw the estimated levels of each refinement method, one block of panels per method.

    `metrics`: method -> file, of the refinements and their surrogates; `diagnostics`: refinement -> file;
    `surrogates`: refinement -> the method that runs its surrogate alone; `labels`: method -> label, in order.
    """
    solver, styles = read(reference), method_styles(labels)
    names = [name for name in labels if name in diagnostics]
    diagnoses = read_each(diagnostics, names)
    results = read_each(metrics, dict.fromkeys([*names, *(surrogates[name] for name in names)]))
    with page(output, dpi, 11.4, 5.6 * len(names), layout="constrained") as figure:
        parts = np.atleast_1d(figure.subfigures(len(names), 1, hspace=0.03))
        for name, part in zip(names, parts, strict=True):
            title = {"color": readable(styles[name]["color"]), "weight": "bold", "fontsize": 12}
            part.suptitle(styles[name]["label"], x=0.006, ha="left", **title)
            surrogate = surrogates[name]
            _block(part, diagnoses[name], results[name], results[surrogate], solver, styles[surrogate])


def _block(part, diagnosis, result, surrogate, solver, style: dict) -> None:
    """Draw the panels of one method."""
    grid = part.add_gridspec(2, 3, width_ratios=(1, 1, 2))
    _histogram(part.add_subplot(grid[0, 0]), result, diagnosis.attrs["levels"])
    _series(part.add_subplot(grid[0, 1]), result)
    upper = part.add_subplot(grid[0, 2])
    _along_surrogate(upper, diagnosis, surrogate, style["label"])
    lower = part.add_subplot(grid[1, 2], sharex=upper)
    _energy(lower, surrogate, solver, style)
    _shared_steps(lower, surrogate)
    _alarm(upper, _early_alarm(diagnosis), line=3, sign="amplitude that the score tells ")
    _alarm(lower, diagnosis["energy_alarm"].values, line=0)
    _calibration(part.add_subplot(grid[1, 0]), diagnosis)
    _clean_pairs(part.add_subplot(grid[1, 1]), diagnosis)


def _level_axis(axis, highest: float, which: str = "x") -> None:
    """Make an axis of levels from 0: linear for small levels, logarithmic above 3 if they reach beyond 12."""
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


def _headroom(axis, share: float) -> None:
    """Raise the upper end of y until this share of the height lies above what is drawn, for a legend and notes."""
    scale = axis.yaxis.get_transform()
    low, high = scale.transform(np.array(axis.get_ylim()))
    axis.set_ylim(top=float(scale.inverted().transform(low + (high - low) / (1 - share))))


def _share_axis(axis, least: float, largest: float) -> None:
    """Make y a logarithmic axis of shares: a decade at least, so that a power of ten is on it, and no tick above 1."""
    low, high = min(0.7 * least, 0.1 * largest), 1.1 * largest
    axis.set(yscale="log", ylim=(low, high))
    axis.set_yticks(10.0 ** np.arange(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1))
    axis.yaxis.set_minor_locator(NullLocator())


def _histogram(axis, result, levels) -> None:
    """Draw how often each level was estimated, over the steps of all members until they were lost."""
    panel_letter(axis, "a", "Levels in use")
    values, highest, shares = estimated_levels(living(result, "levels")), 0, []
    if not np.isfinite(values).any():
        return empty_panel(axis, "every member\nlost at once")
    for index, colour, label in FRAMES:
        frame = values.isel(frame=index).values
        frame = frame[np.isfinite(frame)].astype(int)
        if len(frame):
            counts = np.bincount(frame)
            highest = max(highest, len(counts) - 1)
            edges = np.arange(len(counts) + 1) - 0.5
            axis.stairs(counts / len(frame), edges, color=colour, label=label, linewidth=1.4, fill=False)
            shares += (counts[counts > 0] / len(frame)).tolist()
    _share_axis(axis, min(shares), max(shares))
    _headroom(axis, 0.26)
    _level_axis(axis, highest)
    axis.set(xlabel=f"estimated level (of S = {int(levels)})", ylabel="share of estimates")
    axis.legend(loc="upper right")


def _series(axis, result) -> None:
    """Draw the mean level of each block of steps."""
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
    axis.locator_params(axis="x", nbins=4)
    if lost_note(result):
        corner(axis, lost_note(result), "upper right")


def _lost_marks(axis, result) -> None:
    """Mark the steps at which members were lost."""
    edge = {"transform": axis.get_xaxis_transform(), "clip_on": False}
    for step in result["lost_step"].values:
        if is_lost(step):
            axis.plot(step, 0.985, "v", color=INK, markersize=4, **edge)


def _along_surrogate(axis, diagnosis, surrogate, label: str) -> None:
    """Draw the levels estimated along the surrogate's own rollout, of each member until it was lost."""
    lost = surrogate["lost_step"].values
    steps, length = diagnosis["rollout_step"].values, int(surrogate["block"][0])
    before = is_alive(lost[None, :], steps[:, None])
    highest = 0.0
    for index, colour, name in FRAMES:
        values = np.where(before, diagnosis["rollout_level"].isel(frame=index).values, np.nan)
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
    _headroom(axis, 0.36)  # the legend, and the note of the alarm below it
    axis.set_ylabel("estimated level")
    axis.tick_params(labelbottom=False)
    axis.legend(loc="upper left")
    _lost_marks(axis, surrogate)
    panel_letter(axis, "c", f"Levels along the rollout of {label} alone")


def _energy(axis, surrogate, solver, style: dict) -> None:
    """Draw the kinetic energy of the surrogate alone, each layer relative to its mean of the solver; the mean over layers."""
    ensemble = solver["kinetic_energy"]
    usual = ensemble.mean("member")  # of each layer: layers may differ in units
    ratio = (living(surrogate, "kinetic_energy") / usual).mean("layer")
    spread = (ensemble / usual).mean("layer").values
    axis.axhspan(spread.min(), spread.max(), color=REFERENCE, alpha=0.12, linewidth=0)
    axis.axhline(1, **DOTTED)
    for member in ratio["member"].values:
        axis.plot(ratio["step"], ratio.sel(member=member), color=style["color"], alpha=0.35, linewidth=0.6)
    axis.plot(ratio["step"], ratio.mean("member"), color=style["color"], linewidth=1.8)
    axis.set_yscale("log")
    finite = np.concatenate([ratio.values[np.isfinite(ratio.values)], spread.ravel()])
    clip(axis, max(ENERGY[0], 0.7 * finite.min()), min(ENERGY[1], max(2.0, 1.4 * finite.max())), [finite])
    ratio_ticks(axis)
    axis.set_ylabel("kinetic energy / solver's")
    _lost_marks(axis, surrogate)
    lost = " (▾ a member is lost)" if lost_note(surrogate) else ""
    panel_letter(axis, "d", f"Kinetic energy of {style['label']} alone{lost}")


def _shared_steps(axis, surrogate) -> None:
    """Set the axis of steps that c and d share; it ends soon after the loss of the last member."""
    last, lost = int(surrogate["step"][-1]), surrogate["lost_step"].values
    if is_lost(lost).all() and 1.1 * lost.max() < last:
        axis.set(xlabel=f"step (of {last}; every member is lost by step {lost.max()})", xlim=(0, 1.1 * lost.max()))
    else:
        axis.set(xlabel="step", xlim=(0, last))


def _early_alarm(diagnosis) -> np.ndarray:
    """Return the steps of the alarm that the denoiser gives; results of older versions hold that of its heads."""
    return diagnosis["amplitude_alarm" if "amplitude_alarm" in diagnosis else "level_alarm"].values


def _alarm(axis, steps: np.ndarray, line: int, sign: str = "") -> None:
    """Mark the step at which each member first leaves the range of the solver's members; -1: never.

    `line`: of the note, counted from the upper edge; `sign`: what leaves the range, for the note.
    """
    out = steps[steps >= 0]
    for step in out:
        axis.plot(step, 0.03, "|", color=INK, markersize=7, transform=axis.get_xaxis_transform())
    note = f"{sign}out of the solver's range: {len(out)} of {len(steps)}"
    corner(axis, f"{note}, median step {np.median(out):.0f}" if len(out) else note, "upper left", line=line, box=True)


def _calibration(axis, diagnosis) -> None:
    """Draw estimated against true levels of pairs that were noised to the same level in both frames."""
    level, top = diagnosis["level"].values, float(diagnosis.attrs["levels"])
    axis.plot([0, top], [0, top], color=FAINT, linewidth=1.0, linestyle=(0, (4, 2)))
    for index, colour, _ in FRAMES:
        estimates = diagnosis["estimated_level"].isel(frame=index)
        low, high = estimates.quantile(0.1, "pair"), estimates.quantile(0.9, "pair")
        axis.fill_between(level, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.plot(level, estimates.mean("pair"), color=colour, marker="o", markersize=2.5, linewidth=1.1)
    axis.set(xlim=(0, top), ylim=(0, top), xlabel="true level of both frames", ylabel="estimated level")
    panel_letter(axis, "e", "Calibration")


def _clean_pairs(axis, diagnosis) -> None:
    """Draw the distribution of the levels of clean true pairs, and of true frames with the surrogate's next step."""
    highest = 1.0
    sources = (("level_of_true_pair", DASHED, "true pair"), ("level_of_surrogate", "-", "surrogate's step"))
    for index, colour, name in FRAMES:
        for source, dashes, label in sources:
            values = np.sort(diagnosis[source].isel(frame=index).values)
            share = np.arange(1, len(values) + 1) / len(values)
            style = {"color": colour, "linestyle": dashes, "linewidth": 1.3, "label": f"{name.split(',')[0]}, {label}"}
            axis.step(np.concatenate([[0], values]), np.concatenate([[0], share]), where="post", **style)
            highest = max(highest, float(values[-1]))
    _level_axis(axis, highest)
    axis.set(ylim=(0, 1.02), xlabel="estimated level", ylabel="share at or below")
    panel_letter(axis, "f", "Level of clean pairs")
    axis.legend(loc="best", fontsize=7)
