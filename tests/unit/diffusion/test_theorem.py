"""Theorem 3.1: the law at (0, 0) does not depend on the path; wrong oracles do not converge to it."""

import functools

import pytest
import torch
from oracles import (
    F64,
    INNOVATION,
    SAMPLERS,
    TO_CLEAN,
    TRANSITION,
    FramesSwapped,
    LevelOff,
    OneLevelOff,
    TimeReversed,
    levels_of,
    oracle_1d,
    oracle_3d,
    schedule_of,
)

from sns_core.diffusion import GaussianOracle, NoiseSchedule, Path, Sampler


@functools.cache
def walked_errors(levels: int, sampler: Sampler, kind: type[GaussianOracle] = GaussianOracle) -> torch.Tensor:
    """Return the largest differences of covariances at (0, 0): paths A, B, C from the clean law; A from B; A from C."""
    truth = oracle_3d(levels)
    oracle = kind(TRANSITION, INNOVATION, truth.schedule)
    s_prev, s_next = round(0.45 * levels), round(0.6 * levels)
    start = truth.noised_covariance(levels_of(s_prev), levels_of(s_next))[0]
    ends = [
        oracle.propagate(getattr(Path, name)(s_prev, s_next), torch.zeros(6, dtype=F64), start, sampler)[1]
        for name in TO_CLEAN
    ]
    pairs = [(end, truth.covariance) for end in ends] + [(ends[0], ends[1]), (ends[0], ends[2])]
    return torch.stack([(x - y).abs().max() for x, y in pairs])


def slopes(levels: list[int], errors: torch.Tensor) -> torch.Tensor:
    """Return the order of convergence of each column of errors (len(levels), columns), by least squares."""
    x = torch.tensor(levels, dtype=F64).log()
    x = x - x.mean()
    return -(x[:, None] * errors.log()).sum(0) / (x**2).sum()


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_all_paths_give_one_law_to_first_order_in_the_number_of_levels(sampler):
    """Theorem 3.1."""
    levels = [80, 160, 320]
    errors = torch.stack([walked_errors(n, sampler) for n in levels])
    order = slopes(levels, errors)
    assert ((order > 0.8) & (order < 1.2)).all(), order
    assert (errors[-1] < 0.05).all()  # the covariance itself is about 1.5


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("wrong", [FramesSwapped, TimeReversed, LevelOff])
def test_a_wrong_oracle_does_not_converge_to_the_clean_law(wrong, sampler):
    coarse, fine = (walked_errors(n, sampler, wrong)[:3].max() for n in (80, 320))
    assert fine > 0.15  # first order would have divided it by four
    assert fine > 0.9 * coarse
    assert walked_errors(320, sampler)[:3].max() < 0.05


@pytest.mark.parametrize(
    ("name", "s_prev"), [("clean", 0.0), ("left_then_down", 0.3), ("left_then_down", 0.6), ("down_then_left", 0.3)]
)
def test_generation_from_pure_noise_reaches_the_joint_law(name, s_prev):
    """From (s2, S), with x_t white and independent of x_{t-1}: clean conditioning for s2 = 0, else SNS generation."""
    errors, levels = [], [80, 160, 320]
    for n in levels:
        oracle = oracle_3d(n)
        start = torch.eye(6, dtype=F64)
        start[:3, :3] = oracle.noised_covariance(levels_of(round(s_prev * n)), levels_of(n))[0, :3, :3]
        path = getattr(Path, name)(round(s_prev * n), n)
        _, end = oracle.propagate(path, torch.zeros(6, dtype=F64), start, Sampler())
        errors.append((end - oracle.covariance).abs().max())
    order = slopes(levels, torch.stack(errors)[:, None])
    assert 0.8 < order < 1.2
    assert errors[-1] < 0.1


