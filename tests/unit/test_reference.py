"""The reference ensemble: segments without frames, means that are those of frames, and floors drawn from it."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from tiny_models import EMULATOR, SYSTEM

from sns_core.data import simulate_trajectories
from sns_core.data.emulation import Emulation
from sns_core.data.segments import open_segments
from sns_core.metrics.distributions import component_scales
from sns_core.metrics.floor_table import bands_of, read_floors
from sns_core.metrics.floors import draw_floors
from sns_core.metrics.reference import _means_of_frames, compute_reference
from sns_core.rollout.reference import rollout_reference
from sns_core.rollout.segment import rollout_segment
from sns_core.rollout.statistics import SERIES

MEMBERS, STEPS, BLOCK, LAGS = 4, 40, 10, 5


@pytest.fixture(scope="module")
def ensemble(tiny, tmp_path_factory):
    """Files of the ensemble's states, of its segments in one piece and in two, and of the same run with every frame."""
    folder = tmp_path_factory.mktemp("reference")
    files = {"states": folder / "states.nc"}
    simulate_trajectories(
        system=SYSTEM, emulator=EMULATOR, split="reference", members=MEMBERS, frames=1, spin_up=1.0, seed=3,
        output=files["states"], device="cpu",
    )  # fmt: skip
    shared = {"manifest": tiny.manifest, "initial": [files["states"]], "members": list(range(MEMBERS)), "seed": 3,
              "block": BLOCK, "lags": LAGS, "device": "cpu"}  # fmt: skip
    for name, spans in {"whole": [(0, STEPS)], "cut": [(0, STEPS // 2), (STEPS // 2, STEPS // 2)]}.items():
        files[name], previous = [], None
        for first_step, steps in spans:
            output, restart = folder / f"{name}_{first_step}.nc", folder / f"{name}_{first_step}.safetensors"
            rollout_reference(
                **shared, test=[tiny.test], first_step=first_step, steps=steps, output=output, restart=restart,
                previous=previous,
            )  # fmt: skip
            files[name], previous = [*files[name], output], restart
    files["frames"] = folder / "frames.nc"
    rollout_segment(
        **shared, name="solver", method={"kind": "solver"}, models={}, first_step=0, steps=STEPS, frame_stride=1,
        output=files["frames"], restart=folder / "frames.safetensors",
    )  # fmt: skip
    return files


def test_segments_hold_statistics_without_frames_and_two_give_what_one_gives(ensemble):
    (_, whole), (frames, cut) = (open_segments(ensemble[name], "vorticity") for name in ("whole", "cut"))
    assert frames.sizes["time"] == 0 and cut.sizes["step"] == STEPS
    for name in SERIES:
        assert np.array_equal(whole[name].values, cut[name].values, equal_nan=True), name
    assert xr.open_dataset(ensemble["whole"][0]).attrs["method"] == "reference"


def test_no_split_saw_the_states_of_the_ensemble(tiny, ensemble):
    states, test = (xr.open_dataset(path)["final_state"].values for path in (ensemble["states"], tiny.test))
    assert min(np.abs(a - b).max() for a in states for b in test) > 0.1


@pytest.fixture(scope="module")
def reference(tiny, ensemble, tmp_path_factory):
    output = tmp_path_factory.mktemp("means") / "reference.nc"
    compute_reference(trajectories=[tiny.test], ensemble=ensemble["cut"], manifest=tiny.manifest, lags=LAGS, frame_stride=2,
                      map_lags=3, output=output)  # fmt: skip
    return xr.load_dataset(output)


def test_its_means_are_those_of_its_frames(tiny, ensemble, reference):
    emulation = Emulation.read(tiny.manifest)
    system, scale = emulation.build_system(), emulation.scale()
    states = torch.from_numpy(xr.open_dataset(tiny.test)["final_state"].values)
    units = component_scales(system, states, emulation.resolution)
    frames = torch.from_numpy(xr.open_dataset(ensemble["frames"])["vorticity"].values) / scale
    for member in range(MEMBERS):
        means = _means_of_frames(frames[member, 1:].split(3), system, scale, units, emulation.step, LAGS)
        for name in ("kinetic_energy", "kinetic_energy_square", "kinetic_energy_max", "enstrophy", "energy_spectrum", "max_abs",
                     "zonal_velocity", "zonal_velocity_square", "zonal_direction", "kinetic_energy_drift", "enstrophy_drift"):  # fmt: skip
            values = reference[name].isel(member=member).transpose(*means[name].dims).values
            assert values == pytest.approx(means[name].values, rel=1e-4, abs=1e-5), name
        counts = reference["velocity_counts"].isel(member=member)
        assert int(counts.sum()) == STEPS * 2 * emulation.resolution**2
        assert int(abs(counts - means["velocity_counts"]).sum()) <= 4, "in the units of the test split"


def test_what_needs_frames_is_the_test_split_s_and_no_member_counts_as_one_of_a_rollout(reference, tiny):
    assert reference.attrs["ensemble"] == "reference ensemble"
    assert reference["map"].dims == ("map_lag", "distance") and float(reference["map"][0, 0]) == pytest.approx(1.0)
    test = xr.open_dataset(tiny.test).sizes["member"]
    assert reference["member"].values.tolist() == list(range(test, test + MEMBERS))
    assert float(reference["correlation"].isel(lag=0).mean()) == pytest.approx(1.0)


def test_without_an_ensemble_the_test_split_is_the_reference(tiny, tmp_path):
    compute_reference(trajectories=[tiny.test], manifest=tiny.manifest, lags=LAGS, frame_stride=2, map_lags=3,
                      output=tmp_path / "reference.nc")  # fmt: skip
    result = xr.load_dataset(tmp_path / "reference.nc")
    assert result.attrs["ensemble"] == "test split" and result["map"].dims == ("member", "map_lag", "distance")
    assert result["member"].values.tolist() == xr.open_dataset(tiny.test)["member"].values.tolist()


def test_floors_are_drawn_from_its_segments(tiny, ensemble, tmp_path):
    draw_floors(
        ensemble=ensemble["cut"], members=2, steps=[20], window=10, shells=[1, 6], output=tmp_path / "floors.csv"
    )
    table = read_floors(tmp_path / "floors.csv")
    assert sorted(set(zip(table["members"], table["steps"], strict=True))) == [(1, 20), (2, 10), (2, 20)]
    bands = bands_of(table, 2, 20)
    assert {"spectrum_error", "worst_window_spectrum_error", "kinetic_energy", "zonal_strength"} <= set(bands["score"])
    energies = bands[bands["score"] == "kinetic_energy"]
    assert isinstance(bands, pd.DataFrame) and (energies["floor_low"] < energies["floor_high"]).all()
