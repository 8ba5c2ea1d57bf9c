"""Scores with known answers: intervals that cover, forecasts of Gaussian truth, rollouts whose departure is chosen here."""

import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sns_core.errors import UserError
from sns_core.metrics.bootstrap import RESAMPLES, distance_interval, interval, pooled, resampling_weights
from sns_core.metrics.distances import CENTRES, decorrelation_time
from sns_core.metrics.ensembles import ensemble_scores, fair_crps
from sns_core.metrics.floor_table import COLUMNS, QUANTILES
from sns_core.metrics.rollout_metrics import window_table
from sns_core.metrics.scorecard import (
    SCORES,
    _worst_window_rows,
    horizon,
    read_scorecard,
    score_methods,
    seconds_per_step,
)

STEPS, BLOCK, WINDOW, MEMBERS, LAGS, STEP = 2000, 10, 200, 4, 40, 0.1
MEMORY = 0.9  # of the AR(1) series below, a step
MEAN = 3.0


def autoregressive(rng, *shape, memory=MEMORY):
    """AR(1) noise (..., T) of variance 1, from its stationary law."""
    series = rng.normal(size=shape)
    for t in range(1, shape[-1]):
        series[..., t] = memory * series[..., t - 1] + math.sqrt(1 - memory**2) * series[..., t]
    return series


# --- intervals ---


def units(values: np.ndarray, length: int) -> xr.Dataset:
    """Stretches of so many steps of series (member, T)."""
    means = values.reshape(len(values), -1, length).mean(-1).ravel()
    return xr.Dataset({"value": ("unit", means), "size": ("unit", np.full(len(means), float(length)))})


@pytest.mark.parametrize(("length", "low", "high"), [(100, 0.82, 0.97), (4, 0.2, 0.75)])
def test_intervals_cover_the_mean_of_correlated_noise_nine_times_of_ten(length, low, high):
    rng, covered = np.random.default_rng(0), []
    for trial in range(120):
        means = pooled(units(MEAN + autoregressive(rng, MEMBERS, 1000), length), seed=trial)["value"]
        _, least, most = interval(means.values)
        covered.append(least <= MEAN <= most)
    # Stretches shorter than the memory are taken for independent, and are wrong too often.
    assert low < np.mean(covered) < high


def test_intervals_cover_a_ratio_of_variances():
    rng, covered = np.random.default_rng(9), []
    for trial in range(100):
        series = 2 * autoregressive(rng, MEMBERS, 1000)
        means = pooled(units(series, 100).assign(square=units(series**2, 100)["value"]), seed=trial)
        _, low, high = interval((means["square"] - means["value"] ** 2).values, "ratio")
        assert low > 0
        covered.append(low <= 4 <= high)
    assert 0.8 < np.mean(covered) < 0.97


@pytest.mark.parametrize(("distance", "low", "high"), [(0.0, 0.83, 0.96), (0.05, 0.85, 1.0), (0.3, 0.85, 1.0)])
def test_the_interval_of_a_distance_holds_it_at_zero_and_away_from_it(distance, low, high):
    rng, covered, zero = np.random.default_rng(1), [], []
    signs = np.resize([1.0, -1.0], 20)
    for trial in range(150):
        values = rng.normal(distance * signs, 1, (40, 20))
        sample = xr.Dataset({"value": (("unit", "k"), values), "size": ("unit", np.ones(40))})
        value, least, most = distance_interval(pooled(sample, trial)["value"].values)
        assert 0 <= least <= value <= most
        covered.append(least <= distance <= most)
        zero.append(least == 0)
    assert low < np.mean(covered) <= high
    # 0 is inside where the truth is 0, and outside where 20 shells are each 0.3 = 2 standard errors off.
    assert np.mean(zero) == pytest.approx(
        np.mean(covered) if distance == 0 else {0.05: 0.9, 0.3: 0.0}[distance], abs=0.1
    )


