"""Steppers: each maps a carry to the next by one emulator step; the engine repeats them.

A carry is a dict of tensors with everything that continuing needs. Frames are (B, C, m, m), axes (y, x), in units of
the training split's standard deviation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Protocol

import torch

from sns_core.catalogue import STEPPERS
from sns_core.data.external import ExternalRollout
from sns_core.data.frames import steps_per_frame
from sns_core.diffusion import Denoiser, LevelReadout, Path, Sampler, walk
from sns_core.diffusion.schedule import per_member
from sns_core.networks import EncodedPair, NetworkDenoiser
from sns_core.plugins import is_own, load, needs_of, options_of
from sns_core.runtime import UserError, normal
from sns_core.shells import filtered, shell_index
from sns_core.systems import System
from sns_core.training import TrainedModel, load_model

Carry = dict[str, torch.Tensor]


@dataclass
class StepRecord:
    """What a step tells of itself, per member: the levels (B, 2) at which the pair stood, previous frame first, -1 where no
    pair was looked at, and the number of network calls of the walk (B,)."""

    levels: torch.Tensor
    calls: torch.Tensor

    @classmethod
    def nothing(cls, members: int) -> "StepRecord":
        return cls(torch.full((members, 2), -1), torch.zeros(members, dtype=torch.int64))


class Stepper(Protocol):
    """`start` makes a carry from the system's states, `step` the next carry from random streams, `frame` what is seen;
    `timed`: whether the time that its steps take says anything."""

    timed: bool

    def start(self, states: torch.Tensor) -> Carry: ...
    def step(self, carry: Carry, streams: Sequence[torch.Generator]) -> tuple[Carry, StepRecord]: ...
    def frame(self, carry: Carry) -> torch.Tensor: ...


class SolverStepper:
    """The system itself: `step_size` time units of the solver a step, seen through `scale` (C, 1, 1)."""

    timed = True

    def __init__(self, system: System, resolution: int, step_size: float, scale: torch.Tensor):
        self.system, self.resolution, self.scale = system, resolution, scale
        self.substeps = steps_per_frame(step_size, system.dt)

    def start(self, states: torch.Tensor) -> Carry:
        return self.system.start(states)

    def step(self, carry: Carry, streams) -> tuple[Carry, StepRecord]:
        carry = self.system.run(carry, self.substeps)
        return carry, StepRecord.nothing(len(next(iter(carry.values()))))

    def frame(self, carry: Carry) -> torch.Tensor:
        return self.system.observe(self.system.state(carry), self.resolution) / self.scale


class _FrameStepper:
    """Base of the learnt steppers: the carry is the frame and, where the denoiser wants one, the anchor."""

    timed = True

    def __init__(self, system: System, resolution: int, scale: torch.Tensor):
        self.system, self.resolution, self.scale = system, resolution, scale

    def start(self, states: torch.Tensor) -> Carry:
        frame = (self.system.observe(states, self.resolution) / self.scale).contiguous()
        return {"frame": frame, "anchor": frame.clone()}

    def frame(self, carry: Carry) -> torch.Tensor:
        return carry["frame"]


class PointwiseStepper(_FrameStepper):
    """The surrogate alone: x_t = x_{t-1} + increment_std * network(x_{t-1})."""

    def __init__(self, surrogate: TrainedModel, precision: str, system: System, resolution: int):
        super().__init__(system, resolution, surrogate.per_channel("std"))
        self.increment_std = surrogate.per_channel("increment_std")
        self.network, self.context = surrogate.running(precision)

    @torch.no_grad()
    def predict(self, frame: torch.Tensor) -> torch.Tensor:
        with self.context:
            residual, _ = self.network(frame[:, None])
        return frame + self.increment_std * residual[:, 0].float()

    def step(self, carry: Carry, streams) -> tuple[Carry, StepRecord]:
        frame = self.predict(carry["frame"])
        return {**carry, "frame": self.system.admissible(frame)}, StepRecord.nothing(len(frame))


class _DenoisingStepper(_FrameStepper):
    """What all that denoise share: the denoiser, its coordinates, the read-out, the path and the sampler."""

    def __init__(
        self, denoiser: TrainedModel, precision: str, system: System, resolution: int, *, path: str = "diagonal",
        readout: dict | None = None, sampler: dict | None = None, stride: int = 1, bank: torch.Tensor | None = None,
    ):  # fmt: skip
        super().__init__(system, resolution, denoiser.per_channel("std"))
        self.denoiser: NetworkDenoiser = denoiser.denoiser(precision)
        self.schedule, self.colour = denoiser.schedule(), denoiser.colour()
        self.path = getattr(Path, path)
        usual = denoiser.note.get("clean_probability")  # a network that is told the levels has none
        self.readout = LevelReadout(
            **(readout or {}), clean_probability=None if usual is None else torch.tensor(usual).expand(2, -1)
        )
        self.sampler, self.stride, self.bank = Sampler(**(sampler or {})), stride, bank
        self._whitened = None, None

    def anchors(self, carry: Carry, streams) -> torch.Tensor:
        """(B, C, m, m): the initial frames, or where there is a bank (n, C, m, m) of true frames, one drawn at each step."""
        if self.bank is None:
            return carry["anchor"]
        draws = [torch.randint(len(self.bank), (1,), generator=g, device=g.device) for g in streams]
        return self.bank[torch.cat(draws).to(self.bank.device)]

    def whitened(self, *frames: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Frames in the coordinates of the diffusion, the anchor last: mostly that of the step before, done already."""
        if self.colour.white:
            return frames
        *others, anchor = frames
        if self._whitened[0] is not anchor:
            self._whitened = anchor, self.colour.whiten(anchor)
        return *self.colour.whiten(torch.stack(others)).unbind(0), self._whitened[1]

    def estimate(self, look: EncodedPair, streams) -> torch.Tensor:
        """Levels (B, 2) at which a pair seems to stand, on the CPU, where the timetable is made."""
        logits = self.denoiser.logits(look).cpu()
        uniform = None
        if self.readout.kind == "sample":
            uniform = torch.stack([torch.rand(2, generator=g, device=g.device) for g in streams]).cpu()
        # A member that has become NaN is past refining; it must not cost the others a full walk.
        finite = torch.isfinite(logits).all(-1)
        return torch.where(finite, self.readout(logits, uniform), 0)

    def diffuse(self, z: torch.Tensor, level: torch.Tensor, streams) -> torch.Tensor:
        """Forward-diffuse each member to its own level; those at level 0 draw nothing and stay as they are."""
        rows = level.nonzero()[:, 0]
        if not len(rows):
            return z
        noise = normal([streams[row] for row in rows.tolist()], z.shape[1:], z)
        if len(rows) == len(z):
            return self.schedule.add_noise(z, level, noise)
        where = rows.to(z.device)
        return z.index_copy(0, where, self.schedule.add_noise(z[where], level[rows], noise))

    def walked(
        self, path: Path, z_prev: torch.Tensor, z_next: torch.Tensor, z_anchor, streams, look: EncodedPair | None = None
    ) -> torch.Tensor:
        """The next frame (B, C, m, m) at the end of a path, on which every member moves at once. `look`: what the first move
        is made from, instead of another look at the pair."""
        _, z = walk(
            self.denoiser if look is None else self._from(look), path, z_prev, z_next, schedule=self.schedule,
            generator=streams, anchor=z_anchor, sampler=self.sampler,
        )  # fmt: skip
        return self.colour.unwhiten(z)

    def _from(self, look: EncodedPair) -> Denoiser:
        """The denoiser, whose first answer needs the decoder only."""
        looks = iter((look,))

        def answer(z_prev, z_next, s_prev, s_next, anchor):
            seen = next(looks, None)
            if seen is None:
                return self.denoiser(z_prev, z_next, s_prev, s_next, anchor)
            return self.denoiser.decode_pair(seen, s_prev, s_next)

        return answer


