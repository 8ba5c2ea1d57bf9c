"""Isotropic kinetic-energy spectra that obey Parseval's identity."""

import functools
import math

import numpy as np
import torch

from sns_core.shells import mode_weight, shell_index


@functools.cache
def _shells(resolution: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Shell of each mode of a half spectrum, flat, and how many modes of the full spectrum it stands for."""
    parts = shell_index(resolution), mode_weight(resolution)
    return tuple(torch.from_numpy(part).flatten().to(device) for part in parts)


def kinetic_energy_spectrum(
    u: torch.Tensor, v: torch.Tensor, length: float = 2 * math.pi
) -> tuple[torch.Tensor, torch.Tensor]:
    """Energy density over wavenumber shells round(|k| / dk), dk = 2 pi / length.

    u, v: (B, ..., N, N), velocities on a periodic square; axes between the first and the last two are averaged.
    Returns k (K,), angular wavenumbers, and E (B, K) with sum(E) * dk = mean of (u^2 + v^2) / 2 (Parseval: every mode,
    the corners of the square included, belongs to a shell).
    """
    n = u.shape[-1]
    index, weight = _shells(n, u.device)
    power = torch.fft.rfft2(u, norm="forward").abs().square() + torch.fft.rfft2(v, norm="forward").abs().square()
    modes = 0.5 * power.flatten(-2) * weight.to(power.dtype)
    while modes.ndim > 2:
        modes = modes.mean(1)
    spacing, count = 2 * math.pi / length, int(index.max()) + 1
    energy = torch.zeros(len(modes), count, dtype=modes.dtype, device=modes.device).index_add_(1, index, modes)
    k = torch.arange(count, dtype=modes.dtype, device=modes.device) * spacing
    return k, energy / spacing


def shell_wavenumbers(resolution: int, length: float = 2 * math.pi) -> np.ndarray:
    """Angular wavenumbers (K,) of the shells that `kinetic_energy_spectrum` fills for N x N fields."""
    return np.arange(shell_index(resolution).max() + 1) * 2 * math.pi / length
