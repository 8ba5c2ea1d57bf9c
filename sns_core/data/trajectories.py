"""Trajectories of the solver, one file a split or a group of its members: frames an emulator step apart, the solver's final
state (from which a longer reference run goes on) and, as attributes, the configuration, seed, versions and commit that
made them.
"""

import contextlib
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch

from sns_core.data.frames import FrameWriter, steps_per_frame
from sns_core.files import digest, provenance, read_tensors, whole_file, write_tensors
from sns_core.runtime import DamagedFile, generator, progress, select_device, use_threads
from sns_core.systems import InstabilityError, build_system


class _Checkpoints:
    """What a killed call goes on from, in `folder`: of every chunk of emulator steps its frames and energies, and the carry
    after the last two, of which one may be damaged."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def chunk(self, index: int) -> Path:
        return self.folder / f"chunk_{index:05d}.safetensors"

    def carry(self, index: int) -> Path:
        return self.folder / f"carry_{index:05d}.safetensors"

    def add(self, index: int, series: dict[str, torch.Tensor], carry: dict[str, torch.Tensor], seconds: float) -> None:
        """Keep chunk `index`, the carry after it and the seconds so far; the carry counts, and is written last."""
        write_tensors(self.chunk(index), series, {})
        write_tensors(self.carry(index), carry, {"seconds": seconds})
        for path in self.folder.glob("carry_*.safetensors"):
            if path < self.carry(index - 1):
                path.unlink()

    def left(self, count: int) -> tuple[int, dict[str, torch.Tensor], float]:
        """How many of `count` chunks a killed call has left whole with a carry after them, that carry, and its seconds."""
        whole = 0
        while whole < count and self._read(self.chunk(whole)):
            whole += 1
        for done in range(whole, 0, -1):
            if found := self._read(self.carry(done - 1)):
                return done, found[0], found[1]["seconds"]
        return 0, {}, 0.0

    def _read(self, path: Path) -> tuple[dict[str, torch.Tensor], dict] | None:
        """Its tensors and note; nothing where it is missing or, which is told, damaged."""
        if not path.exists():
            return None
        try:
            return read_tensors(path)
        except DamagedFile as error:
            print(f"{error.reason}; it is computed again", file=sys.stderr)
            return None


@contextlib.contextmanager
def _named(numbers: range):
    """Failed members are told by their number in the split instead of by their row in the batch."""
    try:
        yield
    except InstabilityError as error:
        raise error.of_member(numbers[error.member % len(numbers)]) from None


def simulate_trajectories(
    *, system: dict, emulator: dict, split: str, members: int, frames: int, spin_up: float, seed: int, output: Path,
    first_member: int = 0, device: str = "auto", threads: int = 1, chunk: int = 100, code: str = "",
) -> None:  # fmt: skip
    """Integrate `members` members of one split of the data, from `first_member` on, and write their trajectories to
    `output`.

    Parameters: `system` {"name", "parameters"}; `emulator` {"resolution", "step"}; `frames` kept per member after
    `spin_up` time units; `chunk` frames between checkpoints, kept beside `output`, from which a killed call goes on
    (`code`: any string that names the code's state; checkpoints of another state are not taken up).
    Initial conditions are addressed by (seed, split, member), so splits never share one. On a CPU a member has the same
    bits whichever others are integrated with it.
    """
    use_threads(threads)
    chosen = select_device(device)
    flow = build_system(system["name"], system["parameters"], dtype=torch.float32, device=chosen)
    stride = steps_per_frame(emulator["step"], flow.dt)
    settling, rest = divmod(round(spin_up / flow.dt), stride)  # the spin-up, in emulator steps
    configuration = {
        "system": system, "emulator": emulator, "split": split, "members": members, "first_member": first_member,
        "frames": frames, "spin_up": spin_up,
    }  # fmt: skip
    numbers = range(first_member, first_member + members)
    work = Path(output).parent / ".work" / f"{Path(output).stem}-{digest([configuration, seed, chunk, code])}"

    starts, checkpoints = list(range(0, settling + frames, chunk)), _Checkpoints(work)
    done, tensors, before = checkpoints.left(len(starts))
    began = time.monotonic() - before
    if done:
        carry = {name: tensor.to(chosen) for name, tensor in tensors.items()}
    else:
        rows = list(numbers)
        if members == 1 and chosen.type == "cpu":
            rows *= 2  # a transform of one field alone may differ in the last bit from the same field's among others
        streams = [generator(seed, "initial state", split, member) for member in rows]
        with _named(numbers):
            carry = flow.run(flow.start(flow.initial_state(len(rows), streams)), rest)
    for index in progress(len(starts), f"{split}: {chunk} emulator steps a chunk", start=done):
        kept, energy = [torch.empty(members, 0, flow.channels, *2 * [emulator["resolution"]])], []
        for step in range(starts[index], min(starts[index] + chunk, settling + frames)):
            with _named(numbers):
                carry = flow.run(carry, stride)
            state = flow.state(carry)
            energy.append(flow.kinetic_energy(state)[:members].cpu())
            if step >= settling:
                kept.append(flow.observe(state, emulator["resolution"])[:members].cpu()[:, None])
        checkpoints.add(
            index,
            {"frames": torch.cat(kept, 1), "energy": torch.stack(energy, 1)},
            carry,
            time.monotonic() - began,
        )

    record = provenance(configuration, seed, str(chosen), wall_seconds=time.monotonic() - began)
    attributes = {"provenance": record, "dt": emulator["step"]}
    with (
        whole_file(output) as temporary,
        FrameWriter(temporary, flow, numbers, emulator["resolution"], attributes, emulator["step"]) as writer,
    ):
        writer.file.createDimension("clock", settling + frames)
        clock = writer.variable("clock", ("clock",), flow.time_units, kind="f8")
        clock.long_name = "time since the initial state, spin-up included"
        clock[:] = rest * flow.dt + (1 + np.arange(settling + frames)) * emulator["step"]
        energies = writer.variable("kinetic_energy", ("member", "clock", "layer"), flow.energy_units)
        energies.long_name = "mean kinetic energy of the solver's state"
        for index, start in enumerate(starts):
            tensors, _ = read_tensors(checkpoints.chunk(index))
            energies[:, start : start + tensors["energy"].shape[1]] = tensors["energy"].numpy()
            if tensors["frames"].shape[1]:
                writer.append(tensors["frames"].numpy(), max(0, start - settling))
        for name in ("row", "column"):
            writer.file.createDimension(name, flow.resolution)
        final = writer.variable("final_state", ("member", "layer", "row", "column"), flow.units)
        final.long_name = "solver state at the last frame, in the solver's own axes"
        final[:] = flow.state(carry)[:members].cpu().numpy()
    shutil.rmtree(work)
