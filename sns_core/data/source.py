"""Data that somebody else simulated, as the files of frames that every later stage reads.

A source is described as in the configuration (`systems.<name>.source`), with lists of files for its patterns.
`facts_of` says what the files hold; `read_source` writes one split.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sns_core.data.attributes import VARIABLES, file_attributes
from sns_core.data.frames import FrameWriter, frames_per_chunk
from sns_core.data.reader import open_recording, open_static
from sns_core.data.recording import Recording, check_alike
from sns_core.data.shards import SPLITS
from sns_core.errors import UserError
from sns_core.files import provenance, whole_file
from sns_core.grids import grid_of, grid_shape
from sns_core.progress import progress
from sns_core.units import conversion, parse, short_name

SOME_MEMBERS = 8  # whose first and last frames tell the mean of each channel
LOOKED_AT = 50  # frames of a member from which a channel is said never to change
BLOCKS = 64  # blocks of frames whose graph is made at once
TAKEN = {*VARIABLES, "label", "field", "row", "column"}  # names of variables and dimensions in files of a run
CONTINUED = "continued"  # the frames of the test trajectories from those on from which rollouts start


def open_split(source: dict, split: str) -> Recording:
    """Open the frames of one split, or those that `CONTINUED` names, lazily. Raises UserError where files do not fit.

    `source`: "files", {split: [files]} or [files]; "variables", "dims", "join" (see `open_recording`); "spin_up", the
    time after the first frame whose frames are left out; "splits", {"by": "member" or "time", "validation": share,
    "test": share, "gap": frames} for a list of files; "pieces", the number of stretches into which each test trajectory
    is cut; "start", the frame of the stretches from which rollouts start: if it is not 0, the frames up to it are the
    test split.
    """
    wanted = "test" if split == CONTINUED else split
    files = source["files"]
    recording = open_recording(
        [Path(path) for path in (files[wanted] if isinstance(files, dict) else files)],
        source["variables"],
        source["dims"],
        source["join"],
    )
    recording = _after_spin_up(recording, source["spin_up"])
    if not isinstance(files, dict):
        recording = _share(recording, source["splits"], wanted)
    if wanted == "test":
        recording = recording.cut(source["pieces"])
    start = source["start"]
    if wanted == "test" and start >= len(recording.times):
        raise UserError(
            f"{recording.path}: the test trajectories have {len(recording.times)} frames, so rollouts cannot start at frame {start} "
            f"(source.start); at most {len(recording.times) - 1}"
        )
    if split == CONTINUED:
        return recording.part(times=slice(start, None))
    return recording.part(times=slice(start + 1)) if split == "test" and start else recording


def _after_spin_up(recording: Recording, spin_up: float) -> Recording:
    """Return the frames from a time after the first one on."""
    first = int(np.searchsorted(recording.times - recording.times[0], spin_up * (1 - 1e-9) - recording.rounding))
    if first == len(recording.times):
        raise UserError(
            f"{recording.path}: its {len(recording.times)} frames end within the spin-up of {spin_up:g} (data.spin_up); "
            "lower it, or name longer files"
        )
    return recording.part(times=slice(first, None)) if first else recording


def _share(recording: Recording, splits: dict, wanted: str) -> Recording:
    """Return the part of a recording that is one split. Training comes first, then validation, then the test."""
    by, gap = splits["by"], splits["gap"] if splits["by"] == "time" else 0
    total = len(recording.members) if by == "member" else len(recording.times)
    counts = {name: max(1, round(splits[name] * total)) for name in ("validation", "test")}
    counts = {"train": total - sum(counts.values()) - 2 * gap, **counts}
    if counts["train"] < 1:
        what, gaps, remedy = (
            ("frames", f", two gaps of {gap}", "change source.splits")
            if by == "time"
            else ("members", "", "split the times of each (source.splits: {by: time})")
        )
        raise UserError(
            f"{recording.path}: {total} {what} cannot be split into {counts['validation']} for validation, {counts['test']} for the "
            f"test{gaps} and 1 or more for training; name more files, or {remedy}"
        )
    first = 0
    for name in SPLITS:
        if name == wanted:
            break
        first += counts[name] + gap
    part = slice(first, first + counts[wanted])
    return recording.part(members=part) if by == "member" else recording.part(times=part)


def facts_of(source: dict) -> dict:
    """Return the facts that the files of a source state, as JSON holds them.

    {"parameters": those of a `RecordedFlow`, "resolution", "step", "splits": {split: {"members", "frames"}}, "continued": frames from
    `start` on}. Raises UserError where the splits do not fit together or their frames do not fit a `RecordedFlow`.
    """
    recordings = {split: open_split(source, split) for split in (*SPLITS, CONTINUED)}
    first = recordings["train"]
    if len(first.times) < 2:
        raise UserError(
            f"{first.path}: holds one frame of each training member, and a step takes two; name files that follow each other in time"
        )
    for recording in recordings.values():
        _check_split(first, recording)
    height, width = first.frames.shape[-2:]
    mirrored = [not source["periodic"][axis] for axis in ("y", "x")]
    grid = [points * (2 if mirror else 1) for points, mirror in zip((height, width), mirrored, strict=True)]
    frames = _some_frames(first)
    _check_ends(first, frames, mirrored)
    if any(points % 2 and side > 1 for points, side in zip(grid, (height, width), strict=True)):
        raise UserError(
            f"{first.path}: frames of {height} x {width} points; along a periodic axis their number must be even, so leave out a row"
        )
    _check_walls(source, row=height == 1)
    _static_fields(source, first)
    layers = [str(layer) for layer in first.layers or source["variables"]]
    for name in source["velocity"] if isinstance(source["velocity"], list) else ():
        if name not in layers:
            raise UserError(f"source.velocity: {name!r} is none of the channels {', '.join(layers)}; name two of them")
    _check_changing(first, frames, layers)
    units = {short_name(text) for text in first.units}
    parameters = {
        "length": _longer_length(first, source["length"], grid),
        "offset": _offset(frames),
        "layers": layers,
        "variable": _variable_in_files(source["variables"]),
        "units": units.pop() if len(units) == 1 else "1",
        "length_units": short_name(first.x.units),
        "time_units": short_name(first.time_units),
        "velocity": source["velocity"],
        "homogeneous": [source["homogeneous"][axis] for axis in ("y", "x")],
        "mirrored": mirrored,
    }
    sizes = {name: {"members": len(r.members), "frames": len(r.times)} for name, r in recordings.items()}
    return {
        "parameters": parameters,
        "resolution": grid_of(grid),
        "step": _rounded(first.step),
        CONTINUED: sizes.pop(CONTINUED)["frames"],
        "splits": sizes,
    }


def _variable_in_files(variables: list[str]) -> str:
    """Return the name of the field in the files of a run.

    It is the variable's own name if there is one variable only and nothing else in the files has this name.
    """
    return variables[0] if len(variables) == 1 and variables[0] not in TAKEN else "fields"


def _rounded(number: float) -> float:
    """Return a number without the rounding errors that a difference of two times has."""
    return float(f"{number:.9g}")


def _check_walls(source: dict, row: bool) -> None:
    """Raise UserError where the description of a flow does not fit its walls, or its single row of points."""
    if row and not source["periodic"]["y"]:
        raise UserError("source.periodic.y: a single row of points has no ends along y; leave it out")
    if row and source["velocity"] == "vorticity":
        raise UserError("source.velocity: a single row of points has no vorticity; name two channels, or none")
    for axis in ("y", "x"):
        if not source["periodic"][axis] and source["homogeneous"][axis]:
            raise UserError(
                f"source.homogeneous.{axis}: a flow that is not periodic along {axis} is not the same everywhere along it; "
                "set this to false"
            )
    if not all(source["periodic"].values()) and source["velocity"] == "vorticity":
        raise UserError(
            "source.velocity: the velocity of a vorticity is known on a periodic domain alone; name two channels, or none"
        )


def _static_fields(source: dict, recording: Recording) -> np.ndarray | None:
    """Return the fields (S, H, W) of `source["static"]`, None without it.

    Raises UserError where they do not fit the frames, where one is the same everywhere, and where one varies along an
    axis on which training may translate the frames.
    """
    static = source.get("static")
    if not static:
        return None
    path = Path(static["file"])
    fields = open_static(path, static["variables"], source["dims"], recording)
    for name, field in zip(static["variables"], fields, strict=True):
        if np.ptp(field) == 0:
            raise UserError(
                f"{path}: {name!r} is {field.flat[0]:g} everywhere, which tells a network nothing; leave it out"
            )
        for axis, index in (("y", 0), ("x", 1)):
            if source["homogeneous"][axis] and np.ptp(field, index).max() > 1e-6 * np.ptp(field):
                raise UserError(
                    f"{path}: {name!r} varies along {axis}, and source.homogeneous says that the flow looks the same everywhere along it; "
                    "set one right"
                )
    return fields


def _longer_length(recording: Recording, lengths: list[float] | None, grid: list[int]) -> float:
    """Return the length of the longer side of a grid, as configured or from the distance of its points."""
    points = recording.frames.shape[-2:]
    if lengths is None:
        spacings = [recording.y.spacing * _units_along_y(recording), recording.x.spacing]
    else:
        spacings = [side / n for side, n in zip(lengths, points, strict=True)]
    if points[0] > 1 and abs(spacings[0] - spacings[1]) > 0.01 * spacings[1]:
        raise UserError(
            f"{recording.path}: points are {spacings[0]:g} apart along y and {spacings[1]:g} along x; interpolate to squares, or say "
            "source.length where the coordinates are wrong"
        )
    return _rounded(spacings[1] * max(grid))


def _units_along_y(recording: Recording) -> float:
    """Return the factor from the units of y to those of x; 1 where one has none, or none that is known."""
    y, x = recording.y.units, recording.x.units
    if not y or not x or parse(y) is None or parse(x) is None:
        return 1.0
    factor = conversion(y, x)
    if factor is None:
        raise UserError(
            f"{recording.path}: y is in {y!r} and x in {x!r}, so no distance along both is known; correct the attribute units, or say "
            "source.length"
        )
    return factor


def _some_frames(recording: Recording) -> np.ndarray:
    """Return the first and the last frame of some members, (member, 2, C, H, W)."""
    members = range(0, len(recording.members), max(1, len(recording.members) // SOME_MEMBERS))
    ends = (0, len(recording.times) - 1)
    frames = [[recording.read(member, slice(time, time + 1))[0] for time in ends] for member in members]
    return np.asarray(frames, dtype=float)


def _check_ends(recording: Recording, frames: np.ndarray, mirrored: list[bool]) -> None:
    """Raise UserError where the last points along a periodic axis are the first ones again. `frames`: as `_some_frames`."""
    for axis, mirror in zip(("y", "x"), mirrored, strict=True):
        lines = np.moveaxis(frames, -2 if axis == "y" else -1, 0)
        if not mirror and len(lines) > 2 and (lines[0] == lines[-1]).all() and (lines[0] != lines[1]).any():
            raise UserError(
                f"{recording.path}: the last points along {axis} repeat the first ones, and a periodic axis has each point once; leave the "
                f"last ones out, or set source.periodic.{axis} to false where the flow ends there"
            )


def _check_changing(recording: Recording, frames: np.ndarray, layers: list[str]) -> None:
    """Raise UserError for a channel that never changes, which nothing can be divided by.

    `frames`: those of `_some_frames`. Where they tell nothing, more frames of one member are read.
    """
    if len(recording.times) < 2 or (frames[:, 0] != frames[:, 1]).any((0, 2, 3)).all():
        return
    times = np.unique(np.linspace(0, len(recording.times) - 1, LOOKED_AT).astype(int)).tolist()
    series = np.stack([recording.read(0, slice(time, time + 1))[0] for time in times])
    for channel, layer in enumerate(layers):
        values = np.concatenate([series[:, channel], *frames[:, :, channel]])
        if np.ptp(values) == 0:
            raise UserError(
                f"{recording.path}: the channel {layer!r} is {values.flat[0] + 0:g} everywhere; leave it out of source.variables "
                "(and of source.static, whose fields vary in space)"
            )
        if not np.ptp(series[:, channel], axis=0).any() and not np.ptp(frames[:, :, channel], axis=1).any():
            raise UserError(
                f"{recording.path}: the channel {layer!r} never changes; name it under source.static instead of source.variables"
            )


def _offset(values: np.ndarray) -> list[float] | None:
    """Return a number near the mean of each channel of some frames (..., C, H, W), None where all means are near zero.

    A few frames tell it: any number near the mean serves, since emulators see frames less this number. It has as many
    digits, three or more, as leave less than a tenth of a standard deviation.
    """
    values = values.reshape(-1, *values.shape[-3:])
    mean, std = values.mean((0, 2, 3)), values.std((0, 2, 3))
    far = np.abs(mean) > 0.5 * std
    if not far.any():
        return None
    return [_near(m, 0.1 * s) if shifted else 0.0 for m, s, shifted in zip(mean, std, far, strict=True)]


def _near(number: float, distance: float) -> float:
    """Return the number of fewest digits, three or more, that lies no further than `distance` from a number."""
    shorter = (float(f"{number:.{digits}g}") for digits in range(3, 18))
    return next((short for short in shorter if abs(short - number) <= distance), float(number))


def _check_split(first: Recording, recording: Recording) -> None:
    """Raise UserError where a split has another step, grid or other channels than the training split."""
    check_alike(first, recording)
    if len(recording.times) > 1 and not abs(recording.step - first.step) <= 0.01 * first.step:
        raise UserError(
            f"{recording.path}: has a frame every {recording.step:g} {recording.time_units}, {first.path} every {first.step:g}; name files "
            "of one time step"
        )


def read_source(
    *,
    source: dict,
    files: list[Path],
    system: dict,
    emulator: dict,
    split: str,
    members: int,
    frames: int,
    output: Path,
) -> None:
    """Read one split of a source, and write its frames as every later stage reads them.

    `source`: as in `open_split`; "static", {"file", "variables"} of fields that never change, goes into the training
    split.
    `files`: all files of the source; a record of them is kept.
    `system`: the system's {"name", "parameters"}, a RecordedFlow.
    `emulator`: the {"resolution", "step"} of frames. `step` is a multiple of the time between the frames of the source.
    `split`: train, validation, test, or continued for the frames of the test split from which rollouts start on.
    `members`: number of members that are kept.
    `frames`: number of frames that are kept per member, one per emulator step.
    `output`: the netCDF file of the frames.
    """
    import torch

    from sns_core.systems import build_system

    began, flow = time.monotonic(), build_system(system["name"], system["parameters"], torch.float32, "cpu")
    recording = _kept_part(open_split(source, split), split, emulator["step"], members, frames)
    configuration = {
        "system": system,
        "emulator": emulator,
        "split": split,
        "members": members,
        "first_member": 0,
        "frames": frames,
        "spin_up": source["spin_up"],
        "source": source,
    }
    static = _static_fields(source, recording) if split == "train" else None
    # Rollouts start from the first frames, unless a part of the test trajectories is set apart as their past.
    start = frames - 1 if split == "test" and source["start"] else 0
    with (
        whole_file(output) as temporary,
        FrameWriter(temporary, flow, range(members), emulator["resolution"], {}, emulator["step"]) as writer,
    ):
        energies, initial = _further_variables(writer, flow, frames, source["spin_up"])
        if static is not None:
            _write_static(writer, flow, static, source["static"]["variables"])
        for row, first, observed in _observed_stretches(recording, flow, emulator["resolution"], split):
            writer.write_member(row, first, observed.numpy())
            energies[row, first : first + len(observed)] = flow.kinetic_energy(observed).numpy()
            if first <= start < first + len(observed):
                initial[row] = observed[start - first].numpy()
        record = provenance(configuration, None, "cpu", wall_seconds=time.monotonic() - began)
        about = file_attributes(
            f"{flow.variable.replace('_', ' ')}: frames of the split {split}, read from files", "read_source"
        )
        writer.annotate(**about, provenance=record, dt=emulator["step"])


def _kept_part(recording: Recording, split: str, step: float, members: int, frames: int) -> Recording:
    """Return the first members and frames of a split, one frame per emulator step.

    Raise UserError where it holds fewer.
    """
    stride = every_nth(step, recording.step)
    recording = recording.part(slice(members), slice(None, None, stride))
    if len(recording.members) < members or len(recording.times) < frames:
        raise UserError(
            f"{recording.path}: the split {split!r} has {len(recording.members)} members of {len(recording.times)} frames, and {members} "
            f"of {frames} are asked for; the files have changed, so run the same call again"
        )
    return recording.part(times=slice(frames))


def _observed_stretches(recording: Recording, flow, resolution, split: str) -> Iterator[tuple]:
    """Yield (row of the member, number of its first frame, frames (T, C, m, m)) of stretches of all members, in order.

    A stretch is a block of the source, cut to whole chunks of the file that is written. BLOCKS of them are opened
    together. Frames are without the flow's offset, followed by their mirror images, on the grid `resolution`.
    """
    import torch

    members, frames = len(recording.members), len(recording.times)
    chunk = frames_per_chunk(4 * flow.channels * math.prod(grid_shape(resolution)))
    block = max(1, recording.block // chunk) * chunk
    places = [(row, first) for row in range(members) for first in range(0, frames, block)]
    for index in progress(len(places), f"{split}: stretches of {min(block, frames)} frames"):
        row, first = places[index]
        offset = first % (BLOCKS * block)
        if offset == 0:
            opened = recording.part(slice(row, row + 1), slice(first, first + BLOCKS * block)).alone()
        values = opened.read(0, slice(offset, offset + block))
        if flow.offset:
            values = values - np.asarray(flow.offset)[:, None, None]
        values = mirrored_fields(values.astype(np.float32, copy=False), flow.mirrored)
        yield row, first, flow.observe(torch.from_numpy(np.ascontiguousarray(values)), resolution)


def _write_static(writer: FrameWriter, flow, fields: np.ndarray, names: list[str]) -> None:
    """Write static fields (S, H, W) on the grid of the frames, each with mean 0 and variance 1."""
    import torch

    whole = torch.from_numpy(np.ascontiguousarray(mirrored_fields(fields, flow.mirrored)))
    observed = flow.observe(whole[None], (writer.frames.shape[-2], writer.frames.shape[-1]))[0].numpy()
    observed = observed - observed.mean((1, 2), keepdims=True)
    writer.file.createDimension("field", len(fields))
    variable = writer.variable("static", ("field", "y", "x"))
    variable.names = ", ".join(names)
    variable[:] = observed / observed.std((1, 2), keepdims=True)


def mirrored_fields(values: np.ndarray, axes: tuple[bool, bool]) -> np.ndarray:
    """Return fields (..., H, W) followed by their mirror images along those of the axes (y, x) that are True."""
    for axis, mirror in zip((-2, -1), axes, strict=True):
        if mirror:
            values = np.concatenate([values, np.flip(values, axis)], axis)
    return values


def every_nth(step: float, recorded: float) -> int:
    """Return how many frames of a source make an emulator step. Raise UserError where it is not a whole number."""
    ratio = step / recorded if math.isfinite(recorded) else 1.0
    if ratio < 0.5 or abs(ratio - round(ratio)) > 1e-3:
        raise UserError(
            f"emulator.step: {step:g} is not a multiple of {recorded:g}, the time between frames of the source; take a multiple of it"
        )
    return round(ratio)


def _further_variables(writer: FrameWriter, flow, frames: int, spin_up: float) -> tuple:
    """Create the variables of energy over time and of the frames from which rollouts start."""
    writer.file.createDimension("clock", frames)
    clock = writer.variable("clock", ("clock",), flow.time_units, kind="f8")
    clock.long_name = "time since the first frame"
    clock[:] = spin_up + np.arange(frames) * writer.time_step
    energies = writer.variable("kinetic_energy", ("member", "clock", "layer"), flow.energy_units)
    for name, points in zip(("row", "column"), grid_shape(flow.resolution), strict=True):
        writer.file.createDimension(name, points)
    initial = writer.variable("final_state", ("member", "layer", "row", "column"), flow.units)
    initial.long_name = "frame from which rollouts start"
    return energies, initial
