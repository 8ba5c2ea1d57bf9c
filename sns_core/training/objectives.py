"""The losses that networks are trained with.

An objective maps (network, batch, generator) to a loss and its parts. With `rows`, it computes the loss of these rows
of the batch; the random numbers are drawn for the whole batch, so that processes which share a batch use the same
numbers.

The pointwise surrogate learns the mean of p(x_t | x_{t-1}). Its output is the increment in units of the increments'
standard deviation; the loss is the squared error over `unroll` steps, each fed with the output of the step before:

    x_t = x_{t-1} + increment_std * network(x_{t-1}).

A denoiser sees a frame or a pair, noised in the coordinates of the noise colour. Its output is compared with the target
that `prediction` defines (by default the noise), and the logits of its level heads, if any, with the levels:

    L = |output - target|^2 (mean over all frames) + level_weight * (sum of the cross entropies of the frames).

There are three kinds of denoisers. "denoiser" is multi-noise-level denoising score matching (paper, section 2 and
algorithm 1): the levels s2 and s1 are independent and uniform over 0 .. S. "acdm" noises both frames to one level, with
different noise, and the level is an input of the network (Kohl et al. 2023). "unconditional" sees the next frame alone
(the Thermalizer, Pedersen et al. 2025).

Objectives of other methods are neighbours of this module, or of the method that they learn from; `catalogue.OBJECTIVES`
lists all of them.
"""

import abc
import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F

from sns_core.diffusion import Diffusion, NoiseColour, NoiseSchedule, Prediction
from sns_core.grids import Grid, grid_shape
from sns_core.plugins import build_options, load, objective_class
from sns_core.shells import mode_weight, shell_index
from sns_core.systems import System

ALL_ROWS = slice(None)


@dataclass(frozen=True)
class TrainingData:
    """The measurements of the training data from which objectives are built.

    `statistics`: those of the data manifest. `correlation` (C, K) of successive frames in each shell, for the prediction
    "residual", or None. `resolution`: points per side of a frame, or (H, W). `device`: where the training runs.
    `models`: role -> TrainedModel, one for each role of `Objective.needs`. `calibration`: the file of the measurements that
    the method which the model learns from follows, or None. `system`: the system that made the data.
    """

    statistics: dict
    correlation: list | None
    resolution: Grid
    device: torch.device
    models: dict = field(default_factory=dict)
    calibration: Path | None = None
    system: System | None = None

    @property
    def increment_std(self) -> torch.Tensor:
        """The standard deviation (C, 1, 1) of the increments x_t - x_{t-1}, in standard deviations of the data."""
        return torch.tensor(self.statistics["increment_std"], dtype=torch.float32, device=self.device)[:, None, None]


class Objective(abc.ABC):
    """Maps (network, batch, generator, rows) to a loss and its parts.

    `frames`: consecutive frames of a sample. `anchored`: whether an anchor frame stands in front of them. `needs`: role ->
    objectives of trained models that the training learns from, a teacher for example. `initial_weights`: those with which
    the network starts, None for random ones. `note`: further entries of the model's note, which its users need.
    `calibrated`: whether the training reads the calibration of a method. A subclass says which network it trains
    (`network_arguments`) and defines `build`, whose keyword-only arguments are the options that a model of the
    configuration may give beside its `objective`; their annotations say which values are allowed.
    """

    needs: ClassVar[dict[str, tuple[str, ...]]] = {}
    initial_weights: dict[str, torch.Tensor] | None = None
    note: Mapping = MappingProxyType({})
    frames: int = 2
    anchored: ClassVar[bool] = False
    calibrated: ClassVar[bool] = False

    @staticmethod
    @abc.abstractmethod
    def network_arguments(spec: dict) -> dict:
        """Return the arguments of PeriodicUNet that follow from the objective, for a model's specification."""

    @classmethod
    @abc.abstractmethod
    def build(cls, spec: dict, data: TrainingData) -> "Objective":
        """Build the objective of a model's specification."""

    @abc.abstractmethod
    def __call__(
        self, network, batch: torch.Tensor, generator: torch.Generator, rows: slice = ALL_ROWS
    ) -> dict[str, torch.Tensor]:
        """Return {"loss"} and perhaps "noise" and "level" for a batch (B, F, C, H, W)."""


