"""The exact posterior of the noise levels against quadrature, Bayes' rule and its calibration."""

import numpy as np
import pytest
import torch
from oracles import F64, covariance_blocks, noised_pairs, oracle_3d, scalar_oracle, schedule_of

from sns_core.diffusion import NoiseSchedule
from sns_core.streams import generator


def posterior_by_quadrature(schedule: NoiseSchedule, correlation: float, innovation: float, prev: float, nxt: float):
    """Compute p(s2, s1 | pair) for d = 1: integrate the clean pair's density against the two noising kernels."""

    def normal_density(x, mean, variance):
        return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)

    stationary = innovation / (1 - correlation**2)
    grid = np.linspace(-9, 9, 901)  # the trapezoidal rule is exact to rounding once it resolves a Gaussian

    def nodes(observed, level):
        """Return nodes and weights of the clean value. At level 0 the only node is the observed value."""
        a = schedule.alpha_bar[level].item()
        if level == 0:
            return np.array([observed]), np.array([1.0])
        return grid, normal_density(observed, np.sqrt(a) * grid, 1 - a) * (grid[1] - grid[0])

    count = schedule.levels + 1
    density = np.empty((count, count))
    for s2 in range(count):
        for s1 in range(count):
            (x2, weight2), (x1, weight1) = nodes(prev, s2), nodes(nxt, s1)
            clean = normal_density(x2, 0, stationary)[:, None] * normal_density(
                x1, correlation * x2[:, None], innovation
            )
            density[s2, s1] = weight2 @ clean @ weight1
    return torch.from_numpy(density / density.sum())


@pytest.mark.parametrize("pair", [(0.3, 0.2), (1.5, -1.0), (-2.5, -2.0), (0.0, 3.0)])
def test_the_level_posterior_equals_quadrature_of_the_noising_kernels(pair):
    schedule = schedule_of(6)
    oracle = scalar_oracle(0.8, 0.3, schedule)
    posterior = oracle.level_posterior(*(torch.tensor([[[[value]]]], dtype=F64) for value in pair))[0]
    expected = posterior_by_quadrature(schedule, 0.8, 0.3, *pair)
    torch.testing.assert_close(posterior, expected, rtol=1e-9, atol=1e-12)
    assert (expected - expected.T).abs().max() > 1e-5  # so this test would notice swapped frames


def test_the_level_posterior_of_fields_is_bayes_rule_with_a_flat_prior():
    oracle = oracle_3d(4)
    x_prev, x_next, *_ = noised_pairs(oracle, [(1, 3), (4, 0)])
    posterior = oracle.level_posterior(x_prev, x_next)
    assert posterior.shape == (2, 5, 5)
    for row in range(2):
        y = torch.cat([x_prev[row].flatten(), x_next[row].flatten()])
        density = torch.empty(5, 5, dtype=F64)
        for s2 in range(5):
            for s1 in range(5):
                first, cross, last = covariance_blocks(oracle, s2, s1)
                m = torch.cat([torch.cat([first, cross.T], 1), torch.cat([cross, last], 1)])
                density[s2, s1] = torch.distributions.MultivariateNormal(torch.zeros(6, dtype=F64), m).log_prob(y).exp()
        torch.testing.assert_close(posterior[row], density / density.sum(), rtol=1e-9, atol=1e-14)


def test_the_level_posterior_is_calibrated():
    oracle, members = scalar_oracle(0.8, 0.3, schedule_of(3)), 20_000
    g = generator("test", "calibration")
    levels = torch.randint(4, (2, members), generator=g)
    frames = oracle.sample(members, g, (1, 1, 1))
    noised = [
        oracle.schedule.add_noise(x, s, torch.randn(x.shape, generator=g, dtype=F64))
        for x, s in zip(frames, levels, strict=True)
    ]
    posterior = oracle.level_posterior(*noised)
    truth = torch.zeros_like(posterior)
    truth[torch.arange(members), levels[0], levels[1]] = 1
    # For any function of the levels, truth minus posterior mean averages to zero: here the classes and a weighted sum.
    surprise = truth - posterior
    weighted = (surprise * posterior).sum((1, 2))
    assert weighted.mean().abs() < 4 * weighted.std() / members**0.5
    assert (surprise.mean(0).abs() < 4 * surprise.std(0) / members**0.5).all()
    # The heads of a perfect network are the marginals, previous frame first. They beat chance.
    for side, marginal in enumerate((posterior.sum(2), posterior.sum(1))):
        probability = marginal[torch.arange(members), levels[side]]
        assert probability.mean() > 0.25 + 10 * probability.std() / members**0.5
