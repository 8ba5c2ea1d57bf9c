"""The interface of a method, and the parts that every learnt method shares.

A *method* maps a carry to the next carry by one emulator step. The carry is a dict of tensors with everything that
continuing needs; the engine (`rollout.engine`) repeats the method. Frames are (B, C, m, m) with axes (y, x), in units
of the training data's standard deviation, so a perfect frame has unit variance.

A method is composed from parts: callables, a noise schedule, coordinates, small frozen dataclasses. It knows no file.
`Method.build` composes it from the models and options of a configuration (`methods.build`).
"""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from sns_core.data.emulation import Emulation
from sns_core.errors import UserError
from sns_core.grids import Grid
from sns_core.systems import System

Carry = dict[str, torch.Tensor]
Streams = Sequence[torch.Generator]


@dataclass(frozen=True)
class StepRecord:
    """Noise levels and network calls of one step.

    `levels` (B, 2) int64: the levels at which the pair stood, previous frame first; -1 where no pair was examined.
    `calls` (B,) int64: network calls of the walk, per member. The surrogate's own call is not counted.
    """

    levels: torch.Tensor
    calls: torch.Tensor

    @classmethod
    def nothing(cls, members: int) -> "StepRecord":
        """The record of a step that examined no pair and walked nowhere."""
        return cls.of_calls(members, 0)

    @classmethod
    def of_calls(cls, members: int, calls: int) -> "StepRecord":
        """The record of a step that examined no pair and made `calls` network calls per member."""
        return cls(torch.full((members, 2), -1), torch.full((members,), calls))


@dataclass(frozen=True)
class FrameSpace:
    """The way from states to frames, and which frames are possible.

    `observe`: states -> frames (B, C, m, m) in standard deviations; `admissible`: removes from frames what no frame of
    the system can hold, for example a mean. Both are the identity unless given.
    """

    observe: Callable[[torch.Tensor], torch.Tensor] = lambda states: states
    admissible: Callable[[torch.Tensor], torch.Tensor] = lambda frames: frames

    @classmethod
    def of_system(cls, system: System, resolution: Grid, scale: torch.Tensor) -> "FrameSpace":
        """Frames of a system on the grid `resolution`, divided by `scale` (C, 1, 1)."""
        return cls(lambda states: (system.observe(states, resolution) / scale).contiguous(), system.admissible)


@dataclass(frozen=True)
class Hardware:
    """The `device` and the `precision` (auto, float32 or bfloat16) of networks, and whether they are compiled."""

    device: torch.device = torch.device("cpu")
    precision: str = "auto"
    compile: bool = False


@dataclass(frozen=True)
class Parts:
    """The material from which `Method.build` composes a configured method.

    `emulation` and `system`: which frames, and of what; `models`: role -> TrainedModel, one for each role of
    `Method.needs`; `hardware`; `training_frames`: a function that gives true frames (n, C, m, m), for methods that draw
    from them; `frames`: how the states that a rollout starts from become frames; `calibration`: the measurements of a
    calibrated method. A method's `start` must observe states
    by `frames.observe`, because the library's door passes frames where the workflow passes solver states.
    """

    emulation: Emulation
    system: System
    models: dict = field(default_factory=dict)
    hardware: Hardware = Hardware()
    training_frames: Callable[[], torch.Tensor] | None = None
    frames: FrameSpace = FrameSpace()
    calibration: object = None

    @property
    def surrogate(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """The model of the role "surrogate" as a function: frames (B, C, m, m) -> next frames (B, C, m, m)."""
        return self.models["surrogate"].surrogate(self.hardware.precision)


class Method(abc.ABC):
    """Maps a carry to the next carry by one emulator step.

    A subclass defines `start`, `step` and `frame`. To be used by a configuration, it also says which models it needs
    (`needs`: role -> objectives; the model must have been trained for one of them) and defines `build`, whose
    keyword-only arguments are the options that the configuration may give; their annotations say which values are
    allowed. `calibrated` says that the stage `calibrate_refinement` measures the method before it runs.
    """

    needs: ClassVar[dict[str, tuple[str, ...]]] = {}
    calibrated: ClassVar[bool] = False
    timed: ClassVar[bool] = True  # False where the time of a step means nothing, as for a rollout read from a file

    @classmethod
    def build(cls, parts: Parts) -> "Method":
        """Compose the method of a configuration from its parts and options."""
        raise NotImplementedError(f"{cls.__name__} defines no build(parts, *, options)")

    @abc.abstractmethod
    def start(self, states: torch.Tensor) -> Carry:
        """The carry of a fresh rollout from states (B, C, N, N)."""

    @abc.abstractmethod
    def step(self, carry: Carry, streams: Streams) -> tuple[Carry, StepRecord]:
        """The carry one emulator step later. `streams`: one random generator per member, addressed by the step."""

    @property
    def period(self) -> int:
        """The number of steps after which the steps repeat their kind; 1 where all steps are alike."""
        return 1

    def frame(self, carry: Carry) -> torch.Tensor:
        """The visible frame (B, C, m, m) of a carry."""
        return carry["frame"]


def next_frames(surrogate: Callable[[torch.Tensor], torch.Tensor], frames: torch.Tensor) -> torch.Tensor:
    """The frames that a surrogate, perhaps the user's own, makes of frames (B, C, m, m).

    Raises UserError where it returns anything but a tensor of the same shape and number format.
    """
    following = surrogate(frames)
    if not torch.is_tensor(following):
        made = f"a {type(following).__name__}"
    elif following.shape != frames.shape or following.dtype != frames.dtype:
        made = f"{tuple(following.shape)} of {following.dtype}"
    else:
        return following
    raise UserError(
        f"surrogate: made {made} of frames {tuple(frames.shape)} of {frames.dtype}; return a tensor like the frames"
    )


def further_state(before: Carry, after: Carry) -> list[str]:
    """Names of the entries that a step has changed or added, beside the frame and the number of the step.

    `before`, `after`: the carry of one step. An entry that a step hands on as it is, such as an anchor, is no state,
    and neither is an empty one.
    """
    changed = [name for name in after if name not in ("frame", "step") and after[name] is not before.get(name)]
    return [name for name in changed if after[name].numel()]


class FrameMethod(Method):
    """Base of the methods whose carry holds the frame itself."""

    def __init__(self, frames: FrameSpace | None = None):
        self.frames = frames or FrameSpace()

    def start(self, states: torch.Tensor) -> Carry:
        return {"frame": self.frames.observe(states)}
