"""Estimators without bias: the mean flow, C(tau) of fluctuations, members out of range, windows and their clipped distances."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from test_scorecard import BLOCK, LAGS, MEMBERS, STEP, STEPS, WINDOW, autoregressive, reference, synthetic

from sns_core.metrics.aggregate import _range
from sns_core.metrics.bootstrap import interval, pooled_products
from sns_core.metrics.distances import BINS, correlation_pairs, share_at_the_ends, weighted_correlation
from sns_core.metrics.lost import is_out_of_range
from sns_core.metrics.rollout_metrics import spectrum_error_interval, window_table
from sns_core.metrics.scorecard import _correlations, profiles
from sns_core.metrics.temporal import centred, zonal_direction
from sns_core.metrics.zonal import Profiles, cross_mean, mean_flow_scores, pair_mean, student_quantile

Y = np.arange(32) * 2 * math.pi / 32


def members_of_a_flow(rng, count, strength, noise):
    """Mean profiles of members: `strength` sin(4 y), and noise of their own in three wavenumbers."""
    amplitude = noise / math.sqrt(3) * rng.normal(size=(count, 3, 2))
    waves = np.array([4, 1, 2])[:, None] * Y
    noise_profiles = (amplitude[..., :1] * np.sin(waves) + amplitude[..., 1:] * np.cos(waves)).sum(1)
    return Profiles((strength * np.sin(4 * Y) + noise_profiles)[:, None], np.ones(count), np.arange(count))


# --- the mean flow ---


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_strength_and_error_of_a_mean_flow_have_no_bias_and_cover_the_truth(strength):
    rng, squares, covered = np.random.default_rng(1), [], []
    for _ in range(100):
        mine, solver = members_of_a_flow(rng, 8, strength, 0.5), members_of_a_flow(rng, 16, 1.0, 0.5)
        estimates = mean_flow_scores(mine, solver, np.array([0.5]))
        truth = {"zonal_strength": strength, "zonal_amplitude": strength, "zonal_error": abs(strength - 1)}
        triples = {name: [float(part[0]) for part in triple] for name, triple in estimates.items()}
        squares.append([np.sign(triples[n][0]) * triples[n][0] ** 2 for n in ("zonal_strength", "zonal_error")])
        covered.append([low <= truth[name] <= high for name, (_, low, high) in triples.items()])
    # The mean square of the mean profile would be 0.5 * 0.5^2 * 2 / 8 = 0.06 of the solver's too large.
    assert np.mean(squares, 0) == pytest.approx([strength**2, (strength - 1) ** 2], abs=0.05)
    share = np.mean(covered, 0)
    assert (share > 0.82).all() and share[1] < 0.98, share


def test_a_flow_that_is_gone_has_an_interval_that_holds_zero_and_a_reversed_one_a_negative_amplitude():
    rng = np.random.default_rng(2)
    gone, back = (
        mean_flow_scores(members_of_a_flow(rng, 8, s, 0.3), members_of_a_flow(rng, 16, 1.0, 0.1), np.array([0.5]))
        for s in (0.0, -0.5)
    )
    assert gone["zonal_strength"][1] < 0 < gone["zonal_strength"][2] < 0.4
    assert float(back["zonal_amplitude"][0][0]) == pytest.approx(-0.5, abs=0.15) and back["zonal_amplitude"][2] < 0
    assert float(back["zonal_error"][0][0]) == pytest.approx(1.5, abs=0.15)


def test_products_are_those_of_different_members_by_hand():
    rng = np.random.default_rng(3)
    values, weights = rng.normal(size=(3, 2, 4)), np.array([1.0, 2.0, 5.0])
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    total = sum(weights[a] * weights[b] for a, b in pairs)
    by_hand = sum(weights[a] * weights[b] * (values[a] * values[b]).mean(-1) for a, b in pairs) / total
    assert pair_mean(values, weights) == pytest.approx(by_hand)
    profiles_ = Profiles(values, weights, np.array([4, 5, 6]))
    assert cross_mean(profiles_, profiles_) == pytest.approx(by_hand), "a member is never paired with itself"
    assert np.isnan(pair_mean(values[:1], weights[:1])).all()


def test_a_lost_member_counts_as_far_as_it_lived():
    rng = np.random.default_rng(4)
    result = synthetic(rng, MEMBERS, STEPS, lost=(501, 3))
    result["zonal_profile"][0, 500 // BLOCK :] = 1e9
    estimates = profiles(result)
    assert estimates.members.tolist() == [0, 2, 3] and estimates.weights.tolist() == [50, 200, 200]
    assert np.abs(estimates.values).max() < 2


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 6.314), (2, 2.920), (3, 2.353), (7, 1.895), (15, 1.753), (60, 1.671)]
)
def test_the_quantile_of_student(freedom, quantile):
    assert student_quantile(freedom) == pytest.approx(quantile, rel=3e-3)


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 114.6), (2, 13.36), (7, 3.947), (15, 3.235), (63, 2.872)])
def test_the_quantile_of_student_far_out(freedom, quantile):
    """Of the probability beyond 2.773 standard deviations of a normal distribution."""
    assert student_quantile(freedom, 2.773) == pytest.approx(quantile, rel=5e-3)


# --- C(tau) ---


def test_blocks_are_weighted_by_their_pairs_of_frames():
    steps, block, lags = 40, 10, 15
    frames = torch.randn(steps + 1, 1, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    unit = centred(frames)
    products = (unit @ unit.mT).numpy()
    labels = np.arange(block, steps + 1, block)
    means = np.full((len(labels), lags + 1), np.nan)
    for row, last in enumerate(labels):
        for lag in range(lags + 1):
            pairs = [products[t, t - lag] for t in range(last - block + 1, last + 1) if t >= lag]
            means[row, lag] = np.mean(pairs) if pairs else np.nan
    pairs = correlation_pairs(labels, np.arange(lags + 1))
    assert pairs[:, 0].tolist() == [10] * 4 and pairs[:, 12].tolist() == [0, 9, 10, 10]
    whole = [np.mean([products[t, t - lag] for t in range(max(lag, 1), steps + 1)]) for lag in range(lags + 1)]
    assert weighted_correlation(means, pairs) == pytest.approx(whole)


def test_the_steady_part_of_a_flow_is_the_constant_of_its_correlation():
    rng, members, steps = np.random.default_rng(6), 6, 400
    wave = math.sqrt(2) * np.sin(2 * Y[::2])[None, None, :, None] * np.ones((1, 1, 16, 16))
    eddies = autoregressive(rng, members, 16, 16, steps, memory=0.5).transpose(0, 3, 1, 2)[:, :, None]
    frames = torch.from_numpy(math.sqrt(0.3) * wave[None] + math.sqrt(0.7) * eddies)
    unit = centred(frames)
    late = float((unit[:, 40:] * unit[:, :-40]).sum(-1).mean())
    units = xr.Dataset(
        {
            "zonal_direction": (("unit", "layer", "y"), zonal_direction(frames).mean(1).numpy()),
            "size": ("unit", np.ones(members)), "source": ("unit", np.arange(members)),
        }
    )  # fmt: skip
    assert late == pytest.approx(0.3, abs=0.02)
    assert pooled_products(units, "zonal_direction")[0] == pytest.approx(late, abs=0.005)


# --- the solver's range ---


@pytest.mark.parametrize("grid", [(6, 6), (4, 10), (10, 4)])
def test_all_of_a_flow_that_depends_on_y_alone_is_in_its_zonal_direction_on_any_grid(grid):
    height, width = grid
    profile = torch.randn(2, 3, height, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = zonal_direction(profile.expand(2, 3, height, width))
    torch.testing.assert_close(unit.square().sum((-2, -1)), torch.ones(2, dtype=torch.float64))


def test_the_correlation_of_fluctuations_begins_at_one_and_ends_at_zero():
    memory = np.array([1.0, 0.6, 0.2, 0.0])

    def means(constant):
        pairs, whole = np.array([8.0, 7.0, 6.0, 5.0]), constant + (1 - constant) * memory
        values = {"correlation": whole * pairs, "correlation_pairs": pairs}
        return xr.Dataset({name: (("resample", "lag"), value[None]) for name, value in values.items()}).assign(
            constant=("resample", [constant])
        )

    parts = _correlations(means(0.4), means(-0.1))
    for part in parts["fluctuation"]:
        np.testing.assert_allclose(part.transpose("resample", "lag").values[0], memory, atol=1e-12)
    np.testing.assert_allclose(parts["correlation"][0].values[0], 0.4 + 0.6 * memory)


def test_a_step_is_out_of_range_where_the_solver_never_is():
    rng = np.random.default_rng(7)
    result, ensemble = synthetic(rng, MEMBERS, STEPS), reference(rng, 8)
    assert float(is_out_of_range(result, ensemble).mean()) < 0.02
    result["kinetic_energy"][0, 99] = 1e-3
    result["max_abs"][1, 499] = 5.5
    result["kinetic_energy"][2, 899:] = np.nan
    outside = is_out_of_range(result, ensemble)
    assert outside.dims == ("member", "step")
    assert outside.values[0, 99] and outside.values[1, 499] and outside.values[2, 899:].all()
    row = _range(xr.zeros_like(outside).where(outside["step"] < 1000, True), 0)
    assert row == {"out_of_range_step": 1000, "out_of_range_share": 1001 / STEPS}
    assert _range(xr.zeros_like(outside), 1) == {"out_of_range_step": -1, "out_of_range_share": 0.0}
    assert is_out_of_range(result, ensemble.drop_vars("max_abs")) is None and _range(None, 0) == {}


def test_the_interval_of_a_share_ends_at_one():
    values = np.concatenate([[0.95], np.linspace(0.7, 1.0, 400)])
    assert interval(values, "share")[2] == 1.0 < interval(values, "positive")[2]


# --- windows ---


def test_windows_resample_the_members_of_the_reference():
    rng = np.random.default_rng(8)
    spectra = rng.lognormal(0, 0.05, (8, 40, 6))
    reference_spectra = rng.lognormal(0, 0.3, (8, 6))
    exact, wide = (
        spectrum_error_interval(spectra, reference, (1, 5))
        for reference in (reference_spectra.mean(0), reference_spectra)
    )
    assert exact[0] == pytest.approx(wide[0]) and wide[2] - wide[1] > 1.5 * (exact[2] - exact[1])


def test_distances_that_the_bins_bound_are_told():
    counts = np.zeros(BINS)
    counts[[0, 30, 31, -1]] = 1, 70, 28, 1
    assert share_at_the_ends(counts) == pytest.approx(0.02)
    rng = np.random.default_rng(9)
    result, ensemble = synthetic(rng, MEMBERS, STEPS), reference(rng, MEMBERS)
    table = window_table(result, ensemble, WINDOW, (1, 5), [], STEP)
    assert (table["share_beyond_bins"] < 1e-6).all()
    result["velocity_counts"][:, STEPS // BLOCK // 2 :] = 1
    table = window_table(result, ensemble, WINDOW, (1, 5), [], STEP)
    assert table["share_beyond_bins"].to_numpy()[-1] == pytest.approx(2 / BINS)
    assert isinstance(table, pd.DataFrame) and len(result["lag"]) == LAGS + 1


@pytest.mark.parametrize("members", [0, 1])
def test_a_mean_flow_of_too_few_members_has_no_interval(members):
    stream = np.random.default_rng(0)
    mine, solver = (Profiles(stream.normal(size=(n, 1, 8)), np.ones(n), np.arange(n)) for n in (members, 4))
    for value, low, high in mean_flow_scores(mine, solver, np.ones(1)).values():
        assert value.shape == (1,) and np.isnan([low, high]).all()
