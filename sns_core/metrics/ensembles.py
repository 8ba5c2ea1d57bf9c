"""Ensembles of forecasts against what happened: the continuous ranked probability score, spread and skill."""

import numpy as np
import xarray as xr


def fair_crps(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of forecasts (E, ...) of truth (...), in the forecasts' units.

    E|X - y| - E|X - X'| / 2 over the members, the second mean over pairs of different members, so that its expectation does not
    depend on their number (Ferro 2014). One member alone is a statement without doubt: its score is the absolute error,
    as that of members that agree.
    """
    count = len(forecast)
    error = np.abs(forecast - truth).mean(0)
    if count == 1:
        return error
    rank = np.arange(1, count + 1).reshape(-1, *[1] * truth.ndim)
    pairs = ((2 * rank - count - 1) * np.sort(forecast, axis=0)).sum(0)  # sum of x_j - x_i over i < j, sorted
    return error - pairs / (count * (count - 1))


def ensemble_scores(forecast: xr.DataArray, truth: xr.DataArray) -> xr.Dataset:
    """Scores (start, lead, layer), means over space: "crps"; "variance" of the members, unbiased; "squared_error" of their
    mean, less what it owes to their number, so that a perfect ensemble's equals the variance.

    forecast: (start, member, lead, layer, y, x); truth: the same without member.
    """
    values = xr.apply_ufunc(
        lambda members, true: fair_crps(np.moveaxis(members, -1, 0), true), forecast.astype(float), truth.astype(float),
        input_core_dims=[["member"], []],
    )  # fmt: skip
    count = forecast.sizes["member"]
    variance = forecast.astype(float).var("member", ddof=1) if count > 1 else xr.zeros_like(values)
    error = (forecast.astype(float).mean("member") - truth) ** 2 - variance / count
    return xr.Dataset({"crps": values, "variance": variance, "squared_error": error}).mean(("y", "x"))
