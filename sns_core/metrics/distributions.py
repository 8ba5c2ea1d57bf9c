"""Distributions of values: histograms over fixed bins, and what they are taken of."""

import torch

from sns_core.metrics.distances import BINS, REACH
from sns_core.systems import System


def histogram(values: torch.Tensor) -> torch.Tensor:
    """Counts (B, C, BINS), int64, of values (B, C, ...) in units of a standard deviation; NaN is left out."""
    flat = values.flatten(2)
    bins = ((flat + REACH) * (BINS / (2 * REACH))).nan_to_num(0.0, BINS, -1).floor().clamp(0, BINS - 1).long()
    counts = torch.zeros(*flat.shape[:2], BINS, dtype=torch.int64, device=flat.device)
    return counts.scatter_add_(2, bins, (~flat.isnan()).long())


def components(system: System, frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """The vectors that histograms are taken of, each (B, C, 2, m, m), of frames (B, C, m, m) in the system's units:
    "velocity", and "gradient", of the frames themselves, by differences between neighbouring points."""
    along = [(frames.roll(-1, axis) - frames) * (frames.shape[-1] / system.length) for axis in (-1, -2)]
    return {"velocity": torch.stack(system.frame_velocity(frames), 2), "gradient": torch.stack(along, 2)}


def component_scales(system: System, states: torch.Tensor, resolution: int) -> dict[str, torch.Tensor]:
    """Root-mean-square component (C, 1, 1, 1) of each of `components`, in the system's units, of solver states (member, C,
    n, n) seen on the emulator's grid: the units of their histograms."""
    found = components(system, system.observe(states, resolution))
    return {name: values.square().mean((0, 2, 3, 4)).sqrt()[:, None, None, None] for name, values in found.items()}
