"""Cost and accuracy: the solver on other grids, stretches on a clock of our own, and a table with known answers."""

import json
import math
import mmap
import os

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from tiny_models import SYSTEM

from sns_core.data.emulation import Emulation
from sns_core.errors import UserError
from sns_core.evaluation import timing as cost
from sns_core.evaluation.coarse_solver import SolverOnGrid, longest_step, regridded, rollout_grids
from sns_core.evaluation.timing import EnergyMeter, in_subprocess, measure_cost, timed
from sns_core.files import read_json, write_json
from sns_core.metrics.cost import _compare, _points_in_words, break_even, frontier, read_cost, seconds_at, tabulate_cost
from sns_core.metrics.floor_table import COLUMNS
from sns_core.rollout.ensemble import rollout_ensemble
from sns_core.systems import InstabilityError, KolmogorovFlow, TwoLayerQG

CPU = torch.device("cpu")
EMULATION = Emulation(SYSTEM["name"], SYSTEM["parameters"], 16, 0.1, {}, "")


# --- the solver on other grids ---


def waves(n: int) -> torch.Tensor:
    x = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    return (torch.sin(3 * x)[:, None] + 0.5 * torch.cos(2 * x + 0.3)[None] + 0.2 * torch.cos(x[:, None] - 3 * x))[
        None, None
    ]


@pytest.mark.parametrize(("resolution", "target"), [(16, 24), (16, 64), (24, 16), (16, 16)])
def test_the_same_waves_stand_on_another_grid(resolution, target):
    assert torch.allclose(regridded(waves(resolution), target), waves(target), atol=1e-12)


@pytest.mark.parametrize("points", [16, 64])
def test_frames_of_the_same_waves_are_the_same_on_every_grid(points):
    """Block means of another grid's points would lie beside those of the solver's own grid."""
    scale = torch.ones(2, 1, 1, dtype=torch.float64)
    emulated, flow = (TwoLayerQG(n, length=2 * math.pi, eddy_frames=False) for n in (32, points))
    expected = emulated.observe(torch.cat([waves(32), -waves(32)], 1), 16)
    solver = SolverOnGrid(flow, emulated, 16, flow.dt, scale)
    frame = solver.frame(solver.start(torch.cat([waves(points), -waves(points)], 1)))
    assert torch.allclose(frame, expected, atol=1e-12)


def on_grid(resolution: int, dt: float):
    return EMULATION.build_fastest_system(resolution=resolution, dt=dt)


def test_the_longest_step_is_the_fewest_that_go_through():
    state = on_grid(32, 0.01).initial_state(2, torch.Generator().manual_seed(1))
    tried = []

    def run(flow):
        tried.append(flow.dt)
        return {"end": flow.advance(state, round(0.1 / flow.dt))}

    substeps, result = longest_step(EMULATION, 32, CPU, run)
    assert substeps > 1 and result["end"].isfinite().all() and tried[-1] == 0.1 / substeps
    with pytest.raises(InstabilityError):
        on_grid(32, 0.1 / (substeps - 1)).advance(state, substeps - 1)
    with pytest.raises(InstabilityError):
        longest_step(EMULATION, 32, CPU, lambda flow: flow.advance(50 * state, 20))


@pytest.fixture(scope="module")
def grids(tiny, tmp_path_factory):
    output = tmp_path_factory.mktemp("grids") / "grids.nc"
    rollout_grids(
        manifest=tiny.manifest, initial=[tiny.test], grids=[16, 24, 32, 48, 64], finest=48, starts=2, members=2, leads=[3, 1],
        disturbance=0.01, rolled=3, steps=25, every=2, seed=5, output=output, device="cpu",
    )  # fmt: skip
    return output