def test_the_interval_of_a_distance_leaves_out_points_that_are_unknown_and_is_unknown_with_a_lost_resample():
    difference = np.array([[0.3, -0.1, np.nan]] + [[0.3 + d, -0.1 - d, 1.0] for d in np.linspace(-0.2, 0.2, 400)])
    value, low, high = distance_interval(difference)
    assert (value, low, high) == (pytest.approx(0.2), pytest.approx(0.02, abs=1e-3), pytest.approx(0.38, abs=1e-3))
    difference[7] = np.inf
    value, low, high = distance_interval(difference)
    assert value == pytest.approx(0.2) and np.isnan([low, high]).all()


def test_few_units_have_the_full_variance_of_their_mean():
    values = np.array([0.0, 1.0, 5.0])
    weights = resampling_weights(np.ones(3))
    means = (weights @ values / weights.sum(1))[1:]
    assert weights.shape == (1 + RESAMPLES, 3) and (weights[0] == 1).all()
    assert means.var() == pytest.approx(values.var(ddof=1) / 3, rel=0.15)


def test_a_single_unit_has_a_value_and_no_interval():
    """One stretch, one start, one member or one block says nothing of its own noise."""
    sample = xr.Dataset({"value": (("unit", "k"), [[1.0, 4.0]]), "size": ("unit", [3.0])})
    means = pooled(sample)["value"].values
    for kind in ("linear", "positive", "share", "ratio"):
        value, low, high = interval(means, kind)
        assert value.tolist() == [1.0, 4.0] and np.isnan([low, high]).all()
    assert distance_interval(means)[0] == 2.5 and np.isnan(distance_interval(means)[1:]).all()
    for resamples, value in ((horizon(np.array([41]), 100), 40), (seconds_per_step(np.array([3.0]), 10), 0.3)):
        assert resamples[0] == pytest.approx(value) and np.isnan(interval(resamples)[1:]).all()


@pytest.mark.parametrize(("units", "coverage"), [(2, 0.5), (3, 0.75), (4, 0.87), (8, 0.91)])
def test_few_units_cover_as_often_as_the_page_says(units, coverage):
    values = np.random.default_rng(0).normal(size=(2000, units))
    weights = resampling_weights(np.ones(units))
    _, low, high = interval(weights @ values.T / weights.sum(1, keepdims=True))
    assert np.mean((low <= 0) & (high >= 0)) == pytest.approx(coverage, abs=0.025)


def test_stretches_count_by_their_length_and_unknown_values_nowhere():
    sample = xr.Dataset({"value": ("unit", [1.0, 4.0, np.nan, 9.0]), "size": ("unit", [1.0, 2.0, 5.0, 0.0])})
    means = pooled(sample)["value"].values
    assert means[0] == pytest.approx(3.0) and np.nanmin(means) >= 1.0 and np.nanmax(means) <= 4.0
    empty = pooled(sample.assign(size=0 * sample["size"]))["value"]
    assert np.isnan(interval(empty.values)).all()


# --- forecasts ---


def test_the_score_of_a_large_gaussian_ensemble_is_the_closed_form():
    rng, truth = np.random.default_rng(2), np.array([-1.5, 0.0, 0.3, 2.0])
    score = fair_crps(1 + 2 * rng.normal(size=(200_000, 1)) * np.ones(4), truth)
    z = (truth - 1) / 2
    density, below = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi), [0.5 * (1 + math.erf(x / math.sqrt(2))) for x in z]
    exact = 2 * (z * (2 * np.array(below) - 1) + 2 * density - 1 / math.sqrt(math.pi))
    assert score == pytest.approx(exact, abs=0.01)


def test_the_score_is_the_mean_over_pairs_of_different_members():
    rng = np.random.default_rng(3)
    forecast, truth = rng.normal(size=(5, 7)), rng.normal(size=7)
    pairs = sum(abs(forecast[i] - forecast[j]) for i in range(5) for j in range(5)) / (5 * 4)
    assert fair_crps(forecast, truth) == pytest.approx(np.abs(forecast - truth).mean(0) - pairs / 2, rel=1e-12)


