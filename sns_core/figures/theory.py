"""The theorems as numbers, on a Gaussian process where everything is known."""

from pathlib import Path

import numpy as np

from sns_core.figures.inputs import read
from sns_core.figures.style import FAINT, INK, MUTED, PALETTE, corner, page, panel_letter, short

SAMPLERS = {
    "ancestral": ("ancestral, posterior variance", PALETTE[0]),
    "forward": ("ancestral, forward variance", PALETTE[4]),
    "ddim": ("deterministic (DDIM)", PALETTE[1]),
    "heun": ("second order (Heun)", PALETTE[2]),
}
DASHES = {"A": "-", "B": (0, (4, 1.5)), "C": (0, (1, 1.2))}


def plot_theory(*, theory: Path, dpi: int, output: Path) -> None:
    """Six panels of what `compute_theory` wrote."""
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
    top = float(result["law_error"].max())
    axis.plot(count, 0.6 * top * count[0] / count, color=MUTED, linewidth=0.9)
    axis.annotate("slope 1", (count[-1], 0.6 * top * count[0] / count[-1]), (-2, 5), textcoords="offset points", ha="right",
                  color=MUTED, fontsize=7.5)  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="number of levels S", ylabel="error of the law at (0, 0)")
    axis.set_xticks(count, [str(c) for c in count])
    axis.minorticks_off()
    axis.legend(loc="lower left", fontsize=7)
    corner(axis, "paths A (full), B (dashed), C (dotted)", "upper right")
    panel_letter(axis, "a", "Theorem 3.1: one law for every path")


def _learning(axis, result) -> None:
    excess = result["network_loss"].values - float(result["oracle_loss"])
    axis.plot(result["mark"], excess, color=PALETTE[0], marker="o", markersize=3.5)
    axis.set(xscale="log", yscale="log", xlabel="training steps", ylabel="denoising loss above the exact oracle's")
    corner(axis, f"the oracle's own loss: {short(float(result['oracle_loss']))}", "upper right")
    difference = short(float(result["score_difference"]))
    corner(axis, "corollary 3.4: conditional and joint", "upper right", line=2)
    corner(axis, f"scores differ by {difference}", "upper right", line=3)
    panel_letter(axis, "b", "Theorem 3.3: the network nears the oracle")


def _by_shell(axis, result) -> None:
    marks, distance = result["mark"].values, result["network_distance"].values
    for index, mark in enumerate(marks):
        shade = _shade(index, len(marks))
        axis.plot(
            np.arange(distance.shape[1]), distance[index], color=PALETTE[0], alpha=shade, marker="o", markersize=3
        )
        axis.annotate(f"{mark} steps", (distance.shape[1] - 1, distance[index, -1]), (4, -2), textcoords="offset points",
                      color=PALETTE[0], fontsize=7)  # fmt: skip
    axis.set(yscale="log", xlabel="wavenumber shell", ylabel="|network − oracle|² / |oracle|²")
    axis.set_xlim(-0.3, distance.shape[1] + 0.9)
    panel_letter(axis, "c", "Large scales are learnt last")


def _shade(index: int, count: int) -> float:
    return 0.25 + 0.75 * (index + 1) / count


def _trade_off(axis, result) -> None:
    level, drifts = result["level"].values, result["drift"].values
    for index, drift in enumerate(drifts):
        error, best = result["condition_error"].isel(drift=index).values, int(result["best_level"][index])
        shade = _shade(index, len(drifts))
        axis.plot(level, error, color=PALETTE[1], alpha=shade, label=f"{drift:g}")
        axis.plot(level[best], error[best], "o", color=PALETTE[1], markersize=4.5, alpha=shade)
    axis.set(yscale="log", xlabel="level $s_2$ of the condition", ylabel="error of the predicted $x_t$")
    floor = result["condition_error"].values
    axis.set_ylim(max(floor[floor > 0].min(), 1e-4 * floor.max()), 2 * floor.max())
    axis.legend(title="drift (σ)", loc="lower right", fontsize=7, title_fontsize=7)
    panel_letter(axis, "d", "Two errors, and the best level (dots)")


def _levels(axis, result) -> None:
    drift, estimated = result["drift"].values, result["estimated_level"].values
    axis.fill_between(drift, *np.percentile(estimated, (10, 90), axis=1), color=PALETTE[0], alpha=0.15, linewidth=0)
    axis.plot(
        drift, estimated.mean(1), color=PALETTE[0], marker="o", markersize=3.5, label="estimated, exact posterior"
    )
    axis.plot(drift, result["best_level"], color=PALETTE[1], marker="o", markersize=3.5, label="best")
    axis.set(xlabel="drift of the condition (σ)", ylabel="level $s_2$")
    axis.legend(loc="upper left")
    panel_letter(axis, "e", "The estimated level lies above the best one")


def _information(axis, result) -> None:
    total = result["information"].sum("shell_of_field")
    for index, colour in enumerate(result["colour"].values):
        values = total.isel(colour=index).values[1:]
        if values.max() > 0:
            axis.plot(result["level"].values[1:], values, color=PALETTE[index], label=f"p = {colour:g}")
        else:
            axis.plot([], [], color=PALETTE[index], label=f"p = {colour:g}: none at any level")
    axis.axhline(1, color=FAINT, linewidth=0.9)
    axis.annotate("one level in one frame", (result["level"].values[-1], 1), (-2, 3), textcoords="offset points",
                  ha="right", color=INK, fontsize=7)  # fmt: skip
    axis.set(yscale="log", xscale="log", xlabel="level s", ylabel="Fisher information about s")
    axis.set_ylim(1e-2, None)
    axis.legend(loc="lower left", fontsize=7)
    panel_letter(axis, "f", "What a field tells of its level")