def test_forecasts_on_other_grids_start_where_those_of_methods_do(tiny, grids, tmp_path):
    output, manifest = tmp_path / "solver.nc", read_json(tiny.manifest)
    manifest["system"]["parameters"] |= dict(KolmogorovFlow.fastest)  # the form in which grids are run
    write_json(tmp_path / "manifest.json", manifest)
    rollout_ensemble(
        name="solver", method={"kind": "solver"}, models={}, manifest=tmp_path / "manifest.json", initial=[tiny.test], starts=2,
        members=2, leads=[1, 3], disturbance=0.01, seed=5, output=output, device="cpu",
    )  # fmt: skip
    on_grids, forecast = xr.load_dataset(grids), xr.load_dataset(output)["forecast"]
    assert on_grids["forecast"].dims == ("grid", *forecast.dims) and on_grids["lead"].values.tolist() == [1, 3]
    error = (
        abs(on_grids["forecast"] - forecast).max(("start", "member", "lead", "layer", "y", "x")) / abs(forecast).max()
    )
    same, coarser = error.sel(grid=32), error.sel(grid=[16, 24])
    assert float(same) < 0.01 * float(coarser.min()), "the solver's own grid differs by its longer step alone"
    assert float(error.sel(grid=16)) > float(error.sel(grid=24))
    assert np.isnan(on_grids["forecast"].sel(grid=64)).all(), "finer than `finest`"
    assert on_grids["stable_steps"].values.tolist() == [3, 3, 3, 3, 1]
    assert (on_grids["substeps"] <= 2 * math.ceil(0.1 / 0.02) * on_grids["grid"] / 32).all()


def test_long_runs_give_spectra_of_each_part_on_grids_up_to_the_solver_s_own(tiny, grids):
    on_grids = xr.load_dataset(grids)
    energy = on_grids["energy_spectrum"]
    assert energy.dims == ("grid", "unit", "layer", "wavenumber") and energy.sizes["unit"] == 3 * 4
    assert np.isfinite(energy.sel(grid=[16, 24, 32])).all() and np.isnan(energy.sel(grid=[48, 64])).all()
    # 25 steps: 5 to settle, then four parts of 5 steps. Every second step counts. Parseval's identity gives the energy.
    substeps = int(on_grids["substeps"].sel(grid=24))
    flow = on_grid(24, 0.1 / substeps)
    states = torch.from_numpy(xr.load_dataset(tiny.test)["final_state"].values)
    carry, energies = flow.start(regridded(states, 24)), {}
    for step in range(1, 26):
        carry = flow.run(carry, substeps)
        energies[step] = flow.kinetic_energy(regridded(flow.state(carry), 16))[:, 0]
    parts = [(7, 9), (11, 13, 15), (17, 19), (21, 23, 25)]
    expected = torch.cat([torch.stack([energies[step] for step in steps]).mean(0) for steps in parts])
    assert energy.sel(grid=24).sum("wavenumber")[:, 0].values == pytest.approx(expected.numpy(), rel=1e-4)


# --- measuring ---


def test_stretches_are_of_equal_length_and_their_median_counts(monkeypatch):
    clock, counts = [0.0], []
    slow = iter([3.0, 1.0, 1.0, 1.5, 0.9])  # warm-up, trial, then stretches

    def advance(count):
        counts.append(count)
        clock[0] += 0.1 * count * next(slow)

    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    times = timed(advance, 2, 100, 3, 3.0, CPU)
    assert counts == [2, 2, 10, 10, 10]
    assert times["seconds"] == pytest.approx(0.1) and times["steps"] == 10
    assert (times["low"], times["high"]) == (pytest.approx(0.09), pytest.approx(0.15))
    slow = iter([1.0] * 5)
    assert timed(advance, 2, 5, 3, 30.0, CPU)["steps"] == 4 and counts[-3:] == [4, 4, 4], "a multiple of the least"


def test_energy_comes_from_the_counters_of_packages_even_past_their_end(monkeypatch, tmp_path):
    for name, now in {"intel-rapl:0": 900, "intel-rapl:1": 0, "intel-rapl:0:0": 0}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{now}000000\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000000000\n")
    monkeypatch.setattr(cost, "POWERCAP", tmp_path)
    meter = EnergyMeter(CPU)
    meter.begin()
    for name, now in {"intel-rapl:0": 50, "intel-rapl:1": 30, "intel-rapl:0:0": 500}.items():
        (tmp_path / name / "energy_uj").write_text(f"{now}000000\n")
    assert meter.end() == pytest.approx(150 + 30)
    monkeypatch.setattr(cost, "POWERCAP", tmp_path / "nowhere")
    meter = EnergyMeter(CPU)
    meter.begin()
    assert meter.end() is None


