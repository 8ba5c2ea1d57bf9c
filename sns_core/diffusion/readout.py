"""From the heads' categorical distributions to one level a frame.

`argmax` is the published read-out. `quantile` takes the smallest level whose cumulative probability reaches q: in a
flat posterior argmax jumps about, while a small q asks for evidence against "clean" before anything is refined.
`calibrated` is a quantile read-out whose q is set, for each head, by held-out true pairs: so that a given share of
them would be refined. It takes the arbitrary bias of a head's lowest levels out of the decision.
"""

from dataclasses import dataclass

import torch

KINDS = ("argmax", "quantile", "calibrated", "mean", "sample")


@dataclass(frozen=True)
class LevelReadout:
    """`kind` one of KINDS; `quantile` the q of the quantile read-out, or the share of true pairs that the calibrated one
    refines, in (0, 1). `clean_probability` (2, n), which `calibrated` needs: evenly spaced quantiles, from the least to
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

    @property
    def thresholds(self) -> torch.Tensor:
        """q of the quantile read-outs, one a head (2,) or one for both ()."""
        if self.kind == "calibrated":
            return torch.quantile(self.clean_probability.double(), self.quantile, dim=-1)
        return torch.tensor(self.quantile, dtype=torch.float64)

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
        threshold = uniform.double() if self.kind == "sample" else self.thresholds.to(logits.device)
        below = probability.cumsum(-1) < threshold.unsqueeze(-1)
        return below.sum(-1).clamp(max=logits.shape[-1] - 1)
