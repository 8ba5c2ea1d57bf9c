"""Spectral shells on a periodic square: the shell and the weight of each mode, power per shell, filters.

A real field of N x N points has the half spectrum (N, N // 2 + 1) of `rfft2`. A mode with the integer wavenumbers
(p, q) belongs to the shell round(sqrt(p^2 + q^2)). All code that sums over shells or weights modes takes both from here.
This module lies on the ground floor. Only `filtered` needs torch, and imports it when it is called.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def shell_index(resolution: int) -> np.ndarray:
    """Return the integer shell round(|k|) of each mode of a half spectrum, (N, N // 2 + 1)."""
    first = np.fft.fftfreq(resolution, 1 / resolution)[:, None]
    last = np.arange(resolution // 2 + 1)[None, :]
    return np.rint(np.hypot(first, last)).astype(np.int64)


def mode_weight(resolution: int) -> np.ndarray:
    """Return how many modes of the full spectrum each mode of a half spectrum stands for, (N, N // 2 + 1), float64."""
    weight = np.full((resolution, resolution // 2 + 1), 2.0)  # a mode and its mirror image ...
    weight[:, 0] = weight[:, -1] = 1.0  # ... except in the two columns that hold both already
    return weight


def shell_power(frames: np.ndarray) -> np.ndarray:
    """Return the mean power of the modes in each shell, summed over members and times, (layer, shell).

    frames: (member, time, layer, N, N). The transform is orthonormal, so white noise of unit variance has power 1.
    """
    shells, weight = shell_index(frames.shape[-1]), mode_weight(frames.shape[-1])
    power = np.zeros((frames.shape[2], *shells.shape))
    for t in range(frames.shape[1]):
        spectrum = np.fft.rfft2(frames[:, t].astype(np.float64), norm="ortho")
        power += (np.abs(spectrum) ** 2).sum(0)
    counts = np.bincount(shells.ravel(), weight.ravel())
    return np.stack([np.bincount(shells.ravel(), (weight * p).ravel()) / counts for p in power])


def filtered(field: "torch.Tensor", factor: "torch.Tensor") -> "torch.Tensor":
    """Return fields (B, ..., N, N) with each mode multiplied by `factor` (..., N, N // 2 + 1)."""
    import torch

    # The transform of a single field may differ in the last bit from the same field's transform in a batch.
    rows = field if len(field) > 1 else torch.cat([field, field])
    return torch.fft.irfft2(torch.fft.rfft2(rows) * factor, s=field.shape[-2:])[: len(field)]
