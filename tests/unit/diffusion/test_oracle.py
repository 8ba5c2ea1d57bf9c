"""The exact oracle of a Gaussian process equals closed forms with another derivation."""

import pytest
import torch
from oracles import (
    CORNERS,
    F64,
    INNOVATION,
    TRANSITION,
    covariance_blocks,
    levels_of,
    noised_pairs,
    oracle_3d,
    schedule_of,
    stationary_by_series,
)

from sns_core.diffusion import GaussianOracle
from sns_core.streams import generator


def test_the_stationary_covariance_solves_the_lyapunov_equation():
    oracle = oracle_3d(5)
    sigma = oracle.stationary
    torch.testing.assert_close(TRANSITION @ sigma @ TRANSITION.T + INNOVATION, sigma, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sigma, stationary_by_series(TRANSITION, INNOVATION), rtol=1e-12, atol=1e-12)
    # E[x_t x_{t-1}^T] = A Sigma stands in the lower left block: previous frame first.
    torch.testing.assert_close(oracle.covariance[3:, :3], TRANSITION @ sigma)
    torch.testing.assert_close(oracle.covariance, oracle.covariance.T)
    assert torch.equal(oracle.covariance[3:, 3:], oracle.covariance[:3, :3])


def test_sampled_pairs_obey_the_transition():
    oracle, members = oracle_3d(5), 20_000
    x_prev, x_next = oracle.sample(members, generator("test", "sample"), (1, 1, 3))
    assert x_prev.shape == x_next.shape == (members, 1, 1, 3)
    x_prev, x_next = x_prev.reshape(members, 3), x_next.reshape(members, 3)
    rest = x_next - x_prev @ TRANSITION.T
    # Standard errors of covariances of unit size are 1 / sqrt(20,000) = 0.007.
    torch.testing.assert_close(rest.T @ rest / members, INNOVATION, rtol=0, atol=0.03)
    torch.testing.assert_close(rest.T @ x_prev / members, torch.zeros(3, 3, dtype=F64), rtol=0, atol=0.03)
    torch.testing.assert_close(x_prev.T @ x_prev / members, oracle.stationary, rtol=0, atol=0.06)


@pytest.mark.parametrize(
    ("transition", "innovation", "reason"),
    [
        (torch.eye(2), torch.eye(2), "not stationary"),
        (torch.tensor([[0.0, 2.0], [-2.0, 0.0]]), torch.eye(2), "not stationary"),
        (torch.zeros(2, 3), torch.eye(2), "square"),
        (torch.zeros(2, 2), torch.eye(3), "square"),
    ],
)
def test_processes_without_a_stationary_law_are_refused(transition, innovation, reason):
    with pytest.raises(ValueError, match=reason):
        GaussianOracle(transition, innovation, schedule_of(4))


def test_the_clean_estimate_is_the_conditional_mean_in_information_form():
    oracle = oracle_3d(10)
    corners = [(s2, s1) for s2, s1 in CORNERS if s2 and s1]
    x_prev, x_next, s_prev, s_next = noised_pairs(oracle, corners)
    estimate = torch.cat([x.reshape(-1, 3) for x in oracle.clean_estimate(x_prev, x_next, s_prev, s_next)], 1)
    # From the Markov chain: precision of (x_{t-1}, x_t) = stationary prior + transition + two observations.
    prior = torch.linalg.inv(stationary_by_series(TRANSITION, INNOVATION))
    inner = torch.linalg.inv(INNOVATION)
    pair_precision = torch.zeros(6, 6, dtype=F64)
    pair_precision[:3, :3] = prior + TRANSITION.T @ inner @ TRANSITION
    pair_precision[:3, 3:] = -TRANSITION.T @ inner
    pair_precision[3:, :3] = -inner @ TRANSITION
    pair_precision[3:, 3:] = inner
    for row, corner in enumerate(corners):
        a = torch.tensor([oracle.schedule.alpha_bar[s].item() for s in corner], dtype=F64).repeat_interleave(3)
        y = torch.cat([x_prev[row].flatten(), x_next[row].flatten()])
        expected = torch.linalg.solve(pair_precision + torch.diag(a / (1 - a)), a.sqrt() / (1 - a) * y)
        torch.testing.assert_close(estimate[row], expected, rtol=1e-9, atol=1e-10)


