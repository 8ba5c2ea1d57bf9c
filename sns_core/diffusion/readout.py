"""From the heads' categorical distributions to one level a member.

`argmax` is the published read-out. `quantile` takes the smallest level whose cumulative probability reaches q: in a
flat posterior argmax jumps about, while a small q asks for evidence against "clean" before anything is refined.
"""

from dataclasses import dataclass

import torch

KINDS = ("argmax", "quantile", "mean", "sample")


@dataclass(frozen=True)
class LevelReadout:
    """`kind` one of KINDS; `quantile` the q of the quantile read-out, in (0, 1). Raises ValueError otherwise."""

    kind: str = "argmax"
    quantile: float = 0.1

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"unknown read-out {self.kind!r}; known: {', '.join(KINDS)}")
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile {self.quantile} must lie between 0 and 1")

    def __call__(self, logits: torch.Tensor, uniform: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (..., S + 1) -> levels (...) int64. `uniform` (...), in [0, 1), is what `sample` inverts."""
        if self.kind == "argmax":
            return logits.argmax(-1)
        probability = logits.double().softmax(-1)
        if self.kind == "mean":
            steps = torch.arange(logits.shape[-1], device=logits.device, dtype=probability.dtype)
            return (probability * steps).sum(-1).round().long()
        if self.kind == "sample" and uniform is None:
            raise ValueError("the read-out 'sample' needs uniform numbers, one a level to read")
        threshold = self.quantile if self.kind == "quantile" else uniform.double().unsqueeze(-1)
        below = probability.cumsum(-1) < threshold
        return below.sum(-1).clamp(max=logits.shape[-1] - 1)