def test_the_score_does_not_depend_on_the_number_of_members():
    rng = np.random.default_rng(4)
    means = [fair_crps(rng.normal(size=(count, 200_000)), rng.normal(size=200_000)).mean() for count in (2, 3, 10)]
    assert means == pytest.approx([1 / math.sqrt(math.pi)] * 3, abs=5e-3)  # E|X - y| - E|X - X'| / 2 of one law


def test_members_that_agree_are_scored_by_their_absolute_error():
    truth = np.array([1.0, -2.0])
    assert fair_crps(np.zeros((4, 2)), truth).tolist() == [1.0, 2.0] == fair_crps(np.zeros((1, 2)), truth).tolist()


def ensemble(rng, spread, members=5, starts=30, size=16, error=1.0):
    dims = ("start", "member", "lead", "layer", "y", "x")
    truth = error * rng.normal(size=(starts, 2, 1, size, size))
    forecast = spread * rng.normal(size=(starts, members, 2, 1, size, size))
    coordinates = {"lead": [1, 5], "layer": ["flow"]}
    variables = {"forecast": (dims, forecast), "truth": ((dims[0], *dims[2:]), truth)}
    return xr.Dataset(variables, coordinates, {"method": "solver"})


@pytest.mark.parametrize("members", [2, 5])
@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_spread_and_error_of_a_forecast_are_those_of_its_law(spread, members):
    scores = ensemble_scores(*(ensemble(np.random.default_rng(5), spread, members)[n] for n in ("forecast", "truth")))
    assert scores["variance"].mean() == pytest.approx(spread**2, rel=0.02)
    # The mean of members around 0 against a truth of variance 1 gives 1 for any number of members.
    assert scores["squared_error"].mean() == pytest.approx(1.0, rel=0.05)
    assert scores["crps"].dims == ("start", "lead", "layer")


# --- rollouts of known departure ---


def synthetic(
    rng,
    members,
    steps,
    *,
    energy=1.0,
    scale=1.0,
    shift=0.0,
    memory=MEMORY,
    lost=(),
    rate=1.0,
    spectrum=1.0,
    sway=0.5,
    constant=0.08,
):
    """A method's series and blocks as `compute_metrics` writes them: AR(1) energies around 2 x `energy`, Gaussian values shifted
    by `shift`, C(tau) = `memory`^tau, a mean flow sin(y) + `shift`."""
    count = steps // BLOCK
    series = 2 * energy + 0.3 * scale * autoregressive(rng, members, steps)
    shares = np.exp(-((CENTRES - shift) ** 2) / 2)
    levels = np.zeros((members, steps, 2), dtype=int)
    levels[:, ::4] = 2
    levels[:, 1::2] = -1  # not looked at
    layered, blocks = ("member", "step", "layer"), ("member", "block", "layer")
    y = np.arange(8) * 2 * math.pi / 8
    flow = np.tile(np.sin(y) + shift, (members, count, 1, 1))
    variables = {
        "kinetic_energy": (layered, series[..., None]), "enstrophy": (layered, 5 * series[..., None]),
        "rate_of_change": (layered[:2], np.full((members, steps), 2.0 * rate)),
        "relative_change": (layered[:2], np.full((members, steps), 0.2 * rate)),
        "levels": ((*layered[:2], "frame"), levels), "calls": (layered[:2], levels[..., 0].clip(0)),
        "energy_spectrum": ((*blocks, "wavenumber"), np.full((members, count, 1, 6), 3.0 * spectrum)),
        "correlation": (("member", "block", "lag"), np.tile(memory ** np.arange(LAGS + 1), (members, count, 1))),
        # The flow of a step is that of the block, times 1 plus or minus `sway`.
        "zonal_profile": ((*blocks, "y"), flow), "zonal_square": ((*blocks, "y"), flow**2 * (1 + sway**2)),
        "lost_step": ("member", [*lost, *[-1] * (members - len(lost))]),
        "max_abs": (layered[:2], np.full((members, steps), 5.0 * scale)),
        # The squares of the steady part sum to `constant` over y.
        "zonal_direction": ((*blocks, "y"), np.full((members, count, 1, 8), math.sqrt(constant / 8))),
    }  # fmt: skip
    for name in ("vorticity", "velocity", "gradient"):
        variables[f"{name}_counts"] = (*blocks, "bin"), np.tile(np.rint(1e6 * shares), (members, count, 1, 1))
    return xr.Dataset(variables, {
        "member": np.arange(members), "step": np.arange(1, steps + 1), "block": np.arange(BLOCK, steps + 1, BLOCK),
        "lag": np.arange(LAGS + 1) * STEP, "bin": CENTRES, "layer": ["flow"], "wavenumber": np.arange(6.0), "y": y,
        "time": np.arange(0, steps + 1, 4) * STEP,
    })  # fmt: skip


