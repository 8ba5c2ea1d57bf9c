"""The stage that rolls a method out over one segment of its steps: read the start, build the method, roll.

Frames are stored every `frame_stride` steps, statistics at every step.
"""

from pathlib import Path

from sns_core.data.emulation import Emulation
from sns_core.data.frames import open_members
from sns_core.data.pairs import true_frames
from sns_core.device import select_device, use_threads
from sns_core.files import FileTree
from sns_core.methods.base import Hardware
from sns_core.methods.build import build_method
from sns_core.rollout.chain import Segment


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
    use_threads(threads)
    segment = Segment(name, method, first_step, steps, members, seed, block, lags)
    hardware = Hardware(select_device(device), precision, compile)
    emulation = Emulation.read(manifest)
    system = emulation.build_system(hardware.device)
    composed = build_method(
        method, models, emulation, system=system, hardware=hardware, training_frames=lambda: true_frames(manifest, seed)
    )
    states = open_members(initial, "final_state")["final_state"]
    segment.roll(
        composed, emulation, system, states, states, frame_stride=frame_stride, output=output, restart=restart,
        previous=previous, device=hardware.device,
    )  # fmt: skip
