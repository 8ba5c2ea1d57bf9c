"""Trajectories as self-describing netCDF4: dims (member, time, layer, y, x), one file a split or a group of its members.

A file carries the frames of an emulator step apart, the solver's final state (from which a longer reference run goes
on) and, as attributes, the configuration, seed, versions and commit that made it. Variables are stored with a
checksum, so a flipped bit is an error on reading.
"""

import contextlib
import json
import math
import shutil
import sys
import time
from pathlib import Path

import netCDF4
import numpy as np
import torch
import xarray as xr

from sns_core.files import digest, missing, provenance, read_tensors, whole_file, write_tensors
from sns_core.runtime import DamagedFile, UserError, generator, progress, select_device, use_threads
from sns_core.systems import InstabilityError, System, build_system

FORMAT = "sns-frames-1"
FRAMES_A_CHUNK = 50


def steps_per_frame(step: float, dt: float) -> int:
    """Solver steps in an emulator step; UserError where it is not a whole number."""
    ratio = step / dt
    if ratio < 0.5 or abs(ratio - round(ratio)) > 1e-9 * ratio:
        raise UserError(
            f"emulator.step {step:g} is not a multiple of solver.dt {dt:g}; nearest: {max(1, round(ratio)) * dt:g}"
        )
    return round(ratio)


class FrameWriter:
    """Appends frames to a netCDF4 file; `attributes` go into it as given, dicts as JSON. Closed by a `with` block."""

    def __enter__(self) -> "FrameWriter":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()

    def __init__(self, path: Path, system: System, members, resolution: int, attributes: dict, time_step: float):
        self.file = netCDF4.Dataset(path, "w", format="NETCDF4")
        self.system, self.time_step, self.count = system, time_step, 0
        sizes = {"member": len(members), "time": None, "layer": system.channels, "y": resolution, "x": resolution}
        for name, size in sizes.items():
            self.file.createDimension(name, size)
        positions = np.arange(resolution) * system.length / resolution
        for name, values, units in (
            ("member", np.asarray(members), "1"),
            ("time", None, system.time_units),
            ("y", positions, system.length_units),
            ("x", positions, system.length_units),
        ):
            coordinate = self.file.createVariable(name, "i4" if name == "member" else "f8", (name,))
            coordinate.units = units
            if values is not None:
                coordinate[:] = values
        # Characters, not variable-length strings: HDF5 crashes on those when a file is open twice (hdf5 issue 3649).
        labels = np.array(system.layers, dtype="S")
        self.file.createDimension("label", labels.dtype.itemsize)
        layer = self.file.createVariable("layer", "S1", ("layer", "label"))
        layer[:] = netCDF4.stringtochar(labels)
        layer._Encoding = "utf-8"
        # One member a chunk: blocks of any number of members are read without touching the others.
        chunks = (1, FRAMES_A_CHUNK, system.channels, resolution, resolution)
        self.frames = self.variable(system.variable, tuple(sizes), system.units, chunks)
        self.annotate(format=FORMAT, Conventions="CF-1.10", **attributes)

    def annotate(self, **attributes) -> None:
        """Set attributes of the file, dicts as JSON."""
        self.file.setncatts(
            {name: json.dumps(v, sort_keys=True) if isinstance(v, dict) else v for name, v in attributes.items()}
        )

    def variable(self, name, dimensions, units="1", chunks=None, kind="f4"):
        members = len(self.file.dimensions["member"])
        if chunks is None and "member" in dimensions:
            chunks = tuple(1 if d == "member" else len(self.file.dimensions[d]) for d in dimensions)
        variable = self.file.createVariable(name, kind, dimensions, fletcher32=True, chunksizes=chunks)
        variable.units = units
        if chunks:
            # HDF5 keeps up to 16 MiB of each variable, which would look like memory that grows with the file.
            variable.set_var_chunk_cache(2 * members * variable.dtype.itemsize * math.prod(chunks))
        return variable

    def append(self, frames: np.ndarray, first_index: int) -> None:
        """Add frames (member, time, layer, y, x); `first_index` counts in units of `time_step`."""
        stop = self.count + frames.shape[1]
        self.frames[:, self.count : stop] = frames
        self.file["time"][self.count : stop] = (first_index + np.arange(frames.shape[1])) * self.time_step
        self.count = stop


def open_frames(path: Path, variable: str | None = None, **chunks) -> xr.Dataset:
    """Open a file of frames, lazily where `chunks` are given.

    Raises UserError where it is missing, DamagedFile where it is truncated, foreign or lacks `variable`.
    """
    path = Path(path)
    if not path.exists():
        raise missing(path)
    try:
        dataset = xr.open_dataset(path, engine="netcdf4", chunks=chunks or None)
    except PermissionError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise DamagedFile(path, f"truncated, or not netCDF4 ({error})") from None
    if dataset.attrs.get("format") != FORMAT:
        raise DamagedFile(path, f"a foreign netCDF file (its attribute format is not {FORMAT!r})")
    if variable is not None and variable not in dataset:
        raise DamagedFile(path, f"holds no {variable!r}")
    return dataset


def open_members(paths: list[Path], variable: str | None = None, **chunks) -> xr.Dataset:
    """Open the files of one split, each with a group of its members, as one, in the order of their members.

    Raises what `open_frames` does, and DamagedFile for a file that was made with other settings than the first.
    """
    if len(paths) == 1:
        return open_frames(paths[0], variable, **chunks)
    opened = [open_frames(path, variable, **(chunks or {"member": 1})) for path in paths]
    made_by = [made_with(dataset) for dataset in opened]
    for path, other in zip(paths, made_by, strict=True):
        if other != made_by[0]:
            raise DamagedFile(path, f"made with another configuration than {paths[0]}")
    opened.sort(key=lambda dataset: int(dataset["member"][0]))
    shared = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "exact"}
    return xr.concat(opened, "member", combine_attrs="override", **shared)


def made_with(dataset: xr.Dataset) -> dict:
    """The settings that the files of a split share, whichever members they hold."""
    record = json.loads(dataset.attrs["provenance"])
    settings = {
        name: value for name, value in record["configuration"].items() if name not in ("members", "first_member")
    }
    return {**settings, "seed": record["seed"]}


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

    def add(self, index: int, series: dict[str, torch.Tensor], carry: dict[str, torch.Tensor]) -> None:
        """Keep chunk `index` and the carry after it; the carry counts, and is written last."""
        write_tensors(self.chunk(index), series, {})
        write_tensors(self.carry(index), carry, {})
        for path in self.folder.glob("carry_*.safetensors"):
            if path < self.carry(index - 1):
                path.unlink()

    def left(self, count: int) -> tuple[int, dict[str, torch.Tensor]]:
        """How many of `count` chunks a killed call has left whole with a carry after them, and that carry."""
        whole = 0
        while whole < count and self._read(self.chunk(whole)):
            whole += 1
        for done in range(whole, 0, -1):
            if carry := self._read(self.carry(done - 1)):
                return done, carry
        return 0, {}

    def _read(self, path: Path) -> dict[str, torch.Tensor]:
        """Its tensors; none where it is missing or, which is told, damaged."""
        if not path.exists():
            return {}
        try:
            return read_tensors(path)[0]
        except DamagedFile as error:
            print(f"{error.reason}; it is computed again", file=sys.stderr)
            return {}


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
    began = time.monotonic()

    starts, checkpoints = list(range(0, settling + frames, chunk)), _Checkpoints(work)
    done, tensors = checkpoints.left(len(starts))
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
        checkpoints.add(index, {"frames": torch.cat(kept, 1), "energy": torch.stack(energy, 1)}, carry)

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
