"""A rollout that was made elsewhere, read from its file and scored like a rollout made here."""

from typing import TYPE_CHECKING

import torch

from sns_core.errors import UserError
from sns_core.methods.base import Carry, FrameMethod, FrameSpace, Parts, StepRecord

if TYPE_CHECKING:
    from sns_core.data.external import ExternalRollout

SAME_FRAME = 0.05  # standard deviations between two copies of one frame: packed numbers and single precision stay below


class External(FrameMethod):
    """The frames of a file, one per emulator step, without the parts that no frame of the system has.

    `scale` (C, 1, 1): standard deviations, the unit of frames. `start` expects the states of all members of the test split,
    in order. It raises UserError where the file does not begin with the frames of these states.
    """

    timed = False

    def __init__(self, rollout: "ExternalRollout", scale: torch.Tensor, frames: FrameSpace):
        super().__init__(frames)
        self.rollout, self.scale = rollout, scale

    @classmethod
    def build(cls, parts: Parts, *, file: str) -> "External":
        # It reads files. A rollout in memory needs none of its packages.
        from sns_core.data.external import ExternalRollout

        emulation = parts.emulation
        rollout = ExternalRollout(file, parts.system, emulation.resolution, emulation.step)
        return cls(rollout, emulation.scale(parts.hardware.device), parts.frames)

    def _read(self, step: int, members: list[int]) -> torch.Tensor:
        frames = torch.from_numpy(self.rollout.frames(step, members)).to(self.scale.device) / self.scale
        return self.frames.admissible(frames)

    def start(self, states: torch.Tensor) -> Carry:
        carry = super().start(states)
        members = [member for member in self.rollout.members if member < len(states)]
        if members:
            self._check_beginning(carry["frame"], members)
        if self.rollout.first == 0:
            carry["frame"][members] = self._read(0, members)
        return {**carry, "member": torch.arange(len(states)), "step": torch.zeros(len(states), dtype=torch.int64)}

    def _check_beginning(self, initial: torch.Tensor, members: list[int]) -> None:
        """Raise UserError where the first frame of a member is not the frame of its initial state, or near another's."""
        first = self.rollout.first
        frames = self._read(first, members)
        for frame, member in zip(frames, members, strict=True):
            distances = (initial - frame).square().mean((1, 2, 3)).sqrt()
            distance, nearest = float(distances[member]), int(distances.argmin())
            if (first == 0 and distance > SAME_FRAME) or (first == 1 and float(distances[nearest]) < distance / 2):
                like = f"; it is nearer to the state of member {nearest}" if nearest != member else ""
                raise UserError(
                    f"{self.rollout.path}: its first frame of member {member} is {distance:.2g} standard deviations from the state from "
                    f"which this member starts{like}. Start from the last frame of the test trajectories, number `member` as they are, and "
                    "make frames of them in the same way (docs/external-rollouts.md)"
                )

    def step(self, carry: Carry, streams) -> tuple[Carry, StepRecord]:
        step = carry["step"] + 1
        frame = self._read(int(step[0]), carry["member"].tolist())
        return {**carry, "frame": frame, "step": step}, StepRecord.nothing(len(frame))
