"""Methods around the exact denoiser of a Gaussian process keep its laws, and shrink drifts by a known factor.

The tests need no file and no trained network: they compose every method from parts, and expect closed forms.
"""

import pytest
import torch

from sns_core.diffusion import GaussianOracle, LevelReadout, NoiseSchedule, Sampler
from sns_core.methods import (
    ACDM,
    BlindLevels,
    EstimatedLevels,
    Generation,
    Refinement,
    Surrogate,
    Thermalizer,
    WalkBack,
)
from sns_core.theory.compute import field_process

MEMBERS = 1500
SCHEDULE = NoiseSchedule.cosine(100)
TRANSITION = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.8, 0.2], [-0.1, 0.0, 0.6]], dtype=torch.float64)
INNOVATION = torch.diag(torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64))
# Second order: with first-order steps the discretisation of 100 levels would be larger than the sampling error.
HEUN = Sampler(eta=0.0, order=2)
TOLERANCE = 0.09  # as a share of the largest variance: 2.5 standard errors of a covariance of 1500 members


@pytest.fixture(scope="module")
def oracle():
    return GaussianOracle(TRANSITION, INNOVATION, SCHEDULE)


@pytest.fixture(scope="module")
def pairs(oracle):
    return oracle.sample(MEMBERS, torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def streams():
    return [torch.Generator().manual_seed(seed) for seed in range(MEMBERS)]


def step(method, states, streams):
    """Run one step of a method from states (B, d). Return the frame and the record."""
    carry, record = method.step(method.start(states), streams)
    return method.frame(carry), record


def covariance(left, right):
    return left.mT @ right / len(left)


def assert_law(x_prev, x_next, oracle):
    """Check that the pair has the stationary law of the process."""
    d, largest = oracle.size, oracle.covariance.max()
    errors = {
        "variance": covariance(x_next, x_next) - oracle.covariance[d:, d:],
        "correlation": covariance(x_prev, x_next) - oracle.covariance[:d, d:],
    }
    for name, error in errors.items():
        assert error.abs().max() < TOLERANCE * largest, name


def exact_surrogate(oracle, streams):
    """Return a surrogate that draws from p(x_t | x_{t-1})."""
    factor = torch.linalg.cholesky(oracle.innovation)

    def draw(x):
        noise = torch.stack([torch.randn(oracle.size, generator=g, dtype=torch.float64) for g in streams])
        return x @ oracle.transition.mT + noise @ factor.mT

    return draw


def test_generation_from_a_clean_frame_draws_from_the_transition_law(oracle, pairs, streams):
    method = Generation(oracle, SCHEDULE, levels=EstimatedLevels(condition_level=0), walk=WalkBack("clean", 2, HEUN))
    frame, record = step(method, pairs[0], streams)
    assert_law(pairs[0], frame, oracle)
    assert record.levels.unique(dim=0).tolist() == [[0, 100]] and (record.calls >= 50).all()


def test_refinement_beside_a_clean_frame_keeps_the_law_of_the_pair(oracle, pairs, streams):
    levels = BlindLevels(level=40, condition_level=0)
    method = Refinement(
        exact_surrogate(oracle, streams), oracle, SCHEDULE, levels=levels, walk=WalkBack("fixed_condition", 1, HEUN)
    )
    frame, record = step(method, pairs[0], streams)
    assert_law(pairs[0], frame, oracle)
    assert record.levels.unique().tolist() == [40]


@pytest.mark.parametrize("path", ["left_then_down", "down_then_left", "diagonal"])
def test_refinement_of_both_frames_keeps_the_law_of_the_new_one(oracle, pairs, streams, path):
    method = Refinement(
        exact_surrogate(oracle, streams), oracle, SCHEDULE, levels=BlindLevels(level=30), walk=WalkBack(path, 1, HEUN)
    )
    frame, _ = step(method, pairs[0], streams)
    error = covariance(frame, frame) - oracle.stationary
    assert error.abs().max() < TOLERANCE * oracle.stationary.max()


@pytest.mark.parametrize("sampler", ["ancestral", "probability flow"])
@pytest.mark.parametrize("kind", ["refinement", "thermalizer"])
def test_a_drift_of_the_new_frame_shrinks_by_the_factor_that_theory_gives(oracle, pairs, streams, kind, sampler):
    """Let y = a (x + b) + sigma eps, and P the covariance of x under the denoiser's condition.

    A draw from p(x | y) moves with b by F = a^2 P (a^2 P + sigma^2)^-1. The probability flow moves by the root of F: it
    makes half of the displacement where that is small.
    """
    level, drift = 45, torch.tensor([1.0, -2.0, 1.5], dtype=torch.float64)
    make, path, rule, variance = {
        "refinement": (Refinement, "fixed_condition", BlindLevels(level=level, condition_level=0), oracle.innovation),
        "thermalizer": (Thermalizer, "unconditional", BlindLevels(level=level), oracle.stationary),
    }[kind]
    walk = WalkBack(path, 1, Sampler() if sampler == "ancestral" else HEUN)
    moved = []
    for shift in (torch.zeros(3, dtype=torch.float64), drift):
        for generator, seed in zip(streams, range(MEMBERS), strict=True):
            generator.manual_seed(seed)  # the same noise for both, so that the difference is the drift's alone
        method = make(lambda x, shift=shift: pairs[1] + shift, oracle, SCHEDULE, walk=walk, levels=rule)
        moved.append(step(method, pairs[0], streams)[0])
    a2, identity = float(SCHEDULE.alpha_bar[level]), torch.eye(3, dtype=torch.float64)
    factor = a2 * variance @ torch.linalg.inv(a2 * variance + (1 - a2) * identity)
    if sampler != "ancestral":
        values, vectors = torch.linalg.eigh((factor + factor.mT) / 2)
        factor = vectors @ values.sqrt().diag() @ vectors.mT
    torch.testing.assert_close((moved[1] - moved[0]).mean(0), factor @ drift, rtol=0.04, atol=0.03)


def test_the_thermalizer_keeps_the_law_of_a_frame_and_forgets_the_previous_one(oracle, pairs, streams):
    method = Thermalizer(
        exact_surrogate(oracle, streams), oracle, SCHEDULE, levels=BlindLevels(level=100), walk=WalkBack("unconditional", 1, HEUN)
    )  # fmt: skip
    frame, _ = step(method, pairs[0], streams)
    largest = oracle.stationary.max()
    assert (covariance(frame, frame) - oracle.stationary).abs().max() < TOLERANCE * largest
    assert covariance(pairs[0], frame).abs().max() < TOLERANCE * largest, (
        "level S is pure noise, so the frame is independent of the previous frame"
    )


def test_acdm_has_the_law_that_its_steps_add_up_to(oracle, pairs, streams):
    """ACDM sees its condition through fresh noise at every level, so it does not reach the transition law. The law that
    it does reach follows from its linear steps."""
    frame, _ = step(ACDM(oracle, SCHEDULE, walk=WalkBack("acdm", 5)), pairs[0], streams)
    d = oracle.size
    law = torch.block_diag(oracle.stationary, torch.eye(d, dtype=torch.float64))  # of (x_prev clean, x_next noised)
    for level in range(100, 0, -5):
        start, end = torch.tensor([level]), torch.tensor([level - 5])
        signal, sigma = float(SCHEDULE.signal(start)), float(SCHEDULE.sigma(start))
        of_x, of_noise, fresh = (float(c) for c in SCHEDULE.reverse_coefficients(start, end))
        # The linear prediction of the noise of x_next from the pair.
        predict = sigma * torch.linalg.inv(oracle.noised_covariance(start, start)[0])[d:]
        of_prev, of_next = (
            of_noise * predict[:, :d],
            of_x * torch.eye(d, dtype=torch.float64) + of_noise * predict[:, d:],
        )
        move = torch.cat([torch.cat([torch.eye(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)], 1),
                          torch.cat([signal * of_prev, of_next], 1)])  # fmt: skip
        law = move @ law @ move.mT
        law[d:, d:] += sigma**2 * of_prev @ of_prev.mT + fresh**2 * torch.eye(d, dtype=torch.float64)
    assert (covariance(frame, frame) - law[d:, d:]).abs().max() < TOLERANCE * law.max()
    assert (covariance(pairs[0], frame) - law[:d, d:]).abs().max() < TOLERANCE * law.max()
    exact = oracle.covariance[:d, d:]
    assert law[:d, d:].diagonal().sum() < 0.98 * exact.diagonal().sum(), "ACDM remembers less than the process does"


def test_acdm_forgets_by_a_formula_however_many_levels_it_has():
    """With the exact denoiser, a mode of correlation r keeps (1 - c) / r of the last frame instead of r, c^2 = 1 - r^2.

    A run of such steps ends at c (1 + c) artanh(r) / (2 r) of the variance of the process: nearly all of it where frames
    are nearly independent, a fifth where r = 0.99.
    """
    correlation = torch.tensor([0.3, 0.9, 0.99], dtype=torch.float64)
    process = GaussianOracle(torch.diag(correlation), torch.diag(1 - correlation**2), NoiseSchedule.cosine(200))
    method = ACDM(process, process.schedule, walk=WalkBack("acdm", 1))
    streams = [torch.Generator().manual_seed(seed) for seed in [*range(MEMBERS), 0]]
    # All members start from a frame of zeros but the last one, which has the noise of the first.
    start = torch.zeros(MEMBERS + 1, 3, dtype=torch.float64)
    start[-1] = 1
    frame, _ = step(method, start, streams)
    memory, variance, c = frame[-1] - frame[0], frame[:-1].var(0), (1 - correlation**2).sqrt()
    torch.testing.assert_close(memory, (1 - c) / correlation, rtol=0.01, atol=0)
    end = c * (1 + c) * torch.atanh(correlation) / (2 * correlation)
    torch.testing.assert_close(variance / (1 - memory**2), end, rtol=0.1, atol=0)
    torch.testing.assert_close(end, torch.tensor([0.96, 0.51, 0.22], dtype=torch.float64), rtol=0.03, atol=0)


def test_levels_are_estimated_where_pairs_were_noised():
    oracle = field_process(8, NoiseSchedule.cosine(12))
    x_prev, x_next = oracle.sample(24, torch.Generator().manual_seed(2), (1, 8, 8))
    noise = torch.randn(2, *x_prev.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    s_prev, s_next = torch.full((24,), 2), torch.full((24,), 7)
    noised = oracle.schedule.add_noise(x_prev, s_prev, noise[0]), oracle.schedule.add_noise(x_next, s_next, noise[1])
    rule = EstimatedLevels(readout=LevelReadout("mean"))
    levels = rule.of_pair(lambda: oracle.level_logits(*noised), [None] * 24, None)
    assert levels.double().mean(0).tolist() == pytest.approx([2, 7], abs=0.4)
    assert EstimatedLevels(shared=True, max_level=5).walk_start(levels).unique().tolist() == [5]
    assert EstimatedLevels(max_level=0).walk_start(levels).unique().tolist() == [0], "0 is a bound, and None is none"


def test_true_pairs_are_left_alone_and_noised_ones_are_refined():
    oracle = field_process(8, NoiseSchedule.cosine(12))
    x_prev, x_next = oracle.sample(24, torch.Generator().manual_seed(4), (1, 8, 8))
    noise = torch.randn(x_next.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    noisy = oracle.schedule.add_noise(x_next, torch.full((24,), 6), noise)
    streams = [torch.Generator().manual_seed(seed) for seed in range(24)]
    rule, walk = EstimatedLevels(readout=LevelReadout("mean")), WalkBack("left_then_down")
    errors = {}
    for name, candidate in {"true": x_next, "noised": noisy}.items():
        method = Refinement(
            lambda x, candidate=candidate: candidate, oracle, oracle.schedule, levels=rule, walk=walk, renoise=False
        )
        frame, record = step(method, x_prev, streams)
        errors[name] = float((frame - x_next).square().mean().sqrt()), record
    assert float((errors["true"][1].levels[:, 1] == 0).double().mean()) > 0.8
    assert errors["true"][0] < 0.05
    assert errors["noised"][0] < 0.5 * float((noisy - x_next).square().mean().sqrt())


def test_a_function_of_frames_is_a_surrogate():
    method = Surrogate(lambda x: 0.5 * x)
    frame, record = step(method, torch.ones(2, 3), [None, None])
    assert (
        frame.tolist() == [[0.5] * 3] * 2
        and record.calls.tolist() == [0, 0]
        and record.levels.unique().tolist() == [-1]
    )
