"""Floors as bands: what runs of the solver of the same size score, and how many fresh runs lie inside."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from test_scorecard import BLOCK, MEMBERS, STEPS, WINDOW, synthetic

from sns_core.metrics import floors
from sns_core.metrics.bootstrap import pooled
from sns_core.metrics.distances import spectrum_error
from sns_core.metrics.floor_table import QUANTILES, bands_of, inside, probability, read_floors, reasons
from sns_core.metrics.floors import draw_floors, floor_bands
from sns_core.metrics.scorecard import block_means

SHELLS = (1, 5)


def solver(rng, members: int, steps: int = STEPS) -> xr.Dataset:
    """Runs of the solver whose block spectra scatter by a tenth."""
    result = synthetic(rng, members, steps)
    spectra = result["energy_spectrum"]
    return result.assign(energy_spectrum=spectra * rng.lognormal(0, 0.1, spectra.shape))


def scored(run: xr.Dataset, ensemble: xr.Dataset) -> dict[str, float]:
    """Scores of a fresh run against the whole ensemble."""
    mine, truth = (data.mean(("member", "block")) for data in (run["energy_spectrum"], ensemble["energy_spectrum"]))
    window = run["energy_spectrum"].coarsen(block=WINDOW // BLOCK).mean().mean("member").isel(layer=0).values
    energy = [data["kinetic_energy"] for data in (run, ensemble)]
    return {
        "spectrum_error": float(spectrum_error(mine.values[0], truth.values[0], SHELLS)),
        "worst_window_spectrum_error": float(spectrum_error(window, truth.values[0], SHELLS)[1:].max()),
        "kinetic_energy": float(energy[0].mean() / energy[1].mean()),
        "kinetic_energy_variance": float(energy[0].var() / energy[1].var()),
    }


def test_nine_of_ten_fresh_runs_of_the_solver_lie_inside_the_floor():
    rng = np.random.default_rng(0)
    ensemble = solver(rng, 32)
    floor = floor_bands(ensemble, MEMBERS, 1000, WINDOW, SHELLS, draws=100, seed=1).set_index("score")
    assert (floor["low"] <= floor["middle"]).all() and (floor["middle"] <= floor["high"]).all()
    inside = []
    for _ in range(50):
        scores = scored(solver(rng, MEMBERS, 1000), ensemble)
        inside.append([floor.loc[name, "low"] <= value <= floor.loc[name, "high"] for name, value in scores.items()])
    assert np.mean(inside, 0) == pytest.approx([0.9] * 4, abs=0.12)


def test_longer_runs_and_fewer_windows_have_a_lower_floor():
    ensemble = solver(np.random.default_rng(2), 16)
    short, long = (
        floor_bands(ensemble, MEMBERS, steps, WINDOW, SHELLS, draws=40).set_index("score") for steps in (400, 1600)
    )
    assert long.loc["spectrum_error", "high"] < 0.7 * short.loc["spectrum_error", "high"]
    assert long.loc["worst_window_spectrum_error", "middle"] > short.loc["worst_window_spectrum_error", "middle"]
    whole = floor_bands(ensemble, MEMBERS, 1600, WINDOW, SHELLS, draws=40, only_spectra=True).set_index("score")
    for name in ("spectrum_error", "worst_window_spectrum_error"):
        assert whole.loc[name, "middle"] == pytest.approx(long.loc[name, "middle"])
    later = floor_bands(ensemble, MEMBERS, 1600, WINDOW, SHELLS, draws=40, skip=6).set_index("score")
    assert later.loc["worst_window_spectrum_error", "middle"] < long.loc["worst_window_spectrum_error", "middle"]


def test_the_floor_has_the_scores_of_the_scorecard_and_an_ideal_ensemble_scores_its_ideals():
    ensemble = synthetic(np.random.default_rng(3), 12, STEPS)
    floor = floor_bands(ensemble, MEMBERS, 1000, WINDOW, SHELLS, draws=20).set_index("score")
    for name in ("zonal_strength", "zonal_amplitude", "decorrelation_time", "fluctuation_time", "relative_change"):
        assert floor.loc[name, ["low", "high"]].tolist() == pytest.approx([1.0, 1.0], abs=1e-6), name
    assert floor.loc["vorticity_distance", "high"] == pytest.approx(0.0, abs=1e-9)
    assert "calls_per_step" not in floor.index


def test_the_range_of_a_run_is_that_of_the_other_members():
    ensemble = synthetic(np.random.default_rng(6), 8, STEPS)
    ensemble["max_abs"][:] = 5.0
    ensemble["max_abs"][7, : STEPS // 2] = 6.0  # half of the steps of one member lie beyond all others
    floor = floor_bands(ensemble, MEMBERS, STEPS, WINDOW, SHELLS, draws=60).set_index("score")
    assert (
        floor.loc["out_of_range", "high"] == pytest.approx(1 / 8, abs=0.02) and floor.loc["out_of_range", "low"] < 0.02
    )


def test_the_table_holds_a_band_per_size_or_the_reason_why_there_is_none(monkeypatch, tmp_path, capsys):
    ensemble = synthetic(np.random.default_rng(7), 10, 1000)
    monkeypatch.setattr(floors, "open_segments", lambda paths: (None, ensemble))
    settings = {"members": 4, "window": WINDOW, "shells": list(SHELLS), "output": tmp_path / "floors.csv"}
    draw_floors(ensemble=[tmp_path], steps=[1000, 3000], **settings)
    assert "floors: 4 members of 3000 steps need" in capsys.readouterr().err
    table = read_floors(tmp_path / "floors.csv")
    assert reasons(table, 4) == [
        "4 members of 3000 steps need an ensemble of at least 8 members and 3000 steps; it has 10 members and 1000 steps"
    ]
    assert set(bands_of(table, 1, 1000)["score"]) == {"spectrum_error", "worst_window_spectrum_error"}
    window, whole = (bands_of(table, 4, steps).set_index("score") for steps in (WINDOW, 1000))
    assert len(window) > 20 and window.loc["spectrum_error", "floor_high"] == pytest.approx(0.0, abs=1e-9)
    assert whole.loc["kinetic_energy", "floor_low"] < 1 < whole.loc["kinetic_energy", "floor_high"]
    assert bands_of(table, 4, 3000).empty
    draw_floors(ensemble=[], steps=[1000], **settings)
    table = read_floors(tmp_path / "floors.csv")
    assert reasons(table, 4) == ["this run has no reference ensemble (data.reference is null)"]


def test_a_rollout_of_one_member_has_the_floors_of_all_scores_that_one_member_can_have(monkeypatch, tmp_path):
    ensemble = solver(np.random.default_rng(8), 10, 1000)
    monkeypatch.setattr(floors, "open_segments", lambda paths: (None, ensemble))
    output = tmp_path / "floors.csv"
    draw_floors(ensemble=[tmp_path], members=1, steps=[1000], window=WINDOW, shells=list(SHELLS), output=output)
    bands = bands_of(read_floors(output), 1, 1000).set_index("score")
    for name in ("kinetic_energy", "enstrophy_variance", "vorticity_distance", "relative_change", "spectrum_error"):
        assert np.isfinite(bands.loc[name, ["floor_low", "floor_high"]].astype(float)).all(), name
    assert np.isnan(bands.loc["zonal_strength", "floor_high"]), "it needs pairs of members"


def test_of_a_distance_only_the_upper_end_of_the_floor_counts():
    table = pd.DataFrame(
        {"value": [0.1, 0.1, 0.5, np.nan, 0.1], "floor_low": [0.2] * 4 + [np.nan], "floor_high": [0.4] * 4 + [np.nan]}
    )
    values = inside(table, "value", np.array([True, False, True, True, True])).tolist()
    assert values[:3] == [True, False, False] and all(value is pd.NA for value in values[3:])


@pytest.mark.parametrize(("start", "share"), [(0, 0.0), (5, 0.25), (10, 0.25)])
def test_a_run_is_out_of_range_at_its_own_steps(start, share):
    """One of two members leaves the range of the rest in the blocks 10 to 14 of 20; a run has ten blocks."""
    energy = np.ones((3, 20 * BLOCK, 1))
    energy[0, ::2], energy[1, 10 * BLOCK : 15 * BLOCK] = 3.0, 9.0
    ensemble = xr.Dataset({
        "kinetic_energy": (("member", "step", "layer"), energy), "max_abs": (("member", "step"), np.ones((3, 20 * BLOCK))),
    })  # fmt: skip
    runs = [(np.array([1, 2]), np.array([0]), start)]
    assert float(floors._out_of_range(ensemble, runs, BLOCK, 10)[0]) == pytest.approx(share)


@pytest.mark.parametrize(
    ("scores", "value", "larger", "both"),
    [
        (np.linspace(0, 1, 201), 0.2, 0.8, 0.4),
        (np.linspace(0, 1, 201), 0.95, 0.05, 0.1),
        (np.linspace(0, 1, 201), 1.5, 0.0, 0.0),
        (np.linspace(0, 1, 201), -0.5, 1.0, 0.0),
        (np.repeat([0.0, 1.0], [101, 100]), 0.0, 1.0, 1.0),  # as far off as half of the runs, and less than the others
        (np.repeat([0.0, 1.0], [50, 151]), 1.0, 0.75, 1.0),
        (np.zeros(201), 0.0, 1.0, 1.0),
    ],
)
def test_the_probability_is_the_share_of_runs_that_are_at_least_as_far_off(scores, value, larger, both):
    ends = np.quantile(scores, list(QUANTILES))
    bands = {f"floor_{name}": end for name, end in zip(QUANTILES.values(), ends, strict=True)}
    table = pd.DataFrame([{"value": value, **bands}] * 2)
    probabilities = probability(table, "value", pd.Series([True, False]))
    assert probabilities == pytest.approx([larger, both], abs=0.01)
    assert np.isnan(probability(table.assign(floor_high=np.nan), "value", pd.Series([True, False]))).all()


def test_an_ensemble_that_is_too_small_is_refused():
    with pytest.raises(
        ValueError, match=r"4 members of 1000 steps need .* at least 8 members and 1000 steps; it has 6"
    ):
        floor_bands(synthetic(np.random.default_rng(4), 6, STEPS), 4, 1000, WINDOW, SHELLS)


def test_means_over_blocks_are_those_of_the_scorecard():
    result = synthetic(np.random.default_rng(5), 3, 200)
    blocks = block_means(result, 2.0)
    units = blocks.stack(unit=("member", "block")).reset_index("unit", drop=True)
    whole = pooled(units.assign(size=("unit", np.ones(units.sizes["unit"]))).transpose("unit", ...))
    energy = float(whole["kinetic_energy"].isel(resample=0).squeeze())
    assert energy == pytest.approx(float(result["kinetic_energy"].mean()))