@contextlib.contextmanager
def without_gradients() -> Iterator[None]:
    """Run calls of a network that still learns without recording gradients, also inside of autocast.

    Autocast keeps the weights that it casts, for later calls in the same context. In older torch (before PyTorch's pull
    request 165068 of December 2025), weights that were cast here have no gradient, so a later call with gradients would not
    train them. Therefore they are not kept.
    """
    with torch.no_grad():
        yield
    torch.clear_autocast_cache()


class PointwiseObjective(Objective):
    """The squared error of a surrogate's prediction, over `unroll` steps that feed on each other.

    `increment_std` (C, 1, 1): the standard deviation of the increments. `input_noise`: the standard deviation of white
    noise that is added to the first frame.
    """

    def __init__(self, increment_std: torch.Tensor, unroll: int = 1, input_noise: float = 0.0):
        self.increment_std, self.input_noise, self.frames = increment_std, input_noise, unroll + 1

    @staticmethod
    def network_arguments(spec: dict) -> dict:
        return {"frames_in": 1, "frames_out": 1}

    @classmethod
    def build(cls, spec: dict, data: TrainingData) -> "PointwiseObjective":
        return cls(data.increment_std, spec["training"]["unroll"], spec["training"]["input_noise"])

    def __call__(
        self, network, batch: torch.Tensor, generator: torch.Generator, rows: slice = ALL_ROWS
    ) -> dict[str, torch.Tensor]:
        """Return {"loss"} for a batch (B, unroll + 1, C, H, W)."""
        x, loss = self.first_frames(batch, generator, rows), 0.0
        for target in batch[rows, 1:].unbind(1):
            x = self.advance(network, x)
            loss = loss + F.mse_loss(x / self.increment_std, target / self.increment_std)
        return {"loss": loss / (self.frames - 1)}

    def first_frames(self, batch: torch.Tensor, generator: torch.Generator, rows: slice) -> torch.Tensor:
        """Return the frames (B, C, H, W) from which the surrogate starts, with the noise on its input."""
        x = batch[:, 0]
        if self.input_noise:
            x = x + self.input_noise * torch.randn(x.shape, generator=generator).to(x)
        return x[rows]

    def advance(self, network, x: torch.Tensor) -> torch.Tensor:
        """Return the surrogate's next frames (B, C, H, W)."""
        output, _ = network(x[:, None])
        return x + self.increment_std * output[:, 0].float()


