"""The zonal-mean flow of a rollout: its mean profile and its variance, from the blocks of steps."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from sns_core.metrics.bootstrap import interval, pooled, student_quantile

NO_VELOCITY = "none"  # attribute of a reference whose flow has no velocity: scores and figures of it are left out
SILENT = 1e-5  # share of the root-mean-square velocity; a zonal mean below it was removed from the frames


def zonal_blocks(result: xr.Dataset) -> xr.Dataset:
    """Return the means of the zonal-mean velocity and of its square over each block, (member, block, layer, y)."""
    return result[["zonal_profile", "zonal_square"]].rename(zonal_profile="zonal_mean").astype(float)


def zonal_variance(means: xr.Dataset) -> xr.DataArray:
    """Return the variance over time and members of the zonal-mean velocity, (..., y), from its mean and mean square."""
    return (means["zonal_square"] - means["zonal_mean"] ** 2).clip(min=0)


def profile(units: xr.Dataset) -> xr.Dataset:
    """Return the mean profile with its interval of 90 %, and the standard deviation over time and members, (layer, y).

    `units`: "zonal_mean" and "zonal_square" (unit, layer, y) with the "size" of each unit, the form that `pooled`
    takes.
    """
    means = pooled(units[["zonal_mean", "zonal_square", "size"]])
    dimensions = ("layer", "y")
    values = means["zonal_mean"].transpose("resample", *dimensions).values
    parts = dict(zip(("mean", "low", "high"), interval(values), strict=True))
    spread = np.sqrt(zonal_variance(means.isel(resample=0))).transpose(*dimensions).values
    return xr.Dataset({name: (dimensions, part) for name, part in {**parts, "spread": spread}.items()})


# The mean flow without bias: products of different members


def pair_mean(profiles: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean over pairs of different members of the mean over y of the product of their profiles, (...,).

    profiles: (member, ..., y), mean profiles; weights: (member,). Its expectation is the mean square of the true mean
    profile, while the mean square of the profiles' mean is larger by the variance of that mean. It may be negative.
    """
    total = np.tensordot(weights, profiles, 1)
    squares = np.tensordot(weights**2, (profiles**2).mean(-1), 1)
    pairs = weights.sum() ** 2 - (weights**2).sum()
    return ((total**2).mean(-1) - squares) / pairs if pairs > 0 else np.full(squares.shape, np.nan)


def cross_mean(first: "Profiles", second: "Profiles") -> np.ndarray:
    """Return the mean product of the profiles of two sets over pairs of members with different numbers, (...,)."""
    pairs = np.outer(first.weights, second.weights) * (first.members[:, None] != second.members[None, :])
    if not pairs.sum() > 0:
        return np.full(first.values.shape[1:-1], np.nan)
    products = np.einsum("ab,a...y,b...y->...", pairs, first.values, second.values)
    return products / pairs.sum() / first.values.shape[-1]


@dataclass(frozen=True)
class Profiles:
    """Mean profiles (member, layer, y) of the zonal-mean velocity.

    `weights`, `members`: the weight and the number of each member, (member,).
    """

    values: np.ndarray
    weights: np.ndarray
    members: np.ndarray

    def without(self, index: int) -> "Profiles":
        """Return the profiles without one member."""
        return Profiles(*(np.delete(part, index, 0) for part in (self.values, self.weights, self.members)))


def mean_flow_scores(mine: Profiles, solver: Profiles, energy: np.ndarray) -> dict[str, tuple[np.ndarray, ...]]:
    """Return (value, low, high), each (layer,), of three scores of the mean flow.

    Energy: (layer,), the solver's kinetic energy.

    zonal_strength    root of the ratio of mean squares of the two mean profiles
    zonal_amplitude   the mean profile projected on the solver's, as a share of it; negative where the flow is reversed
    zonal_error       root-mean-square difference of the two mean profiles, in units of a velocity component

    All come from products of different members. The two roots keep the sign of their squares, which are without bias.
    The interval of 90 % is that of a jackknife over whole members of both sets, symmetric in the squares; it may hold
    0.
    """

    value = mean_flow_squares(mine, solver, energy)

    def variance(values: list[np.ndarray]) -> np.ndarray:
        # One member alone says nothing of the noise, and a method may have none left.
        return (len(values) - 1) * np.var(values, axis=0) if len(values) > 1 else np.full_like(value, np.nan)

    error = np.sqrt(
        variance([mean_flow_squares(mine.without(i), solver, energy) for i in range(len(mine.members))])
        + variance([mean_flow_squares(mine, solver.without(i), energy) for i in range(len(solver.members))])
    )
    reach = student_quantile(min(len(mine.members), len(solver.members)) - 1) * error
    ends = [mean_flow_values(square) for square in (value, value - reach, value + reach)]
    return {name: tuple(end[name] for end in ends) for name in ends[0]}


def mean_flow_squares(mine: Profiles, solver: Profiles, energy: np.ndarray) -> np.ndarray:
    """Return (3, layer): the square of the strength, the amplitude, and the square of the error, all without bias.

    energy: (layer,), the solver's kinetic energy. See `mean_flow_scores`.
    """
    square, cross = pair_mean(mine.values, mine.weights), cross_mean(mine, solver)
    truth = pair_mean(solver.values, solver.weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([square / truth, cross / truth, (square - 2 * cross + truth) / energy])


def mean_flow_values(squares: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores by name, each (layer,), of `mean_flow_squares`: roots that keep the sign of their square."""
    roots = np.sign(squares) * np.sqrt(np.abs(squares))
    return {"zonal_strength": roots[0], "zonal_amplitude": squares[1], "zonal_error": roots[2]}