class RefinementStepper(_DenoisingStepper):
    """SNS around a surrogate (paper, algorithm 2): predict, estimate the levels, noise to them, walk back.

    `joint`: read both frames at the higher of their two levels. A drift is shared by the two frames of a fed-back pair,
    while the heads learnt from independent noise: they blame one frame or the other, and either may be wrong.
    `max_level`: bound of the levels that are acted upon, and so of the cost of a step (None: no bound).
    `condition_level`: hold the previous frame at this level instead of the estimated one (with `fixed_condition`).
    `fixed`: a control that estimates nothing: {"level", "every", "random"} noises both frames to one level at every n-th
    step, or at each step with probability 1 / n.
    `every`: look at the pair at every n-th step only; in between the surrogate goes on by itself.
    `renoise`: false takes the estimate at its word: a frame that looks noised to level s is treated as standing there, and
    no noise is added. The first move then needs no further look at the pair, only the decoder.
    `gain` (a, b): the change that the walk makes at wavenumber K counts a + b / K times. One level stands for all scales,
    while a surrogate drifts in the large ones, where noise of a low level is small beside the flow.
    """

    def __init__(
        self, surrogate: TrainedModel, denoiser: TrainedModel, precision: str, system: System, resolution: int, *,
        joint: bool = False, max_level: int | None = None, condition_level: int | None = None, fixed: dict | None = None,
        renoise: bool = True, gain: tuple[float, float] | None = None, every: int = 1, **options,
    ):  # fmt: skip
        super().__init__(denoiser, precision, system, resolution, **options)
        shells = torch.from_numpy(shell_index(self.resolution)).clamp(min=1)
        self.gain = None if gain is None else (gain[0] + gain[1] / shells).float().to(self.scale.device)
        self.surrogate, self.joint = PointwiseStepper(surrogate, precision, system, resolution), joint
        self.renoise = renoise
        self.max_level, self.condition_level, self.fixed, self.every = max_level, condition_level, fixed, every

    def start(self, states: torch.Tensor) -> Carry:
        carry = super().start(states)
        counted = self.fixed or self.every > 1
        return {**carry, "count": torch.zeros(len(states), dtype=torch.int64)} if counted else carry

    def step(self, carry: Carry, streams) -> tuple[Carry, StepRecord]:
        candidate = self.surrogate.predict(carry["frame"])
        following = {"count": carry["count"] + 1} if "count" in carry else {}
        if self.every > 1 and int(following["count"][0]) % self.every:  # all members are at the same step
            frame = self.system.admissible(candidate)
            return {**carry, **following, "frame": frame}, StepRecord.nothing(len(frame))
        anchors = self.anchors(carry, streams)
        frame, record = self.refine(carry["frame"], candidate, anchors, streams, following.get("count"))
        return {**carry, **following, "frame": self.system.admissible(frame)}, record

    def look(self, z_prev, z_next, z_anchor, streams) -> EncodedPair:
        return self.denoiser.encode_pair(z_prev, z_next, z_anchor)

    def levels(self, look: EncodedPair, streams, count) -> torch.Tensor:
        """Levels (B, 2) of the pair: estimated, or those of the control at the step `count` (B,)."""
        if not self.fixed:
            return self.estimate(look, streams)
        if self.fixed["random"]:
            draws = torch.cat([torch.rand(1, generator=g, device=g.device) for g in streams]).cpu()
            due = draws * self.fixed["every"] < 1
        else:
            due = count.cpu() % self.fixed["every"] == 0
        return (self.fixed["level"] * due)[:, None].expand(-1, 2)

    def starts(self, levels: torch.Tensor) -> torch.Tensor:
        """Where in the plane (B, 2) the walk begins for such levels."""
        acted = levels.clamp(max=self.max_level) if self.max_level else levels
        s_prev, s_next = acted.unbind(1)
        if self.joint:
            s_prev = s_next = torch.maximum(s_prev, s_next)
        if self.condition_level is not None:
            s_prev = torch.full_like(s_prev, self.condition_level)
        return torch.stack([s_prev, s_next], 1)

    def placed(self, z: torch.Tensor, level: torch.Tensor, streams) -> torch.Tensor:
        """A frame where its walk begins: noised to its level, or taken to stand there already."""
        return self.diffuse(z, level, streams) if self.renoise else per_member(self.schedule.signal(level), z) * z

    def condition(self, z_prev: torch.Tensor, level: torch.Tensor, streams) -> torch.Tensor:
        """The previous frame as it stands at the start of the walk."""
        return self.placed(z_prev, level, streams)

    def refine(self, previous: torch.Tensor, candidate: torch.Tensor, anchor: torch.Tensor, streams, count=None):
        """Frames (B, C, m, m) -> refined candidate, and what the step tells of itself."""
        z_prev, z_next, z_anchor = self.whitened(previous, candidate, anchor)
        look = self.look(z_prev, z_next, z_anchor, streams)
        levels = self.levels(look, streams, count)
        s_prev, s_next = self.starts(levels).unbind(1)
        # Only x_t is kept, and a path does not touch it where s1 = 0: such members need no walk.
        path = self.path(torch.where(s_next > 0, s_prev, 0), s_next, self.stride)
        record = StepRecord(levels, self.sampler.calls(path) * (s_next > 0))
        rows = s_next.nonzero()[:, 0]
        if not len(rows):
            return candidate, record
        own = [streams[row] for row in rows.tolist()]
        where = slice(None) if len(rows) == len(candidate) else rows.to(candidate.device)
        placed = self.condition(z_prev[where], s_prev[rows], own), self.placed(z_next[where], s_next[rows], own)
        seen = None if self.renoise else look.at(where)  # else the pair was looked at where it stands
        refined = self.walked(Path(path.levels[:, rows], path.renoise), *placed, z_anchor[where], own, seen)
        if self.gain is not None:
            refined = candidate[where] + filtered(refined - candidate[where], self.gain)
        return (refined if len(rows) == len(candidate) else candidate.index_copy(0, where, refined)), record


