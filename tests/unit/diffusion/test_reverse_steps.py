"""Reverse steps of a frame, ancestral and deterministic, against the published formulas."""

import math

import pytest
import torch
from oracles import F64, SAMPLERS, levels_of, schedule_of

from sns_core.diffusion import NoiseSchedule


@pytest.mark.parametrize("kind", ["cosine", "linear", "log_spaced"])
def test_ancestral_steps_have_the_mean_and_variance_of_the_ddpm_posterior(kind):
    schedule = NoiseSchedule.build(kind, 25)
    a = schedule.alpha_bar.tolist()
    start = torch.arange(1, 26)
    of_x, of_noise, fresh = schedule.reverse_coefficients(start, start - 1)
    x_s, clean = 0.7, -1.3
    for row, t in enumerate(range(1, 26)):
        # Ho et al. 2020, equations 6 and 7, in terms of the clean value.
        beta = 1 - a[t] / a[t - 1]
        mean = math.sqrt(a[t - 1]) * beta / (1 - a[t]) * clean + math.sqrt(1 - beta) * (1 - a[t - 1]) / (1 - a[t]) * x_s
        variance = (1 - a[t - 1]) / (1 - a[t]) * beta
        noise = (x_s - math.sqrt(a[t]) * clean) / math.sqrt(1 - a[t])
        # The noisiest cosine level divides by sqrt(a), about 2e-3, which costs three digits.
        assert (of_x[row] * x_s + of_noise[row] * noise).item() == pytest.approx(mean, rel=1e-10, abs=1e-10)
        assert (fresh[row] ** 2).item() == pytest.approx(variance, rel=1e-12, abs=1e-15)


def test_an_ancestral_stride_is_the_posterior_given_the_clean_value_by_bayes():
    schedule = schedule_of(30)
    a = schedule.alpha_bar.tolist()
    x_s, clean = 0.7, -1.3
    for s, r in ((30, 22), (17, 3), (9, 1), (5, 4)):
        # x^r | clean is a prior, x^s | x^r a likelihood: precisions add.
        keep = a[s] / a[r]
        precision = 1 / (1 - a[r]) + keep / (1 - keep)
        mean = (math.sqrt(a[r]) * clean / (1 - a[r]) + math.sqrt(keep) * x_s / (1 - keep)) / precision
        noise = (x_s - math.sqrt(a[s]) * clean) / math.sqrt(1 - a[s])
        of_x, of_noise, fresh = schedule.reverse_coefficients(levels_of(s), levels_of(r))
        assert (of_x * x_s + of_noise * noise).item() == pytest.approx(mean, rel=1e-10, abs=1e-10)
        assert (fresh**2).item() == pytest.approx(1 / precision, rel=1e-10)


def test_deterministic_steps_are_ddim_and_add_no_noise():
    schedule = schedule_of(30)
    a = schedule.alpha_bar.tolist()
    x_s, noise = 0.7, -0.4
    for s, r in ((30, 29), (30, 10), (8, 3), (4, 0)):
        clean = (x_s - math.sqrt(1 - a[s]) * noise) / math.sqrt(a[s])
        of_x, of_noise, fresh = schedule.reverse_coefficients(levels_of(s), levels_of(r), eta=0.0)
        expected = math.sqrt(a[r]) * clean + math.sqrt(1 - a[r]) * noise
        assert (of_x * x_s + of_noise * noise).item() == pytest.approx(expected, rel=1e-10)
        assert fresh.item() == 0


def test_two_deterministic_steps_of_a_point_mass_compose_to_one():
    schedule = schedule_of(30)
    clean, noise = 1.7, -0.6  # the noise in x^s of a point mass is known exactly, and is the same at every level

    def step(x, s, r):
        of_x, of_noise, _ = schedule.reverse_coefficients(levels_of(s), levels_of(r), eta=0.0)
        return (of_x * x + of_noise * noise).item()

    x = (schedule.signal(levels_of(28)) * clean + schedule.sigma(levels_of(28)) * noise).item()
    assert step(step(x, 28, 13), 13, 5) == pytest.approx(step(x, 28, 5), rel=1e-12)
    assert step(step(x, 28, 13), 13, 0) == pytest.approx(clean, rel=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_a_reverse_step_of_a_point_mass_keeps_the_law_of_the_level_for_every_eta(eta):
    schedule = schedule_of(12)
    start, stop = (side.flatten() for side in torch.meshgrid(torch.arange(13), torch.arange(13), indexing="ij"))
    start, stop = start[stop < start], stop[stop < start]
    of_x, of_noise, fresh = schedule.reverse_coefficients(start, stop, eta)
    from_noise = of_x * schedule.sigma(start) + of_noise
    torch.testing.assert_close(of_x * schedule.signal(start), schedule.signal(stop), rtol=1e-12, atol=0)
    torch.testing.assert_close(from_noise**2 + fresh**2, schedule.sigma(stop) ** 2, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variance", ["posterior", "forward"])
def test_eta_scales_the_standard_deviation_of_the_fresh_noise(variance):
    start, stop = levels_of(12, 7, 3), levels_of(11, 2, 1)
    fresh = [schedule_of(12).reverse_coefficients(start, stop, eta, variance)[2] for eta in (0.3, 1.0)]
    torch.testing.assert_close(fresh[0], 0.3 * fresh[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_a_step_to_the_same_level_changes_nothing_and_arrival_adds_no_noise(sampler):
    schedule = schedule_of(12)
    every = torch.arange(13)
    of_x, of_noise, fresh = schedule.reverse_coefficients(every, every, sampler.eta, sampler.variance)
    assert (of_x == 1).all() and (of_noise == 0).all() and (fresh == 0).all()
    _, _, fresh = schedule.reverse_coefficients(every, torch.zeros_like(every), sampler.eta, sampler.variance)
    assert (fresh == 0).all()


def test_forward_variance_is_the_noise_of_the_forward_step():
    schedule = schedule_of(12)
    a = schedule.alpha_bar.tolist()
    start, stop = levels_of(12, 7, 3, 3), levels_of(11, 4, 1, 0)
    means = schedule.reverse_coefficients(start, stop)[:2]
    *same_means, fresh = schedule.reverse_coefficients(start, stop, variance="forward")
    assert all(torch.equal(x, y) for x, y in zip(means, same_means, strict=True))
    expected = [1 - a[12] / a[11], 1 - a[7] / a[4], 1 - a[3] / a[1], 0.0]
    torch.testing.assert_close(fresh**2, torch.tensor(expected, dtype=F64), rtol=1e-12, atol=0)


def test_an_unknown_variance_is_refused():
    with pytest.raises(ValueError, match=r"'learned'.*posterior, forward"):
        schedule_of(4).reverse_coefficients(levels_of(2), levels_of(1), variance="learned")
