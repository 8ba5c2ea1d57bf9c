"""The engine: repeats a method, and hands each step to observers.

The engine knows no file, no system and no network. Statistics, stored frames and the clock are observers; any object
with `before` and `after` is one.
"""

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from sns_core.methods.base import Carry, Method, StepRecord
from sns_core.streams import MemberStreams


class Observer:
    """Sees every step of a rollout."""

    def before(self, step: int) -> None:
        """Called before the method makes `step`."""

    def after(self, step: int, frame: torch.Tensor, record: StepRecord) -> None:
        """Called with the frame (B, C, m, m) after `step` and with the step's record."""


def iterate(
    method: Method, carry: Carry, streams: MemberStreams, steps: Iterable[int], observers: Sequence[Observer] = ()
) -> Iterator[tuple[Carry, torch.Tensor, StepRecord]]:
    """Yield (carry, frame, record) after each of `steps`, once the observers have seen it.

    `carry`: of `method.start(states)`, or of an earlier call; `streams`: of its B members; `steps`: the numbers of the
    steps to make, such as range(1, 101) for the first hundred. The random numbers of a step depend on its number alone.
    Frames are tensors (B, C, m, m) in standard deviations of the training data.
    """
    for step in steps:
        for observer in observers:
            observer.before(step)
        with torch.no_grad():  # a surrogate of the user's own may have parameters
            carry, record = method.step(carry, streams.at(step))
            frame = method.frame(carry)
        for observer in observers:
            observer.after(step, frame, record)
        yield carry, frame, record


def roll(
    method: Method, carry: Carry, streams: MemberStreams, steps: Iterable[int], observers: Sequence[Observer] = ()
) -> Carry:
    """Make all `steps` and return the last carry, whose frame is `method.frame(carry)`; arguments as in `iterate`."""
    for carry, _, _ in iterate(method, carry, streams, steps, observers):  # noqa: B007, B020
        pass
    return carry


class Clock(Observer):
    """Wall time of the method's own steps, summed over blocks of `block` steps.

    As the first observer, the clock leaves out what other observers do after a step.

    `seconds` (steps / block,): of each block, the first one ending at step `first_step` + `block`.
    """

    def __init__(self, first_step: int, steps: int, block: int, device: torch.device):
        self.first_step, self.block, self.device = first_step, block, device
        self.seconds = np.zeros(steps // block)

    def before(self, step: int) -> None:
        self._began = time.perf_counter()

    def after(self, step: int, frame, record) -> None:
        if self.device.type == "cuda" and step % self.block == 0:
            torch.cuda.synchronize(self.device)  # a call returns before a GPU has done it
        self.seconds[(step - 1 - self.first_step) // self.block] += time.perf_counter() - self._began