def reference(rng, members):
    """The solver's ensemble as `compute_reference` writes it, of the law of `synthetic` without departure."""
    result = synthetic(rng, members, STEPS)
    energy = result["kinetic_energy"]
    moments = result[[n for n in result if n not in ("levels", "calls", "lost_step")]]
    moments = moments.rename(zonal_profile="zonal_velocity", zonal_square="zonal_velocity_square")
    for name in ("kinetic_energy", "enstrophy"):
        moments[f"{name}_square"] = moments[name] ** 2
    moments = moments.mean(["step", "block"])
    moments = moments.assign(kinetic_energy_min=energy.min("step"), kinetic_energy_max=energy.max("step"))
    for name in ("vorticity", "velocity", "gradient"):
        moments[f"{name}_counts"] = 1000 * moments[f"{name}_counts"]
    return moments.assign(map=(("member", "map_lag", "distance"), np.ones((members, 2, 2))))


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """The scorecard of methods with known departures."""
    folder, rng = tmp_path_factory.mktemp("card"), np.random.default_rng(6)
    methods = {
        "solver": {}, "twin": {}, "shifted": {"shift": 0.5}, "stronger": {"energy": 1.2, "scale": 2.0, "spectrum": 10.0},
        "faster": {"memory": 0.8, "rate": 1.5, "sway": 1.0, "constant": 0.0}, "lost": {"lost": (506, 1001), "steps": 1000},
    }  # fmt: skip
    paths, ensembles = [], []
    for name, changes in methods.items():
        result = synthetic(rng, MEMBERS, **{"steps": STEPS, **changes})
        if name == "lost":
            for member, at in enumerate((501, 1001)):
                result["kinetic_energy"][member, at - 1 :] = np.nan
                result["energy_spectrum"][member, (at - 1) // BLOCK :] = np.inf
        result.attrs = {"method": name, "seconds_of_blocks": np.full(result.sizes["block"], 0.5)}
        paths.append(folder / f"{name}.nc")
        result.to_netcdf(paths[-1])
        if name in ("solver", "shifted"):
            ensembles.append(folder / f"ensemble_{name}.nc")
            forecast = ensemble(rng, 1.0 if name == "solver" else 0.5)
            forecast.attrs["method"] = name
            forecast.to_netcdf(ensembles[-1])
    reference(rng, 8).to_netcdf(folder / "reference.nc")
    bands = [("kinetic_energy", "flow", 0.95, 1.05), ("kinetic_energy_variance", "flow", 0.8, 1.25),
             ("vorticity_distance", "flow", 0.01, 0.02), ("rate_error", "", 0.1, 0.2)]  # fmt: skip
    rows = [
        # Uniform between quantiles: the ends are the quantiles 0.05 and 0.95 of a law that spans a ninth more.
        {"members": MEMBERS, "steps": STEPS, "score": name, "layer": layer,
         **{column: low + (high - low) * (share - 0.05) / 0.9 for share, column in QUANTILES.items()}}
        for name, layer, low, high in bands
    ]  # fmt: skip
    rows.append({"members": MEMBERS, "steps": 1000, "reason": "too small"})
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "floors.csv", index=False)
    score_methods(metrics=paths, ensembles=ensembles, reference=folder / "reference.nc", floors=folder / "floors.csv",
                  system="kolmogorov", window=WINDOW, shells=[1, 5], output=folder / "scorecard.csv")  # fmt: skip
    return read_scorecard(folder / "scorecard.csv")


