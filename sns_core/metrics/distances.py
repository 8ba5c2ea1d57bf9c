"""Errors, distances and times, computed from the arrays that results hold. Tables and figures use them, without torch."""

import numpy as np
import xarray as xr

REACH = 8.0  # standard deviations that the bins span to either side; values beyond count into the last bin
BINS = 64
CENTRES = (np.arange(BINS) + 0.5) * 2 * REACH / BINS - REACH
SKIPPED = 1  # windows at the start of a run, which begins at a true state, that its worst window leaves out
WORST = 2.0  # decades of spectrum error that a lost member counts as, and beyond which figures draw at their edge


def spectrum_error(energy: np.ndarray, reference: np.ndarray, shells: tuple[int, int] = (1, 15)) -> np.ndarray:
    """Return the mean over shells first .. last of |log10 E - log10 E_reference|, in decades.

    Arrays (..., K) against one (K,) or (..., K) give (...). What E is a mean over decides the name of the result:

    spectrum_error            all members and the steps before each was lost: a run's, in scorecard.csv and cost.csv
    window_spectrum_error     all members, lost ones included, and the steps of one window, in windows.csv
    member_spectrum_error     one member and all its steps, in metrics.csv (`late`: the second half of the steps)
    rollout_error             mean over members and layers of member_spectrum_error, at most WORST each, in held_out.csv

    The mean of absolute values is positive for two samples of one law; see docs/ruler.md for how much that is.
    """
    return np.abs(log_ratio(energy, reference, shells)).mean(-1)


def log_ratio(energy: np.ndarray, reference: np.ndarray, shells: tuple[int, int] = (1, 15)) -> np.ndarray:
    """Return log10 E / E_reference in shells first .. last, in decades; arrays as in `spectrum_error`, (..., shells)."""
    first, last = shells[0], min(shells[1], energy.shape[-1] - 1)
    return np.log10(energy[..., first : last + 1] / reference[..., first : last + 1])


def worst_window(errors: np.ndarray, skip: int = SKIPPED) -> np.ndarray:
    """Return the largest of the spectrum errors (window, ...) of a run's windows, (...).

    The first `skip` windows are left out where there are others. NaN of one window is NaN of the worst.
    """
    return errors[min(skip, len(errors) - 1) :].max(0)


def decorrelation_time(lag: np.ndarray, correlation: np.ndarray, level: float = 0.5) -> float:
    """Return the time at which C(tau) first falls below `level`, linear between lags; NaN where it does not."""
    below = np.nonzero(correlation < level)[0]
    if not len(below) or below[0] == 0:
        return float("nan")
    i = below[0]
    fraction = (correlation[i - 1] - level) / (correlation[i - 1] - correlation[i])
    return float(lag[i - 1] + fraction * (lag[i] - lag[i - 1]))


def estimated_levels(levels: xr.DataArray) -> xr.DataArray:
    """Return the levels with NaN at the steps at which none was estimated; files hold a negative number there."""
    return levels.where(levels >= 0)


def share_at_the_ends(counts: np.ndarray) -> np.ndarray:
    """Return the share of the counts (..., BINS) in the first and the last bin, which hold all values beyond them."""
    with np.errstate(invalid="ignore"):
        return (counts[..., 0] + counts[..., -1]) / counts.sum(-1)


def correlation_pairs(block: np.ndarray, lag: np.ndarray) -> np.ndarray:
    """Return how many pairs of frames each block's C(tau) is a mean over, (block, lag).

    block: last step of each block, all of one length; lag: numbers 0 .. L. A frame at step t has a partner `lag` steps before
    it if t >= lag, because a rollout's initial frame is its step 0.
    """
    first = np.maximum(block[:, None] - block[0] + 1, np.arange(len(lag))[None, :])
    return np.clip(block[:, None] - first + 1, 0, None)


def weighted_correlation(correlation: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the mean over blocks of C(tau) (..., block, lag), each block weighted by its pairs of frames (block, lag).

    Blocks with NaN are left out.
    """
    weight = np.where(np.isfinite(correlation), pairs, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0, correlation * weight, 0.0).sum(-2) / weight.sum(-2)


def wasserstein(counts: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the Wasserstein-1 distance of histograms (..., BINS) over the bins above, in standard deviations.

    It is the area between the two cumulative distributions. Values beyond the bins count as if they lay in the last one, so
    the distance is at most 2 * REACH. NaN for an empty histogram.
    """
    return np.abs(cumulative_difference(counts, reference)).mean(-1)


def cumulative_difference(counts: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the difference of two cumulative distributions (..., BINS) times the width of all bins, in standard deviations."""
    with np.errstate(invalid="ignore"):
        first, second = (c.cumsum(-1) / c.sum(-1, keepdims=True) for c in (np.asarray(counts), np.asarray(reference)))
    return (first - second) * 2 * REACH