def test_energy_of_a_gpu_is_its_power_times_the_seconds(monkeypatch, tmp_path):
    tool, clock = tmp_path / "nvidia-smi", [10.0]
    tool.write_text("#!/bin/sh\necho 250.0\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    meter = EnergyMeter(torch.device("cuda", 0))
    meter.begin()
    clock[0] = 12.0
    assert meter.end() == pytest.approx(500)
    tool.write_text("#!/bin/sh\necho N/A\n")
    assert meter.end() is None


def _hold(megabytes: int) -> dict:
    # Pages of its own: an array may come from memory that the parent has freed and the child took over.
    values = np.frombuffer(mmap.mmap(-1, megabytes * 1_000_000))
    values[:] = 1
    return {"sum": float(values.sum())}


def _fail(words: str) -> dict:
    raise UserError(words)


def test_memory_is_that_of_each_contender_alone():
    large, small = in_subprocess(_hold, 800), in_subprocess(_hold, 1)
    assert large["sum"] == 800 * 125_000
    # what a process takes over from its parent is counted, too, and differs by 100 MB from one to the next
    assert large["memory_mb"] - small["memory_mb"] > 640
    with pytest.raises(UserError, match="no such model"):
        in_subprocess(_fail, "no such model")


def test_methods_and_grids_are_measured_with_what_they_depend_on(tiny, grids, tmp_path):
    output = tmp_path / "measured.json"
    walk = {"path": "left_then_down", "readout": {"kind": "argmax"}, "sampler": {}, "stride": 5}
    methods = {
        "solver": {"method": {"kind": "solver"}, "models": {}},
        "generation": {
            "method": {"kind": "generation", **walk},
            "models": {"denoiser": str(tiny.models["denoiser"])},
        },
    }
    measure_cost(
        methods=methods, manifest=tiny.manifest, initial=[tiny.test], grids=grids, members=2, steps=3, repeats=2, seconds=0.01,
        seed=0, output=output, device="cpu", precision="float32",
    )  # fmt: skip
    costs = read_json(output)
    assert list(costs["methods"]) == ["generation", "solver"] and set(costs["grids"]) == {"16", "24", "32", "48", "64"}
    assert costs["methods"]["solver"]["calls"] == 0 and costs["methods"]["generation"]["calls"] >= 4
    for spec in (*costs["methods"].values(), *costs["grids"].values()):
        assert 0 < spec["low"] <= spec["seconds"] <= spec["high"] and spec["memory_mb"] > 50
    assert costs["grids"]["32"]["dt"] * costs["grids"]["32"]["substeps"] == pytest.approx(costs["step"])
    assert costs["machine"]["threads"] == 1 and costs["machine"]["processor"]


@pytest.mark.parametrize(
    ("method", "calls"),
    [
        ({"kind": "rolling_window"}, 2),
        ({"kind": "refinement", "blind": {"level": 2, "every": 3, "random": False}}, 4 / 3),
        ({"kind": "refinement", "blind": {"level": 2, "every": 3, "random": False}, "refine_every": 2}, 4 / 6),
    ],
)
def test_timed_steps_make_as_many_calls_as_those_of_a_long_rollout(tiny, method, calls):
    """The first step of a window costs three times as much, and a walk from level 2 takes 4 calls at every n-th step."""
    models = {**tiny.models, "velocities": tiny.models["rolling_window"]}
    shared = {"manifest": tiny.manifest, "initial": [tiny.test], "members": 2, "seed": 0, "device": "cpu",
              "precision": "float32", "compile": False, "steps": 8, "repeats": 1, "seconds": 0.01}  # fmt: skip
    cost_of = cost._time_method("timed", {"method": method, "models": models}, shared)
    assert cost_of["calls"] == pytest.approx(calls)


# --- the table ---


def test_between_its_grids_the_solver_costs_in_proportion_on_logarithmic_axes():
    front = frontier([(4.0, 0.01), (1.0, 0.16), (2.0, 0.04), (3.0, 0.05), (8.0, math.nan), (9.0, 0.02)])
    assert front == [(1.0, 0.16), (2.0, 0.04), (4.0, 0.01)]
    # error = 0.16 / seconds^2, all along.
    for seconds in (1.0, 1.3, 2.0, 2.7, 4.0):
        assert seconds_at(0.16 / seconds**2, front) == (pytest.approx(seconds), False)
    assert seconds_at(0.5, front) == (1.0, True) and seconds_at(math.inf, front) == (1.0, True)
    assert seconds_at(0.001, front) == (4.0, False)
    assert math.isnan(seconds_at(math.nan, front)[0]) and math.isnan(seconds_at(0.1, [])[0])


def test_what_is_saved_pays_for_the_preparation_or_never_does():
    assert break_even(100.0, seconds=1.0, instead_of=1.5) == 200
    assert break_even(100.0, seconds=1.5, instead_of=1.5) == math.inf == break_even(100.0, 2.0, 1.5)


SHELLS, STEP = (1, 4), 0.5


def spectrum(error: float = 0.0) -> np.ndarray:
    return np.exp(-np.arange(6.0)) * 10**error


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    """A solver of error 0.01 at 4 s a step, 0.04 on 16 points at 1 s; `fast` is worth its price, `slow` is not, `lost` is lost."""
    truth = np.zeros((3, 2, 1, 4, 4), dtype=np.float32)
    off = np.array([0.04, 0.02, np.nan])[:, None, None, None, None, None, None]
    forecast = truth[None, :, None] + off + np.zeros((3, 3, 2, 2, 1, 4, 4))
    energy = np.stack([np.broadcast_to(spectrum(e), (4, 1, 6)) for e in (0.3, 0.1, np.nan)])
    dims, spectra = ("start", "lead", "layer", "y", "x"), ("unit", "layer", "wavenumber")
    coordinates = {"lead": [1, 5], "layer": ["flow"]}
    xr.Dataset(
        {"forecast": (("grid", "start", "member", *dims[1:]), forecast), "energy_spectrum": (("grid", *spectra), energy)},
        {"grid": [16, 32, 64], **coordinates}, {"own": 32, "rolled": 4, "counted_steps": 640},
    ).to_netcdf(tmp_path / "grids.nc")  # fmt: skip
    xr.Dataset({"truth": (dims, truth)}, coordinates).to_netcdf(tmp_path / "solver.nc")
    members = ("member", "layer")
    reference = {"energy_spectrum": ((*members, "wavenumber"), np.broadcast_to(spectrum(), (5, 1, 6))),
             "zonal_velocity": ((*members, "y"), np.zeros((5, 1, 4))),
             "zonal_velocity_square": ((*members, "y"), np.zeros((5, 1, 4))),
             "map": (("map_lag", "distance"), np.zeros((2, 2)))}  # fmt: skip
    reference |= {
        f"{name}_counts": ((*members, "bin"), np.ones((5, 1, 3))) for name in ("vorticity", "velocity", "gradient")
    }
    reference |= {name: (members, np.ones((5, 1))) for name in ("kinetic_energy", "enstrophy")}
    reference |= {f"{name}_square": (members, np.ones((5, 1))) for name in ("kinetic_energy", "enstrophy")}
    reference |= {name: ("member", np.ones(5)) for name in ("rate_of_change", "relative_change")}
    xr.Dataset({**reference, "correlation": (("member", "lag"), np.ones((5, 2)))}).to_netcdf(tmp_path / "reference.nc")
    rows = []
    for method, crps, error, lost in (
        ("solver", 0.01, 0.01, 0), ("fast", 0.02, 0.15, 0), ("slow", 0.05, 0.4, 0), ("lost", 0.3, 0.05, 2),
    ):  # fmt: skip
        scores = [("crps", "flow", 1, crps), ("crps", "flow", 5, 2 * crps), ("spectrum_error", "flow", "", error)]
        scores += [("calls_per_step", "", "", 1.0)]
        rows += [{"method": method, "score": s, "layer": layer, "lead": lead, "value": v, "low": 0.9 * v, "high": 1.1 * v,
                  "members_lost": lost, "floor_high": math.nan} for s, layer, lead, v in scores]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "scorecard.csv", index=False)
    pd.DataFrame(columns=COLUMNS).to_csv(tmp_path / "floors.csv", index=False)

    def spec(seconds, **more):
        return {"seconds": seconds, "low": seconds / 2, "high": 2 * seconds, "steps": 2, "joules": None, "calls": 0.0,
                "memory_mb": 300.0, **more}  # fmt: skip

    write_json(tmp_path / "measured.json", {
        "methods": {"fast": spec(0.5, calls=2.0, joules=3.0), "lost": spec(0.5), "slow": spec(1.5), "solver": spec(4.0)},
        "grids": {"16": spec(1.0, dt=0.25), "32": spec(2.0, dt=0.5), "64": spec(16.0, dt=0.125, gpu_memory_mb=7.0)},
        "members": 8, "step": STEP, "time_units": "1",
        "machine": {"host": "here", "processor": "fast one", "cores": 2, "threads": 1, "gpu": None},
    })  # fmt: skip
    for name, seconds in {"train": 30.0, "validation": 10.0}.items():
        provenance = json.dumps({"wall_seconds": seconds})
        xr.Dataset(attrs={"provenance": provenance}).to_netcdf(tmp_path / f"{name}.nc")
    for name, seconds in {"surrogate": 60.0, "denoiser": 100.0}.items():
        write_json(tmp_path / f"{name}.json", {"provenance": {"wall_seconds": seconds}})
    tabulate_cost(
        measured=tmp_path / "measured.json", grids=tmp_path / "grids.nc", ensemble=tmp_path / "solver.nc",
        scorecard=tmp_path / "scorecard.csv", reference=tmp_path / "reference.nc", floors=tmp_path / "floors.csv",
        data=[tmp_path / "train.nc", tmp_path / "validation.nc"],
        notes={name: tmp_path / f"{name}.json" for name in ("surrogate", "denoiser")},
        models={"solver": [], "fast": ["surrogate"], "slow": ["surrogate", "denoiser"], "lost": ["surrogate"]},
        system="kolmogorov", shells=list(SHELLS), resolution=[16, 32], output=tmp_path / "cost.csv",
    )  # fmt: skip
    return read_cost(tmp_path / "cost.csv")


