"""The picture of `snakemake inspect`: a frame, the energy over time, and how long the flow remembers itself."""

from pathlib import Path

import numpy as np

from sns_core.figures.style import DOTTED, INK, MUTED, page, panel_letter, time_label


def draw_source(check, layers: list[str], time_units: str, output: Path, dpi: int = 120) -> None:
    """Draw what the files of a source hold: each channel of a frame, energies of the members, and C(tau).

    `check`: a SourceCheck of `evaluation.source_check`; `layers`: names of the channels; `time_units`: of the times.
    """
    channels = len(layers)
    with page(output, dpi, 2.6 * max(3, channels), 5.2, layout="constrained") as figure:
        top, bottom = figure.subfigures(2, 1)
        for axis, frame, name in zip(top.subplots(1, channels, squeeze=False)[0], check.frame, layers, strict=True):
            reach = np.abs(frame - frame.mean()).max() or 1.0
            axis.imshow(frame - frame.mean(), origin="lower", cmap="RdBu_r", vmin=-reach, vmax=reach)
            axis.set_title(name)
            axis.set_axis_off()
        energy, memory = bottom.subplots(1, 2)
        for channel, name in enumerate(layers):
            series = check.energy[..., channel] / check.energy[..., channel].mean()
            energy.plot(check.times, series.T, color=MUTED, linewidth=0.7)
            energy.plot(check.times, series.mean(0), color=INK if channels == 1 else None, linewidth=1.8, label=name)
        if channels > 1:
            energy.legend()
        energy.set_xlabel(time_label(time_units))
        panel_letter(energy, "a", "Energy of the training trajectories / mean")
        memory.plot(check.lag, check.correlation, color=INK)
        memory.axhline(0.5, **DOTTED)
        memory.set_xlabel(time_label(time_units))
        panel_letter(memory, "b", "Correlation C(τ)")
