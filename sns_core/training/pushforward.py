"""The loss of a surrogate that learns to recover from its own errors: the pushforward trick (Brandstetter et al. 2022).

The surrogate takes some steps without gradients, and learns the step after them. It sees frames as a rollout shows them,
and its gradient never passes through several calls: the memory is that of one call.
"""

import torch
import torch.nn.functional as F

from sns_core.training.objectives import ALL_ROWS, PointwiseObjective


class PushforwardObjective(PointwiseObjective):
    """The squared error of one step, after 0 .. `unroll` - 1 steps without gradients; the number is drawn for each batch."""

    def __call__(
        self, network, batch: torch.Tensor, generator: torch.Generator, rows: slice = ALL_ROWS
    ) -> dict[str, torch.Tensor]:
        """Return {"loss"} for a batch (B, unroll + 1, C, H, W)."""
        x, steps = batch[:, 0], int(torch.randint(self.frames - 1, (), generator=generator))
        if self.input_noise:
            x = x + self.input_noise * torch.randn(x.shape, generator=generator).to(x)
        x = x[rows]
        with torch.no_grad():
            for _ in range(steps):
                x = self.advance(network, x)
        moved, target = self.advance(network, x), batch[rows, steps + 1]
        return {"loss": F.mse_loss(moved / self.increment_std, target / self.increment_std)}

    def advance(self, network, x: torch.Tensor) -> torch.Tensor:
        """Return the next frames (B, C, H, W)."""
        output, _ = network(x[:, None])
        return x + self.increment_std * output[:, 0].float()
