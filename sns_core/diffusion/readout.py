"""The read-out: one noise level per frame, from the level heads' categorical distributions.

argmax      The most probable level. This is the published read-out.
quantile    The smallest level whose cumulative probability reaches q. Under a flat distribution, argmax jumps between
            levels; a small q refines nothing unless the head shows evidence against "clean".
calibrated  Two questions are answered apart. The first is whether to refine a frame: yes, where the head gives level 0
            less probability than it gives to all but a chosen share of held-out true pairs. This rule would refine that
            share of true pairs, so an arbitrary bias among the head's lowest levels does not enter the decision. The
            second question is how far to refine: to the median of the head's distribution, at least to level 1.
mean        The expected level, rounded.
sample      A level drawn from the distribution.
"""

import functools
from dataclasses import dataclass

import torch

KINDS = ("argmax", "quantile", "calibrated", "mean", "sample")


@dataclass(frozen=True)
class LevelReadout:
    """A rule that turns the logits of the level heads into levels.

    `kind`: one of KINDS. `quantile`, in (0, 1): the q of the read-out `quantile`; for `calibrated`, the share of true
    pairs that is refined. `clean_probability` (2, n), needed by `calibrated` alone: for each head, evenly spaced
    quantiles of the probability of level 0 on held-out true pairs, in rising order. Raises ValueError for an unknown
    kind, a quantile outside (0, 1), and a `calibrated` read-out without `clean_probability`.
    """

    kind: str = "argmax"
    quantile: float = 0.1
    clean_probability: torch.Tensor | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"unknown read-out {self.kind!r}; known: {', '.join(KINDS)}")
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile {self.quantile} must lie between 0 and 1")
        if self.kind == "calibrated" and self.clean_probability is None:
            raise ValueError("the read-out 'calibrated' needs a denoiser that was calibrated on held-out pairs")

    def __call__(self, logits: torch.Tensor, uniform: torch.Tensor | None = None) -> torch.Tensor:
        """Return the levels (B, 2) int64 for logits (B, 2, S + 1).

        `uniform` (B, 2): uniform random numbers in [0, 1), from which `sample` draws. Raises ValueError where `sample`
        gets none.
        """
        if self.kind == "argmax":
            return logits.argmax(-1)
        probability = logits.double().softmax(-1)
        if self.kind == "mean":
            steps = torch.arange(logits.shape[-1], device=logits.device, dtype=probability.dtype)
            return (probability * steps).sum(-1).round().long()
        if self.kind == "sample" and uniform is None:
            raise ValueError("the read-out 'sample' needs uniform numbers, one per level")
        threshold = {"quantile": self.quantile, "calibrated": 0.5}.get(self.kind)
        threshold = uniform.double().unsqueeze(-1) if threshold is None else threshold
        level = (probability.cumsum(-1) < threshold).sum(-1).clamp(max=logits.shape[-1] - 1)
        if self.kind == "calibrated":
            refine = probability[..., 0] < self.usual_probability.to(logits.device)
            level = torch.where(refine, level.clamp(min=1), 0)
        return level

    @functools.cached_property
    def usual_probability(self) -> torch.Tensor:
        """The probability of level 0, float64 (2,), that all held-out true pairs but the share `quantile` reach."""
        return torch.quantile(self.clean_probability.double(), self.quantile, dim=-1)
