"""The quantities that a network may predict: noise, velocity, clean frame and residual."""

import pytest
import torch
from oracles import oracle_1d, schedule_of

from sns_core.diffusion import NoiseColour, NoiseSchedule
from sns_core.diffusion.prediction import Prediction, ResidualPrediction, build_prediction
from sns_core.diffusion.schedule import PREDICTIONS
from sns_core.shells import shell_index
from sns_core.streams import generator


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_exact_prediction_gives_back_the_noise(prediction):
    schedule, level = NoiseSchedule.cosine(20), torch.tensor([1, 7, 19, 20])
    x, noise = torch.randn(2, 4, 1, 3, 3, generator=generator("prediction"), dtype=torch.float64)
    noised = schedule.add_noise(x, level, noise)
    output = schedule.target(prediction, x, noise, level)
    assert torch.allclose(schedule.noise_from(prediction, output, noised, level), noise, atol=1e-9)


def test_velocity_is_the_noise_at_level_0_and_minus_the_frame_at_pure_noise():
    schedule = NoiseSchedule(torch.tensor([1.0, 0.5, 1e-12], dtype=torch.float64))
    x, noise = torch.randn(2, 2, 1, 3, 3, generator=generator("velocity"), dtype=torch.float64)
    target = schedule.target("velocity", x, noise, torch.tensor([0, 2]))
    assert torch.equal(target[0], noise[0]) and torch.allclose(target[1], -x[1], atol=1e-5)


def test_a_clean_frame_holds_no_noise_for_a_network_that_predicts_it():
    schedule, level = NoiseSchedule.cosine(4), torch.zeros(2, dtype=torch.int64)
    x = torch.randn(2, 1, 3, 3, generator=generator("clean"))
    assert not schedule.noise_from("clean", x + 1, x, level).any()


def test_unknown_predictions_are_refused():
    schedule, x = NoiseSchedule.cosine(4), torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="unknown prediction 'score'; known: noise, velocity, clean"):
        schedule.target("score", x, x, torch.zeros(1, dtype=torch.int64))


AMPLITUDE, CORRELATION = [[0.0, 3.0, 2.0, 1.0, 0.5, 0.25, 0.1]], [[0.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.6]]


def residual_prediction(levels: int = 20, colour: float = 0.25) -> ResidualPrediction:
    statistics = {"shell_amplitude": AMPLITUDE}
    colour = NoiseColour(colour, AMPLITUDE, 8)
    return build_prediction("residual", schedule_of(levels), colour, statistics, CORRELATION)


def test_without_any_knowledge_beyond_a_linear_estimate_the_residual_is_the_exact_oracle():
    """In white fields of unit variance every pixel is an independent Gaussian pair, so the network that gives 0 is exact."""
    schedule, oracle = schedule_of(20), oracle_1d(20, 0.9)
    white = NoiseColour(0.0, [[1.0] * 7], 8)
    prediction = build_prediction("residual", schedule, white, {"shell_amplitude": [[1.0] * 7]}, [[0.9] * 7])
    levels = torch.tensor([[0, 20], [3, 20], [20, 3], [7, 11], [1, 1], [20, 20]])
    pair = torch.randn(6, 2, 1, 8, 8, generator=generator("pair"))
    predicted = prediction.noise(torch.zeros_like(pair), pair, levels)
    flat = [x.double().reshape(-1, 1, 1, 1) for x in pair.unbind(1)]
    exact = oracle(*flat, *(s.repeat_interleave(64) for s in levels.unbind(1)), None)
    for side in (0, 1):
        noised = levels[:, side] > 0
        assert torch.allclose(predicted[noised, side], exact[side].float().view(6, 1, 8, 8)[noised], atol=2e-4)
        assert not predicted[~noised, side].any()  # a clean frame holds no noise


