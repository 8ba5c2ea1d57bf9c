"""Isotropic kinetic-energy spectra that obey Parseval's identity."""

import functools
import math

import numpy as np
import torch

from sns_core.grids import Grid
from sns_core.shells import mode_weight, shell_index


@functools.cache
def _shells(resolution: Grid, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the shell and the weight of each mode of a half spectrum, flat, on a device."""
    parts = shell_index(resolution), mode_weight(resolution)
    return tuple(torch.from_numpy(part).flatten().to(device) for part in parts)


def kinetic_energy_spectrum(
    u: torch.Tensor, v: torch.Tensor, length: float = 2 * math.pi
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the energy density over wavenumber shells round(|k| / dk), dk = 2 pi / length, where `length` is the longer side.

    u, v: tensors (B, ..., H, W), velocities on a periodic rectangle; axes between the first and the last two are averaged.
    Returns k (K,), angular wavenumbers, and E (B, K), the sum over the modes of a shell divided by dk, so that
    sum(E) * dk is the mean of (u^2 + v^2) / 2 (Parseval: every mode, the corners of the square included, belongs to a
    shell). A sum jumps where the number of modes does: it is 0.85 to 1.27 times the ring mean times 2 pi k.

    Shells from N / 2 on are incomplete where the velocity comes from a scalar field: a derivative along an axis vanishes in
    that axis's Nyquist modes, so shells 16 to 21 of 32 x 32 points lack 4 to 6 %, and the corner lacks everything.
    """
    index, weight = _shells(tuple(u.shape[-2:]), u.device)
    power = torch.fft.rfft2(u, norm="forward").abs().square() + torch.fft.rfft2(v, norm="forward").abs().square()
    modes = 0.5 * power.flatten(-2) * weight.to(power.dtype)
    while modes.ndim > 2:
        modes = modes.mean(1)
    spacing, count = 2 * math.pi / length, int(index.max()) + 1
    energy = torch.zeros(len(modes), count, dtype=modes.dtype, device=modes.device).index_add_(1, index, modes)
    k = torch.arange(count, dtype=modes.dtype, device=modes.device) * spacing
    return k, energy / spacing


def shell_wavenumbers(resolution: Grid, length: float = 2 * math.pi) -> np.ndarray:
    """Return the angular wavenumbers (K,) of the shells of fields on a grid, as `kinetic_energy_spectrum` fills them."""
    return np.arange(shell_index(resolution).max() + 1) * 2 * math.pi / length