class ThermalizerStepper(RefinementStepper):
    """The Thermalizer (Pedersen et al. 2025): the level of x_t alone, and a walk down without any condition.

    From a denoiser of single frames as published, or from one of pairs whose previous frame is pure noise. `threshold`:
    lower levels are left alone.
    """

    def __init__(self, *arguments, threshold: int = 1, **options):
        super().__init__(*arguments, path="unconditional", **options)
        self.threshold = threshold

    def look(self, z_prev, z_next, z_anchor, streams) -> EncodedPair:
        return super().look(normal(streams, z_prev.shape[1:], z_prev), z_next, z_anchor, streams)

    def starts(self, levels: torch.Tensor) -> torch.Tensor:
        s_next = super().starts(levels)[:, 1]
        s_next = torch.where(s_next >= self.threshold, s_next, 0)
        return torch.stack([torch.full_like(s_next, self.schedule.levels), s_next], 1)

    def condition(self, z_prev, level, streams) -> torch.Tensor:
        return normal(streams, z_prev.shape[1:], z_prev)


class GenerationStepper(_DenoisingStepper):
    """SNS alone (paper, algorithm 3): x_t from pure noise at level S, the previous frame's level estimated beside it.

    `condition_level`: hold the previous frame at this level instead; 0 is clean conditioning.
    """

    def __init__(self, *arguments, condition_level: int | None = None, **options):
        super().__init__(*arguments, **options)
        self.condition_level = condition_level

    def step(self, carry: Carry, streams) -> tuple[Carry, StepRecord]:
        z_prev, z_anchor = self.whitened(carry["frame"], self.anchors(carry, streams))
        top = torch.full((len(z_prev),), self.schedule.levels)
        z_next = normal(streams, z_prev.shape[1:], z_prev)
        if self.condition_level is None:
            s_prev = self.estimate(self.denoiser.encode_pair(z_prev, z_next, z_anchor), streams)[:, 0]
        else:
            s_prev = torch.full_like(top, self.condition_level)
        path = self.path(s_prev, top, self.stride)
        frame = self.walked(path, self.diffuse(z_prev, s_prev, streams), z_next, z_anchor, streams)
        record = StepRecord(torch.stack([s_prev, top], 1), self.sampler.calls(path))
        return {**carry, "frame": self.system.admissible(frame)}, record


