"""Whether the solver's ensemble is stationary, and from when on: measured, not assumed.

A spin-up may overshoot and come back, so a series that is near its later mean once need not be stationary. Members share no
initial state, so the spread over members gives the standard error of any difference in time, with the correlation in
time included. Three criteria:

- `drift`: the mean of the last third of a series minus that of the first third.
- `stationary_from`: the time from which an ensemble stays at the mean of its last third.
- `mser`: the start that minimises the squared standard error of the mean of what follows (White 1997), a detector that needs
  a single series.
"""

import math

import numpy as np
import pandas as pd

from sns_core.metrics.bootstrap import student_quantile

LIMIT = 2.0  # standard errors of a large ensemble within which a drift counts as none
SCAN_LIMIT = 3.5  # the same where many windows are tried, so that noise in one of them is no drift
STARTS = 64  # windows of each width that `stationary_from` tries
WIDTHS = (0.1, 0.05, 0.025)  # of these windows, as shares of the series


def thirds_difference(series: np.ndarray) -> np.ndarray:
    """Return the mean of the last third minus the mean of the first third of series (member, time, ...), (member, ...)."""
    count = max(1, series.shape[1] // 3)
    return series[:, -count:].mean(1) - series[:, :count].mean(1)


def drift(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over members of differences (member, ...) and its standard error; NaN error for a single member."""
    count = len(differences)
    error = differences.std(0, ddof=1) / math.sqrt(count) if count > 1 else np.full(differences.shape[1:], np.nan)
    return differences.mean(0), error


def is_drifting(differences: np.ndarray, limit: float = LIMIT) -> np.ndarray:
    """Return True where the drift of differences (member, ...) is more than `limit` standard errors from zero.

    The limit is that of a large ensemble. Of few members it is the quantile of Student's distribution with the same
    probability beyond it. False for a single member, which has no standard error.
    """
    mean, error = drift(differences)
    return np.abs(mean) > error * student_quantile(len(differences) - 1, limit)


def stationary_from(time: np.ndarray, series: np.ndarray) -> float:
    """Return the time from which an ensemble (member, time) stays at the mean of its last third.

    Windows of several widths slide up to that last third. The result is the start of the first window after the last
    one whose mean differs from the mean of the last third by more than SCAN_LIMIT standard errors, the latest of all
    widths. So a series that passes its later mean and comes back is not stationary in between. Short windows see an
    undershoot that long ones average out; long windows see a small one. NaN where the last window differs: the series
    is too short.
    """
    count = len(time)
    end, late = count - max(1, count // 3), series[:, -max(1, count // 3) :].mean(1)
    latest = 0
    for share in WIDTHS:
        width = max(1, int(share * count))
        starts = np.unique(np.linspace(0, max(0, end - width), STARTS).astype(int))
        failed = [is_drifting(late - series[:, s : s + width].mean(1), SCAN_LIMIT) for s in starts]
        first = int(np.max(np.flatnonzero(failed), initial=-1)) + 1
        if first == len(starts):
            return math.nan
        latest = max(latest, starts[first])
    return float(time[latest])


def mser(time: np.ndarray, series: np.ndarray, batch: int = 5) -> float:
    """Return the time at which the squared standard error of the mean of the rest of a series (time,) is least.

    The series is averaged over batches of `batch` values first (MSER-5). At least half of it must follow.
    """
    count = len(series) // batch
    means = series[: count * batch].reshape(count, batch).mean(1)
    starts = np.arange(max(1, count // 2))
    errors = [means[start:].var() / (count - start) for start in starts]
    return float(time[int(starts[np.argmin(errors)]) * batch])


def way_out(table: pd.DataFrame) -> str:
    """Return one line about the splits that drift, and the spin-up that would do."""
    drifting, spin_up = table[table["drifts"]], float(table["spin_up"].iloc[0])
    words = [
        f"{row.quantity.replace('_', ' ')} of {row.split} {100 * row.drift:+.2g} ± {100 * row.error:.1g} %"
        if row.quantity != "spectrum"
        else f"spectrum of {row.split} {row.drift:+.2g} ± {row.error:.1g} decades"
        for row in drifting.itertuples()
    ]
    settled = table["settled"].max()
    if settled > spin_up:
        remedy = f"the energy is stationary from {settled:.3g} on; set data.spin_up to that or more"
    else:
        remedy = f"no energy series is long enough to say which would do; try data.spin_up {2 * spin_up or 1:g}"
    return (
        f"after a spin-up of {spin_up:g}, the first and last third of the frames differ ({'; '.join(words)}); {remedy}"
    )
