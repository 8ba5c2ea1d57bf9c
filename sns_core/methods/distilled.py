"""Distilled methods: a student's network makes in one or a few calls what its teacher made in more.

Moves from noise to the next frame (`training.distillation`): the model says how many there are, and where they end.
Refined steps (`methods.refinement_student`): surrogate and denoiser in one call.
"""

from dataclasses import dataclass

import torch

from sns_core.diffusion import Denoiser, NoiseSchedule, Path, Sampler
from sns_core.methods.base import Carry, Parts, StepRecord, Streams
from sns_core.methods.calibrated import BalancedMethod
from sns_core.methods.calibration import Calibration
from sns_core.methods.flow_matching import FlowMatching
from sns_core.methods.generation import Generation
from sns_core.methods.levels import EstimatedLevels
from sns_core.options import AnchorFrame
from sns_core.streams import normal


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


class DistilledRefinement(BalancedMethod):
    """SNS in one call: a student makes what its teacher, a calibrated refinement, makes with surrogate and denoiser.

    The student is a denoiser that leads noise to the next frame in one move, beside the clean previous frame. The noise is
    that with which its teacher completes a candidate. Its balance is found in a loop of its own, with the teacher's R as bound.
    """

    needs = {"denoiser": ("distilled_refinement",)}

    def __init__(self, denoiser: Denoiser, schedule: NoiseSchedule, **diffusion):
        super().__init__(denoiser, schedule, **diffusion)
        top = torch.tensor(schedule.levels)
        self.signal, self.sigma = float(schedule.signal(top)), float(schedule.sigma(top))

    @classmethod
    def build(cls, parts: Parts, *, anchor_frame: AnchorFrame = "initial") -> "DistilledRefinement":
        method = cls(**cls.diffusion_parts(parts, anchor_frame))
        taught = Calibration.from_dict(parts.models["denoiser"].note["teacher"])
        method.calibration = parts.calibration or taught.without_balance()
        return method

    def step(self, carry: Carry, streams: Streams) -> tuple[Carry, StepRecord]:
        z_prev = self.whiten(carry["frame"])
        z = self.draw(z_prev, normal(streams, z_prev.shape[1:], z_prev), self.anchors.of_step(carry, streams))
        frame = self.frames.admissible(self.unwhiten(self.balanced(z, streams)))
        levels = torch.tensor([[0, self.schedule.levels]]).expand(len(z), -1)
        return {**carry, "frame": frame}, StepRecord(levels, torch.ones(len(z), dtype=torch.int64))

    def draw(self, z_prev: torch.Tensor, noise: torch.Tensor, anchor: torch.Tensor | None) -> torch.Tensor:
        """The next frames before their balance (B, C, m, m), from previous frames and noise, all in the coordinates of the diffusion."""
        clean, top = (torch.full((len(z_prev),), level) for level in (0, self.schedule.levels))
        _, predicted = self.denoiser(z_prev, noise, clean, top, anchor)
        return (noise - self.sigma * predicted) / self.signal
