"""Figure 16: what a calibrated refinement follows, as it was measured on validation data."""

import string
from pathlib import Path

import numpy as np

from sns_core.figures.inputs import shown_shells
from sns_core.figures.style import FAINT, MUTED, method_styles, page, panel_letter, plain_minor, wavenumber_axis
from sns_core.files import FileTree, read_json

BANDS = ((1, 3), (4, 7), (8, 15))  # first and last shell of the bands whose power in the loop is drawn
STYLES = ("-", "--", ":")


def plot_calibration(*, calibrations: FileTree, labels: dict, dpi: int, output: Path) -> None:
    """Draw the spectra of each calibration, how much the surrogate's errors of successive steps have in common, the power
    of bands of shells along the loop, and the level of the condition.

    `calibrations`: method -> file of `calibrate_refinement`; `labels`: method -> label of all methods, for their colours.
    """
    styles = method_styles(labels)
    contents = {name: read_json(calibrations[name]) for name in labels if name in calibrations}
    channels = len(next(iter(contents.values()))["power"])
    with page(output, dpi, 13.4, 0.4 + 2.7 * channels, layout="constrained") as figure:
        for channel, (spectra, errors, loop, levels) in enumerate(figure.subplots(channels, 4, squeeze=False)):
            for name, content in contents.items():
                _spectra(spectra, content, channel, styles[name])
                if content.get("error_correlation"):  # students and older files have none
                    _errors(errors, content, channel, styles[name])
                if content["condition_levels"]:  # a method that gives no power back runs no loop
                    _loop(loop, content, channel, styles[name])
                    _levels(levels, content, styles[name])
            suffix = "" if channels == 1 else f", channel {channel + 1}"
            letters = string.ascii_lowercase[4 * channel % 24 :]
            panel_letter(spectra, letters[0], f"share of the data's power{suffix}")
            panel_letter(errors, letters[1], "correlation of successive errors")
            panel_letter(loop, letters[2], "power in the loop / data's")
            panel_letter(levels, letters[3], "level of the previous frame")
            errors.axhline(0, color=FAINT, linewidth=0.9, zorder=0)
            errors.set_ylim(top=1)
            loop.axhline(1, color=FAINT, linewidth=0.9, zorder=0)
            _key(spectra, ("surrogate's error R", "balance"), ("-", "--"))
            _key(loop, [f"shells {first} to {last}" for first, last in BANDS], STYLES)
            for axis in (loop, levels):
                axis.set_xlabel("step of the loop")
            levels.legend(loc="lower right")
            highest = max((max(content["condition_levels"], default=0) for content in contents.values()), default=0)
            levels.set_ylim(0, 1.2 * max(1.0, highest))


def _spectra(axis, content: dict, channel: int, style: dict) -> None:
    """Draw R and the balance as shares of the data's power; a balance below zero damps and is drawn with rings."""
    power = np.array(content["power"][channel])
    shown = shown_shells(power)
    shells = np.arange(len(power))[shown]
    residual, balance = (np.array(content[name][channel])[shown] / power[shown] for name in ("residual", "balance"))
    axis.plot(shells, residual, "-", color=style["color"])
    axis.plot(shells, np.abs(balance), "--", color=style["color"], linewidth=0.9)
    for mask, face in ((balance >= 0, style["color"]), (balance < 0, "white")):
        axis.plot(shells[mask], np.abs(balance[mask]), "o", color=style["color"], markerfacecolor=face, markersize=3.5)
    axis.set_yscale("log")
    wavenumber_axis(axis, shells)
    plain_minor(axis)
    axis.set_xlabel("shell K")


def _errors(axis, content: dict, channel: int, style: dict) -> None:
    shown = shown_shells(np.array(content["power"][channel]))
    correlation = np.array(content["error_correlation"][channel])
    shells = np.arange(len(correlation))[shown]
    axis.plot(shells, correlation[shown], **style)
    wavenumber_axis(axis, shells)
    axis.set_xlabel("shell K")


def _loop(axis, content: dict, channel: int, style: dict) -> None:
    windows = np.array(content["loop"]["power"])[:, channel]
    power = np.array(content["power"][channel])
    steps = _window_ends(content)
    for (first, last), line in zip(BANDS, STYLES, strict=True):
        band = slice(first, last + 1)
        if first < len(power):
            axis.plot(steps, windows[:, band].sum(1) / power[band].sum(), line, color=style["color"], linewidth=1.0)


def _levels(axis, content: dict, style: dict) -> None:
    axis.plot(_window_ends(content), content["condition_levels"], **style)


def _window_ends(content: dict) -> np.ndarray:
    """The last step of each window of the loop."""
    count = len(content["condition_levels"])
    return content["loop"]["steps"] // count * np.arange(1, count + 1)


def _key(axis, words, lines) -> None:
    for label, line in zip(words, lines, strict=True):
        axis.plot([], [], line, color=MUTED, label=label)
    axis.legend(loc="best")
