"""Block bootstrap: an interval for the value that a statistic of correlated samples would have if they never ended.

A sample consists of independent units: stretches of a member that are longer than the flow remembers. Units are drawn
with replacement, fewer than there are: one fewer gives a mean of few units its full variance, and fewer still give its
intervals the width of Student's, since few units do not know their own variance. Each statistic is computed again from
the means over the drawn units.

The interval is the basic one, in logarithms for ratios: the resampled deviations are subtracted from the value.

A distance cannot be below 0, noise raises it, and no bootstrap of the distance itself is consistent where the truth is
0 (Andrews 2000). So `distance_interval` resamples the difference of the two curves whose mean absolute value the
distance is. Their noise has no boundary, and by the triangle inequality the distance is off by no more than the mean
absolute noise.
"""

import math
from statistics import NormalDist

import numpy as np
import xarray as xr

RESAMPLES = 400
SHARE = 0.9  # the probability that an interval is made for
GAUSS = 1.6448536  # the 95 % quantile of the standard normal distribution


def resampling_weights(sizes: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return weights (1 + RESAMPLES, U) of U units with `sizes` samples each: first the sample itself, then resamples.

    A resample has so many units that the spread of its mean is the standard error times the ratio of the 95 % quantiles
    of Student and Gauss: 5 of 8, 13 of 16, 61 of 64. It has at least two, which products of different members need,
    where there are three. A single unit says nothing of its own noise: its resamples are NaN, and so are the ends of
    its intervals.
    """
    count = len(sizes)
    if count == 1:
        return np.concatenate([np.ones((1, 1)), np.full((RESAMPLES, 1), np.nan)]) * sizes
    ratio = student_quantile(count - 1) / GAUSS
    draws = max(round((count - 1) / ratio**2), min(2, count - 1), 1)
    drawn = np.random.default_rng(seed).multinomial(draws, np.full(count, 1 / count), RESAMPLES)
    return np.concatenate([np.ones((1, count)), drawn]) * sizes


def in_stretches(blocks: xr.Dataset, living: xr.DataArray, window: int) -> xr.Dataset:
    """Return means of (member, block, ...) over stretches of `window` steps of a member, (unit, ...), for `pooled`.

    `source` (unit,) is the number of the member of each stretch. Blocks are labelled by their last step. Blocks where
    `living` (member, block) is false are left out.
    """
    length = int(blocks["block"][0])
    every = blocks.assign(size=living.astype(float)).where(living)
    windows = every.coarsen(block=min(window // length, every.sizes["block"]), boundary="pad")
    units = windows.mean().assign(size=windows.sum()["size"] * length)
    units["source"] = blocks["member"] + 0 * units["size"].astype(int)
    return units.stack(unit=("member", "block")).reset_index("unit", drop=True).transpose("unit", ...)


def pooled(units: xr.Dataset, seed: int = 0) -> xr.Dataset:
    """Return the means of units (unit, ...) of `size` samples each, (resample, ...), the sample itself first.

    A unit without samples counts nowhere. A unit with NaN is left out of the means of those values.
    """
    units = units.isel(unit=np.flatnonzero(units["size"].values > 0))
    if not units.sizes["unit"]:
        empty = units.drop_vars("size").mean("unit")
        return empty.expand_dims(resample=1 + RESAMPLES)
    weights = xr.DataArray(resampling_weights(units["size"].values, seed), dims=("resample", "unit"))
    return weighted_means(units.drop_vars(["size", "source"], errors="ignore"), weights)


def weighted_means(samples: xr.Dataset, weights: xr.DataArray) -> xr.Dataset:
    """Return the means of samples over all dimensions of `weights` but "resample", (resample, ...).

    `weights`: (resample, ...), such as (resample, unit). NaN among the samples is left out of the mean; the mean is NaN
    where nothing is left.
    """
    over = [dimension for dimension in weights.dims if dimension != "resample"]
    drawn = weights.transpose("resample", *over).values.reshape(weights.sizes["resample"], -1)

    def mean(values: xr.DataArray) -> xr.DataArray:
        others = [dimension for dimension in values.dims if dimension not in over]
        absent = {dimension: weights.sizes[dimension] for dimension in over if dimension not in values.dims}
        columns = values.expand_dims(absent).transpose(*over, *others).astype(float)
        columns, shape = columns.values.reshape(drawn.shape[1], -1), columns.shape[len(over) :]
        present = ~np.isnan(columns)
        total = drawn @ present
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(total > 0, drawn @ np.where(present, columns, 0.0) / total, np.nan)
        coordinates = {name: values[name] for name in others if name in values.coords}
        return xr.DataArray(means.reshape(-1, *shape), coordinates, ("resample", *others))

    return samples.map(mean)


def pooled_products(units: xr.Dataset, name: str, seed: int = 0) -> np.ndarray:
    """Return the mean product of `name` over pairs of units of different members, (resample,).

    It is summed over layers and y.

    The square of a mean is larger than the square of what it estimates, by its variance. Products of different members
    have no such bias, and may be negative. The resamples are those of `pooled`. NaN where there is a single member.
    """
    units = units.isel(
        unit=np.flatnonzero((units["size"].values > 0) & units[name].notnull().all(("layer", "y")).values)
    )
    if not units.sizes["unit"]:  # every member was lost before its first stretch ended
        return np.full(1 + RESAMPLES, np.nan)
    weights = resampling_weights(units["size"].values, seed)
    values = units[name].transpose("unit", "layer", "y").values.reshape(len(units["size"]), -1)
    total, squares = weights @ values, 0.0
    whole, repeated = weights.sum(1), 0.0
    for member in np.unique(units["source"].values):
        rows = units["source"].values == member
        squares = squares + ((weights[:, rows] @ values[rows]) ** 2).sum(1)
        repeated = repeated + weights[:, rows].sum(1) ** 2
    pairs = whole**2 - repeated
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, ((total**2).sum(1) - squares) / pairs, np.nan)


def interval(values: np.ndarray, kind: str = "linear") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (value, low, high) of a statistic (1 + RESAMPLES, ...) that was computed from the means of `pooled`.

    `kind`: "linear"; "positive", a mean of positive numbers; "share", from 0 to 1; "ratio", a positive factor. The
    interval is widened where it does not hold the value itself. It is NaN where one of the resampled values is not
    finite.
    """
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        scaled = np.log(values) if kind == "ratio" else values
        low, high = np.quantile(2 * scaled[0] - scaled[1:], [(1 - SHARE) / 2, (1 + SHARE) / 2], axis=0)
        low, high = np.minimum(low, scaled[0]), np.maximum(high, scaled[0])
        finite = np.isfinite(scaled).all(0)
        low, high = (np.where(finite, np.exp(end) if kind == "ratio" else end, np.nan) for end in (low, high))
    least, most = {"positive": (0.0, np.inf), "share": (0.0, 1.0)}.get(kind, (-np.inf, np.inf))
    return values[0], np.maximum(low, least), np.minimum(high, most)


def distance_interval(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (value, low, high), each (...), of the mean absolute value of `difference` over its last axis.

    difference: (1 + RESAMPLES, ..., P), of two curves.

    difference: of two curves, computed from the means of `pooled`. The interval reaches as far to either side of the
    value as the mean absolute deviation of a resampled difference from the difference itself in nine of ten resamples,
    but not below 0. It holds a true distance of 0 in nine of ten cases, and a larger one more often, since noise in the
    direction of a difference rarely adds up along the whole curve. So 0 lies below `low` exactly where a test at 10 %
    tells the two curves apart. Points at which the difference is NaN are left out. The ends are NaN where another
    resampled value is not finite.
    """
    present = ~np.isnan(difference[0])

    def mean(values: np.ndarray) -> np.ndarray:
        return np.where(present, np.abs(values), 0.0).sum(-1) / present.sum(-1)

    with np.errstate(invalid="ignore"):
        value, noise = mean(difference[0]), mean(difference[1:] - difference[0])
        reach = np.where(np.isfinite(noise).all(0), np.quantile(noise, SHARE, axis=0), np.nan)
        return value, np.maximum(value - reach, 0.0), value + reach


def student_quantile(freedom: int, normal: float = GAUSS) -> float:
    """Return the quantile of Student's distribution with `freedom` degrees that `normal` is of the normal distribution.

    By default that of 95 %, to 0.3 %. Further out the probability beyond it is right to 2 % from 7 degrees on, where
    `normal` is at most 2.8. NaN for no degree.
    """
    if freedom < 1:
        return math.nan
    z, beyond = normal, 1 - NormalDist().cdf(normal)
    if freedom == 1:
        return 1 / math.tan(math.pi * beyond)
    if freedom == 2:
        return (1 - 2 * beyond) / math.sqrt(2 * beyond * (1 - beyond))
    terms = (z**3 + z, (5 * z**5 + 16 * z**3 + 3 * z) / 24, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 96)
    return z + sum(term / 4 / freedom**power for power, term in enumerate(terms, 1))