@pytest.mark.parametrize("colour", [0.0, 0.25])
def test_frames_with_a_mean_have_the_power_of_the_coordinates_in_which_they_are_noised(colour):
    """No mean is subtracted from frames, so those of a flow with a mean have more than unit variance."""
    mean = 4.0
    amplitude = torch.ones(1, int(shell_index(8).max()) + 1)
    amplitude[0, 0] = 8 * mean  # an orthonormal transform of 8 x 8 points
    coordinates = NoiseColour(colour, amplitude, 8)
    flat = torch.full_like(amplitude, 0.9).tolist()
    prediction = build_prediction(
        "residual", schedule_of(20), coordinates, {"shell_amplitude": amplitude.tolist()}, flat
    )
    constant = coordinates.whiten(torch.full((1, 1, 8, 8), mean))
    power = torch.fft.rfft2(constant, norm="ortho").abs().square()[0, 0, 0, 0]
    torch.testing.assert_close(prediction.power[0, 0], power.double(), rtol=1e-5, atol=0)


def test_the_residual_has_unit_variance_in_every_shell_and_no_correlation_with_the_noised_pair():
    prediction, members = residual_prediction(), 4000
    draw = torch.randn(2, members, 1, 8, 8, generator=generator("gaussian"))
    spectrum = torch.fft.rfft2(draw) * prediction.power[:, prediction.shells].sqrt().float()
    rho = prediction.correlation[:, prediction.shells].float()
    clean = torch.fft.irfft2(torch.stack([spectrum[0], rho * spectrum[0] + (1 - rho**2).sqrt() * spectrum[1]], 1))
    noise = torch.randn(clean.shape, generator=generator("noise"))
    for pair in ((0, 20), (2, 15), (9, 9), (20, 1)):
        levels = torch.tensor(pair).expand(members, 2)
        noised = prediction.schedule.add_noise(clean.flatten(0, 1), levels.flatten(), noise.flatten(0, 1)).view_as(
            clean
        )
        target = prediction.target(clean, noised, noise, levels)
        target_modes, noised_modes = torch.fft.rfft2(target, norm="ortho"), torch.fft.rfft2(noised, norm="ortho")
        rows = [side for side in (0, 1) if pair[side]]
        assert (target_modes[:, rows].abs().square().mean((0, 2))[:, 1:].sub(1).abs() < 0.15).all()
        covariance = (target_modes[:, rows, None].conj() * noised_modes[:, None]).mean(0).abs()
        common = covariance / noised_modes.abs().square().mean(0).sqrt()
        assert float(common.max()) < 0.08
        assert torch.allclose(prediction.noise(target, noised, levels)[:, rows], noise[:, rows], atol=2e-3)


def test_the_residual_of_one_frame_does_not_depend_on_another_frame():
    prediction, level = residual_prediction(), torch.tensor([[1], [9], [20]])
    x, noise = torch.randn(2, 3, 1, 1, 8, 8, generator=generator("alone"))
    noised = prediction.schedule.add_noise(x[:, 0], level[:, 0], noise[:, 0])[:, None]
    target = prediction.target(x, noised, noise, level)
    assert target.shape == x.shape
    assert torch.allclose(prediction.noise(target, noised, level), noise, atol=2e-3)


@pytest.mark.parametrize("points", [16, 32])
def test_a_frame_alone_has_the_bits_that_it_has_in_a_batch(points):
    flat = torch.ones(1, int(shell_index(points).max()) + 1).tolist()
    schedule, level = NoiseSchedule.cosine(20), torch.arange(1, 21)[:, None]
    prediction = ResidualPrediction(schedule, NoiseColour(0.0, flat, points), flat, flat)
    output, noised = torch.randn(2, 20, 1, 1, points, points, generator=generator("company"))
    together = prediction.noise(output, noised, level)
    alone = [prediction.noise(output[row : row + 1], noised[row : row + 1], level[row : row + 1]) for row in range(20)]
    assert torch.equal(torch.cat(alone), together)


def test_unknown_kinds_of_prediction_are_refused():
    with pytest.raises(ValueError, match="unknown prediction 'score'; known: noise, velocity, clean, residual"):
        Prediction("score", schedule_of(4))
