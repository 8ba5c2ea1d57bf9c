"""A rollout that was made elsewhere, read from its file and scored like a rollout made here."""

import torch

from sns_core.data.external import ExternalRollout
from sns_core.methods.base import Carry, FrameMethod, FrameSpace, Parts, StepRecord


class External(FrameMethod):
    """The frames of a file, one per emulator step.

    `scale` (C, 1, 1): standard deviations, the unit of frames. `start` expects the states of all members of the test split,
    in order.
    """

    timed = False

    def __init__(self, rollout: ExternalRollout, scale: torch.Tensor, frames: FrameSpace):
        super().__init__(frames)
        self.rollout, self.scale = rollout, scale

    @classmethod
    def build(cls, parts: Parts, *, file: str) -> "External":
        emulation, system = parts.emulation, parts.system
        rollout = ExternalRollout(file, system.variable, system.channels, emulation.resolution, emulation.step)
        return cls(rollout, emulation.scale(parts.hardware.device), parts.frames)

    def _read(self, step: int, members: list[int]) -> torch.Tensor:
        return torch.from_numpy(self.rollout.frames(step, members)).to(self.scale.device) / self.scale

    def start(self, states: torch.Tensor) -> Carry:
        carry = super().start(states)
        if self.rollout.first == 0:
            members = [member for member in self.rollout.members if member < len(states)]
            carry["frame"][members] = self._read(0, members)
        return {**carry, "member": torch.arange(len(states)), "step": torch.zeros(len(states), dtype=torch.int64)}

    def step(self, carry: Carry, streams) -> tuple[Carry, StepRecord]:
        step = carry["step"] + 1
        frame = self._read(int(step[0]), carry["member"].tolist())
        return {**carry, "frame": frame, "step": step}, StepRecord.nothing(len(frame))
