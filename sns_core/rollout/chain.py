"""One segment of the chain that a rollout is: roll a method from a start or a restart file, and write the results.

A segment ends in a restart file with everything that the next one needs. Random numbers are addressed by the step, so k
segments give bitwise what one gives. This module knows no model file; the stages bring a method that is built.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sns_core.data.attributes import file_attributes
from sns_core.data.emulation import Emulation
from sns_core.data.frames import FrameWriter
from sns_core.errors import DamagedFile, UserError
from sns_core.files import digest, provenance, read_tensors, whole_file, write_tensors
from sns_core.methods.base import Carry, Method
from sns_core.metrics.distributions import component_scales
from sns_core.progress import progress
from sns_core.rollout.engine import Clock, roll
from sns_core.rollout.observers import BlockStatistics, StoredFrames
from sns_core.rollout.statistics import StreamingStatistics
from sns_core.streams import MemberStreams
from sns_core.systems import InstabilityError, System

FORMAT = "sns-restart-2"
PREFIX = "carry."  # of the carry's tensors in a restart file


@dataclass(frozen=True)
class Segment:
    """The steps first_step + 1 .. first_step + steps of a rollout of a method, and what addresses its random numbers.

    `name`, `method`: the method's name, its kind and options; `members`: the numbers of the members; `seed`: the run's
    seed; `block`: steps per block of statistics; `lags`: steps over which C(tau) is computed; `stage`: the stage that
    writes the file. Raises UserError where the segment does not divide into blocks.
    """

    name: str
    method: dict
    first_step: int
    steps: int
    members: list[int]
    seed: int
    block: int
    lags: int
    stage: str = "rollout_segment"

    def __post_init__(self):
        if self.first_step % self.block or self.steps % self.block:
            raise UserError(
                f"rollout: segments of {self.steps} steps from {self.first_step} do not divide into blocks of {self.block}; "
                "take multiples of it"
            )

    def roll(
        self, method: Method, emulation: Emulation, system: System, states: xr.DataArray, unit_states: xr.DataArray, *,
        frame_stride: int | None, output: Path, restart: Path, previous: Path | None, device: torch.device,
    ) -> None:  # fmt: skip
        """Roll the method out and write the results and the restart file.

        `states`: solver states (member, layer, y, x) of a whole split, from which members start; `unit_states`: those
        whose velocity and gradient are the units of the histograms; `frame_stride`: steps between stored frames, None
        for none.
        """
        scale = emulation.scale(device)
        units = component_scales(system, torch.from_numpy(unit_states.values).to(device), emulation.resolution)
        statistics = StreamingStatistics(system, scale, units, emulation.step, self.block, self.lags)
        identity = digest([self.name, self.method, emulation.identity, self.members, self.seed, self.block, self.lags])
        if self.first_step == 0:
            carry = start_carry(method, states, self.members, device)
            statistics.begin(method.frame(carry))
        else:
            if previous is None:
                place = f"a segment from step {self.first_step}"
                raise UserError(f"rollout of {self.name}: {place} needs the restart file before it")
            carry = _continued(previous, identity, self.first_step, statistics, device)

        began, last_step = time.monotonic(), self.first_step + self.steps
        clock = Clock(self.first_step, self.steps, self.block, device)
        title = f"{type(system).__name__}: rollout of {self.name}"
        attributes = {**file_attributes(title, self.stage), "method": self.name, "dt": emulation.step}
        frame_step = emulation.step * (frame_stride or 1)
        with (
            whole_file(output) as temporary,
            FrameWriter(temporary, system, self.members, emulation.resolution, attributes, frame_step) as writer,
        ):
            observers = [clock, BlockStatistics(writer, statistics, self.first_step, emulation.resolution)]
            frames = StoredFrames(writer, scale, frame_stride, self.first_step) if frame_stride else None
            if frames:
                observers.append(frames)
                if self.first_step == 0:
                    frames.store(method.frame(carry))
            streams = MemberStreams(self.seed, "rollout", self.name, members=self.members, device=device)
            numbers = (index + 1 for index in progress(last_step, f"rollout of {self.name}", start=self.first_step))
            try:
                carry = roll(method, carry, streams, numbers, observers)
            except InstabilityError as error:
                raise error.of_member(self.members[error.member], frame_step=emulation.step) from None
            if frames:
                frames.close()
            writer.variable("lost_step", ("member",), kind="i8")[:] = statistics.lost_step.numpy()
            span = {"first_step": self.first_step, "steps": self.steps, "members": self.members}
            settings = {"method": self.method, "rollout": span}
            record = provenance(settings, self.seed, str(device), wall_seconds=time.monotonic() - began)
            # Wall times stand among the attributes, because as variables they would make two equal rollouts differ.
            seconds = clock.seconds if method.timed else clock.seconds * np.nan
            writer.annotate(provenance=record, first_step=self.first_step, steps=self.steps, seconds_of_blocks=seconds)
        tensors = {f"{PREFIX}{key}": tensor for key, tensor in carry.items()} | statistics.carry()
        write_tensors(restart, tensors, {"format": FORMAT, "identity": identity, "step": last_step})


def start_carry(method: Method, states, members: list[int], device: torch.device) -> Carry:
    """The carry of `members` at step 0.

    `states`: DataArray (member, layer, y, x) of the whole split. All members of the split are started at once, also where
    few are wanted, because transforms of another batch may differ in the last bit.
    """
    rows = torch.from_numpy(np.searchsorted(states["member"].values, members)).to(device)
    everyone = method.start(torch.from_numpy(np.ascontiguousarray(states.values)).to(device))
    return {key: tensor[rows.to(tensor.device)] for key, tensor in everyone.items()}


def _continued(
    previous: Path, identity: str, first_step: int, statistics: StreamingStatistics, device: torch.device
) -> Carry:
    """The carry of a restart file; `statistics` continue from there, too."""
    tensors, note = read_tensors(previous)
    if note.get("format") != FORMAT or note["identity"] != identity or note["step"] != first_step:
        raise DamagedFile(previous, f"not the restart file of this rollout at step {first_step}")
    statistics.restore(tensors, device)
    return {key.removeprefix(PREFIX): t.to(device) for key, t in tensors.items() if key.startswith(PREFIX)}
