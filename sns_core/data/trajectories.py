"""The stage that integrates the solver and writes trajectories, one file per split or per group of its members.

A file holds frames one emulator step apart, the solver's final state (a longer reference run starts from it) and, as
attributes, the configuration, the seed, the versions and the commit that made the file.
"""

import contextlib
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch

from sns_core.data.attributes import file_attributes
from sns_core.data.frames import FrameWriter, steps_per_frame
from sns_core.device import select_device, use_threads
from sns_core.errors import DamagedFile
from sns_core.files import digest, provenance, read_tensors, whole_file, write_tensors
from sns_core.grids import grid_shape
from sns_core.progress import progress
from sns_core.streams import generator
from sns_core.systems import InstabilityError, System, build_system
from sns_core.systems.base import Carry


class _Checkpoints:
    """The chunks and carries from which a killed call goes on, in `folder`.

    A chunk holds the frames and the energies of a number of emulator steps. The carries after the last two chunks are
    kept, because one of them may be damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def chunk_path(self, index: int) -> Path:
        """Return the path of a chunk."""
        return self.folder / f"chunk_{index:05d}.safetensors"

    def carry_path(self, index: int) -> Path:
        """Return the path of the carry after a chunk."""
        return self.folder / f"carry_{index:05d}.safetensors"

    def add(self, index: int, series: dict[str, torch.Tensor], carry: Carry, seconds: float) -> None:
        """Write chunk `index`, then the carry after it with the seconds so far.

        A chunk counts only once its carry is there, so the carry is written last.
        """
        write_tensors(self.chunk_path(index), series, {})
        write_tensors(self.carry_path(index), carry, {"seconds": seconds})
        for path in self.folder.glob("carry_*.safetensors"):
            if path < self.carry_path(index - 1):
                path.unlink()

    def resume_point(self, count: int) -> tuple[int, Carry, float]:
        """Return the number of finished chunks among `count`, the carry after them, and the seconds that they took.

        A call that starts from the beginning gets 0, an empty carry and 0 seconds.
        """
        whole = 0
        while whole < count and self._read(self.chunk_path(whole)):
            whole += 1
        for finished in range(whole, 0, -1):
            if content := self._read(self.carry_path(finished - 1)):
                carry, note = content
                return finished, carry, note["seconds"]
        return 0, {}, 0.0

    def _read(self, path: Path) -> tuple[dict[str, torch.Tensor], dict] | None:
        """Return the tensors and the note of a file. Return None where it is missing or, with a message, damaged."""
        if not path.exists():
            return None
        try:
            return read_tensors(path)
        except DamagedFile as error:
            print(f"{error.reason}; it is computed again", file=sys.stderr)
            return None


@contextlib.contextmanager
def _as_in_split(members: range, steps_before: int, frame_step: float):
    """Name a failed member by its number in the split and its step since the initial state, instead of those of a call.

    `steps_before`: solver steps before the call. `frame_step`: time between frames, which the suggested time step divides.
    """
    try:
        yield
    except InstabilityError as error:
        raise error.of_member(members[error.member % len(members)], steps_before, frame_step) from None


def _first_carry(
    system: System, members: range, split: str, seed: int, steps: int, frame_step: float, device: torch.device
) -> Carry:
    """Return the carry after `steps` solver steps from random initial states. It may hold one row too many."""
    rows = list(members)
    if len(rows) == 1 and device.type == "cpu":
        # The transform of a single field may differ in the last bit from the same field's transform in a batch. With a
        # second row, a member has the same bits alone and in company.
        rows *= 2
    streams = [generator(seed, "initial state", split, member) for member in rows]
    with _as_in_split(members, 0, frame_step):
        return system.run(system.start(system.initial_state(len(rows), streams)), steps)


def simulate_trajectories(
    *,
    system: dict,
    emulator: dict,
    split: str,
    members: int,
    frames: int,
    spin_up: float,
    seed: int,
    output: Path,
    first_member: int = 0,
    device: str = "auto",
    threads: int = 1,
    chunk: int = 100,
    code: str = "",
) -> None:
    """Integrate members of one split of the data with the solver, and write their trajectories.

    A killed call goes on from the last chunk that is kept beside `output`. Initial states are addressed by (seed,
    split, member), so no two splits share one. On the CPU, the bits of a member do not depend on the members integrated
    with it. Raises InstabilityError where a member becomes NaN or breaks the CFL bound.

    `system`: the system's {"name", "parameters"}.
    `emulator`: the {"resolution", "step"} of frames.
    `split`: the name of the split: train, validation or test.
    `members`: number of members.
    `frames`: number of frames that are kept per member, after the spin-up.
    `spin_up`: time units before the first frame.
    `seed`: the run's seed.
    `output`: the netCDF file of the trajectories.
    `first_member`: number of the first member in the split.
    `device`: auto, cpu, or a GPU such as cuda:0.
    `threads`: number of threads.
    `chunk`: frames between two checkpoints.
    `code`: a string that names the state of the code; checkpoints of another state are not used.
    """
    use_threads(threads)
    chosen_device = select_device(device)
    solver = build_system(system["name"], system["parameters"], dtype=torch.float32, device=chosen_device)
    substeps = steps_per_frame(emulator["step"], solver.dt)
    # The spin-up is a number of emulator steps, and the solver steps that are left over come first.
    spin_up_steps, first_substeps = divmod(round(spin_up / solver.dt), substeps)
    steps = spin_up_steps + frames
    configuration = {
        "system": system,
        "emulator": emulator,
        "split": split,
        "members": members,
        "first_member": first_member,
        "frames": frames,
        "spin_up": spin_up,
    }
    member_numbers = range(first_member, first_member + members)
    work = Path(output).parent / ".work" / f"{Path(output).stem}-{digest([configuration, seed, chunk, code])}"

    chunk_starts, checkpoints = list(range(0, steps, chunk)), _Checkpoints(work)
    finished, tensors, seconds = checkpoints.resume_point(len(chunk_starts))
    began = time.monotonic() - seconds
    if finished:
        carry = {name: tensor.to(chosen_device) for name, tensor in tensors.items()}
    else:
        carry = _first_carry(solver, member_numbers, split, seed, first_substeps, emulator["step"], chosen_device)
    for index in progress(len(chunk_starts), f"{split}: {chunk} emulator steps per chunk", start=finished):
        chunk_steps = range(chunk_starts[index], min(chunk_starts[index] + chunk, steps))
        carry, series = _simulate_chunk(
            solver, carry, chunk_steps, first_substeps, emulator, spin_up_steps, member_numbers
        )
        checkpoints.add(index, series, carry, time.monotonic() - began)

    record = provenance(configuration, seed, str(chosen_device), wall_seconds=time.monotonic() - began)
    title = f"{system['name']}: trajectories of the solver, {split} split"
    attributes = {**file_attributes(title, "simulate_trajectories"), "provenance": record, "dt": emulator["step"]}
    times = first_substeps * solver.dt + (1 + np.arange(steps)) * emulator["step"]
    chunk_paths = {start: checkpoints.chunk_path(index) for index, start in enumerate(chunk_starts)}
    final_state = solver.state(carry)[:members].cpu().numpy()
    with (
        whole_file(output) as temporary,
        FrameWriter(temporary, solver, member_numbers, emulator["resolution"], attributes, emulator["step"]) as writer,
    ):
        _write_trajectories(writer, solver, times, spin_up_steps, chunk_paths, final_state)
    shutil.rmtree(work)


def _simulate_chunk(
    solver: System, carry: Carry, steps: range, first_substeps: int, emulator: dict, spin_up_steps: int, members: range
) -> tuple[Carry, dict[str, torch.Tensor]]:
    """Advance a carry by the emulator `steps`, before which there are `first_substeps` solver steps; return the carry and its series.

    The series are "energy" (B, steps, layers) and "frames" (B, T, C, m, m) on the grid of the `emulator`, whose T steps
    are those from the end of the spin-up on; both without a row of the carry beyond `members`.
    """
    count, resolution = len(members), emulator["resolution"]
    substeps = steps_per_frame(emulator["step"], solver.dt)
    energy, frames = [], [torch.empty(count, 0, solver.channels, *grid_shape(resolution))]
    for step in steps:
        with _as_in_split(members, first_substeps + step * substeps, emulator["step"]):
            carry = solver.run(carry, substeps)
        state = solver.state(carry)
        energy.append(solver.kinetic_energy(state)[:count].cpu())
        if step >= spin_up_steps:
            frames.append(solver.observe(state, resolution)[:count].cpu()[:, None])
    return carry, {"frames": torch.cat(frames, 1), "energy": torch.stack(energy, 1)}


def _write_trajectories(
    writer: FrameWriter, solver: System, times, spin_up_steps: int, chunk_paths: dict[int, Path], final_state
) -> None:
    """Write the energies at all `times`, the frames after the spin-up, and the final state.

    `chunk_paths`: the path of each chunk, by the number of its first emulator step.
    """
    writer.file.createDimension("clock", len(times))
    clock = writer.variable("clock", ("clock",), solver.time_units, kind="f8")
    clock.long_name = "time since the initial state, spin-up included"
    clock[:] = times
    energies = writer.variable("kinetic_energy", ("member", "clock", "layer"), solver.energy_units)
    energies.long_name = "mean kinetic energy of the solver's state"
    for start, path in chunk_paths.items():
        tensors, _ = read_tensors(path)
        energies[:, start : start + tensors["energy"].shape[1]] = tensors["energy"].numpy()
        if tensors["frames"].shape[1]:
            writer.append(tensors["frames"].numpy(), max(0, start - spin_up_steps))
    for name, points in zip(("row", "column"), grid_shape(solver.resolution), strict=True):
        writer.file.createDimension(name, points)
    final = writer.variable("final_state", ("member", "layer", "row", "column"), solver.units)
    final.long_name = "solver state at the last frame, in the solver's own axes"
    final[:] = final_state
