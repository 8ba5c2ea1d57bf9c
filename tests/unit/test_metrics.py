"""Spectra that obey Parseval's identity, and temporal measures against travelling waves and sums done by hand."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from sns_core.data.segments import CHUNK
from sns_core.errors import UserError
from sns_core.metrics import kinetic_energy_spectrum, rate_of_change, spectrum_error, temporal_correlation
from sns_core.metrics.distances import BINS, CENTRES, wasserstein
from sns_core.metrics.distributions import component_scales, histogram
from sns_core.metrics.rollout_metrics import spectrum_error_interval, zonal_velocity
from sns_core.metrics.spectra import shell_wavenumbers
from sns_core.metrics.temporal import centred, lagged_correlation, space_time_correlation
from sns_core.metrics.user_metrics import measured_by_user
from sns_core.systems import KolmogorovFlow


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- spectra ---


@pytest.mark.parametrize("length", [2 * math.pi, 1.0, 1e6])
@pytest.mark.parametrize("grid", [(8, 8), (16, 16), (32, 32), (15, 15), (1, 63), (16, 9)])
def test_spectrum_sums_to_the_mean_kinetic_energy(grid, length):
    # White noise fills the mean, the corners and the Nyquist modes, where a weight is easily wrong.
    u, v = noise(3, *grid, seed=1) + 1, noise(3, *grid, seed=2)
    k, energy = kinetic_energy_spectrum(u, v, length)
    total = (energy * (2 * math.pi / length)).sum(1)
    assert torch.allclose(total, (u**2 + v**2).mean((1, 2)) / 2, rtol=1e-13, atol=0)
    assert energy.shape == (3, len(k))


@pytest.mark.parametrize("length", [2 * math.pi, 1e6])
@pytest.mark.parametrize("mode", [(0, 0), (3, 0), (0, 5), (3, 4), (-3, 4), (7, 7), (16, 0), (0, 16), (16, 16)])
def test_a_single_mode_lands_in_its_shell_with_its_energy(mode, length):
    x = torch.arange(32, dtype=torch.float64) * 2 * math.pi / 32
    u = 2 * torch.cos(mode[0] * x[:, None] + mode[1] * x[None, :])
    k, energy = kinetic_energy_spectrum(u[None], torch.zeros_like(u)[None], length)
    shell, spacing = round(math.hypot(*mode)), 2 * math.pi / length
    expected = torch.zeros(len(k), dtype=torch.float64)
    expected[shell] = (u**2).mean() / 2 / spacing
    assert torch.allclose(energy[0], expected, rtol=1e-12, atol=1e-14 * float(expected.max()))
    assert float(k[shell]) == pytest.approx(shell * spacing)


def test_shell_wavenumbers_are_those_of_the_spectrum():
    k, _ = kinetic_energy_spectrum(noise(1, 16, 16), noise(1, 16, 16), 3.0)
    assert shell_wavenumbers(16, 3.0) == pytest.approx(k.numpy(), rel=1e-14)


def test_axes_between_members_and_space_are_averaged():
    u, v = noise(2, 3, 4, 16, 16, seed=3), noise(2, 3, 4, 16, 16, seed=4)
    _, energy = kinetic_energy_spectrum(u, v)
    _, single = kinetic_energy_spectrum(u.flatten(0, 2), v.flatten(0, 2))
    assert torch.allclose(energy, single.view(2, 12, -1).mean(1), rtol=1e-13)


def test_float32_velocities_give_a_float32_spectrum():
    u, v = noise(1, 16, 16, seed=5), noise(1, 16, 16, seed=6)
    k, energy = kinetic_energy_spectrum(u.float(), v.float())
    assert k.dtype == energy.dtype == torch.float32
    assert torch.allclose(energy.double(), kinetic_energy_spectrum(u, v)[1], rtol=1e-5)


def test_spectrum_error_by_hand():
    reference = np.array([1.0, 1.0, 2.0, 4.0, 8.0])
    energy = np.array([[9e9, 10.0, 0.2, 4.0, 9e9], [9e9, 1.0, 2.0, 0.004, 9e9]])
    # Shells 1 .. 3: a decade above, a decade below, equal; then equal, equal, three decades below.
    assert spectrum_error(energy, reference, (1, 3)) == pytest.approx([2 / 3, 1.0])


def test_spectrum_error_stops_at_the_last_shell():
    reference = np.ones(4)
    energy = np.array([5.0, 10.0, 10.0, 1000.0])
    assert spectrum_error(energy, reference, (1, 15)) == pytest.approx(5 / 3)


def test_the_bootstrap_covers_the_error_and_narrows_with_the_sample():
    rng, reference = np.random.default_rng(0), np.ones(6)
    shells, true = (1, 5), 0.3
    widths, covered = [], 0
    for blocks in (8, 512):
        spectra = 10**true * rng.lognormal(0, 0.5, (4, blocks, 6)) / np.exp(0.125)
        error, low, high = spectrum_error_interval(spectra, reference, shells)
        assert low <= error <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 4
    for _ in range(40):
        spectra = 10**true * rng.lognormal(0, 0.5, (4, 30, 6)) / np.exp(0.125)
        _, low, high = spectrum_error_interval(spectra, reference, shells)
        covered += low <= true <= high
    assert 30 <= covered <= 40  # nine of ten are asked for


def test_blocks_that_remember_each_other_are_drawn_together():
    rng = np.random.default_rng(1)
    repeated = np.repeat(rng.lognormal(0, 0.5, (4, 12, 6)), 10, axis=1)
    alone, together = (spectrum_error_interval(repeated, np.ones(6), (1, 5), n) for n in (1, 10))
    assert together[0] == pytest.approx(alone[0]) and together[2] - together[1] > 1.5 * (alone[2] - alone[1])


def test_a_lost_member_has_no_interval():
    spectra = np.ones((2, 4, 6))
    spectra[1, 2] = np.nan
    assert all(math.isnan(value) for value in spectrum_error_interval(spectra, np.ones(6), (1, 5)))


def test_one_group_of_blocks_or_one_member_of_the_reference_has_no_interval():
    spectra = np.random.default_rng(0).lognormal(0, 0.5, (2, 4, 6))
    exact = spectrum_error_interval(spectra, np.ones(6), (1, 5))
    assert np.isfinite(exact).all()
    for value, low, high in (
        spectrum_error_interval(spectra[:1], np.ones(6), (1, 5), together=4),
        spectrum_error_interval(spectra, np.ones((1, 6)), (1, 5)),
    ):
        assert math.isfinite(value) and math.isnan(low) and math.isnan(high)
    assert value == exact[0]


# --- distributions ---


def test_a_histogram_counts_every_value_once_and_leaves_out_nan():
    values = torch.tensor([[[-0.1, 0.1, 0.1, 99.0, -99.0, float("nan"), float("inf")]]])
    counts = histogram(values)[0, 0]
    assert counts.sum() == 6 and counts[0] == 1 and counts[-1] == 2
    assert counts[BINS // 2 - 1] == 1 and counts[BINS // 2] == 2
    spread = histogram(noise(2, 3, 50_000, seed=7)).double() / 50_000
    exact = np.exp(-(CENTRES**2) / 2) / math.sqrt(2 * math.pi) * (CENTRES[1] - CENTRES[0])
    assert np.abs(spread.numpy() - exact).max() < 5e-3


def test_wasserstein_of_a_shift_and_of_a_stretch():
    values = noise(1, 1, 400_000, seed=8)
    counts = [histogram(v)[0, 0].numpy() for v in (values, values + 0.5, 1.5 * values)]
    assert wasserstein(counts[0], counts[0]) == 0
    assert wasserstein(counts[1], counts[0]) == pytest.approx(0.5, rel=0.01)
    assert wasserstein(counts[2], counts[0]) == pytest.approx(0.5 * math.sqrt(2 / math.pi), rel=0.02)
    assert np.isnan(wasserstein(0 * counts[0], counts[0]))


def test_the_velocity_scale_is_that_of_one_component():
    flow = KolmogorovFlow(resolution=32)
    y = torch.arange(32) * 2 * math.pi / 32
    states = (torch.cos(4 * y)[None, :, None] * torch.ones(1, 32, 32))[:, None].float()
    assert float(component_scales(flow, states, 16)["velocity"][0]) == pytest.approx(0.125, rel=0.05)


# --- temporal coherence ---


def travelling_wave(steps, phase_per_step):
    x = torch.arange(32, dtype=torch.float64) * 2 * math.pi / 32
    phases = torch.arange(steps, dtype=torch.float64) * phase_per_step
    return torch.cos(3 * x[None, :] - phases[:, None])[None, :, None, None, :].expand(1, steps, 1, 32, 32)


def test_correlation_at_no_lag_is_one():
    correlation = temporal_correlation(noise(2, 7, 2, 8, 8))
    assert correlation.shape == (7,)
    assert float(correlation[0]) == pytest.approx(1, abs=1e-14)


def test_correlation_of_a_travelling_wave_is_the_cosine_of_its_phase():
    correlation = temporal_correlation(travelling_wave(12, 0.4), 9)
    assert correlation.numpy() == pytest.approx(np.cos(0.4 * np.arange(10)), abs=1e-13)


def test_correlation_ignores_the_scale_and_mean_of_a_frame():
    frames = noise(2, 6, 2, 8, 8, seed=7)
    scales = (1 + torch.arange(6, dtype=torch.float64)).view(1, 6, 1, 1, 1)
    means = noise(2, 6, 2, 1, 1, seed=8)
    assert torch.allclose(temporal_correlation(frames * scales + means), temporal_correlation(frames), atol=1e-13)


def test_correlation_is_averaged_over_time_and_members():
    frames = noise(2, 4, 1, 8, 8, seed=9)
    pairs = [np.corrcoef(frames[b, t].flatten(), frames[b, t + 2].flatten())[0, 1] for b in range(2) for t in range(2)]
    assert float(temporal_correlation(frames)[2]) == pytest.approx(np.mean(pairs), abs=1e-13)


@pytest.mark.parametrize("part", [1, 3, 7])
def test_streaming_correlation_equals_that_of_the_whole_series(part):
    lags, frames = 4, noise(2, 4 + 21, 1, 8, 8, seed=10)
    unit = centred(frames)
    rows = [
        lagged_correlation(unit[:, start - lags : start], unit[:, start : start + part])
        for start in range(lags, 25, part)
    ]
    streamed = torch.cat(rows, 1)
    assert streamed.shape == (2, 21, lags + 1)
    for lag in range(lags + 1):
        # Lag by lag, the streamed rows are those pairs of the series that end at frame 4 or later.
        expected = temporal_correlation(frames[:, lags - lag :], lag)[lag]
        assert float(streamed[..., lag].mean()) == pytest.approx(float(expected), abs=1e-13)


def test_streaming_correlation_pairs_each_frame_with_those_before_it():
    unit = centred(noise(1, 6, 1, 8, 8, seed=11))
    rows = lagged_correlation(unit[:, :2], unit[:, 2:])
    for t in range(4):
        for lag in range(3):
            expected = unit[0, 2 + t] @ unit[0, 2 + t - lag]
            assert float(rows[0, t, lag]) == pytest.approx(float(expected), abs=1e-14)


@pytest.mark.parametrize("max_lag", [-1, 5, 100])
def test_a_lag_beyond_the_series_is_refused(max_lag):
    with pytest.raises(ValueError, match=f"max_lag {max_lag} .* 0 .. 4"):
        temporal_correlation(noise(1, 5, 1, 4, 4), max_lag)
    with pytest.raises(ValueError, match=f"lags {max_lag} .* 0 .. 4"):
        space_time_correlation(noise(5, 1, 4, 4).numpy(), max_lag)


def test_rate_of_change_by_hand():
    frames = torch.zeros(2, 3, 1, 2, 2)
    frames[0, 1] = 1.0  # member 0 goes 0, 1, -1; member 1 rests but for one pixel at the last step
    frames[0, 2] = -1.0
    frames[1, 2, 0, 0, 0] = 4.0
    # Means of |difference|: (1 + 0) / 2, then (2 + 4 / 4) / 2; over dt = 0.5.
    assert rate_of_change(frames, 0.5).tolist() == [1.0, 3.0]


# --- the mean flow ---


def test_zonal_velocity_is_that_of_a_shear_flow_whatever_rides_on_it():
    flow, n, count = KolmogorovFlow(16), 16, CHUNK + 3  # more frames than are held at a time
    x = torch.arange(n) * 2 * math.pi / n
    speed = torch.linspace(0.5, 1.5, count)
    # u = speed sin(2 y), hence a vorticity of -2 speed cos(2 y), and an eddy without a zonal mean.
    frames = -2 * speed[:, None, None] * torch.cos(2 * x)[:, None] + torch.cos(3 * x)[None, None, :]
    velocity = zonal_velocity(
        xr.DataArray(frames[None, :, None].numpy(), dims=("member", "time", "layer", "y", "x")), flow
    )
    assert velocity.dims == ("member", "time", "layer", "y")
    expected = speed[:, None] * torch.sin(2 * x)
    assert np.allclose(velocity.values[0, :, 0], expected.numpy(), atol=1e-5)


METRICS = """
import torch

