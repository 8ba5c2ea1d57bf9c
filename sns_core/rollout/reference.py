"""The stage that runs the reference ensemble: the solver from states that no split of the data saw, statistics alone.

The ensemble is the truth of all scores, and floors are drawn from it. Where trajectories of files stand in the solver's
place, all of the test split are measured in this way, and floors are drawn from them. It runs in segments as every rollout does, so a
killed call goes on, members may be divided among jobs, and memory does not grow with its length. No frames are stored.
"""

from pathlib import Path

from sns_core.data.emulation import Emulation
from sns_core.data.external import ExternalRollout
from sns_core.data.frames import open_members
from sns_core.device import select_device, use_threads
from sns_core.methods.base import FrameSpace
from sns_core.methods.external import External
from sns_core.methods.solver import Solver
from sns_core.rollout.chain import Segment

NAME = "reference"  # of the ensemble, in file attributes and messages


def rollout_reference(
    *, manifest: Path, initial: list[Path], test: list[Path], first_step: int, steps: int, members: list, seed: int, block: int,
    lags: int, output: Path, restart: Path, previous: Path | None = None, recorded: Path | None = None, device: str = "auto",
    threads: int = 1,
) -> None:  # fmt: skip
    """Run the solver over the emulator steps first_step + 1 .. first_step + steps, and write series and blocks.

    `initial`: files of the ensemble's spun-up states.
    `test`: trajectory files of the test split, whose states give the units of the histograms, as for all rollouts.
    `first_step`: number of emulator steps before this segment.
    `steps`: number of emulator steps in this segment.
    `members`: the numbers of the members.
    `block`: steps per block of statistics; it must divide `first_step` and `steps`.
    `lags`: number of steps over which C(tau) is computed.
    `output`: the netCDF file of statistics.
    `restart`: the file from which the next segment goes on.
    `previous`: the restart file of the segment before; needed unless `first_step` is 0.
    `recorded`: frames that are read instead of running the solver, from the states of the test split on.
    """
    use_threads(threads)
    chosen_device, emulation = select_device(device), Emulation.read(manifest)
    system = emulation.build_system(chosen_device)
    scale, described = emulation.scale(chosen_device), {"kind": "solver"}
    if recorded is None:
        method = Solver(system, emulation.resolution, emulation.step, scale)
    else:
        frames = FrameSpace.of_system(system, emulation.resolution, scale)
        method = External(ExternalRollout(recorded, system, emulation.resolution, emulation.step), scale, frames)
        described = {"kind": "external", "file": str(recorded)}
    states, test_states = (open_members(paths, "final_state")["final_state"] for paths in (initial, test))
    Segment(NAME, described, first_step, steps, members, seed, block, lags, "rollout_reference").roll(
        method, emulation, system, states, test_states, frame_stride=None, output=output, restart=restart, previous=previous,
        device=chosen_device,
    )  # fmt: skip