def test_the_clean_estimate_at_level_zero_is_the_frame_itself():
    oracle = oracle_3d(10)
    x_prev, x_next, s_prev, s_next = noised_pairs(oracle, [(0, 6), (6, 0), (0, 0)])
    prev, nxt = oracle.clean_estimate(x_prev, x_next, s_prev, s_next)
    assert prev.shape == x_prev.shape
    torch.testing.assert_close(prev[[0, 2]], x_prev[[0, 2]], rtol=0, atol=1e-12)
    torch.testing.assert_close(nxt[[1, 2]], x_next[[1, 2]], rtol=0, atol=1e-12)
    # With a clean previous frame, the estimate at the top level is A x_{t-1}, because alpha_bar is 2e-5 at that level.
    top = torch.zeros(1, dtype=torch.int64), levels_of(10)
    _, nxt = oracle.clean_estimate(x_prev[:1], torch.zeros_like(x_next[:1]), *top)
    torch.testing.assert_close(nxt.flatten(), TRANSITION @ x_prev[0].flatten(), rtol=1e-3, atol=1e-3)


def test_the_clean_estimate_minimises_the_squared_error_over_linear_maps():
    oracle, members = oracle_3d(10), 40_000
    g = generator("test", "regression")
    x_prev, x_next = oracle.sample(members, g)
    s_prev, s_next = torch.full((members,), 4), torch.full((members,), 7)
    y = torch.cat(
        [oracle.schedule.add_noise(x, s, torch.randn(x.shape, generator=g, dtype=F64))
         for x, s in ((x_prev, s_prev), (x_next, s_next))], 1,
    )  # fmt: skip
    fitted = torch.linalg.lstsq(y, torch.cat([x_prev, x_next], 1)).solution
    basis = torch.eye(6, dtype=F64)
    exact = torch.cat(oracle.clean_estimate(basis[:, :3], basis[:, 3:], s_prev[:6], s_next[:6]), 1)
    # Standard error of a coefficient: residual over noised deviation, both about 1, over sqrt(members) = 0.005.
    torch.testing.assert_close(fitted, exact, rtol=0, atol=0.03)
    assert (exact[:3, 3:] - exact[3:, :3]).abs().max() > 0.1  # so this test would notice a swapped frame


def test_predicted_noise_and_clean_estimate_are_the_two_halves_of_tweedie():
    oracle = oracle_3d(10)
    x_prev, x_next, s_prev, s_next = noised_pairs(oracle)
    noises = oracle(x_prev, x_next, s_prev, s_next)
    cleans = oracle.clean_estimate(x_prev, x_next, s_prev, s_next)
    for x, noise, clean, level in zip((x_prev, x_next), noises, cleans, (s_prev, s_next), strict=True):
        assert noise.shape == x.shape
        torch.testing.assert_close(oracle.schedule.add_noise(clean, level, noise), x, rtol=0, atol=1e-11)
        assert (noise[level == 0] == 0).all()


def test_the_noised_covariance_is_that_of_the_blocks():
    oracle = oracle_3d(10)
    for s_prev, s_next in CORNERS:
        first, cross, last = covariance_blocks(oracle, s_prev, s_next)
        expected = torch.cat([torch.cat([first, cross.T], 1), torch.cat([cross, last], 1)])
        torch.testing.assert_close(oracle.noised_covariance(levels_of(s_prev), levels_of(s_next))[0], expected)


def test_the_score_is_the_gradient_of_the_log_density_jointly_and_conditionally():
    """Corollary 3.4: the halves of the joint score are the conditional scores."""

    def log_normal(x, mean, covariance):
        return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)

    oracle = oracle_3d(10)
    x_prev, x_next, s_prev, s_next = noised_pairs(oracle)
    scores = oracle.score(x_prev, x_next, s_prev, s_next)
    for row, corner in enumerate(CORNERS):
        first, cross, last = covariance_blocks(oracle, *corner)
        prev, nxt = (x[row].flatten().clone().requires_grad_() for x in (x_prev, x_next))
        next_gain, prev_gain = cross @ torch.linalg.inv(first), cross.T @ torch.linalg.inv(last)
        next_given_prev = log_normal(nxt, next_gain @ prev, last - next_gain @ cross.T)
        prev_given_next = log_normal(prev, prev_gain @ nxt, first - prev_gain @ cross)
        joint = log_normal(prev, torch.zeros(3, dtype=F64), first) + next_given_prev
        exact = dict(rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(
            scores[row], torch.cat(torch.autograd.grad(joint, (prev, nxt), retain_graph=True)), **exact
        )
        torch.testing.assert_close(scores[row, 3:], torch.autograd.grad(next_given_prev, nxt)[0], **exact)
        torch.testing.assert_close(scores[row, :3], torch.autograd.grad(prev_given_next, prev)[0], **exact)
