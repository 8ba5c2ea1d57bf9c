"""Coloured noise: the change of coordinates, the change back, and the spectra and variances on both sides."""

import numpy as np
import pytest
import torch
from oracles import F64, same_bits

from sns_core.diffusion import NoiseColour
from sns_core.streams import generator

GRID = 32


def full_shells(resolution: int = GRID) -> np.ndarray:
    """round(|k|) of each mode of the full spectrum."""
    k = np.fft.fftfreq(resolution, 1 / resolution)
    return np.rint(np.hypot(k[:, None], k[None, :])).astype(int)


def falling_amplitude(channels: int = 2, slope: float = 1.5) -> np.ndarray:
    """(C, K) falling as K^-(slope + c / 2), scaled as the statistics of data with unit variance are."""
    shells = full_shells()
    shell = np.maximum(np.arange(shells.max() + 1.0), 1.0)
    amplitude = np.stack([shell ** -(slope + c / 2) for c in range(channels)])
    mean_square = (amplitude[:, shells] ** 2).mean((1, 2))
    return amplitude / np.sqrt(mean_square)[:, None]


def unit_noise(members: int = 3, channels: int = 2) -> torch.Tensor:
    """Real white fields each of whose orthonormal modes has modulus one exactly: tests need no statistics."""
    white_noise = torch.randn(members, channels, GRID, GRID, generator=generator("test", "colour"), dtype=F64)
    spectrum = torch.fft.fft2(white_noise, norm="ortho")
    return torch.fft.ifft2(spectrum / spectrum.abs(), norm="ortho").real


def fields_with(amplitude: np.ndarray) -> torch.Tensor:
    """Real fields whose orthonormal modes have the given shell amplitudes exactly."""
    spectrum = torch.fft.fft2(unit_noise(channels=len(amplitude)), norm="ortho")
    return torch.fft.ifft2(spectrum * torch.from_numpy(amplitude[:, full_shells()]), norm="ortho").real


def moduli(field: torch.Tensor) -> np.ndarray:
    return torch.fft.fft2(field.double(), norm="ortho").abs().numpy()


# Filters are stored in float32, with a relative error of 6e-8 per mode.
COLOUR_ROUNDING = dict(rtol=1e-6, atol=1e-6)


def test_without_an_exponent_the_coordinates_are_the_field_itself():
    x = fields_with(falling_amplitude())
    for exponent in (0, 0.0, [0.0, 0.0]):
        colour = NoiseColour(exponent, falling_amplitude(), GRID)
        assert same_bits(colour.whiten(x), x) and same_bits(colour.unwhiten(x), x)


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0, [0.25, 1.0], -0.25])
def test_whitening_and_unwhitening_undo_each_other(exponent):
    colour = NoiseColour(exponent, falling_amplitude(), GRID)
    x = fields_with(falling_amplitude())
    assert colour.whiten(x).shape == x.shape
    torch.testing.assert_close(colour.unwhiten(colour.whiten(x)), x, **COLOUR_ROUNDING)
    torch.testing.assert_close(colour.whiten(colour.unwhiten(x)), x, **COLOUR_ROUNDING)
    assert not torch.allclose(colour.whiten(x), x, atol=0.1)


def test_the_coordinates_keep_the_fields_type_and_leading_axes():
    colour = NoiseColour(0.25, falling_amplitude(), GRID)
    x = fields_with(falling_amplitude()).float()
    pair = torch.stack([x, 2 * x], 1)
    z = colour.whiten(pair)
    assert z.dtype == torch.float32 and z.shape == (3, 2, 2, GRID, GRID)
    torch.testing.assert_close(z[:, 1], 2 * colour.whiten(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0, [0.1, 0.7]])
def test_fields_with_the_training_spectrum_have_unit_variance_in_the_coordinates(exponent):
    z = NoiseColour(exponent, falling_amplitude(), GRID).whiten(fields_with(falling_amplitude()))
    variance = z.square().mean((-2, -1))
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=1e-6, atol=0)


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0])
def test_white_noise_in_the_coordinates_has_the_spectrum_to_the_power_of_twice_the_exponent(exponent):
    amplitude = falling_amplitude()
    noise = NoiseColour(exponent, amplitude, GRID).unwhiten(unit_noise())
    shaped = amplitude[:, full_shells()] ** exponent
    # 1 / c, from the full spectrum: the variance of the data after whitening by A^p alone.
    scale = np.sqrt((amplitude[:, full_shells()] ** (2 - 2 * exponent)).mean((1, 2)))[:, None, None]
    np.testing.assert_allclose(moduli(noise), np.broadcast_to(scale * shaped, noise.shape), rtol=1e-5)


def test_full_whitening_leaves_every_mode_equally_strong():
    z = NoiseColour(1.0, falling_amplitude(), GRID).whiten(fields_with(falling_amplitude()))
    np.testing.assert_allclose(moduli(z), 1.0, rtol=1e-5)


def test_exponents_of_channels_act_on_their_own_channel():
    amplitude = falling_amplitude()
    x = fields_with(amplitude)
    z = NoiseColour([0.0, 0.5], amplitude, GRID).whiten(x)
    torch.testing.assert_close(z[:, 0], x[:, 0], **COLOUR_ROUNDING)
    alone = NoiseColour(0.5, amplitude[1:], GRID).whiten(x[:, 1:])
    torch.testing.assert_close(z[:, 1:], alone, **COLOUR_ROUNDING)
    assert not torch.allclose(z[:, 1], x[:, 1], atol=0.1)


def test_coordinates_commute_with_shifts_of_the_field():
    colour = NoiseColour(0.5, falling_amplitude(), GRID)
    x = fields_with(falling_amplitude())
    torch.testing.assert_close(
        colour.whiten(x.roll((5, 9), (-2, -1))), colour.whiten(x).roll((5, 9), (-2, -1)), rtol=1e-10, atol=1e-10
    )


def test_shells_without_signal_stay_finite():
    amplitude = falling_amplitude()
    amplitude[:, [0, 7]] = 0.0
    x = fields_with(amplitude)
    for exponent in (0.25, 1.0):
        colour = NoiseColour(exponent, amplitude, GRID)
        z = colour.whiten(x)
        assert torch.isfinite(z).all() and torch.isfinite(colour.unwhiten(unit_noise())).all()
        torch.testing.assert_close(colour.unwhiten(z), x, **COLOUR_ROUNDING)


@pytest.mark.parametrize("case", ["empty shells", "a steep spectrum"])
def test_weak_shells_do_not_spoil_the_unit_variance(case):
    amplitude = falling_amplitude(slope=1.5 if case == "empty shells" else 4.0)
    if case == "empty shells":
        amplitude[:, [0, 7]] = 0.0
    z = NoiseColour(1.0, amplitude, GRID).whiten(fields_with(amplitude))
    variance = z.square().mean((-2, -1))
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=1e-6, atol=0)


def test_statistics_of_another_grid_or_channel_count_are_refused():
    amplitude = falling_amplitude()
    for wrong in (amplitude[:, :-1], amplitude[0], np.ones((2, GRID))):
        with pytest.raises(ValueError, match=f"{GRID} x {GRID}"):
            NoiseColour(0.25, wrong, GRID)
    with pytest.raises(ValueError):
        NoiseColour(0.25, amplitude, GRID // 2)


def test_more_exponents_than_channels_are_refused():
    with pytest.raises(ValueError):
        NoiseColour([0.1, 0.2, 0.3], falling_amplitude(), GRID)