def entry(card, method, score, lead=None):
    rows = card[(card["method"] == method) & (card["score"] == score)]
    rows = rows if lead is None else rows[rows["lead"] == lead]
    assert len(rows) == 1
    return rows.iloc[0]


# C(tau) of fluctuations: 0.9^tau less its constant 0.08, and 0.8^tau.
FLUCTUATIONS = np.array([(0.9 ** np.arange(41) - 0.08) / 0.92, 0.8 ** np.arange(41)])
HALVED = [decorrelation_time(np.arange(41), correlation) for correlation in FLUCTUATIONS]

EXACT = [
    ("shifted", "vorticity_distance", 0.5, 0.01),
    ("shifted", "velocity_distance", 0.5, 0.01),
    ("shifted", "gradient_distance", 0.5, 0.01),
    ("shifted", "zonal_error", 0.5 / math.sqrt(2), 0.02),
    ("shifted", "zonal_strength", math.sqrt(0.5 + 0.25) / math.sqrt(0.5), 1e-6),
    ("twin", "zonal_strength", 1.0, 1e-6),
    ("twin", "zonal_variance", 1.0, 0.01),
    ("faster", "zonal_variance", 4.0, 0.04),
    ("lost", "zonal_variance", 1.0, 0.01),
    ("twin", "vorticity_distance", 0.0, 1e-12),
    ("twin", "zonal_error", 0.0, 1e-7),
    ("twin", "decorrelation_time", 1.0, 1e-12),
    ("stronger", "spectrum_error", 1.0, 1e-12),
    ("stronger", "kinetic_energy", 1.2, 0.03),
    ("stronger", "enstrophy", 1.2, 0.03),
    ("stronger", "kinetic_energy_variance", 4.0, 0.6),
    ("stronger", "enstrophy_variance", 4.0, 0.6),
    ("faster", "decorrelation_time", math.log(0.9) / math.log(0.8), 0.01),
    ("faster", "correlation_error", np.abs(0.8 ** np.arange(41) - 0.9 ** np.arange(41)).mean(), 1e-12),
    ("twin", "fluctuation_time", 1.0, 1e-12),
    ("faster", "fluctuation_time", HALVED[1] / HALVED[0], 1e-9),
    ("faster", "fluctuation_error", np.abs(FLUCTUATIONS[1] - FLUCTUATIONS[0]).mean(), 1e-9),
    ("stronger", "out_of_range", 1.0, 1e-12),
    ("twin", "out_of_range", 0.0, 0.02),
    ("shifted", "zonal_amplitude", 1.0, 1e-6),
    ("faster", "rate_of_change", 1.5, 1e-12),
    ("faster", "relative_change", 1.5, 1e-12),
    ("faster", "rate_error", 0.5, 1e-12),
    ("twin", "stability_horizon", 2000, 0),
    ("lost", "stability_horizon", (505 + 1000 + 1000 + 1000) / 4, 0),
    ("lost", "spectrum_error", 0.0, 1e-12),
    ("twin", "level_previous", 1.0, 1e-12),
    ("twin", "level_next", 1.0, 1e-12),
    ("twin", "refined_share", 0.25, 1e-12),
    ("twin", "calls_per_step", 0.5, 1e-12),
    ("twin", "seconds_per_step", 0.05, 1e-12),
]