def entry(table, contender, score, lead=None):
    rows = table[(table["contender"] == contender) & (table["score"] == score)]
    rows = rows if lead is None else rows[rows["lead"] == lead]
    assert len(rows) == 1
    return rows.iloc[0]


def test_a_grid_is_named_by_the_points_along_both_of_its_sides(table):
    points = table.drop_duplicates("contender").set_index("contender")["points"]
    assert points[["solver", "16", "32", "64"]].tolist() == ["16 x 32", "8 x 16", "16 x 32", "32 x 64"]
    assert points["fast"] == ""
    shapes = ([64, 64], [1, 128], [48, 32])
    assert [_points_in_words(shape, 96) for shape in shapes] == ["96²", "96 points", "96 x 64"]


def test_methods_stand_in_the_order_of_the_configuration(table):
    assert list(dict.fromkeys(table["contender"])) == ["solver", "fast", "slow", "lost", "16", "32", "64"]


def test_costs_are_those_of_a_time_unit(table):
    fast, grid = entry(table, "fast", "crps", 1), entry(table, "64", "crps", 1)
    assert (fast["seconds"], fast["seconds_low"], fast["seconds_high"]) == (1.0, 0.5, 2.0)
    assert fast["calls"] == 4 and fast["joules"] == 6 and fast["memory_mb"] == 300 and fast["preparation"] == 100
    assert (
        entry(table, "slow", "crps", 1)["preparation"] == 200 and entry(table, "solver", "crps", 1)["preparation"] == 0
    )
    assert grid["seconds"] == 32 and math.isnan(grid["joules"]) and grid["memory_mb"] == 7
    assert math.isnan(grid["error"]) and grid["machine"] == "fast one, 1 thread"
    assert entry(table, "solver", "crps", 1)["grid"] == 32 and len(table) == 7 * 3


