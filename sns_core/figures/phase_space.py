"""Figure 2: the plane of noise levels, and the path that each strategy takes through it."""

import itertools
from pathlib import Path as FilePath

import numpy as np
import torch

from sns_core.diffusion import Path
from sns_core.figures.style import FAINT, INK, MUTED, NEXT, PREVIOUS, page, panel_letter

LEVELS = 12  # of the plane that is drawn, with a move per level
ESTIMATED = (4, 7)  # an example of estimated levels (s2, s1)


def strategies() -> dict[str, tuple[str, Path, str]]:
    """Return title -> (the start in words, path, the paper's name of the path)."""
    top, (s_prev, s_next) = LEVELS, ESTIMATED
    return {
        "Clean conditioning": ("$x_t$ pure noise, $x_{t-1}$ clean", Path.clean(0, top), "down"),
        "ACDM": ("both pure noise; $x_{t-1}$ noised afresh", Path.acdm(top, top, 2), "jump, then down"),
        "Thermalizer": ("$x_t$ at its estimated level, no condition", Path.unconditional(top, s_next), "down"),
        "SNS generation": ("$x_t$ pure noise, $s_2$ estimated", Path.left_then_down(s_prev, top), "left, then down"),
        "SNS refinement, path A": ("both levels estimated", Path.left_then_down(s_prev, s_next), "left, then down"),
        "SNS refinement, path B": ("both levels estimated", Path.down_then_left(s_prev, s_next), "down, then left"),
        "SNS refinement, path C": ("both levels estimated", Path.diagonal(s_prev, s_next), "to the diagonal, along it"),
        "SNS refinement, fixed $s_2$": ("$x_{t-1}$ held", Path.fixed_condition(s_prev, s_next), "down"),
    }


def plot_phase_space(*, dpi: int, output: FilePath) -> None:
    """Draw one panel per strategy from the path that the walk itself follows."""
    with page(output, dpi, 11.4, 6.4, layout="constrained") as figure:
        axes = figure.subplots(2, 4, sharex=True, sharey=True)
        for letter, axis, (title, strategy) in zip("abcdefgh", axes.flat, strategies().items(), strict=True):
            _strategy(axis, *strategy)
            panel_letter(axis, letter, title)
        for axis in axes[-1]:
            axis.set_xlabel("$s_2$, level of $x_{t-1}$", color=PREVIOUS)
        for axis in axes[:, 0]:
            axis.set_ylabel("$s_1$, level of $x_t$", color=NEXT)


def _strategy(axis, start: str, path: Path, name: str) -> None:
    points = path.levels[:, 0].double()
    if path.renoise:
        points = _with_jumps(points)
    axis.plot([0, LEVELS], [0, LEVELS], color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)))
    for begin, end in zip(points[:-1].tolist(), points[1:].tolist(), strict=True):
        arrow = {"arrowstyle": "-|>", "mutation_scale": 7, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", end, begin, arrowprops={"color": _colour_of_move(begin, end), **arrow})
    first, last = points[0].tolist(), points[-1].tolist()
    axis.plot(*first, "o", color=INK, markersize=7, zorder=4)
    axis.plot(*last, "o", color="white", markeredgecolor=INK, markersize=7, zorder=4)
    axis.set(xlim=(-0.9, LEVELS + 0.9), ylim=(-0.9, LEVELS + 0.9), aspect="equal")
    ticks = np.array([0, LEVELS])
    axis.set_xticks(ticks, ["0", "S"])
    axis.set_yticks(ticks, ["0", "S"])
    right = 0.88 if first[0] == LEVELS == last[0] else 0.98  # clear of a path down the right edge
    axis.text(right, 0.09, f"{start}\n{name}", transform=axis.transAxes, ha="right", color=MUTED, fontsize=7.5)


def _colour_of_move(begin: list[float], end: list[float]) -> str:
    """Return the colour of the frame that a move denoises or noises; ink for a move of both frames."""
    if begin[0] == end[0]:
        return NEXT
    return PREVIOUS if begin[1] == end[1] else INK


def _with_jumps(points: torch.Tensor) -> torch.Tensor:
    """Return the course of a renoised walk: the previous frame is clean before each jump to the next frame's level."""
    course = []
    for begin, end in itertools.pairwise(points):
        clean = torch.stack([torch.zeros_like(begin[0]), begin[1]])
        course += [clean, begin, torch.stack([begin[0], end[1]])]
    return torch.stack([*course, points[-1]])
