"""Distributions of values: histograms over fixed bins, and the distance between two of them."""

import numpy as np
import torch

from sns_core.systems import System

REACH = 8.0  # standard deviations that the bins span to either side; what lies beyond counts into the last bin
BINS = 64
CENTRES = (np.arange(BINS) + 0.5) * 2 * REACH / BINS - REACH


def histogram(values: torch.Tensor) -> torch.Tensor:
    """Counts (B, C, BINS), int64, of values (B, C, ...) in units of a standard deviation; NaN is left out."""
    flat = values.flatten(2)
    bins = ((flat + REACH) * (BINS / (2 * REACH))).nan_to_num(0.0, BINS, -1).floor().clamp(0, BINS - 1).long()
    counts = torch.zeros(*flat.shape[:2], BINS, dtype=torch.int64, device=flat.device)
    return counts.scatter_add_(2, bins, (~flat.isnan()).long())


def wasserstein(counts: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Wasserstein-1 distance of histograms (..., BINS) over the bins above, in standard deviations: the area between
    the two cumulative distributions. NaN for an empty histogram."""
    with np.errstate(invalid="ignore"):
        one, other = (c.cumsum(-1) / c.sum(-1, keepdims=True) for c in (np.asarray(counts), np.asarray(reference)))
    return np.abs(one - other).sum(-1) * 2 * REACH / BINS


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