def test_errors_of_grids_are_by_the_same_scores_as_those_of_methods(table):
    assert entry(table, "16", "crps", 5)["error"] == pytest.approx(0.04)
    assert entry(table, "32", "crps", 1)["error"] == pytest.approx(0.02)
    assert entry(table, "16", "spectrum_error")["error"] == pytest.approx(0.3)
    assert entry(table, "32", "spectrum_error")["error"] == pytest.approx(0.1)
    low, value, high = entry(table, "fast", "crps", 5)[["error_low", "error", "error_high"]]
    assert (low, value, high) == (pytest.approx(0.036), pytest.approx(0.04), pytest.approx(0.044))


def test_a_method_gains_where_the_solver_takes_longer_for_the_same_error(table):
    lead_1, lead_5, spectrum = (
        entry(table, "fast", *score) for score in (("crps", 1), ("crps", 5), ("spectrum_error",))
    )
    assert lead_1["verdict"] == lead_5["verdict"] == "gains" and lead_1["beaten_by"] == lead_5["beaten_by"] == ""
    assert lead_1["speed_up"] == pytest.approx(4.0) and lead_5["speed_up"] == pytest.approx(2.0)
    assert lead_1["break_even"] == pytest.approx(100 / 3) and lead_1["break_even_configured"] == pytest.approx(100 / 7)
    between = 2 * 2 ** (math.log(0.3 / 0.15) / math.log(0.3 / 0.1))
    assert spectrum["solver_seconds"] == pytest.approx(between) and not spectrum["at_most"]