class DenoiserObjective(Objective):
    """The loss of a denoiser, as in the module's head.

    `kind`: denoiser, acdm or unconditional. `anchored`: whether batches start with an anchor frame, which stays clean.
    `level_weight`: the weight of the level heads' loss. `prediction`: the target of the network (None: the noise).
    `shell_weight` r: an error in shell K is weighted by K^-r, with mean 1 over all modes. `low_condition_share`: the
    share of a batch whose previous frame stands at a low level, floor(S u^LOW_EXPONENT) with u uniform on [0, 1).
    Raises ValueError for a `low_condition_share` with a `kind` other than denoiser.

    The shell weight exists because the large scales are few of all modes: a network that minimises the plain mean
    learns them last, although they hold the energy. The low levels exist because a nearly clean previous frame tells
    most about the next frame, as generation needs it, and levels drawn uniformly rarely show one. Neither changes the
    minimiser, which is the conditional mean of each mode at each pair of levels.
    """

    LOW_EXPONENT = 4

    def __init__(
        self,
        schedule: NoiseSchedule,
        colour: NoiseColour,
        anchored: bool,
        level_weight: float = 0.1,
        kind: str = "denoiser",
        prediction: Prediction | None = None,
        shell_weight: float = 0.0,
        low_condition_share: float = 0.0,
    ):
        self.schedule, self.colour, self.anchored, self.level_weight = schedule, colour, anchored, level_weight
        self.kind, self.frames = kind, 1 if kind == "unconditional" else 2
        self.prediction, self.low_condition_share = prediction or Prediction("noise", schedule), low_condition_share
        if low_condition_share and kind != "denoiser":
            raise ValueError(
                f"low_condition_share {low_condition_share} needs two frames with levels of their own, not {kind!r}"
            )
        self.weight = shell_weights(colour.resolution, shell_weight).to(colour.factor) if shell_weight else None

    @staticmethod
    def network_arguments(spec: dict) -> dict:
        diffusion, frames = spec["diffusion"], 1 if spec["objective"] == "unconditional" else 2
        return {
            "frames_in": frames + diffusion["anchor"],
            "frames_out": frames,
            "levels": diffusion["levels"],
            "level_conditioned": spec["objective"] == "acdm",
        }

    @classmethod
    def build(cls, spec: dict, data: TrainingData) -> "DenoiserObjective":
        return cls(
            **cls.diffusion_parts(spec, data),
            kind=spec["objective"],
            low_condition_share=spec["training"]["low_condition_share"],
        )

    @staticmethod
    def diffusion_parts(spec: dict, data: TrainingData) -> dict:
        """Return the arguments of the constructor that say how frames are noised, and what an error counts."""
        diffusion = Diffusion.build(spec["diffusion"], data.statistics, data.resolution, data.correlation, data.device)
        return {
            **vars(diffusion),
            "anchored": spec["diffusion"]["anchor"],
            "level_weight": spec["training"]["level_weight"],
            "shell_weight": spec["training"]["shell_weight"],
        }

    def __call__(
        self, network, batch: torch.Tensor, generator: torch.Generator, rows: slice = ALL_ROWS
    ) -> dict[str, torch.Tensor]:
        """Return {"loss", "noise", "level"} for a batch (B, F, C, H, W): the anchor, if any, and the frames to noise.

        "level" is left out for a network without level heads.
        """
        size = (len(batch), self.frames, *batch.shape[2:])
        levels = self.draw_levels(len(batch), generator)[rows].expand(-1, self.frames)
        noise = torch.randn(size, generator=generator)[rows].to(batch)
        z = self.colour.whiten(batch[rows])
        context, clean = z[:, : -self.frames], z[:, -self.frames :]
        flat = clean.flatten(0, 1), noise.flatten(0, 1), levels.flatten()
        noised = self.schedule.add_noise(flat[0], flat[2], flat[1]).view_as(clean)
        target = self.prediction.target(*self.parts_of(noised, clean, noise, levels, context), levels)
        level_input = levels.to(z.device) if self.kind == "acdm" else None
        output, logits = network(torch.cat([context, noised], 1), level_input)
        parts = {"noise": self.distance(output.float() - target)}
        if logits is not None:
            cross_entropy = F.cross_entropy(logits.flatten(0, 1), levels.flatten().to(logits.device))
            parts["level"] = self.frames * cross_entropy
        return {"loss": parts["noise"] + self.level_weight * parts.get("level", 0.0), **parts}

    def parts_of(self, noised: torch.Tensor, clean: torch.Tensor, noise: torch.Tensor, levels, context: torch.Tensor):
        """Return the clean part, the noised frames and the noise in them, (B, F, C, H, W) each, from which a target is made.

        These are the parts that the frames were made of. `context` (B, 0 or 1, C, H, W): the anchor, if any.
        """
        return clean, noised, noise

    def draw_levels(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """Draw levels (batch, 2), or (batch, 1) for a kind with one level for all frames."""
        per_sample = 2 if self.kind == "denoiser" else 1
        levels = torch.randint(self.schedule.levels + 1, (batch, per_sample), generator=generator)
        if self.low_condition_share:
            low = (self.schedule.levels * torch.rand(batch, generator=generator) ** self.LOW_EXPONENT).floor().long()
            count = round(self.low_condition_share * batch)
            levels[:count, 0] = low[:count]
        return levels

    def distance(self, error: torch.Tensor) -> torch.Tensor:
        """Return the mean square of an error (..., N, N), with the weight of each shell."""
        if self.weight is None:
            return error.square().mean()
        return (torch.fft.rfft2(error, norm="forward").abs().square() * self.weight).sum((-2, -1)).mean()


def shell_weights(resolution: Grid, exponent: float) -> torch.Tensor:
    """Return the weight of each mode of a half spectrum (N, N // 2 + 1).

    A mode of shell K has the weight K^-exponent, and shell 0 that of shell 1, scaled to mean 1 over all N x N modes. A
    mode that also stands for its mirror image has twice the weight.
    """
    shells = torch.from_numpy(shell_index(resolution)).clamp(min=1).double()
    modes, weight = torch.from_numpy(mode_weight(resolution)), shells**-exponent
    return modes * weight * (math.prod(grid_shape(resolution)) / (modes * weight).sum())


def build_objective(spec: dict, data: TrainingData) -> Objective:
    """Build the objective of a model's specification, with the options that the specification gives."""
    name = objective_class(spec["objective"])
    return load(name).build(spec, data, **{option: spec[option] for option in build_options(name) if option in spec})