def test_holding_the_condition_samples_the_next_frame_given_the_noised_one():
    """Fixed s2, and the unconditional case s2 = S: the pair ends at (s2, 0) with its own joint law."""
    for fraction in (0.3, 1.0):
        errors, levels = [], [80, 160, 320]
        for n in levels:
            oracle, s_prev, s_next = oracle_3d(n), levels_of(round(fraction * n)), levels_of(round(0.6 * n))
            start = oracle.noised_covariance(s_prev, s_next)[0]
            path = Path.fixed_condition(s_prev, s_next)
            _, end = oracle.propagate(path, torch.zeros(6, dtype=F64), start, Sampler())
            errors.append((end - oracle.noised_covariance(s_prev, torch.zeros_like(s_prev))[0]).abs().max())
        assert 0.8 < slopes(levels, torch.stack(errors)[:, None]) < 1.2
        assert errors[-1] < 0.05


def nearly_a_point(kind: type[GaussianOracle], schedule: NoiseSchedule) -> GaussianOracle:
    return kind(0.5 * torch.eye(2, dtype=F64), 1e-14 * torch.eye(2, dtype=F64), schedule)


def white(kind: type[GaussianOracle], schedule: NoiseSchedule) -> GaussianOracle:
    return kind(torch.zeros(2, 2, dtype=F64), torch.eye(2, dtype=F64), schedule)


# A slip of one level in all places vanishes with the number of levels, so slopes cannot see it. Where a sampler is
# exact at every number of levels, it can: each variance choice has such a case.
EXACT_CASES = {
    "ancestral of a point": (nearly_a_point, Sampler()),
    "half ancestral of a point": (nearly_a_point, Sampler(eta=0.5)),
    "deterministic of a point": (nearly_a_point, Sampler(eta=0.0)),
    "forward variance of white data": (white, Sampler(variance="forward")),
}


@pytest.mark.parametrize(("make", "sampler"), EXACT_CASES.values(), ids=EXACT_CASES)
@pytest.mark.parametrize("name", TO_CLEAN)
def test_an_exact_sampler_has_the_law_of_every_level_on_the_path(name, make, sampler):
    def deviation(kind, stride):
        schedule = schedule_of(16)
        truth, oracle = make(GaussianOracle, schedule), make(kind, schedule)
        path = getattr(Path, name)(6, 11, stride)
        mean, covariance = torch.zeros(4, dtype=F64), truth.noised_covariance(*path.levels[0].mT)[0]
        worst = 0.0
        for start, end in zip(path.levels[:-1], path.levels[1:], strict=True):
            # The arrival at level 0 draws no noise, so with the forward variance only the moves before it are exact.
            if sampler.variance == "forward" and (end == 0).any():
                break
            mean, covariance = oracle.propagate(Path(torch.stack([start, end])), mean, covariance, sampler)
            worst = max(worst, (covariance - truth.noised_covariance(*end.mT)[0]).abs().max().item())
        return worst

    assert deviation(GaussianOracle, 1) < 1e-10
    assert deviation(GaussianOracle, 3) < 1e-10
    if make is nearly_a_point:
        assert deviation(OneLevelOff, 1) > 1e-3


def test_ancestral_steps_return_too_small_a_variance_to_first_order():
    """A known property of the steps, not a fault of the path: unit variance, correlation 0.9, from (0.45 S, 0.6 S)."""
    for name in TO_CLEAN:
        missing = []
        for n in (40, 160):
            oracle, s_prev, s_next = oracle_1d(n), levels_of(round(0.45 * n)), levels_of(round(0.6 * n))
            start = oracle.noised_covariance(s_prev, s_next)[0]
            path = getattr(Path, name)(s_prev, s_next)
            missing.append(1 - oracle.propagate(path, torch.zeros(2, dtype=F64), start)[1][1, 1].item())
        assert missing[0] == pytest.approx(0.07, abs=0.01)
        assert missing[1] == pytest.approx(0.02, abs=0.005)


def test_propagation_refuses_walks_that_are_not_linear_or_have_several_members():
    oracle, mean, covariance = oracle_1d(5), torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64)
    for path, sampler in (
        (Path.diagonal(levels_of(1, 2), 2), None),
        (Path.acdm(3, 3), None),
        (Path.diagonal(2, 2), Sampler(clip=3.0)),
    ):
        with pytest.raises(ValueError, match="propagation"):
            oracle.propagate(path, mean, covariance, sampler)
