"""Metrics of the solver's frames equal those of independent libraries (`pip install -r tests/oracles/requirements.txt`).

A test is skipped if its library is missing, so the tests of this project do not need these libraries. pyqg has no wheel for
pip; its estimate of a spectrum is written out here, and compared with pyqg where that is installed (conda).
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from sns_core.metrics.bootstrap import distance_interval, interval, pooled, pooled_products, student_quantile
from sns_core.metrics.distances import BINS, CENTRES, REACH, wasserstein
from sns_core.metrics.distributions import component_scales, histogram
from sns_core.metrics.ensembles import ensemble_scores, fair_crps
from sns_core.metrics.measures import measure
from sns_core.metrics.spectra import kinetic_energy_spectrum
from sns_core.metrics.temporal import centred, temporal_correlation, zonal_direction
from sns_core.shells import shell_index
from sns_core.systems import KolmogorovFlow

N, MEMBERS, FRAMES, STEP = 32, 3, 120, 0.05


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    """Vorticity of the solver in frames like the demo's, (member, time, 1, N, N)."""
    flow = KolmogorovFlow(resolution=64, viscosity=1e-3, dt=0.01, dtype=torch.float32)
    carry = flow.run(flow.start(flow.initial_state(MEMBERS, torch.Generator().manual_seed(0))), 400)
    frames = []
    for _ in range(FRAMES):
        carry = flow.run(carry, 5)
        frames.append(flow.observe(flow.state(carry), N))
    return torch.stack(frames, 1)


@pytest.fixture(scope="module")
def emulated() -> KolmogorovFlow:
    return KolmogorovFlow(resolution=64, viscosity=1e-3, dt=0.01, dtype=torch.float32)


def test_spectra_are_the_ring_sums_of_xrft(frames, emulated):
    xrft = pytest.importorskip("xrft")
    u, v = emulated.frame_velocity(frames[0, :5, :].double())
    _, energy = kinetic_energy_spectrum(u, v)
    grid = np.arange(N) * 2 * math.pi / N
    power = 0.0
    for component in (u, v):
        field = xr.DataArray(component[:, 0].numpy(), dims=("time", "y", "x"), coords={"y": grid, "x": grid})
        transform = xrft.fft(field, dim=["y", "x"], true_amplitude=False, true_phase=False)
        power = power + 0.5 * np.abs(transform) ** 2 / N**4
    wavenumber = np.hypot(power["freq_y"] * 2 * math.pi, power["freq_x"] * 2 * math.pi)
    shells = np.rint(wavenumber.values).astype(int)
    rings = np.stack([np.bincount(shells.ravel(), p.ravel()) for p in power.values])
    assert energy.numpy() == pytest.approx(rings, rel=1e-10, abs=1e-15)


