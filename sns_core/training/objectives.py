"""What networks are trained for. An objective maps (network, batch, generator) to a loss and its parts; with `rows`, those
of some rows of the batch, the random numbers being those of the whole.

Pointwise surrogate: the mean of p(x_t | x_{t-1}), as a residual in units of the increments' standard deviation,

    x_t = x_{t-1} + increment_std * network(x_{t-1}),   squared error (over `unroll` fed-back steps).

Denoisers: a frame or a pair is noised in the coordinates of the noise colour, and what the network gives (the noise, or
as `prediction` says) is compared with what was added; heads, where there are any, with the levels:

    L = |output - target|^2 (all frames, mean) + level_weight * (sum of CE over the frames).

"denoiser" is multi-noise-level denoising score matching (paper, section 2 and algorithm 1): s2 and s1 uniform over 0 .. S
and independent. "acdm" noises both frames to one level, with different noise, and tells the network (Kohl et al. 2023).
"unconditional" knows the next frame alone (the Thermalizer, Pedersen et al. 2025).
"""

import torch
import torch.nn.functional as F

from sns_core.data.shards import shell_index
from sns_core.diffusion import NoiseColour, NoiseSchedule, Prediction

ALL = slice(None)


class PointwiseObjective:
    """`increment_std` (C, 1, 1); `unroll` steps; `input_noise`, standard deviation added to the first frame."""

    anchored = False

    def __init__(self, increment_std: torch.Tensor, unroll: int = 1, input_noise: float = 0.0):
        self.increment_std, self.input_noise, self.frames = increment_std, input_noise, unroll + 1

    def __call__(
        self, network, batch: torch.Tensor, generator: torch.Generator, rows: slice = ALL
    ) -> dict[str, torch.Tensor]:
        """Batch (B, unroll + 1, C, H, W) -> {"loss"}."""
        x, loss = batch[:, 0], 0.0
        if self.input_noise:
            x = x + self.input_noise * torch.randn(x.shape, generator=generator).to(x)
        x = x[rows]
        for target in batch[rows, 1:].unbind(1):
            output, _ = network(x[:, None])
            moved = x + self.increment_std * output[:, 0].float()
            loss = loss + F.mse_loss(moved / self.increment_std, target / self.increment_std)
            x = moved
        return {"loss": loss / (self.frames - 1)}


class DenoiserObjective:
    """See the module docstring; `kind`: denoiser, acdm or unconditional; `anchored`: batches carry an anchor frame in
    front, which stays clean; `shell_weight` r: an error in shell K counts K^-r times as much, with mean 1 over all modes;
    `low_condition_share`: share of a batch whose previous frame stands at a low level, S u^LOW with u uniform, instead of at any.

    The large scales are few modes of many, and a network that minimises the plain mean learns them last, though they
    hold the energy. A weight of each mode changes nothing in the minimiser, which is the conditional mean mode by mode.
    Neither does the share of levels: where the condition is nearly clean it tells most of the next frame, which is what
    generation needs, and in a uniform plane few samples show it.
    """

    LOW = 4

    def __init__(
        self, schedule: NoiseSchedule, colour: NoiseColour, anchored: bool, level_weight: float = 0.1,
        kind: str = "denoiser", prediction: Prediction | None = None, shell_weight: float = 0.0,
        low_condition_share: float = 0.0,
    ):  # fmt: skip
        self.schedule, self.colour, self.anchored, self.level_weight = schedule, colour, anchored, level_weight
        self.kind, self.frames = kind, 1 if kind == "unconditional" else 2
        self.prediction, self.low_condition_share = prediction or Prediction("noise", schedule), low_condition_share
        if low_condition_share and kind != "denoiser":
            raise ValueError(
                f"low_condition_share {low_condition_share} needs two frames with levels of their own, not {kind!r}"
            )
        self.weight = shell_weights(colour.resolution, shell_weight).to(colour.factor) if shell_weight else None

    def __call__(
        self, network, batch: torch.Tensor, generator: torch.Generator, rows: slice = ALL
    ) -> dict[str, torch.Tensor]:
        """Batch (B, frames, C, H, W), the anchor before them -> {"loss", "noise", "level"}."""
        size = (len(batch), self.frames, *batch.shape[2:])
        levels = self.draw_levels(len(batch), generator)[rows].expand(-1, self.frames)
        noise = torch.randn(size, generator=generator)[rows].to(batch)
        z = self.colour.whiten(batch[rows])
        clean = z[:, -self.frames :]
        flat = clean.flatten(0, 1), noise.flatten(0, 1), levels.flatten()
        noised = self.schedule.add_noise(flat[0], flat[2], flat[1]).view_as(clean)
        target = self.prediction.target(clean, noised, noise, levels)
        told = levels.to(z.device) if self.kind == "acdm" else None
        output, logits = network(torch.cat([z[:, : -self.frames], noised], 1), told)
        parts = {"noise": self.distance(output.float() - target)}
        if logits is not None:
            cross_entropy = F.cross_entropy(logits.flatten(0, 1), levels.flatten().to(logits.device))
            parts["level"] = self.frames * cross_entropy
        return {"loss": parts["noise"] + self.level_weight * parts.get("level", 0.0), **parts}

    def draw_levels(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """Levels (batch, 2), or (batch, 1) where there is one for all frames."""
        drawn = 2 if self.kind == "denoiser" else 1
        levels = torch.randint(self.schedule.levels + 1, (batch, drawn), generator=generator)
        if self.low_condition_share:
            low = (self.schedule.levels * torch.rand(batch, generator=generator) ** self.LOW).floor().long()
            count = int(self.low_condition_share * batch)
            levels[:count, 0] = low[:count]
        return levels

    def distance(self, error: torch.Tensor) -> torch.Tensor:
        """Mean square of an error (..., N, N), its shells weighted."""
        if self.weight is None:
            return error.square().mean()
        return (torch.fft.rfft2(error, norm="forward").abs().square() * self.weight).sum((-2, -1)).mean()


def shell_weights(resolution: int, exponent: float) -> torch.Tensor:
    """What each mode of a half spectrum (N, N // 2 + 1) counts: K^-exponent, the mean as K = 1, with mean 1 over all N x N
    modes, and twice that where a mode stands for its mirror image too."""
    shells = torch.from_numpy(shell_index(resolution)).clamp(min=1).double()
    twice = torch.full_like(shells, 2.0)
    twice[:, 0] = twice[:, -1] = 1.0
    weight = shells**-exponent
    return twice * weight * (resolution**2 / (twice * weight).sum())
