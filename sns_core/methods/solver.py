"""The solver as a method: the truth, and the yardstick of every other method."""

import torch

from sns_core.data.frames import steps_per_frame
from sns_core.grids import Grid
from sns_core.methods.base import Carry, Method, Parts, StepRecord
from sns_core.systems import System


class Solver(Method):
    """The system's own solver, `step` time units per emulator step, seen through frames divided by `scale` (C, 1, 1).

    Raises UserError where `step` is no multiple of the solver's time step.
    """

    def __init__(self, system: System, resolution: Grid, step: float, scale: torch.Tensor):
        self.system, self.resolution, self.scale = system, resolution, scale
        self.substeps = steps_per_frame(step, system.dt)

    @classmethod
    def build(cls, parts: Parts) -> "Solver":
        emulation = parts.emulation
        return cls(parts.system, emulation.resolution, emulation.step, emulation.scale(parts.hardware.device))

    def start(self, states: torch.Tensor) -> Carry:
        return self.system.start(states)

    def step(self, carry: Carry, streams) -> tuple[Carry, StepRecord]:
        carry = self.system.run(carry, self.substeps)
        return carry, StepRecord.nothing(len(next(iter(carry.values()))))

    def frame(self, carry: Carry) -> torch.Tensor:
        return self.system.observe(self.system.state(carry), self.resolution) / self.scale