def test_a_method_loses_where_a_grid_of_the_solver_is_cheaper_and_better(table):
    forecast, spectrum = entry(table, "slow", "crps", 1), entry(table, "slow", "spectrum_error")
    for row in (forecast, spectrum):
        assert row["verdict"] == "loses" and row["beaten_by"] == "16" and row["at_most"]
        assert row["speed_up"] == pytest.approx(2 / 3) and row["break_even"] == math.inf
    assert forecast["speed_up_configured"] == pytest.approx(8 / 3) and forecast[
        "break_even_configured"
    ] == pytest.approx(200 / 5)


def test_a_method_that_loses_members_has_no_spectrum_to_be_compared(table):
    row = entry(table, "lost", "spectrum_error")
    assert row["verdict"] == "lost" and row["at_most"] and row["beaten_by"] == "", "it is cheaper than any grid"
    assert entry(table, "lost", "crps", 1)["verdict"] == "gains", "forecasts end before"


def test_errors_inside_the_floor_count_as_equal():
    rows = pd.DataFrame(
        {
            "contender": ["solver", "32", "16", "sns"], "kind": ["method", "grid", "grid", "method"],
            "seconds": [4.0, 2.0, 1.0, 3.0], "score": "spectrum_error", "lead": math.nan,
            "error": [0.009, 0.013, 0.2, 0.011], "floor": 0.015, "members_lost": 0, "preparation": 1.0,
        }
    )  # fmt: skip
    free, long = rows.assign(floor=0.0), rows.assign(floor=[0.015, 0.015, 0.015, 0.0])
    for table in (rows, free, long):
        _compare(table, (table["kind"] == "grid") | (table["contender"] == "solver"))
    assert rows["solver_seconds"].iloc[-1] == 2.0 and rows["beaten_by"].iloc[-1] == "32"
    assert 2.0 < free["solver_seconds"].iloc[-1] < 4.0 and free["beaten_by"].iloc[-1] == ""
    assert long["solver_seconds"].iloc[-1] == 2.0, "a rollout too long for a floor meets grids that have one"


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cost\.csv: missing"):
        read_cost(tmp_path / "cost.csv")
