"""Two ways from a previous frame to an increment: flow matching in a few moves, and PDE-Refiner in a few refinements.

Both work on the increment y = (x_t - x_{t-1}) / increment_std, (B, C, m, m) of about unit variance, given x_{t-1}.

Flow matching (Lipman et al. 2023): on the straight line y(tau) = (1 - tau) noise + tau y, a network learns the velocity
E[y - noise | y(tau), x_{t-1}]. Noise that is moved with this velocity from time 0 to time 1 has the law of y given x_{t-1}.

PDE-Refiner (Lippe et al. 2023): a first call gives the mean of y. Refinement k of K adds noise of the standard deviation
least_noise^(k / K), and takes away what the network predicts of it. The noise falls to ever smaller amplitudes, so that
every part of the spectrum is worked on at least once.
"""

import itertools
import math
from collections.abc import Callable

import torch

TIME_FEATURES = 16  # cosines of the time that a network of the velocity sees


def time_features(time: torch.Tensor) -> torch.Tensor:
    """Return cos(pi k tau), k = 1 .. TIME_FEATURES, (B, TIME_FEATURES) for times (B,) between 0 and 1."""
    return torch.cos(math.pi * time[:, None] * torch.arange(1, TIME_FEATURES + 1, device=time.device))


def between(noise: torch.Tensor, increment: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """Return the points (B, ...) at the times (B,) of the straight lines from noise to increments."""
    time = time.view(-1, *[1] * (noise.ndim - 1))
    return (1 - time) * noise + time * increment


def move_times(moves: int, bend: float = 1.0) -> list[float]:
    """Return the times 0 .. 1 at which moves begin and end; with `bend` above 1 the last moves are the shorter ones."""
    return [1 - (1 - move / moves) ** bend for move in range(moves + 1)]


def transport(
    velocity: Callable[[torch.Tensor, float], torch.Tensor], noise: torch.Tensor, times: list[float], order: int = 1
) -> torch.Tensor:
    """Return the increments to which `velocity(y, time)` moves `noise`: by Euler's method (order 1) or Heun's (order 2).

    With either method the last move is one of Euler, as Karras et al. 2022 end theirs: where the law is narrow, the velocity
    at its end is steep, and a call there would widen the law instead of correcting it. The order stays 2.
    """
    y = noise
    for start, stop in itertools.pairwise(times):
        speed = velocity(y, start)
        if order == 2 and stop < 1:
            speed = 0.5 * (speed + velocity(y + (stop - start) * speed, stop))
        y = y + (stop - start) * speed
    return y


def transport_calls(moves: int, order: int) -> int:
    """Return the number of calls of the velocity in `transport`."""
    return order * (moves - 1) + 1


def refinement_noise(refinements: int, least_noise: float) -> list[float]:
    """Return the standard deviations of the noise of refinements 1 .. K."""
    return [least_noise ** (k / refinements) for k in range(1, refinements + 1)]


def refine(
    network: Callable[[torch.Tensor, int], torch.Tensor], noises: list[torch.Tensor], deviations: list[float]
) -> torch.Tensor:
    """Return the refined increments (B, C, m, m).

    `network(y, k)`: for k = 0 the mean of the increments, for any y; for k = 1 .. K the noise in y. `noises`: standard
    normal fields (B, C, m, m), one per refinement; `deviations`: see `refinement_noise`.
    """
    y = network(torch.zeros_like(noises[0]), 0)
    for k, (noise, deviation) in enumerate(zip(noises, deviations, strict=True), 1):
        noised = y + deviation * noise
        y = noised - deviation * network(noised, k)
    return y
