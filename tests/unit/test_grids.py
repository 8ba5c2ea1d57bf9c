"""Grids that are no squares: shells, colours, filters and networks on them."""

import numpy as np
import pytest
import torch

from sns_core.diffusion.amplitude import amplitude_scores, octaves
from sns_core.diffusion.colour import NoiseColour
from sns_core.diffusion.schedule import NoiseSchedule
from sns_core.grids import grid_of, grid_shape, longer_side
from sns_core.methods.balanced import scale_shells
from sns_core.methods.relaxed_spectrum import RelaxedSpectrum
from sns_core.networks.unet import PeriodicUNet
from sns_core.shells import mode_weight, shell_index, shell_power

GRID = (8, 24)


def white(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, *GRID, generator=torch.Generator().manual_seed(4))


def test_a_grid_is_a_number_or_two():
    assert grid_of((5, 8, 8)) == 8 and grid_of((5, *GRID)) == [8, 24]
    assert grid_shape(8) == (8, 8) and grid_shape([8, 24]) == GRID and longer_side([8, 24]) == 24


def test_the_shells_of_a_rectangle_are_those_of_the_same_waves_on_a_square():
    square, rectangle = shell_index(24), shell_index(GRID)
    # The rectangle is a third as high, so its waves along y are every third one of the square.
    rows = np.rint(np.fft.fftfreq(8, 1 / 24)).astype(int)
    np.testing.assert_array_equal(rectangle[:4], square[rows[:4]])
    assert mode_weight(GRID).sum() == 8 * 24
    assert set(range(rectangle.max() + 1)) == set(rectangle.ravel())  # no shell is empty


def test_white_noise_has_the_same_power_in_all_shells():
    frames = np.random.default_rng(1).standard_normal((64, 4, 1, *GRID))
    np.testing.assert_allclose(shell_power(frames)[0] / 256, 1.0, atol=0.25)


def test_a_colour_whitens_and_comes_back():
    amplitude = 1.0 / (1 + np.arange(shell_index(GRID).max() + 1.0))[None]
    colour, frames = NoiseColour(1.0, amplitude, GRID), white(3, 1)
    torch.testing.assert_close(colour.unwhiten(colour.whiten(frames)), frames, atol=1e-4, rtol=1e-4)


def test_shells_are_scaled_and_relaxed():
    frames, shells = white(3, 2), shell_index(GRID).max() + 1
    factor = torch.ones(2, shells, dtype=torch.float64)
    factor[1, 1:] = 0
    scaled = scale_shells(frames, factor)
    torch.testing.assert_close(scaled[:, 0], frames[:, 0])
    torch.testing.assert_close(scaled[:, 1], frames[:, 1].mean((-2, -1), keepdim=True).expand_as(frames[:, 1]))
    power = torch.full((2, shells), 4.0, dtype=torch.float64)
    relaxed = RelaxedSpectrum(None, power, rate=1.0).relax(frames)
    np.testing.assert_allclose(shell_power(relaxed[:, None].numpy()) / 3, power, rtol=1e-4)


def test_the_scores_of_amplitudes_are_zero_on_average():
    assert octaves(GRID) == [(1, 1), (2, 3), (4, 7), (8, 11)]
    schedule, level, frames = NoiseSchedule.build("cosine", 10), torch.full((256,), 5), [white(256, 1), -white(256, 1)]
    noise = [torch.randn(256, 1, *GRID, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    noised = tuple(schedule.add_noise(x, level, eps) for x, eps in zip(frames, noise, strict=True))
    # The score of a standard normal law is minus its argument, and no noise changes that.
    predicted = tuple(schedule.sigma(level)[:, None, None, None].float() * y for y in noised)
    scores = amplitude_scores(noised, predicted, (level, level), schedule, octaves(GRID))
    error = scores.std(0) / 256**0.5
    assert (scores.mean(0).abs() < 5 * error).all()


@pytest.mark.parametrize("head_features", ["bottleneck_grid", "bottleneck", "encoder"])
def test_a_network_halves_rectangles_and_estimates_levels(head_features):
    torch.manual_seed(0)
    network = PeriodicUNet(
        channels=2, frames_in=2, frames_out=2, width=4, multipliers=(1, 2), blocks=1, attention=False, levels=5,
        head_features=head_features, head_width=8, resolution=GRID,
    )  # fmt: skip
    frames = white(3, 2, 2)
    fields, logits = network(frames)
    assert fields.shape == frames.shape and logits.shape == (3, 2, 6)
    with pytest.raises(ValueError, match="cannot halve"):
        network.check_resolution((8, 23))
