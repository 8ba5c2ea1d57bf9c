"""Scores of forecast ensembles against the truth: continuous ranked probability score, spread and error."""

import numpy as np
import xarray as xr


def fair_crps(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the fair continuous ranked probability score of forecasts (E, ...) of truth (...), in the forecasts' units.

    E|X - y| - E|X - X'| / 2 over the members. The second mean is over pairs of different members, so that the expected
    score does not depend on their number (Ferro 2014): it is the score of an ensemble without end. The score of an
    ensemble of E members is larger by the mean over pairs divided by 2 E. The score of a single member is its absolute
    error, like that of members that agree, because it states no doubt.
    """
    count = len(forecast)
    error = np.abs(forecast - truth).mean(0)
    if count == 1:
        return error
    rank = np.arange(1, count + 1).reshape(-1, *[1] * truth.ndim)
    pairs = ((2 * rank - count - 1) * np.sort(forecast, axis=0)).sum(0)  # sum of x_j - x_i over i < j, sorted
    return error - pairs / (count * (count - 1))


def ensemble_scores(forecast: xr.DataArray, truth: xr.DataArray) -> xr.Dataset:
    """Return scores (start, lead, layer), means over space.

    forecast: (start, member, lead, layer, y, x); truth: the same without member, in the same units.
    "crps" is the fair score. "variance" is the unbiased variance of the M members. "squared_error" is that of their mean,
    minus variance / M, so that it equals the variance for a perfect ensemble of any number of members (Leutbecher and
    Palmer 2008).
    """
    values = xr.apply_ufunc(
        lambda members, true: fair_crps(np.moveaxis(members, -1, 0), true), forecast.astype(float), truth.astype(float),
        input_core_dims=[["member"], []],
    )  # fmt: skip
    count = forecast.sizes["member"]
    variance = forecast.astype(float).var("member", ddof=1) if count > 1 else xr.zeros_like(values)
    error = (forecast.astype(float).mean("member") - truth) ** 2 - variance / count
    return xr.Dataset({"crps": values, "variance": variance, "squared_error": error}).mean(("y", "x"))
