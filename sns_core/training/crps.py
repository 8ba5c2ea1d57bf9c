"""The loss of a surrogate that draws: the almost-fair CRPS of a small ensemble (Lang et al. 2024, Alet et al. 2025).

The network of the surrogate takes a vector of standard normal numbers that modulates all of its blocks, so that one call
gives one member of an ensemble:

    x_t = x_{t-1} + increment_std * network(x_{t-1}, noise).

In training a few members start from each true frame. Over `unroll` steps each feeds on its own output, with fresh noise
at each step, and each step is scored against the truth. One vector of noise serves all places of a frame, so that the
network must make fields that belong together although each place is scored alone (Alet et al. 2025, arXiv:2506.10772).
"""

from typing import Annotated, Literal

import torch

from sns_core.options import Bounds, Count, Rate
from sns_core.training.objectives import ALL_ROWS, Objective, TrainingData


def almost_fair_score(
    ensemble: torch.Tensor, truth: torch.Tensor, fairness: float = 0.95, score: str = "crps"
) -> torch.Tensor:
    """Return the mean almost-fair score of an ensemble (B, M, C, H, W) against the truth (B, C, H, W).

    For distances d it is the mean of d(x_j, y) over the members minus half the mean of d(x_j, x_k) over pairs of different
    members, times 1 - (1 - fairness) / M (Lang et al. 2024, arXiv:2412.15832, equation 4). With fairness 1 the expected
    score does not depend on M (fair), with 0 it is that of the ensemble as it is. `score`: "crps", where d is the
    distance at each place, or "energy", where d is the root mean square over all places.
    """
    members, distance = ensemble.shape[1], {"crps": _place_distance, "energy": _frame_distance}[score]
    error = distance(ensemble, truth[:, None]).mean()
    first, second = torch.triu_indices(members, members, 1)
    spread = distance(ensemble[:, first], ensemble[:, second]).mean()
    return error - 0.5 * (1 - (1 - fairness) / members) * spread


def _place_distance(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left - right).abs()


def _frame_distance(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    # The gradient of this norm is zero, and not NaN, where two members agree, as all do before the first training step.
    difference = left - right
    return torch.linalg.vector_norm(difference, dim=(-3, -2, -1)) / difference[0, 0].numel() ** 0.5


class CRPSObjective(Objective):
    """The almost-fair score of an ensemble of `members` draws, over `unroll` steps that feed on each other.

    `increment_std` (C, 1, 1): the standard deviation of the increments, the unit of the score. `noise_features`: the number
    of normal numbers per call of the network. `fairness` and `score` as in `almost_fair_score`.
    """

    def __init__(
        self,
        increment_std: torch.Tensor,
        noise_features: int,
        *,
        members: int = 2,
        fairness: float = 0.95,
        score: str = "crps",
        unroll: int = 1,
    ):
        self.increment_std, self.noise_features, self.members = increment_std, noise_features, members
        self.fairness, self.score, self.frames = fairness, score, unroll + 1

    @staticmethod
    def network_arguments(spec: dict) -> dict:
        return {"frames_in": 1, "frames_out": 1, "condition_features": spec["noise_features"]}

    @classmethod
    def build(
        cls,
        spec: dict,
        data: TrainingData,
        *,
        noise_features: Count = 32,
        members: Annotated[int, Bounds(2, 16)] = 2,
        fairness: Rate = 0.95,
        score: Literal["crps", "energy"] = "crps",
    ) -> "CRPSObjective":
        options = {"members": members, "fairness": fairness, "score": score, "unroll": spec["training"]["unroll"]}
        return cls(data.increment_std, noise_features, **options)

    def __call__(
        self, network, batch: torch.Tensor, generator: torch.Generator, rows: slice = ALL_ROWS
    ) -> dict[str, torch.Tensor]:
        """Return {"loss"} for a batch (B, unroll + 1, C, H, W)."""
        shape = self.frames - 1, len(batch), self.members, self.noise_features
        noise = torch.randn(shape, generator=generator)[:, rows].flatten(1, 2).to(batch)
        x, loss = batch[rows, 0].repeat_interleave(self.members, 0), 0.0
        for target, fresh in zip(batch[rows, 1:].unbind(1), noise, strict=True):
            output, _ = network(x[:, None], condition=fresh)
            x = x + self.increment_std * output[:, 0].float()
            ensemble = x.unflatten(0, (-1, self.members))
            loss = loss + almost_fair_score(
                ensemble / self.increment_std, target / self.increment_std, self.fairness, self.score
            )
        return {"loss": loss / (self.frames - 1)}
