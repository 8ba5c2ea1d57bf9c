"""The reader of a rollout: its segments as one chain, opened lazily."""

from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.data.frames import field_of, open_frames
from sns_core.errors import UserError

CHUNK = 128  # frames of one member in memory at a time
LONG = {"step": 20_000, "block": 400}  # steps and blocks of one member in memory at a time


def open_segments(paths: list[Path], variable: str | None = None) -> tuple[xr.Dataset, xr.Dataset]:
    """Open the segments of a rollout as (frames, statistics), both lazily, each along its own time axis.

    `paths`: all segments of one method, in any number of groups of members, which may come in any order: the members are
    put in theirs. `variable`: the name of the field, which
    every file must hold (None: the field that the first file holds). Raises UserError where the chains of two groups
    differ in length.
    """
    groups: dict[tuple, list[xr.Dataset]] = {}
    for path in paths:
        opened = open_frames(path, variable, member=1, time=CHUNK, **LONG)
        variable = variable or field_of(opened)
        groups.setdefault(tuple(opened["member"].values), []).append(opened)
    if len({sum(int(d.attrs["steps"]) for d in chain) for chain in groups.values()}) > 1:
        raise UserError(f"{paths[0].parent.parent}: groups of members have come to different steps; run again")
    chains = [_chained(groups[members], variable) for members in sorted(groups)]  # as text, group 12-15 is before 4-7
    frames, statistics = (xr.concat([chain[i] for chain in chains], "member", data_vars="minimal") for i in (0, 1))
    # The wall time of a block of steps is that of all groups of members together.
    seconds = sum(
        np.concatenate([np.atleast_1d(d.attrs["seconds_of_blocks"]) for d in chain]) for chain in groups.values()
    )
    statistics.attrs = {
        "method": opened.attrs["method"],
        "history": opened.attrs.get("history", ""),  # older files have none
        "seconds_of_blocks": seconds,
        "seconds_per_step": seconds.sum() / statistics.sizes["step"],
    }
    return frames, statistics


def _chained(opened: list[xr.Dataset], variable: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Join the segments of one group of members, one after the other."""
    frames = xr.concat([d[[variable]] for d in opened], "time")
    along = {"step": [], "block": [], None: []}
    for name in opened[0].data_vars:
        if name != variable:
            axis = next((a for a in ("step", "block") if a in opened[0][name].dims), None)
            along[axis].append(name)
    parts = [xr.concat([d[along[axis]] for d in opened], axis) for axis in ("step", "block")]
    last = opened[-1][along[None]].load()
    return frames, xr.merge([*parts, last], join="outer").drop_vars("time", errors="ignore")