def half_plane(frame: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return |k| and the kinetic energy of each mode of the half spectrum of vorticity (N, N), and of its mirror image."""
    k = np.hypot(np.fft.fftfreq(N, 1 / N)[:, None], np.arange(N // 2 + 1)[None, :])
    power = np.abs(np.fft.rfft2(frame.double().numpy()) / N**2) ** 2
    energy = power / np.where(k > 0, k, np.inf) ** 2  # twice half of |w|^2 / k^2
    energy[:, [0, -1]] /= 2  # columns that hold both mirror images
    return k, energy


def pyqg_spectrum(k: np.ndarray, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the wavenumbers and the spectrum of pyqg 0.7.2 (`calc_ispec`): rings sqrt(2) wide, mean times half circumference."""
    width = math.sqrt(2)
    middle = np.arange(width / 2, N // 2 + width, width)
    rings = [(k >= m - width / 2) & (k <= m + width / 2) for m in middle]
    count = np.array([ring.sum() for ring in rings])
    sums = np.array([energy[ring].sum() for ring in rings])
    return middle, sums * middle * math.pi / (count - 1)


def test_the_spectrum_of_pyqg_is_the_one_written_out_here(frames):
    tools = pytest.importorskip("pyqg.diagnostic_tools", exc_type=ImportError)
    k, energy = half_plane(frames[0, 0, 0])
    model = SimpleNamespace(kk=np.arange(N // 2 + 1.0), ll=np.fft.fftfreq(N, 1 / N), dk=1.0, dl=1.0, wv=k)
    middle, spectrum = pyqg_spectrum(k, energy)
    wavenumber, values = tools.calc_ispec(model, energy)
    assert len(wavenumber) <= len(middle)
    assert values == pytest.approx(spectrum[: len(values)], rel=1e-12)


def test_spectra_are_those_of_pyqg_but_for_the_rings(frames, emulated):
    u, v = emulated.frame_velocity(frames[0, ::10].double())
    _, ours = kinetic_energy_spectrum(u, v)
    k, energy = np.arange(N), np.mean([half_plane(frame[0])[1] for frame in frames[0, ::10]], 0)
    middle, theirs = pyqg_spectrum(half_plane(frames[0, 0, 0])[0], energy)
    # The sum over half rings, as a density over k: rings of one width would give the same numbers.
    rough = np.interp(np.arange(2, 14), middle, np.log10(theirs))
    assert rough == pytest.approx(np.log10(ours.mean(0).numpy()[2:14]), abs=0.25) and len(k) == N
    assert float((theirs * math.sqrt(2)).sum()) == pytest.approx(float(ours.mean(0).sum()), rel=0.2)


def test_distances_are_those_of_scipy(frames):
    stats = pytest.importorskip("scipy.stats")
    scale = frames.std()
    samples = (frames / scale).flatten(1)
    counts = [histogram(part[None, None])[0, 0].numpy() for part in (samples[0], samples[1], 0.8 * samples[2])]
    exact = [stats.wasserstein_distance(samples[0], part) for part in (samples[1], 0.8 * samples[2])]
    values = [float(wasserstein(c, counts[0])) for c in counts[1:]]
    assert values == pytest.approx(exact, abs=6e-4)  # the width of a bin is a quarter of a standard deviation
    binned = stats.wasserstein_distance(CENTRES, CENTRES, counts[1], counts[0])
    assert values[0] == pytest.approx(binned, abs=1e-12) and len(counts[0]) == BINS and CENTRES[-1] < REACH


@pytest.fixture(scope="module")
def forecast(frames) -> tuple[xr.DataArray, xr.DataArray]:
    """Five frames of a trajectory for an ensemble (start, member, lead, layer, y, x), and frames of another for the truth."""
    scaled = (frames / frames.std()).double().numpy()
    members, truth = scaled[0, ::4].reshape(6, 5, 1, 1, N, N), scaled[1, ::20].reshape(6, 1, 1, N, N)
    dims = ("start", "member", "lead", "layer", "y", "x")
    return xr.DataArray(members, dims=dims), xr.DataArray(truth, dims=[d for d in dims if d != "member"])


def test_the_score_of_ensembles_is_the_fair_crps_of_scores_and_exceeds_the_plain_crps_of_xskillscore(forecast):
    ensemble, truth = forecast
    values = fair_crps(ensemble.transpose("member", ...).values, truth.values)
    means = ensemble_scores(ensemble, truth)["crps"]
    scores = pytest.importorskip("scores.probability")
    fair = scores.crps_for_ensemble(ensemble, truth, "member", method="fair", preserve_dims="all")
    assert values == pytest.approx(fair.transpose(*truth.dims).values, rel=1e-10, abs=1e-12)
    assert means.values == pytest.approx(fair.mean(("y", "x")).transpose(*means.dims).values, rel=1e-10)
    xskillscore = pytest.importorskip("xskillscore")
    plain = xskillscore.crps_ensemble(truth, ensemble, member_dim="member", dim=[]).transpose(*truth.dims).values
    members = ensemble.transpose("member", ...).values
    pairs = np.abs(members[:, None] - members[None, :]).sum((0, 1)) / (5 * 4)
    assert plain - values == pytest.approx(pairs / (2 * 5), rel=1e-8, abs=1e-10)


def test_spread_and_error_are_those_of_xskillscore(forecast):
    xskillscore = pytest.importorskip("xskillscore")
    ensemble, truth = forecast
    means = ensemble_scores(ensemble, truth).mean("start")
    variance = ensemble.var("member", ddof=1).mean(("start", "y", "x"))
    rmse = xskillscore.rmse(ensemble.mean("member"), truth, dim=["start", "y", "x"])
    assert float(means["variance"].squeeze()) == pytest.approx(float(variance.squeeze()))
    assert float((means["squared_error"] + means["variance"] / 5).squeeze()) == pytest.approx(
        float(rmse.squeeze()) ** 2
    )


def test_correlation_is_that_of_statsmodels_point_by_point(frames):
    stattools = pytest.importorskip("statsmodels.tsa.stattools")
    lags, unit = 10, centred(frames.double())
    covariance = [
        stattools.acovf(point, nlag=lags, demean=False, adjusted=True) for member in unit.numpy() for point in member.T
    ]
    correlation = temporal_correlation(frames.double(), lags).numpy()
    assert correlation == pytest.approx(np.sum(covariance, 0) / MEMBERS, abs=1e-10)


def test_correlation_of_fluctuations_is_that_of_statsmodels_without_the_mean():
    stattools = pytest.importorskip("statsmodels.tsa.stattools")
    rng, members, steps, lags = np.random.default_rng(4), 4, 600, 8
    eddies = rng.normal(size=(members, steps, 16, 16))
    for t in range(1, steps):
        eddies[:, t] = 0.9 * eddies[:, t - 1] + math.sqrt(1 - 0.81) * eddies[:, t]
    steady = math.sqrt(2 * 3 / 7) * np.sin(2 * np.arange(16) * 2 * math.pi / 16)[:, None]  # 0.3 of the whole variance
    frames = torch.from_numpy(eddies + steady)[:, :, None]
    directions = zonal_direction(frames).mean(1).numpy()
    units = {"zonal_direction": (("unit", "layer", "y"), directions), "size": ("unit", np.ones(members))}
    units = xr.Dataset({**units, "source": ("unit", np.arange(members))})
    constant = pooled_products(units, "zonal_direction")[0]
    fluctuations = (temporal_correlation(frames, lags).numpy() - constant) / (1 - constant)
    covariance = np.mean(
        [stattools.acovf(e[:, i, j], nlag=lags, demean=False, adjusted=True) for e in eddies for i, j in np.ndindex(16, 16)],
        0,
    )  # fmt: skip
    assert constant == pytest.approx(0.3, abs=0.01)
    assert fluctuations == pytest.approx(covariance / covariance[0], abs=0.01)


@pytest.fixture(scope="module")
def stretches(frames, emulated) -> np.ndarray:
    """Spectra of 60 stretches of six frames, (stretch, K)."""
    u, v = emulated.frame_velocity(frames.flatten(0, 1).double())
    return kinetic_energy_spectrum(u, v)[1].unflatten(0, (60, 6)).mean(1).numpy()


def test_intervals_are_those_of_the_bootstrap_of_arch(stretches):
    arch = pytest.importorskip("arch.bootstrap")
    energy = stretches.sum(1)
    sample = xr.Dataset({"value": ("unit", energy), "size": ("unit", np.ones(60))})
    _, low, high = interval(pooled(sample)["value"].values)
    bootstrap = arch.IIDBootstrap(energy, seed=np.random.default_rng(6))
    exact = bootstrap.conf_int(np.mean, 4000, method="basic", size=0.9)[:, 0]
    assert [low, high] == pytest.approx(exact, abs=0.12 * (exact[1] - exact[0]))


def test_the_noise_of_a_distance_is_that_of_the_bootstrap_of_arch(stretches):
    arch = pytest.importorskip("arch.bootstrap")
    reference = 1.1 * stretches.mean(0)[1:11]

    def log_ratios(spectra):
        return np.log10(spectra[:, 1:11].mean(0) / reference)

    sample = xr.Dataset({"value": (("unit", "k"), stretches), "size": ("unit", np.ones(60))})
    value, low, high = distance_interval(np.log10(pooled(sample)["value"].values[:, 1:11] / reference))
    bootstrap = arch.IIDBootstrap(stretches, seed=np.random.default_rng(7))
    noise = np.abs(bootstrap.apply(log_ratios, 4000) - log_ratios(stretches)).mean(1)
    assert value == pytest.approx(math.log10(1.1)) and low < value < high
    assert high - value == pytest.approx(np.quantile(noise, 0.9), rel=0.12)


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 7, 15, 63])
def test_quantiles_of_student_are_those_of_scipy(freedom):
    stats = pytest.importorskip("scipy.stats")
    assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.95, freedom), rel=3e-3)


