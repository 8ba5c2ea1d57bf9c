"""Signed amplitudes: what a denoiser says of the strength of some shells, from one call and without heads.

Let y = D x + sigma eps be a noised pair and s the score of its law. By Stein's identity E[<y, s>_b] = -n_b for every law,
where <, >_b is the scalar product over the modes of the shells b in both frames, and n_b the number of their real values. So

    T_b = -<y, s>_b - n_b

has mean 0 on true pairs. T_b is also the derivative of the log likelihood by g where the shells are e^g times too strong, so
it is the locally best test of a wrong amplitude: above 0 the shells are too strong, below 0 too weak. A noise level has no
name for shells that are too weak. A trained denoiser is not exact, so mean and variance of T_b are measured on held-out true
pairs.
"""

import numpy as np
import torch

from sns_core.diffusion.plane import Pair
from sns_core.diffusion.schedule import Levels, NoiseSchedule, per_member
from sns_core.grids import Grid, longer_side
from sns_core.shells import mode_weight, shell_index

Shells = tuple[int, int]  # the first and the last shell


def octaves(resolution: Grid) -> list[Shells]:
    """Return the shells 1, 2 to 3, 4 to 7, ... of frames; the last one ends before shell N / 2, N points along the longer side."""
    last = longer_side(resolution) // 2 - 1
    return [(2**i, min(2 ** (i + 1) - 1, last)) for i in range(last.bit_length())]


def amplitude_scores(
    frames: Pair, noise: Pair, levels: tuple[Levels, Levels], schedule: NoiseSchedule, parts: list[Shells]
):
    """Return T_b (B, parts) of noised pairs: positive where the shells of a part are too strong, negative where too weak.

    frames: both frames (B, C, H, W), noised to `levels` (B,) each; noise: what the denoiser predicts for them. Frames and
    noise are in the coordinates of the diffusion. Raises ValueError for level 0, at which the noise tells no score.
    """
    if any((level <= 0).any() for level in levels):
        raise ValueError("the score needs both frames at a level above 0")
    grid = tuple(frames[0].shape[-2:])
    shells = shell_index(grid)
    inside = np.stack([(shells >= first) & (shells <= last) for first, last in parts]) * mode_weight(grid)
    weight = torch.from_numpy(inside).to(frames[0])  # (parts, H, W // 2 + 1)
    total = 0.0
    for y, predicted, level in zip(frames, noise, levels, strict=True):
        score = -predicted / per_member(schedule.sigma(level), predicted)
        product = (torch.fft.rfft2(y, norm="ortho").conj() * torch.fft.rfft2(score, norm="ortho")).real.sum(1)
        total = total + torch.einsum("bij,kij->bk", product, weight)
    return -total - 2 * frames[0].shape[1] * weight.sum((1, 2))
