"""Temporal coherence: C(tau) tells how long a flow remembers itself, R(t) how fast it changes."""

from collections.abc import Iterator

import numpy as np
import torch

from sns_core.data.frames import frames_per_block
from sns_core.sums import mean_of_sum, pairwise_sum

AT_ONCE = 1024  # frames whose products with all earlier ones are held at a time


def centred(frames: torch.Tensor) -> torch.Tensor:
    """Return frames (..., C, H, W) centred per channel, flattened and scaled to unit norm, (..., C * H * W)."""
    anomaly = (frames - frames.mean((-2, -1), keepdim=True)).flatten(-3)
    return anomaly / anomaly.norm(dim=-1, keepdim=True).clamp(min=1e-30)


def zonal_direction(frames: torch.Tensor) -> torch.Tensor:
    """Return the mean over x of frames (..., C, H, W) as `centred` scales them, times sqrt(W), (..., C, H).

    The mean of this over time and members is the part of a flow that never changes. The sum of its squares is the part of
    C(tau) that stays for ever, for a flow whose statistics do not depend on x.
    """
    unit = centred(frames).unflatten(-1, frames.shape[-3:])
    return unit.mean(-1) * frames.shape[-1] ** 0.5


def lagged_correlation(history: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Return the correlation of each new frame with the frames before it: the streaming form of C(tau).

    history: (B, L, D), the L frames before, oldest first; frames: (B, n, D); both from `centred`.
    Returns (B, n, L + 1), lag 0 .. L.
    """
    lags, count = history.shape[1], frames.shape[1]
    series = torch.cat([history, frames], 1)
    if count > AT_ONCE:
        starts = range(0, count, AT_ONCE)
        parts = [(series[:, s : s + lags], series[:, s + lags : s + lags + AT_ONCE]) for s in starts]
        return torch.cat([lagged_correlation(*part) for part in parts], 1)
    products = frames @ series.mT
    columns = lags + torch.arange(count)[:, None] - torch.arange(lags + 1)[None, :]
    return products.gather(2, columns.to(products.device).expand(len(products), -1, -1))


def temporal_correlation(frames: torch.Tensor, max_lag: int | None = None) -> torch.Tensor:
    """Return C(tau), the mean over time and members of the correlation of spatially centred frames at lag tau.

    frames: a tensor (B, T, C, H, W). Returns (max_lag + 1,) with C(0) = 1; max_lag is T - 1 by default. Raises ValueError
    where the frames do not reach that far.
    """
    steps = frames.shape[1]
    max_lag = steps - 1 if max_lag is None else max_lag
    if not 0 <= max_lag < steps:
        raise ValueError(f"max_lag {max_lag} must lie in 0 .. {steps - 1} for {steps} frames")
    unit = centred(frames)
    products = unit @ unit.mT
    return torch.stack([products.diagonal(lag, -2, -1).mean() for lag in range(max_lag + 1)])


def rate_of_change(frames: torch.Tensor, dt: float) -> torch.Tensor:
    """Return R(t), the mean over members, channels and space of |x_{t+1} - x_t| / dt.

    frames: a tensor (B, T, C, H, W); dt: the time between frames. Returns (T - 1,), in units of the field per time.
    """
    return frames.diff(dim=1).abs().mean((0, 2, 3, 4)) / dt


def space_time_correlation(frames: np.ndarray, lags: int, scale: np.ndarray | float = 1) -> np.ndarray:
    """Return C(r, tau), the correlation of spatially centred frames r apart in x and tau frames apart in time.

    frames: (T, C, H, W), or a lazy array, which is read in blocks; scale: their unit, (C, 1, 1). Returns
    (lags + 1, W // 2 + 1), the mean over time, channels and both directions along x. Raises ValueError where the frames do
    not reach that far.
    """
    (count, channels, height, width), shifts = frames.shape, frames.shape[-1] // 2 + 1
    if not 0 <= lags < count:
        raise ValueError(f"lags {lags} must lie in 0 .. {count - 1} for {count} frames")
    square = pairwise_sum((anomaly[None] ** 2 for anomaly in _anomalies(frames, scale)), frames.size)[0]
    variance = mean_of_sum(square, frames.size)
    spectrum, sums = None, [0.0] * (lags + 1)
    for anomaly in _anomalies(frames, scale):
        new = np.fft.rfft(anomaly, axis=-1)
        history = new[:0] if spectrum is None else spectrum[max(0, len(spectrum) - lags) :]
        spectrum = np.concatenate([history, new])
        for lag in range(lags + 1):
            first = max(len(history), lag)  # of the new frames that have a partner
            later = spectrum[first:]
            products = spectrum[first - lag :][: len(later)].conj() * later
            # Product after product, in the order of a sum over one array of them all.
            sums[lag] = np.concatenate([np.full((1, shifts), sums[lag], new.dtype), products.reshape(-1, shifts)]).sum(
                0
            )
    rows = []
    for lag, total in enumerate(sums):
        covariance = np.fft.irfft(mean_of_sum(total, (count - lag) * channels * height), n=width) / width
        mirrored = 0.5 * (covariance + np.roll(covariance[::-1], 1))
        rows.append(mirrored[:shifts] / variance)
    return np.stack(rows)


def _anomalies(frames: np.ndarray, scale: np.ndarray | float) -> Iterator[np.ndarray]:
    """Yield blocks of frames (T, C, H, W) in units of `scale`, less their means over space."""
    length = frames_per_block(frames.nbytes // len(frames))
    for first in range(0, len(frames), length):
        block = np.asarray(frames[first : first + length]) / scale
        yield block - block.mean((-2, -1), keepdims=True)
