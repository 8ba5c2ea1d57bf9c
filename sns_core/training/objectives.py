"""What networks are trained for. An objective maps (network, batch, generator) to a loss and its parts.

Pointwise surrogate: the mean of p(x_t | x_{t-1}), as a residual in units of the increments' standard deviation,

    x_t = x_{t-1} + increment_std * network(x_{t-1}),   squared error (over `unroll` fed-back steps).

Denoiser: multi-noise-level denoising score matching (paper, section 2 and algorithm 1): s2 and s1 uniform over
0 .. S and independent, both frames noised, in the coordinates of the noise colour,

    L = |eps_hat - eps|^2 (both frames, mean) + level_weight * (CE(s2) + CE(s1)).
"""

import torch
import torch.nn.functional as F

from sns_core.diffusion import NoiseColour, NoiseSchedule


class PointwiseObjective:
    """`increment_std` (C, 1, 1); `unroll` steps; `input_noise`, standard deviation added to the first frame."""

    anchored = False

    def __init__(self, increment_std: torch.Tensor, unroll: int = 1, input_noise: float = 0.0):
        self.increment_std, self.input_noise, self.frames = increment_std, input_noise, unroll + 1

    def __call__(self, network, batch: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Batch (B, unroll + 1, C, H, W) -> {"loss"}."""
        x, loss = batch[:, 0], 0.0
        if self.input_noise:
            x = x + self.input_noise * torch.randn(x.shape, generator=generator).to(x)
        for target in batch[:, 1:].unbind(1):
            output, _ = network(x[:, None])
            moved = x + self.increment_std * output[:, 0].float()
            loss = loss + F.mse_loss(moved / self.increment_std, target / self.increment_std)
            x = moved
        return {"loss": loss / (self.frames - 1)}


class DenoiserObjective:
    """See the module docstring; `anchored`: batches carry an anchor frame in front, which stays clean."""

    frames = 2

    def __init__(self, schedule: NoiseSchedule, colour: NoiseColour, anchored: bool, level_weight: float = 0.1):
        self.schedule, self.colour, self.anchored, self.level_weight = schedule, colour, anchored, level_weight

    def __call__(self, network, batch: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Batch (B, 2 or 3, C, H, W) -> {"loss", "noise", "level"}."""
        z = self.colour.whiten(batch)
        pair = z[:, -2:]
        levels = torch.randint(self.schedule.levels + 1, (len(z), 2), generator=generator)
        noise = torch.randn(pair.shape, generator=generator).to(pair)
        noised = self.schedule.add_noise(pair.flatten(0, 1), levels.flatten(), noise.flatten(0, 1)).view_as(pair)
        predicted, logits = network(torch.cat([z[:, :-2], noised], 1))
        noise_loss = F.mse_loss(predicted.float(), noise)
        level_loss = 2 * F.cross_entropy(logits.flatten(0, 1), levels.flatten().to(logits.device))
        return {"loss": noise_loss + self.level_weight * level_loss, "noise": noise_loss, "level": level_loss}
