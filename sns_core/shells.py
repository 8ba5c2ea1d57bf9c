"""Spectral shells on a periodic grid: the shell and the weight of each mode, power per shell, filters.

A grid is N for N x N points, or (H, W), with points that are equally far apart along both axes. A real field of H x W points
has the half spectrum (H, W // 2 + 1) of `rfft2`. A mode belongs to the shell round(|k| / dk), where dk is the wavenumber of
the longer side; on a square, a mode with the integer wavenumbers (p, q) belongs to round(sqrt(p^2 + q^2)). All code that sums
over shells or weights modes takes both from here.
This module lies on the ground floor. Only `filtered` needs torch, and imports it when it is called.
"""

from typing import TYPE_CHECKING

import numpy as np

from sns_core.grids import Grid, grid_shape, longer_side

if TYPE_CHECKING:
    import torch


def shell_index(resolution: Grid) -> np.ndarray:
    """Return the integer shell round(|k| / dk) of each mode of a half spectrum, (H, W // 2 + 1)."""
    (height, width), longer = grid_shape(resolution), longer_side(resolution)
    first = np.fft.fftfreq(height, 1 / height)[:, None] * (longer / height)
    last = np.arange(width // 2 + 1)[None, :] * (longer / width)
    return np.rint(np.hypot(first, last)).astype(np.int64)


def mode_weight(resolution: Grid) -> np.ndarray:
    """Return how many modes of the full spectrum each mode of a half spectrum stands for, (H, W // 2 + 1), float64."""
    height, width = grid_shape(resolution)
    weight = np.full((height, width // 2 + 1), 2.0)  # a mode and its mirror image ...
    weight[:, 0] = 1.0  # ... except in the columns that hold both already
    if width % 2 == 0:
        weight[:, -1] = 1.0  # an odd width has no mode of half as many waves as points
    return weight


def shell_power(frames: np.ndarray, changes: bool = False) -> np.ndarray:
    """Return the mean power of the modes in each shell, summed over members and times, (layer, shell).

    frames: (member, time, layer, H, W); changes: whether the power is that of differences of successive frames. The transform is
    orthonormal, so white noise of unit variance has power 1. One time is in memory at a time.
    """
    shells, weight = (function(frames.shape[-2:]) for function in (shell_index, mode_weight))
    power = np.zeros((frames.shape[2], *shells.shape))
    for t in range(frames.shape[1] - changes):
        fields = frames[:, t + 1] - frames[:, t] if changes else frames[:, t]
        spectrum = np.fft.rfft2(fields.astype(np.float64), norm="ortho")
        power += (np.abs(spectrum) ** 2).sum(0)
    counts = np.bincount(shells.ravel(), weight.ravel())
    return np.stack([np.bincount(shells.ravel(), (weight * p).ravel()) / counts for p in power])


def filtered(field: "torch.Tensor", factor: "torch.Tensor") -> "torch.Tensor":
    """Return fields (B, ..., H, W) with each mode multiplied by `factor` (..., H, W // 2 + 1)."""
    import torch

    # The transform of a single field may differ in the last bit from the same field's transform in a batch. Where a graph is
    # recorded for batches of any size, no branch may depend on the size.
    rows = field if torch.compiler.is_compiling() or len(field) > 1 else torch.cat([field, field])
    return torch.fft.irfft2(torch.fft.rfft2(rows) * factor, s=field.shape[-2:])[: len(field)]
