"""Whether the files of a source suffice to train on: stationarity, largest values, decorrelation time and independent samples.

A sample of the training split tells.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from sns_core.data.source import every_nth, mirrored_fields, open_split
from sns_core.metrics.distances import decorrelation_time
from sns_core.metrics.lost import LOST_BEYOND
from sns_core.metrics.stationarity import drift, is_drifting, thirds_difference
from sns_core.metrics.temporal import temporal_correlation
from sns_core.systems import build_system

MEMBERS, FRAMES = 8, 400  # of the training split that are read
FEW = 50  # independent samples: with fewer a network learns its training trajectories by heart
STEPS = (
    2.0,
    100.0,
)  # emulator steps in a decorrelation time: with fewer a step is a guess, with more it is nearly no change
FAR = 0.75 * LOST_BEYOND  # standard deviations: where a sample reaches further, longer trajectories may leave the bound


@dataclass(frozen=True)
class SourceCheck:
    """Measures of a sample of the training split.

    `layers`: names of the channels. `frame` (C, m, m): the last frame of a member; of a single row of points the last m frames,
    one above the other. `times` (T,) and `energy` (member, T, C): kinetic energy, or half the mean square, of each channel in
    squared standard deviations; `reach` (C,): largest absolute value in standard deviations; `lag` (L,) and `correlation` (L,):
    C(tau) of the channels in standard deviations; `decorrelation`: the time at which C(tau) falls to one half, NaN where it does
    not; `step`: of the emulator; `recorded_step`: time between frames of the files, the smallest step that an emulator can have;
    `duration`: time that all training trajectories cover together.
    """

    layers: tuple[str, ...]
    frame: np.ndarray
    times: np.ndarray
    energy: np.ndarray
    reach: np.ndarray
    lag: np.ndarray
    correlation: np.ndarray
    decorrelation: float
    step: float
    recorded_step: float
    duration: float

    @property
    def samples(self) -> float:
        """Independent samples in the training split: its time over twice the decorrelation time."""
        return self.duration / (2 * self.decorrelation)

    def findings(self) -> list[tuple[bool, str]]:
        """Return (whether it is as it should be, a sentence) for each question."""
        answers = [*(self._stationarity(channel) for channel in range(len(self.layers))), self._largest_values()]
        if math.isnan(self.decorrelation):
            return [
                *answers,
                (False, "C(tau) stays above one half: the trajectories are too short to see the flow forget itself"),
            ]
        steps = self.decorrelation / self.step
        closer = (
            "take a smaller emulator.step" if self.step > 1.5 * self.recorded_step else "write frames closer in time"
        )
        remedy = closer if steps < STEPS[0] else "take a larger emulator.step"
        good = STEPS[0] <= steps <= STEPS[1]
        return [
            *answers,
            (
                good,
                f"decorrelation time {self.decorrelation:.3g}, {steps:.3g} emulator steps"
                + ("" if good else f"; {remedy}"),
            ),
            (
                self.samples >= FEW,
                f"about {self.samples:.0f} independent samples to train on"
                + (
                    "" if self.samples >= FEW else f"; with fewer than {FEW} a network learns the trajectories by heart"
                ),
            ),
        ]

    def _stationarity(self, channel: int) -> tuple[bool, str]:
        """Return whether the energy of a channel is stationary, and a sentence about it."""
        energy = self.energy[..., channel]
        difference = thirds_difference(energy)
        mean, error = (100 * float(part) / energy.mean() for part in drift(difference))
        drifts = bool(is_drifting(difference)) if len(difference) > 1 else abs(mean) > 10
        return (
            not drifts,
            f"energy of {self.layers[channel]}: last third of the frames less the first {mean:+.2g} "
            f"{'' if math.isnan(error) else f'± {error:.2g} '}%, {'not ' if drifts else ''}stationary"
            + ("; leave out the first frames, or expect a drifting reference" if drifts else ""),
        )

    def _largest_values(self) -> tuple[bool, str]:
        """Return whether the values of all channels stay far from the bound beyond which a member is lost, and a sentence."""
        channel, good = int(self.reach.argmax()), bool(self.reach.max() <= FAR)
        return good, (
            f"values of {self.layers[channel]} reach {self.reach[channel]:.3g} standard deviations, and a member counts as lost beyond "
            f"{LOST_BEYOND:g}"
            + (
                ""
                if good
                else "; write a less skewed function of it, such as its logarithm, to the files and train on that"
            )
        )


def check_source(source: dict, system: dict, emulator: dict, train: dict) -> SourceCheck:
    """Read a sample of the training split and measure it.

    `source`: as `open_split` takes it; `system`: {"name", "parameters"}; `emulator`: {"resolution", "step"}; `train`: {"members",
    "frames"} of the training split. Raises UserError where frames are missing or not finite.
    """
    flow = build_system(system["name"], system["parameters"], torch.float32)
    recording = open_split(source, "train")
    recorded_step = recording.step
    recording = recording.part(times=slice(None, None, every_nth(emulator["step"], recorded_step)))
    count = min(train["frames"], FRAMES)
    members = np.linspace(0, train["members"] - 1, min(train["members"], MEMBERS)).round().astype(int)
    frames = np.stack([recording.read(int(member), slice(count)) for member in members]).astype(np.float32)
    if flow.offset:
        frames = frames - np.asarray(flow.offset, dtype=np.float32)[:, None, None]
    fields = torch.from_numpy(mirrored_fields(frames, flow.mirrored))
    fields = flow.observe(fields.flatten(0, 1), emulator["resolution"]).unflatten(0, fields.shape[:2])
    # As networks and scores see them: otherwise the channel with the smallest unit would decide alone.
    scaled = fields / fields.std((0, 1, 3, 4))[:, None, None]
    energy = flow.kinetic_energy(scaled.flatten(0, 1)).unflatten(0, fields.shape[:2]).numpy()
    correlation = temporal_correlation(scaled, max(1, count // 2)).numpy()
    lag = np.arange(len(correlation)) * emulator["step"]
    height, width = frames.shape[-2:]
    shown = fields[0, -1, :, :height, :width] if height > 1 else fields[0, -width:, :, 0, :width].transpose(0, 1)
    return SourceCheck(
        layers=flow.layers,
        frame=shown.numpy(),
        times=np.arange(count) * emulator["step"],
        energy=energy,
        reach=scaled.abs().amax((0, 1, 3, 4)).numpy(),
        lag=lag,
        correlation=correlation,
        decorrelation=float(decorrelation_time(lag, correlation)),
        step=emulator["step"],
        recorded_step=recorded_step,
        duration=train["members"] * train["frames"] * emulator["step"],
    )
