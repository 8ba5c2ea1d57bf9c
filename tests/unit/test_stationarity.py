"""The detectors of stationarity on series with a known transient, and the report's warning."""

import numpy as np
import pytest
import xarray as xr
from test_scorecard import autoregressive

from sns_core.metrics.stationarity import drift, is_drifting, mser, stationary_from, thirds_difference
from sns_core.report import drift_notes

TIME = np.linspace(0, 100, 1001)


def energies(rng, members, settled=30.0):
    """Energies that start high, undershoot and are back at about `settled`, with noise that remembers ten steps."""
    transient = 2.0 * np.exp(-TIME / (settled / 10)) - 0.5 * np.exp(-(((TIME - 0.5 * settled) / (0.2 * settled)) ** 2))
    return 3.0 + transient + 0.15 * autoregressive(rng, members, len(TIME))


@pytest.mark.parametrize(("settled", "low", "high"), [(30.0, 18, 36), (10.0, 5, 16)])
def test_the_end_of_an_undershoot_is_found_by_both_detectors(settled, low, high):
    series = energies(np.random.default_rng(0), 64, settled)
    first_near = TIME[np.flatnonzero(np.abs(series.mean(0) - 3.0) < 0.3)[0]]
    assert first_near < 0.35 * settled, "the series crosses the later mean on its way down"
    assert low < stationary_from(TIME, series) < high
    assert 0.6 * low < mser(TIME, series.mean(0)) < high


def test_a_stationary_ensemble_drifts_as_seldom_as_the_limit_says():
    rng = np.random.default_rng(1)
    for members in (4, 32):
        alarms = [is_drifting(thirds_difference(autoregressive(rng, members, 300))) for _ in range(300)]
        assert np.mean(alarms) == pytest.approx(0.045, abs=0.04), members


@pytest.mark.parametrize("members", [3, 8, 16])
def test_few_members_of_a_stationary_flow_give_no_more_false_alarms_where_many_are_tested(members):
    limit = 2.773  # two-sided 0.56 %: 5 % of nine tests
    alarms = is_drifting(np.random.default_rng(4).normal(size=(members, 40_000)), limit)
    assert alarms.mean() == pytest.approx(0.0056, abs=0.0015)


def test_a_series_that_never_settles_has_no_start():
    rng = np.random.default_rng(2)
    assert np.isnan(stationary_from(TIME, 0.05 * TIME + autoregressive(rng, 32, len(TIME))))


def test_the_drift_is_the_mean_difference_with_its_standard_error():
    series = np.array([[0.0, 5.0, 1.0], [0.0, 5.0, 3.0], [1.0, 5.0, 1.0]])
    differences = thirds_difference(series)
    assert differences.tolist() == [1.0, 3.0, 0.0]
    mean, error = drift(differences)
    assert float(mean) == pytest.approx(4 / 3) and float(error) == pytest.approx(np.std([1, 3, 0], ddof=1) / 3**0.5)
    assert np.isnan(drift(differences[:1])[1]) and not is_drifting(differences[:1])


def test_the_report_warns_of_a_reference_that_drifts():
    rng = np.random.default_rng(3)
    noise = 0.01 * rng.normal(size=(16, 2))
    reference = xr.Dataset(
        {
            "kinetic_energy": (("member", "layer"), np.full((16, 2), 2.0)),
            "kinetic_energy_drift": (("member", "layer"), noise + np.array([0.1, 0.0])),
            "spectrum_drift": (("member", "layer"), noise),
        },
        {"layer": ["upper", "lower"]},
    )
    notes = drift_notes(reference)
    assert [note["drifts"] for note in notes][:2] == [True, False] and len(notes) == 4
    assert notes[0]["text"].startswith("kinetic energy (upper) +5") and notes[0]["text"].endswith("%")
    assert notes[3]["text"].endswith("decades")
    assert not drift_notes(reference.isel(member=[0])), "a single member has no standard error"
