"""From the heads' categorical distributions to one level a frame.

`argmax` is the published read-out. `quantile` takes the smallest level whose cumulative probability reaches q: in a
flat posterior argmax jumps about, while a small q asks for evidence against "clean" before anything is refined.
`calibrated` separates the two questions. Whether to refine: where a head gives level 0 less probability than a chosen
quantile of what it gives held-out true pairs, so that this share of them would be refined; this takes the arbitrary
bias among a head's lowest levels out of the decision. How far: to the median of the head's distribution, at least
level 1.
"""

import functools
from dataclasses import dataclass

import torch

KINDS = ("argmax", "quantile", "calibrated", "mean", "sample")


@dataclass(frozen=True)
class LevelReadout:
    """`kind` one of KINDS; `quantile`, in (0, 1), the q of the quantile read-out, or the share of true pairs that the
    calibrated one refines. `clean_probability` (2, n), which `calibrated` needs: evenly spaced quantiles, from the least to
    the greatest, of the probability that each head gives to level 0 on held-out true pairs. Raises ValueError for
    anything else.
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
        """Logits (B, 2, S + 1) -> levels (B, 2) int64. `uniform` (B, 2), in [0, 1), is what `sample` inverts."""
        if self.kind == "argmax":
            return logits.argmax(-1)
        probability = logits.double().softmax(-1)
        if self.kind == "mean":
            steps = torch.arange(logits.shape[-1], device=logits.device, dtype=probability.dtype)
            return (probability * steps).sum(-1).round().long()
        if self.kind == "sample" and uniform is None:
            raise ValueError("the read-out 'sample' needs uniform numbers, one a level to read")
        threshold = {"quantile": self.quantile, "calibrated": 0.5}.get(self.kind)
        threshold = uniform.double().unsqueeze(-1) if threshold is None else threshold
        level = (probability.cumsum(-1) < threshold).sum(-1).clamp(max=logits.shape[-1] - 1)
        if self.kind == "calibrated":
            unusual = probability[..., 0] < self.usual_probability.to(logits.device)
            level = torch.where(unusual, level.clamp(min=1), 0)
        return level

    @functools.cached_property
    def usual_probability(self) -> torch.Tensor:
        """(2,) the probability of level 0 that all but the share `quantile` of held-out true pairs reach."""
        return torch.quantile(self.clean_probability.double(), self.quantile, dim=-1)
