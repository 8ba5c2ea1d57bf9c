"""Distributions of values: histograms over fixed bins, and the vectors whose components they count."""

import torch

from sns_core.grids import Grid, longer_side
from sns_core.metrics.distances import BINS, REACH
from sns_core.systems import System


def histogram(values: torch.Tensor) -> torch.Tensor:
    """Return counts (B, C, BINS), int64, of values (B, C, ...) in units of a standard deviation, without NaN.

    Values beyond the bins count into the first or the last bin.
    """
    flat = values.flatten(2)
    bins = ((flat + REACH) * (BINS / (2 * REACH))).nan_to_num(0.0, BINS, -1).floor().clamp(0, BINS - 1).long()
    counts = torch.zeros(*flat.shape[:2], BINS, dtype=torch.int64, device=flat.device)
    return counts.scatter_add_(2, bins, (~flat.isnan()).long())


def components(system: System, frames: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the vectors that histograms count, each (B, C, 2, m, m), of frames (B, C, m, m) in the system's units.

    "velocity" has the components (u, v), or the single one that each channel of the system has; "gradient" is the gradient of the
    frames, from differences between neighbouring points; a single row of points has one component, (B, C, 1, 1, m).
    """
    axes = [axis for axis in (-1, -2) if frames.shape[axis] > 1]
    along = [(frames.roll(-1, axis) - frames) * (longer_side(frames.shape[-2:]) / system.length) for axis in axes]
    return {"velocity": system.velocity_components(u, v), "gradient": torch.stack(along, 2)}


def component_scales(system: System, states: torch.Tensor, resolution: Grid) -> dict[str, torch.Tensor]:
    """Return the root-mean-square component (C, 1, 1, 1) of each of `components`: the units of their histograms.

    states: solver states (member, C, n, n), observed at `resolution`. Both components of a vector count alike.
    """
    frames = system.observe(states, resolution)
    vectors = components(system, frames, *system.frame_velocity(frames))
    return {name: values.square().mean((0, 2, 3, 4)).sqrt()[:, None, None, None] for name, values in vectors.items()}
