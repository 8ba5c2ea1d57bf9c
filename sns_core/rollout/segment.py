"""One segment of a rollout: read the start, build the method, let the engine roll, write the results.

A segment ends in a restart file with everything that the next one needs. Random numbers are addressed by the step, so k
segments give bitwise what one gives. Frames are stored every `frame_stride` steps, statistics at every step.
"""

import time
from pathlib import Path

import numpy as np
import torch

from sns_core.data.attributes import file_attributes
from sns_core.data.emulation import Emulation
from sns_core.data.frames import FrameWriter, open_members
from sns_core.data.pairs import true_frames
from sns_core.device import select_device, use_threads
from sns_core.errors import DamagedFile, UserError
from sns_core.files import FileTree, digest, provenance, read_tensors, whole_file, write_tensors
from sns_core.methods.base import Carry, Hardware, Method
from sns_core.methods.build import build_method
from sns_core.metrics.distributions import component_scales
from sns_core.progress import progress
from sns_core.rollout.engine import Clock, roll
from sns_core.rollout.observers import BlockStatistics, StoredFrames
from sns_core.rollout.statistics import StreamingStatistics
from sns_core.streams import MemberStreams

FORMAT = "sns-restart-2"
PREFIX = "carry."  # of the carry's tensors in a restart file


def rollout_segment(
    *, name: str, method: FileTree, models: FileTree, manifest: Path, initial: list[Path], first_step: int, steps: int, members: list,
    seed: int, frame_stride: int, block: int, lags: int, output: Path, restart: Path, previous: Path | None = None,
    device: str = "auto", precision: str = "auto", compile: bool = False, threads: int = 1,
) -> None:  # fmt: skip
    """Roll a method out over the emulator steps first_step + 1 .. first_step + steps.

    `name`: the method's name in the configuration; its random numbers are addressed by it.
    `method`: the method's kind and options.
    `models`: role -> model file.
    `manifest`: the data manifest.
    `initial`: trajectory files of a split, whose final solver states are the initial states.
    `first_step`: number of emulator steps before this segment.
    `steps`: number of emulator steps in this segment.
    `members`: the numbers of the members.
    `seed`: the run's seed.
    `frame_stride`: steps between stored frames.
    `block`: steps per block of statistics; it must divide `first_step` and `steps`.
    `lags`: number of steps over which C(tau) is computed.
    `output`: the netCDF file of frames and statistics.
    `restart`: the file from which the next segment goes on.
    `previous`: the restart file of the segment before; needed unless `first_step` is 0.
    """
    if first_step % block or steps % block:
        raise UserError(f"rollout: segments of {steps} steps from {first_step} do not divide into blocks of {block}")
    use_threads(threads)
    hardware = Hardware(select_device(device), precision, compile)
    emulation = Emulation.read(manifest)
    system = emulation.build_system(hardware.device)
    composed = build_method(
        method, models, emulation, system=system, hardware=hardware, training_frames=lambda: true_frames(manifest, seed)
    )
    scale = emulation.scale(hardware.device)
    states = open_members(initial, "final_state")["final_state"]
    units = component_scales(system, torch.from_numpy(states.values).to(hardware.device), emulation.resolution)
    statistics = StreamingStatistics(system, scale, units, emulation.step, block, lags)
    identity = digest([name, method, emulation.identity, members, seed, block, lags])
    if first_step == 0:
        carry = start_carry(composed, states, members, hardware.device)
        statistics.begin(composed.frame(carry))
    else:
        if previous is None:
            raise UserError(f"rollout of {name}: a segment from step {first_step} needs the restart file before it")
        carry = _continued(previous, identity, first_step, statistics, hardware.device)

    began = time.monotonic()
    clock = Clock(first_step, steps, block, hardware.device)
    title = f"{type(system).__name__}: rollout of {name}"
    attributes = {**file_attributes(title, "rollout_segment"), "method": name, "dt": emulation.step}
    frame_step = emulation.step * frame_stride
    with (
        whole_file(output) as temporary,
        FrameWriter(temporary, system, members, emulation.resolution, attributes, frame_step) as writer,
    ):
        series = BlockStatistics(writer, statistics, first_step, emulation.resolution)
        frames = StoredFrames(writer, scale, frame_stride, first_step)
        if first_step == 0:
            frames.store(composed.frame(carry))
        streams = MemberStreams(seed, "rollout", name, members=members, device=hardware.device)
        numbers = (index + 1 for index in progress(first_step + steps, f"rollout of {name}", start=first_step))
        carry = roll(composed, carry, streams, numbers, [clock, series, frames])
        frames.close()
        writer.variable("lost_step", ("member",), kind="i8")[:] = statistics.lost_step.numpy()
        settings = {"method": method, "rollout": {"first_step": first_step, "steps": steps, "members": members}}
        record = provenance(settings, seed, str(hardware.device), wall_seconds=time.monotonic() - began)
        # Wall times stand among the attributes, because as variables they would make two equal rollouts differ.
        seconds = clock.seconds if composed.timed else clock.seconds * np.nan
        writer.annotate(provenance=record, first_step=first_step, steps=steps, seconds_of_blocks=seconds)
    tensors = {f"{PREFIX}{key}": tensor for key, tensor in carry.items()} | statistics.carry()
    write_tensors(restart, tensors, {"format": FORMAT, "identity": identity, "step": first_step + steps})


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
