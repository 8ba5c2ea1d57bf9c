"""The loss of a surrogate that is pulled back from far away: the dissipation penalty (Li et al. 2022, arXiv:2106.06898).

A surrogate sees frames of the attractor only, so nothing says what it makes of a frame far outside. The penalty says
it: such a frame shall shrink to a share of itself. A network that learns this well lets no rollout grow without bound. If
it can tell inside from outside, its error on the attractor stays what it was.
"""

import torch
import torch.nn.functional as F

from sns_core.options import Positive, Share
from sns_core.training.objectives import ALL_ROWS, PointwiseObjective, TrainingData


class DissipativeObjective(PointwiseObjective):
    """The loss of a surrogate plus `dissipation_weight` times the relative squared error |G(z) - contraction z|^2 / |z|^2.

    The far frames z (B, C, H, W) are white noise that is scaled to a root mean square between the two `radii`, in
    standard deviations of the data: all directions alike. `unroll` and `input_noise` as in PointwiseObjective.
    """

    def __init__(
        self,
        increment_std: torch.Tensor,
        unroll: int = 1,
        input_noise: float = 0.0,
        *,
        dissipation_weight: float = 1.0,
        contraction: float = 0.5,
        radii: tuple[float, float] = (2.0, 4.0),
    ):
        super().__init__(increment_std, unroll, input_noise)
        self.weight, self.contraction, self.radii = dissipation_weight, contraction, radii

    @classmethod
    def build(
        cls,
        spec: dict,
        data: TrainingData,
        *,
        dissipation_weight: Positive = 1.0,
        contraction: Share = 0.5,
        radii: tuple[Positive, Positive] = (2.0, 4.0),
    ) -> "DissipativeObjective":
        options = {"dissipation_weight": dissipation_weight, "contraction": contraction, "radii": radii}
        return cls(data.increment_std, spec["training"]["unroll"], spec["training"]["input_noise"], **options)

    def __call__(
        self, network, batch: torch.Tensor, generator: torch.Generator, rows: slice = ALL_ROWS
    ) -> dict[str, torch.Tensor]:
        """Return {"loss"} for a batch (B, unroll + 1, C, H, W)."""
        loss = super().__call__(network, batch, generator, rows)["loss"]
        far, radius = (part[rows].to(batch) for part in self.far_frames(batch[:, 0].shape, generator))
        return {
            "loss": loss
            + self.weight * F.mse_loss(self.advance(network, far) / radius, self.contraction * far / radius)
        }

    def far_frames(self, shape: torch.Size, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw frames (B, C, H, W) and their root mean squares (B, 1, 1, 1)."""
        noise = torch.randn(shape, generator=generator)
        low, high = self.radii
        radius = low + (high - low) * torch.rand(len(noise), 1, 1, 1, generator=generator)
        return radius * noise / noise.square().mean((1, 2, 3), keepdim=True).sqrt(), radius