class AcdmStepper(_DenoisingStepper):
    """ACDM (Kohl et al. 2023): both frames at one level all along, the previous one noised afresh at each.

    From a network trained for it, which is told the level, or from a denoiser of pairs. `begin`: "noise", or "previous"
    for the authors' variant that starts from the previous frame noised to the highest level.
    """

    def __init__(self, *arguments, begin: str = "noise", **options):
        super().__init__(*arguments, path="acdm", **options)
        if begin not in ("noise", "previous"):
            raise UserError(f"begin: {begin!r} is neither noise nor previous")
        self.begin = begin

    def step(self, carry: Carry, streams) -> tuple[Carry, StepRecord]:
        z_prev, z_anchor = self.whitened(carry["frame"], self.anchors(carry, streams))
        top = torch.full((len(z_prev),), self.schedule.levels)
        z_next = normal(streams, z_prev.shape[1:], z_prev)
        if self.begin == "previous":
            z_next = self.schedule.add_noise(z_prev, top, z_next)
        path = self.path(top, top, self.stride)
        frame = self.walked(path, z_prev, z_next, z_anchor, streams)
        record = StepRecord(torch.stack([top, top], 1), self.sampler.calls(path))
        return {**carry, "frame": self.system.admissible(frame)}, record


class ForeignStepper:
    """A rollout that was made elsewhere, read from its file and scored as if it were made here.

    `scale` (C, 1, 1): the unit of frames. States must be those of all members of the test split, in order.
    """

    timed = False

    def __init__(self, rollout: ExternalRollout, system: System, resolution: int, scale: torch.Tensor):
        self.rollout, self.system, self.resolution, self.scale = rollout, system, resolution, scale

    def _read(self, step: int, members: list[int]) -> torch.Tensor:
        return torch.from_numpy(self.rollout.frames(step, members)).to(self.scale.device) / self.scale

    def start(self, states: torch.Tensor) -> Carry:
        frame = (self.system.observe(states, self.resolution) / self.scale).contiguous()
        if self.rollout.first == 0:
            held = [member for member in self.rollout.members if member < len(states)]
            frame[held] = self._read(0, held)
        return {
            "frame": frame, "member": torch.arange(len(states)), "step": torch.zeros(len(states), dtype=torch.int64),
        }  # fmt: skip

    def step(self, carry: Carry, streams) -> tuple[Carry, StepRecord]:
        following = carry["step"] + 1
        frame = self._read(int(following[0]), carry["member"].tolist())
        return {**carry, "frame": frame, "step": following}, StepRecord.nothing(len(frame))

    def frame(self, carry: Carry) -> torch.Tensor:
        return carry["frame"]


