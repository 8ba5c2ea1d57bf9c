"""One step of a method as a module of torch alone, which `torch.export` can write as a program."""

import torch

from sns_core.errors import UserError
from sns_core.methods.base import Carry, FrameMethod, further_state
from sns_core.streams import GivenNoise


class _Tally(GivenNoise):
    """Counts the numbers that a step takes from all members, and refuses to be taken apart into members."""

    def __getitem__(self, member: int):
        raise TypeError("it draws numbers for single members, or other than normal ones")


class OneStep(torch.nn.Module):
    """(frame, start, noise) -> the next frame, all frames (B, C, H, W) in physical units.

    `start`: the frame from which the rollout started, which some denoisers see as an anchor. `noise` (B, n): standard normal
    numbers, fresh ones for each step; n is `noise_numbers`. With the same numbers, the frame is the same.

    Parameters: `method`, which starts from frames in physical units; `scale` and `offset` (C, 1, 1): its own frames times `scale`
    plus `offset` are physical; `example` (B, C, H, W): frames in physical units, on which one step is tried. A
    method whose steps draw other than normal numbers or differ between members, such as a walk of a length of its own, raises an
    error here or in `torch.export`. Raises UserError where one step needs more than its inputs: its number, as a method that
    refines every n-th step does, or a further state, such as a window.
    """

    def __init__(self, method: FrameMethod, scale: torch.Tensor, offset: torch.Tensor, example: torch.Tensor):
        super().__init__()
        self.method, self.scale, self.offset = method, scale, offset
        # Parameters must belong to the module, or torch.export does not find them. A part may be a method of a network's owner,
        # or a function that was defined where the network was at hand.
        owners = [getattr(part, "__self__", part) for part in vars(method).values()]
        owners += [cell.cell_contents for part in owners for cell in getattr(part, "__closure__", None) or ()]
        networks = [
            owner if isinstance(owner, torch.nn.Module) else getattr(owner, "network", None) for owner in owners
        ]
        self.networks = torch.nn.ModuleList(
            dict.fromkeys(each for each in networks if isinstance(each, torch.nn.Module))  # each once
        )
        # The view of one zero as a long row: the step takes from it as many numbers as it needs.
        tally = _Tally(torch.zeros((), device=example.device).expand(len(example), 2**40))
        carry = self._carry(example, example)
        further = (
            ["the number of the step"] if method.period > 1 else further_state(carry, method.step(carry, tally)[0])
        )
        if further:
            raise UserError(
                f"{type(method).__name__}: carries {', '.join(further)} from step to step beside the frame, so one step alone "
                "is no program; use the emulator's rollout"
            )
        self.noise_numbers = tally.taken

    def forward(self, frame: torch.Tensor, start: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the next frame (B, C, H, W)."""
        after, _ = self.method.step(self._carry(frame, start), GivenNoise(noise))
        return self.method.frame(after) * self.scale + self.offset

    def _carry(self, frame: torch.Tensor, start: torch.Tensor) -> Carry:
        return {**self.method.start(start), "frame": self.method.frames.observe(frame)}