def in_place(frames, system):
    frames -= 100
    return frames.mean((-2, -1))

def mean(frames, system):
    return frames.mean((-2, -1))

def half(frames, system):
    return frames.mean((-2, -1)).half()

def learnt(frames, system):
    return (torch.nn.Parameter(torch.ones(1)) * frames).mean((-2, -1))

def listed(frames, system):
    return frames.mean((-2, -1)).tolist()

def nothing(frames, system):
    frames.mean((-2, -1))

def one(frames, system):
    return float(frames.mean())

def complex_numbers(frames, system):
    return torch.fft.fft2(frames)[..., 1, 1]

def failing(frames, system):
    return frames[:, 0] @ torch.ones(3)
"""


def test_a_users_metric_returns_real_numbers_and_leaves_the_frames_as_they_are(tmp_path, monkeypatch):
    (tmp_path / "of_a_user.py").write_text(METRICS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    values = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    members = [xr.DataArray(values.copy(), dims=("time", "layer", "y", "x"), coords={"time": np.arange(5.0)})]
    names = [f"of_a_user.{name}" for name in ("in_place", "mean", "half", "learnt", "listed")]
    measured = measured_by_user(names, members, None)
    assert {str(series.dtype) for series in measured.values()} == {"float32", "float64"}
    for name in ("mean", "half", "learnt", "listed"):
        np.testing.assert_allclose(measured[name].values[0], values.mean((-2, -1)), atol=1e-3)
    for name, words in {
        "nothing": r"of_a_user\.nothing returns shape \(\) for frames \(5, 1, 8, 8\)",
        "one": r"returns shape \(\)",
        "complex_numbers": "returns values of the type complex64; it must return real numbers",
        "failing": r"fails for frames \(5, 1, 8, 8\), in line \d+ of of_a_user\.py: RuntimeError: ",
    }.items():
        with pytest.raises(UserError, match=f"metrics.user: .*{words}") as caught:
            measured_by_user([f"of_a_user.{name}"], members, None)
        assert "\n" not in str(caught.value)
