"""The theorems in numbers, on a Gaussian process for which every quantity has a closed form."""

from pathlib import Path

import numpy as np

from sns_core.figures.inputs import read
from sns_core.figures.style import FAINT, INK, MUTED, OTHER_COLOURS, corner, note_at, page, panel_letter
from sns_core.wording import short

FIRST, SECOND, THIRD = OTHER_COLOURS[1], OTHER_COLOURS[2], OTHER_COLOURS[0]
SAMPLERS = {
    "ancestral": ("ancestral, posterior variance", FIRST),
    "forward": ("ancestral, forward variance", OTHER_COLOURS[4]),
    "ddim": ("deterministic (DDIM)", SECOND),
    "heun": ("second order (Heun)", THIRD),
}
DASHES = {"A": "-", "B": (0, (4, 1.5)), "C": (0, (1, 1.2))}


def plot_theory(*, theory: Path, dpi: int, output: Path) -> None:
    """Draw the results of `compute_theory` in six panels.

    `theory`: result of `compute_theory`.
    """
    result = read(theory)
    with page(output, dpi, 11.4, 6.8, layout="constrained") as figure:
        axes = figure.subplots(2, 3)
        _laws(axes[0, 0], result)
        _learning(axes[0, 1], result)
        _by_shell(axes[0, 2], result)
        _trade_off(axes[1, 0], result)
        _levels(axes[1, 1], result)
        _information(axes[1, 2], result)


def _laws(axis, result) -> None:
    count = result["levels"].values
    for sampler, (label, colour) in SAMPLERS.items():
        for path, dashes in DASHES.items():
            error = result["law_error"].sel(path=path, sampler=sampler).values
            axis.plot(count, error, color=colour, linestyle=dashes, label=label if path == "A" else None)
    top = 0.6 * float(result["law_error"].max())
    axis.plot(count, top * count[0] / count, color=MUTED, linewidth=0.9)
    note_at(axis, "slope 1", (count[-1], top * count[0] / count[-1]), (-2, 5), ha="right")
    axis.set(xscale="log", yscale="log", xlabel="number of levels S", ylabel="error of the law at (0, 0)")
    axis.set_xticks(count, [str(c) for c in count])
    axis.minorticks_off()
    axis.legend(loc="lower left", fontsize=7)
    corner(axis, "paths A (full), B (dashed), C (dotted)", "upper right")
    panel_letter(axis, "a", "Theorem 3.1: one law for every path")


def _learning(axis, result) -> None:
    excess = result["network_loss"].values - float(result["oracle_loss"])
    axis.plot(result["mark"], excess, color=FIRST, marker="o", markersize=3.5)
    axis.set(xscale="log", yscale="log", xlabel="training steps", ylabel="denoising loss above the exact oracle's")
    corner(axis, f"the oracle's own loss: {short(float(result['oracle_loss']))}", "upper right")
    corner(axis, "corollary 3.4: conditional and joint", "upper right", line=2)
    corner(axis, f"scores differ by {short(float(result['score_difference']))}", "upper right", line=3)
    panel_letter(axis, "b", "Theorem 3.3: the network nears the oracle")


def _by_shell(axis, result) -> None:
    steps, distance = result["mark"].values, result["network_distance"].values
    shells = np.arange(distance.shape[1])
    for index, step in enumerate(steps):
        style = {"color": FIRST, "alpha": _shade(index, len(steps)), "marker": "o", "markersize": 3}
        axis.plot(shells, distance[index], **style)
        note_at(axis, f"{step} steps", (shells[-1], distance[index, -1]), (4, -2), color=FIRST, fontsize=7)
    axis.set(yscale="log", xlabel="wavenumber shell", ylabel="|network − oracle|² / |oracle|²")
    axis.set_xlim(-0.3, len(shells) + 0.9)
    panel_letter(axis, "c", "Large scales are learnt last")


def _shade(index: int, count: int) -> float:
    return 0.25 + 0.75 * (index + 1) / count


def _trade_off(axis, result) -> None:
    level, drifts = result["level"].values, result["drift"].values
    for index, drift in enumerate(drifts):
        error, best = result["condition_error"].isel(drift=index).values, int(result["best_level"][index])
        shade = _shade(index, len(drifts))
        axis.plot(level, error, color=SECOND, alpha=shade, label=f"{drift:g}")
        axis.plot(level[best], error[best], "o", color=SECOND, markersize=4.5, alpha=shade)
    axis.set(yscale="log", xlabel="level $s_2$ of the condition", ylabel="error of the predicted $x_t$")
    errors = result["condition_error"].values
    axis.set_ylim(max(errors[errors > 0].min(), 1e-4 * errors.max()), 2 * errors.max())
    axis.legend(title="drift (σ)", loc="lower right", fontsize=7, title_fontsize=7)
    panel_letter(axis, "d", "Two errors, and the best level (dots)")


def _levels(axis, result) -> None:
    drift, estimated = result["drift"].values, result["estimated_level"].values
    axis.fill_between(drift, *np.percentile(estimated, (10, 90), axis=1), color=FIRST, alpha=0.15, linewidth=0)
    dots = {"marker": "o", "markersize": 3.5}
    axis.plot(drift, estimated.mean(1), color=FIRST, label="estimated, exact posterior", **dots)
    axis.plot(drift, result["best_level"], color=SECOND, label="best", **dots)
    axis.set(xlabel="drift of the condition (σ)", ylabel="level $s_2$")
    axis.legend(loc="upper left")
    panel_letter(axis, "e", "The estimated level lies above the best one")


def _information(axis, result) -> None:
    total = result["information"].sum("shell_of_field")
    for index, exponent in enumerate(result["colour"].values):
        values, colour = total.isel(colour=index).values[1:], OTHER_COLOURS[(index + 1) % len(OTHER_COLOURS)]
        if values.max() > 0:
            axis.plot(result["level"].values[1:], values, color=colour, label=f"p = {exponent:g}")
        else:
            axis.plot([], [], color=colour, label=f"p = {exponent:g}: none at any level")
    axis.axhline(1, color=FAINT, linewidth=0.9)
    place = ((result["level"].values[-1], 1), (-2, 3))
    note_at(axis, "one level in one frame", *place, color=INK, ha="right", fontsize=7)
    axis.set(yscale="log", xscale="log", xlabel="level s", ylabel="Fisher information about s")
    axis.set_ylim(1e-2, None)
    axis.legend(loc="lower left", fontsize=7)
    panel_letter(axis, "f", "Information of a field about its level")