def build_stepper(
    method: dict, models: dict[str, FilePath], system: System, manifest: dict, device, precision: str = "auto",
    bank: Callable[[], torch.Tensor] | None = None, compile: bool = False,
) -> Stepper:  # fmt: skip
    """The stepper of a configured method.

    `method`: {"stepper", options of the walk}; `models`: file of each role that the stepper needs; `bank` makes the true
    frames (n, C, m, m) of which `anchor: resampled` draws; `compile`: whether networks are compiled. A
    learnt stepper, the user's own too (`module.Name`), is built from its models in the order of its needs, the precision,
    the system, the resolution of frames, and the options by name. Raises UserError for an unknown stepper and for a model
    that is missing or does not fit.
    """
    kind = method["stepper"]
    try:
        needs = needs_of(kind)
    except ValueError as error:
        raise UserError(str(error)) from None
    missing = needs.keys() - models.keys()
    if missing:
        raise UserError(f"the stepper {kind!r} needs a {' and a '.join(sorted(missing))}; name one under models")
    resolution, step_size = manifest["emulator"]["resolution"], manifest["emulator"]["step"]
    scale = torch.tensor(manifest["statistics"]["std"], dtype=torch.float32, device=device)[:, None, None]
    if kind == "solver":
        return SolverStepper(system, resolution, step_size, scale)
    if kind == "foreign":
        rollout = ExternalRollout(method["file"], system.variable, system.channels, resolution, step_size)
        return ForeignStepper(rollout, system, resolution, scale)
    loaded = [
        load_model(models[role], objectives, device, manifest["identity"], compile)
        for role, objectives in needs.items()
    ]
    options = {name: method[name] for name in options_of(kind) if name in method}
    if options.pop("anchor", "initial") == "resampled" and bank is not None:
        options["bank"] = bank().to(device)
    stepper = load(kind) if is_own(kind) else globals()[STEPPERS[kind]]
    return stepper(*loaded, precision, system, resolution, **options)
