"""The loss of a surrogate that learns to recover from its own errors: the pushforward trick (Brandstetter et al. 2022).

The surrogate takes some steps without gradients, and learns the step after them. It sees frames as a rollout shows them,
and its gradient never passes through several calls: the memory is that of one call.
"""

import torch
import torch.nn.functional as F

from sns_core.training.objectives import ALL_ROWS, PointwiseObjective, without_gradients


class PushforwardObjective(PointwiseObjective):
    """The squared error of one step, after 0 .. `unroll` - 1 steps without gradients; the number is drawn for each batch."""

    def __call__(
        self, network, batch: torch.Tensor, generator: torch.Generator, rows: slice = ALL_ROWS
    ) -> dict[str, torch.Tensor]:
        """Return {"loss"} for a batch (B, unroll + 1, C, H, W)."""
        steps = int(torch.randint(self.frames - 1, (), generator=generator))
        x = self.first_frames(batch, generator, rows)
        with without_gradients():
            for _ in range(steps):
                x = self.advance(network, x)
        moved, target = self.advance(network, x), batch[rows, steps + 1]
        return {"loss": F.mse_loss(moved / self.increment_std, target / self.increment_std)}
