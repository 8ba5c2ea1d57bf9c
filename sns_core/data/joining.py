"""Recordings of several files joined to one, along time or with members side by side."""

import itertools
from dataclasses import replace

import numpy as np
import xarray as xr

from sns_core.data.coordinates import UNIFORM, order_of
from sns_core.data.recording import Recording
from sns_core.errors import UserError


def join_recordings(parts: list[Recording], join: str | None) -> Recording:
    """Return one recording for those of several files.

    `join`: "time" where files follow each other, "member" where each holds members of its own; None: their times tell.
    Raises UserError where a step is missing or stands twice, and where members are of unequal length or step.
    """
    if len(parts) == 1:
        return _with_even_steps(parts[0])
    parts = [parts[index] for index in order_of(part.path for part in parts)]
    groups: list[list[Recording]] = []
    how = join or _how_joined(parts)
    if how == "time":
        by_members: dict[tuple, list[Recording]] = {}
        for part in parts:
            by_members.setdefault(part.members, []).append(part)
        groups = [sorted(group, key=lambda part: part.times[0]) for group in by_members.values()]
    else:
        groups = [[part] for part in parts]
    return _side_by_side([_with_even_steps(_in_a_row(group)) for group in groups])


def _how_joined(parts: list[Recording]) -> str:
    """Return "member" where files cover the same times, and "time" where each goes on where another ends."""
    starts = [part.times[0] for part in parts]
    if len({part.members for part in parts}) == 1 and len(parts[0].members) < 2:
        step = next((part.step for part in parts if len(part.times) > 1), np.nan)
        if np.isnan(step) and len(set(starts)) == len(starts):
            return "time"  # a file for each frame
        ordered = sorted(parts, key=lambda part: part.times[0])
        gaps = [right.times[0] - left.times[-1] for left, right in itertools.pairwise(ordered)]
        slack = UNIFORM * abs(step) + max(part.rounding for part in parts)
        if all(-slack <= gap <= step + slack for gap in gaps):
            return "time"
        if np.ptp(starts) <= slack or np.isnan(step):
            return "member"
        left, right = ordered[:2]
        raise UserError(
            f"{right.path}: begins at time {right.clock(right.times[0])}, where {left.path} covers {left.clock(left.times[0])} to "
            f"{left.clock(left.times[-1])}: neither the same times nor the next ones; say source.join: member or time"
        )
    # Members of several files may have the same numbers, because each file counts its own from the start.
    alike = len({part.members for part in parts}) == len(parts) or np.ptp([part.times[-1] for part in parts]) == 0
    return "member" if alike and np.ptp(starts) == 0 else "time"


def _in_a_row(parts: list[Recording]) -> Recording:
    """Join files that follow each other in time."""
    if len(parts) == 1:
        return parts[0]
    frames, times = xr.concat([part.frames for part in parts], "time"), np.concatenate([part.times for part in parts])
    owner = np.repeat(np.arange(len(parts)), [len(part.times) for part in parts])
    order = np.argsort(times, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):  # files overlap
        frames, times, owner = frames.isel(time=order), times[order], owner[order]
    stops = [*(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(owner)]
    files = (tuple((parts[owner[stop - 1]].path, stop) for stop in stops),) * len(parts[0].members)
    return replace(parts[0], frames=frames, times=times, files=files, rounding=max(part.rounding for part in parts))


def _with_even_steps(part: Recording) -> Recording:
    """Leave out frames that stand twice, and refuse a step that is missing."""
    steps = np.diff(part.times)
    if len(steps) == 0:
        return part
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if part.rounding > 0.25 * part.step and (np.abs(steps - step) > 0.01 * step).any():
        raise UserError(
            f"{part.file_of(0, len(steps))}: single precision rounds its times to multiples of {part.rounding:g}, and frames are about "
            f"{part.step:.3g} apart; write the times in double precision"
        )
    doubled = np.flatnonzero(steps <= UNIFORM * step)
    for index in doubled:
        pairs = (part.values(member, slice(index, index + 2)) for member in range(len(part.members)))
        if step == 0 or not all(np.array_equal(*pair, equal_nan=True) for pair in pairs):
            raise _two_frames(part, int(index), part.times[doubled])
    if len(doubled):
        keep = np.setdiff1d(np.arange(len(part.times)), doubled + 1)
        files = tuple(tuple((path, int(np.searchsorted(keep, stop))) for path, stop in ends) for ends in part.files)
        part = replace(part, frames=part.frames.isel(time=keep), times=part.times[keep], files=files)
        steps = np.diff(part.times)
    uneven = np.flatnonzero(np.abs(steps - step) > 0.01 * step + 2 * part.rounding)
    # A step that is missing makes one of two or more steps; months are of 28 to 31 days.
    if 2 * len(uneven) > len(steps) > 1 or 0 < steps[uneven].max(initial=0) < 1.5 * step:
        raise UserError(
            f"{part.path}: its frames are {steps.min():.3g} to {steps.max():.3g} apart in time; interpolate them to even times, or "
            "write them at a fixed time step"
        )
    if len(uneven):
        index = int(uneven[0])
        raise UserError(
            f"{part.file_of(0, index + 1)}: time goes from {part.clock(part.times[index])} to {part.clock(part.times[index + 1])} in a "
            f"step, and elsewhere by {step:g} {part.time_units}".rstrip()
            + "; fill the gap, or name the files before or after it"
        )
    return part


def _two_frames(part: Recording, index: int, doubled: np.ndarray) -> UserError:
    """Return the error about a frame and the next one, which differ and have one time.

    `doubled`: all times that stand twice.
    """
    path, earlier, time = part.file_of(0, index + 1), part.file_of(0, index), part.clock(part.times[index])
    if path == earlier:
        return UserError(f"{path}: holds two different frames at time {time}; keep one of them")
    return UserError(
        f"{path}: holds another frame at time {time} than {earlier}, and both cover {part.clock(doubled[0])} to "
        f"{part.clock(doubled[-1])}; leave out one of them there, or say source.join: member if they hold different members"
    )


def _side_by_side(parts: list[Recording]) -> Recording:
    """Join members that lie in files of their own."""
    if len(parts) == 1:
        return parts[0]
    first, (shortest, longest) = parts[0], (pick(parts, key=lambda part: len(part.times)) for pick in (min, max))
    if len(longest.times) > len(shortest.times):
        raise UserError(
            f"{shortest.path}: holds {len(shortest.times)} frames, {longest.path} {len(longest.times)}; members of one split are of one "
            "length: leave the short ones out, or cut the long ones"
        )
    for part in parts[1:]:
        if len(part.times) > 1 and abs(part.step - first.step) > 0.01 * first.step:
            raise UserError(
                f"{part.path}: has a frame every {part.step:g}, {first.path} every {first.step:g}; name files of one time step"
            )
    numbers = [number for part in parts for number in part.members]
    frames, files = (
        xr.concat([part.frames for part in parts], "member"),
        [ends for part in parts for ends in part.files],
    )
    if len(set(numbers)) < len(numbers):
        numbers = list(range(len(numbers)))  # each file counts its own members from the start
    order = order_of(numbers)
    if order != sorted(order):
        frames, numbers, files = frames.isel(member=order), [numbers[i] for i in order], [files[i] for i in order]
    return replace(first, frames=frames, members=tuple(numbers), files=tuple(files))