def test_energies_and_changes_of_frames_equal_those_of_numpy(frames, emulated):
    scale = frames.std()[None, None, None]
    units = component_scales(emulated, frames[:, -1], N)
    options = {"system": emulated, "scale": scale, "component_scales": units, "step_size": STEP}
    values = measure(frames[:, 10:] / scale, frames[:, :10] / scale, **options)
    field = frames.numpy().astype(float)[:, :, 0]
    # Velocity along x from vorticity: u_hat = i ky w_hat / k^2, with axes (y, x).
    k = np.fft.fftfreq(N, 1 / N)
    square = k[:, None] ** 2 + k[None, :] ** 2
    hat = np.fft.fft2(field) / np.where(square > 0, square, np.inf)
    u, v = np.fft.ifft2(1j * k[:, None] * hat).real, np.fft.ifft2(-1j * k[None, :] * hat).real
    energy = (0.5 * (u**2 + v**2)).mean((-2, -1))[:, 10:]
    assert values["kinetic_energy"][..., 0].numpy() == pytest.approx(
        energy, rel=2e-4
    )  # they differ in the Nyquist modes
    assert values["enstrophy"][..., 0].numpy() == pytest.approx((0.5 * field**2).mean((-2, -1))[:, 10:], rel=1e-5)
    rate = np.abs(np.diff(field, axis=1)).mean((-2, -1))[:, 9:] / STEP / float(scale)
    assert values["rate_of_change"].numpy() == pytest.approx(rate, rel=1e-4)
    assert shell_index(N).shape == (N, N // 2 + 1)
