"""Errors, distances and times of arrays that results hold: what tables and figures need of the measures, without torch."""

import numpy as np
import xarray as xr

REACH = 8.0  # standard deviations that the bins span to either side; what lies beyond counts into the last bin
BINS = 64
CENTRES = (np.arange(BINS) + 0.5) * 2 * REACH / BINS - REACH


def spectrum_error(energy: np.ndarray, reference: np.ndarray, shells: tuple[int, int] = (1, 15)) -> np.ndarray:
    """Mean over shells first .. last of |log10 E - log10 E_reference|; arrays (..., K) with one K -> (...)."""
    first, last = shells[0], min(shells[1], energy.shape[-1] - 1)
    ratio = energy[..., first : last + 1] / reference[..., first : last + 1]
    return np.abs(np.log10(ratio)).mean(-1)


def decorrelation_time(lag: np.ndarray, correlation: np.ndarray, level: float = 0.5) -> float:
    """Time at which C(tau) first falls below `level`, between lags linearly; NaN where it does not."""
    below = np.nonzero(correlation < level)[0]
    if not len(below) or below[0] == 0:
        return float("nan")
    i = below[0]
    fraction = (correlation[i - 1] - level) / (correlation[i - 1] - correlation[i])
    return float(lag[i - 1] + fraction * (lag[i] - lag[i - 1]))


def told(levels: xr.DataArray) -> xr.DataArray:
    """Levels of the steps that looked at the pair, NaN for the others."""
    return levels.where(levels >= 0)


def saturation_time(time: np.ndarray, energy: np.ndarray, share: float = 0.1) -> float:
    """The first time at which a series (T,) lies within `share` of the mean of its last third: where a spin-up, from
    above or from below, has ended. The last time where it never does."""
    mean = energy[-max(1, len(energy) // 3) :].mean()
    near = np.flatnonzero(np.abs(energy - mean) <= share * abs(mean))
    return float(time[near[0]] if len(near) else time[-1])


def wasserstein(counts: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Wasserstein-1 distance of histograms (..., BINS) over the bins above, in standard deviations: the area between
    the two cumulative distributions. NaN for an empty histogram."""
    with np.errstate(invalid="ignore"):
        one, other = (c.cumsum(-1) / c.sum(-1, keepdims=True) for c in (np.asarray(counts), np.asarray(reference)))
    return np.abs(one - other).sum(-1) * 2 * REACH / BINS
