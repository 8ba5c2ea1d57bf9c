"""Distilled methods: one or a few long moves from noise to the next frame, each in one call (`training.distillation`).

The model says how many moves there are, and where they end.
"""

from dataclasses import dataclass

import torch

from sns_core.diffusion import Path, Sampler
from sns_core.methods.base import Parts
from sns_core.methods.flow_matching import FlowMatching
from sns_core.methods.generation import Generation
from sns_core.methods.levels import EstimatedLevels
from sns_core.options import AnchorFrame


class DistilledFlowMatching(FlowMatching):
    """Flow matching in Euler's moves, with a network of their mean velocity."""

    needs = {"velocity": ("distilled_flow_matching",)}

    @classmethod
    def build(cls, parts: Parts) -> "DistilledFlowMatching":
        model = parts.models["velocity"]
        network = model.increments(parts.hardware.precision)
        times = {"moves": model.spec["moves"], "bend": model.spec["bend"]}
        return cls(network.velocity, network.increment_std, **times, frames=parts.frames)


@dataclass(frozen=True)
class LongMoves:
    """The walk of a student: deterministic moves of the next frame alone, each from the first to the last level of
    `teacher_moves` moves of its teacher, which follow `Path.bent`."""

    moves: int = 1
    bend: float = 2.0
    teacher_moves: int = 1
    sampler: Sampler = Sampler(eta=0.0)

    def route(self, s_prev: torch.Tensor, s_next: torch.Tensor) -> Path:
        """The path of all members from (s_prev, s_next), both (B,), which are the same for all of them."""
        path = Path.bent(int(s_prev[0]), int(s_next[0]), self.moves * self.teacher_moves, self.bend)
        return Path(path.levels[:: self.teacher_moves].expand(-1, len(s_prev), -1))


class DistilledGeneration(Generation):
    """Generation in long moves, under a previous frame that is held at the level that its model was trained for."""

    needs = {"denoiser": ("distilled_generation",)}

    @classmethod
    def build(cls, parts: Parts, *, anchor_frame: AnchorFrame = "initial") -> "DistilledGeneration":
        spec = parts.models["denoiser"].spec
        return cls(
            levels=EstimatedLevels(condition_level=spec["condition_level"]),
            walk=LongMoves(spec["moves"], spec["bend"], spec["teacher_moves"]),
            **cls.diffusion_parts(parts, anchor_frame),
        )
