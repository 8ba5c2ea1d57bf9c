"""Signed amplitudes from the score: exact means, sign and size, and Stein's identity for a law that is not Gaussian."""

import numpy as np
import pytest
import torch
from oracles import F64, schedule_of

from sns_core.diffusion import GaussianOracle, amplitude_scores, octaves
from sns_core.shells import filtered, mode_weight, shell_index
from sns_core.streams import generator

N, MEMBERS, LEVEL = 8, 2000, 15
SCHEDULE = schedule_of(100)
PARTS = octaves(N)


def mask(shells) -> torch.Tensor:
    index = torch.from_numpy(shell_index(N))
    return (index >= shells[0]) & (index <= shells[1])


def projector(shells) -> torch.Tensor:
    """The matrix (N * N, N * N) that keeps the modes of some shells."""
    basis = torch.eye(N * N, dtype=F64).reshape(-1, 1, N, N)
    return filtered(basis, mask(shells).to(F64)).reshape(-1, N * N)


@pytest.fixture(scope="module")
def oracle() -> GaussianOracle:
    """A process whose modes have their own power and their own memory."""
    shells = torch.from_numpy(shell_index(N)).to(F64)
    basis = torch.eye(N * N, dtype=F64).reshape(-1, 1, N, N)
    memory, power = 0.98 - 0.1 * shells, 1 / (1 + shells) ** 2
    transition = filtered(basis, memory).reshape(-1, N * N)
    innovation = filtered(basis, power * (1 - memory**2)).reshape(-1, N * N)
    return GaussianOracle(transition.mT, innovation, SCHEDULE)


def noised(frames, stream):
    level = torch.full((len(frames[0]),), LEVEL)
    noise = [torch.randn(x.shape, generator=stream, dtype=F64) for x in frames]
    return [SCHEDULE.add_noise(x, level, eps) for x, eps in zip(frames, noise, strict=True)], level


def scores_of(oracle, frames, stream) -> torch.Tensor:
    """T_b (B, parts) of clean pairs that are noised here."""
    pair, level = noised(frames, stream)
    covariance = oracle.noised_covariance(level[:1], level[:1])[0]
    flat = torch.cat([x.reshape(len(x), -1) for x in pair], 1)
    noise = (
        SCHEDULE.sigma(level[:1]) * torch.linalg.solve(covariance, flat.mT).mT
    )  # as the oracle, for all members at once
    halves = [half.reshape(pair[0].shape) for half in noise.split(N * N, 1)]
    return amplitude_scores(pair, halves, (level, level), SCHEDULE, PARTS)


def test_octaves_end_before_the_nyquist_shell():
    assert (
        octaves(32) == [(1, 1), (2, 3), (4, 7), (8, 15)]
        and octaves(48)[-1] == (16, 23)
        and octaves(8) == [(1, 1), (2, 3)]
    )


def test_true_pairs_have_mean_zero_and_the_variance_of_a_gaussian(oracle):
    stream = generator("test", "true")
    values = scores_of(oracle, oracle.sample(MEMBERS, stream, (1, N, N)), stream)
    modes = torch.tensor(
        [2 * float((mask(part) * torch.from_numpy(mode_weight(N))).sum()) for part in PARTS], dtype=F64
    )
    # <y, s>_b is minus a sum of n_b squares of standard normal numbers.
    assert (values.mean(0).abs() < 4 * (2 * modes / MEMBERS).sqrt()).all()
    torch.testing.assert_close(values.var(0), 2 * modes, rtol=0.12, atol=0)


@pytest.mark.parametrize("factor", [0.8, 1.2])
@pytest.mark.parametrize("drifting", [0, 1])
def test_a_drift_has_its_sign_and_its_size_in_its_own_shells_alone(oracle, drifting, factor):
    stream, drifted_shells = generator("test", "drift"), PARTS[drifting]
    scale = 1 + (factor - 1) * mask(drifted_shells).to(F64)
    frames = [filtered(x, scale) for x in oracle.sample(MEMBERS, stream, (1, N, N))]
    values = scores_of(oracle, frames, stream)
    level = torch.tensor([LEVEL])
    noise = torch.eye(2 * N * N, dtype=F64) * (1 - SCHEDULE.alpha_bar[LEVEL])
    raised = torch.eye(N * N, dtype=F64) + (factor - 1) * projector(drifted_shells)
    drift = torch.block_diag(raised, raised)
    covariance = oracle.noised_covariance(level, level)[0]
    drifted = drift @ (covariance - noise) @ drift.mT + noise
    for index, part in enumerate(PARTS):
        both = torch.block_diag(*[projector(part)] * 2)
        exact = torch.trace(both @ torch.linalg.solve(covariance, drifted)) - both.trace()
        error = values[:, index].std() / MEMBERS**0.5
        assert abs(values[:, index].mean() - exact) < 4 * error
        if index == drifting:
            assert exact.sign() == np.sign(factor - 1) and exact.abs() > 10 * error
        else:
            assert exact.abs() < 1e-8


def test_it_is_the_slope_of_the_log_likelihood_in_the_logarithm_of_an_amplitude(oracle):
    stream = generator("test", "slope")
    (prev, nxt), level = noised(oracle.sample(3, stream, (1, N, N)), stream)
    law = torch.distributions.MultivariateNormal(
        torch.zeros(2 * N * N, dtype=F64), oracle.noised_covariance(level, level)[0]
    )
    values = amplitude_scores((prev, nxt), oracle(prev, nxt, level, level), (level, level), SCHEDULE, PARTS)
    for index, part in enumerate(PARTS):
        gain = torch.zeros((), dtype=F64, requires_grad=True)
        modes = 2 * float((mask(part) * torch.from_numpy(mode_weight(N))).sum())

        def log_likelihood(row, gain=gain, part=part, modes=modes):
            pair = [x[row : row + 1] for x in (prev, nxt)]
            back = [x + ((-gain).exp() - 1) * filtered(x, mask(part).to(F64)) for x in pair]
            return law.log_prob(torch.cat([x.reshape(1, -1) for x in back], 1))[0] - modes * gain

        slopes = [torch.autograd.grad(log_likelihood(row), gain)[0] for row in range(3)]
        torch.testing.assert_close(torch.stack(slopes), values[:, index], rtol=1e-9, atol=1e-9)


def test_the_mean_is_zero_for_a_law_that_is_not_gaussian():
    """Frames are one pattern with a random sign; the score of the noised law is a closed form with a tanh."""
    stream = generator("test", "two points")
    pattern = 0.4 * torch.randn(2, 1, N, N, generator=stream, dtype=F64)
    sign = torch.randint(0, 2, (MEMBERS, 1, 1, 1), generator=stream).to(F64) * 2 - 1
    pair, level = noised([sign * pattern[[side]] for side in (0, 1)], stream)
    signal, sigma = SCHEDULE.signal(level[:1]), SCHEDULE.sigma(level[:1])
    overlap = sum((y * pattern[[side]]).sum((1, 2, 3)) for side, y in enumerate(pair)) * signal / sigma**2
    mean = overlap.tanh().view(-1, 1, 1, 1)
    noise = [(y - signal * mean * pattern[[side]]) / sigma for side, y in enumerate(pair)]
    values = amplitude_scores(pair, noise, (level, level), SCHEDULE, PARTS)
    assert (values.mean(0).abs() < 4 * values.std(0) / MEMBERS**0.5).all()


def test_clean_frames_are_refused():
    frame, level = torch.zeros(1, 1, N, N), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="level above 0"):
        amplitude_scores((frame, frame), (frame, frame), (level, level + 1), SCHEDULE, PARTS)