@pytest.mark.parametrize(("method", "score", "expected", "tolerance"), EXACT)
def test_a_score_is_what_the_departure_makes_it(card, method, score, expected, tolerance):
    row = entry(card, method, score)
    assert row["value"] == pytest.approx(expected, abs=tolerance)
    assert row["low"] * (1 - 1e-12) <= row["value"] <= row["high"] * (1 + 1e-12)


def test_the_worst_window_is_the_largest_error_but_that_of_the_first_one():
    rng = np.random.default_rng(9)
    result, ensemble = synthetic(rng, MEMBERS, STEPS), reference(rng, MEMBERS)
    for window, factor in ((0, 100.0), (3, 10.0), (6, 2.0)):
        result["energy_spectrum"][:, window * WINDOW // BLOCK : (window + 1) * WINDOW // BLOCK] *= factor
    rows = _worst_window_rows(result, ensemble, WINDOW, (1, 5))
    assert rows["value"].item() == pytest.approx(1.0)
    once = result.isel(block=slice(WINDOW // BLOCK), step=slice(WINDOW))
    assert _worst_window_rows(once, ensemble, WINDOW, (1, 5))["value"].item() == pytest.approx(2.0), "there is no other"
    result["energy_spectrum"][1, 150:] = np.nan
    assert np.isnan(_worst_window_rows(result, ensemble, WINDOW, (1, 5))["value"].item())


def test_intervals_tell_what_differs_from_what_does_not(card):
    for score in ("kinetic_energy", "enstrophy", "kinetic_energy_variance"):
        twin, stronger = entry(card, "twin", score), entry(card, "stronger", score)
        assert twin["low"] < 1 < twin["high"] and stronger["low"] > 1
        assert twin["ideal"] == 1 and 0 < twin["high"] - twin["low"] < 1


def test_a_score_is_inside_the_floor_of_its_size_or_beyond_or_has_none(card):
    twin, stronger = entry(card, "twin", "kinetic_energy"), entry(card, "stronger", "kinetic_energy")
    assert (twin["floor_low"], twin["floor_high"]) == (0.95, 1.05) == (stronger["floor_low"], stronger["floor_high"])
    assert twin["inside"] and not stronger["inside"]
    assert entry(card, "twin", "vorticity_distance")["inside"], "nearer than the solver's runs is no fault"
    share = (twin["value"] - 0.95) / 0.1 * 0.9 + 0.05
    assert twin["p"] == pytest.approx(2 * min(share, 1 - share)) and stronger["p"] == 0
    assert (
        entry(card, "twin", "vorticity_distance")["p"] == 1 and entry(card, "shifted", "vorticity_distance")["p"] == 0
    )
    assert not entry(card, "shifted", "vorticity_distance")["inside"]
    without = card[(card["method"] == "lost") & ~card["score"].isin(("crps", "spread_skill"))]
    assert without["inside"].isna().all() and without["floor_high"].isna().all(), "no band for its 1000 steps"
    assert entry(card, "twin", "enstrophy")[["inside", "floor_low"]].isna().all()


def test_a_flow_that_is_steadier_than_the_solver_is_outside_the_floor_of_the_error_of_its_rate(card):
    twin = entry(card, "twin", "rate_error")  # its blocks do not scatter at all; those of the solver do by 0.1 to 0.2
    assert twin["value"] < twin["floor_low"] and not twin["inside"] and twin["p"] == 0


def test_windows_tell_all_members_or_none():
    rng = np.random.default_rng(3)
    result, solver = synthetic(rng, MEMBERS, STEPS), reference(rng, MEMBERS)
    whole = window_table(result, solver, WINDOW, (1, 5), [], STEP)
    for name in ("kinetic_energy", "enstrophy", "relative_change"):
        result[name][1, 450:] = np.nan
    result["energy_spectrum"][1, 450 // BLOCK :] = np.nan
    result["lost_step"][1] = 451
    table = window_table(result, solver, WINDOW, (1, 5), [], STEP)
    assert table["members_lost"].tolist() == [0, 0] + [1] * 8
    columns = ["window_spectrum_error", "kinetic_energy", "enstrophy", "relative_change", "vorticity_distance"]
    pd.testing.assert_frame_equal(table[columns][:2], whole[columns][:2])
    assert table[columns][2:].isna().all(axis=None)


def test_the_mean_of_equal_numbers_of_a_window_is_that_number_in_single_precision_too():
    rng = np.random.default_rng(11)
    result, solver = synthetic(rng, MEMBERS, STEPS), reference(rng, MEMBERS)
    two = [data.isel(layer=[0, 0]).assign_coords(layer=["upper", "lower"]) for data in (result, solver)]
    energy = two[0]["kinetic_energy"]
    two[0]["kinetic_energy"] = xr.full_like(energy, 0.1781, dtype=np.float32)
    table = window_table(*two, WINDOW, (1, 5), [], STEP)
    assert table["kinetic_energy"].to_numpy() == pytest.approx(float(np.float32(0.1781)), rel=1e-12)


def test_every_method_has_every_score_and_forecasts_where_there_are_ensembles(card):
    forecasts = {"crps", "spread_skill"}
    for method, rows in card.groupby("method"):
        assert set(rows["score"]) == set(SCORES) - (set() if method in ("solver", "shifted") else forecasts)
    assert card[card["method"] == "lost"]["members_lost"].unique().tolist() == [2]
    assert card[card["method"] == "lost"]["counted"].iloc[0] == pytest.approx(0.875)
    assert list(dict.fromkeys(card["method"])) == ["solver", "twin", "shifted", "stronger", "faster", "lost"]


def test_the_forecasts_of_the_solver_are_the_floor_of_the_others(card):
    solver, shifted = entry(card, "solver", "spread_skill", 5), entry(card, "shifted", "spread_skill", 5)
    assert solver["value"] == pytest.approx(1.0, abs=0.1) and solver["low"] < 1 < solver["high"]
    assert shifted["value"] == pytest.approx(0.5, abs=0.05) and not shifted["inside"] and solver["inside"]
    assert (shifted["floor_low"], shifted["floor_high"]) == (solver["low"], solver["high"])
    assert entry(card, "solver", "crps", 1)["value"] == pytest.approx(1 / math.sqrt(math.pi), rel=0.05)


def test_the_interval_of_the_horizon_ends_with_the_run(card):
    lost = entry(card, "lost", "stability_horizon")
    assert lost["low"] < 505 + 1000 / 3 and lost["high"] == 1000


def test_horizon_and_seconds_are_means_with_their_resamples():
    assert horizon(np.array([-1, 11, -1, 101]), 100)[0] == (100 + 10 + 100 + 100) / 4
    assert (horizon(np.array([-1, -1]), 50) == 50).all()
    assert seconds_per_step(np.array([1.0, 3.0]), 10)[0] == pytest.approx(0.2)
    assert np.isnan(seconds_per_step(np.full(3, np.nan), 10)).all()


def test_the_decorrelation_time_of_autoregressive_noise_is_that_of_its_memory():
    series = autoregressive(np.random.default_rng(8), 50, 4000)
    correlation = np.array([(series[:, lag:] * series[:, : 4000 - lag]).mean() for lag in range(LAGS)])
    time = decorrelation_time(np.arange(LAGS) * STEP, correlation)
    assert time == pytest.approx(STEP * math.log(0.5) / math.log(MEMORY), rel=0.05)


def test_a_missing_scorecard_is_named(tmp_path):
    with pytest.raises(UserError, match=r"scorecard\.csv: missing"):
        read_scorecard(tmp_path / "scorecard.csv")
