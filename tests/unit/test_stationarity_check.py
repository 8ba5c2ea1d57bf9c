"""The check of the data: frames that drift are named with the spin-up that would do, and stationary ones pass."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from tiny_models import EMULATOR, SYSTEM

from sns_core.data.frames import FORMAT
from sns_core.errors import UserError
from sns_core.files import write_json
from sns_core.metrics.stationarity import way_out
from sns_core.metrics.stationarity_check import check_stationarity, settled_from

MEMBERS, FRAMES, SPIN_UP = 12, 30, 4.0


def write_split(path, rng, trend=0.0):
    """Write frames of white noise whose amplitude grows by `trend`, and energies that settle at t = 2."""
    growth = 1 + trend * np.linspace(-0.5, 0.5, FRAMES)[:, None, None, None]
    clock = np.arange(1, 71) * 0.1
    energy = 1 + 3 * (clock < 2) + 0.05 * rng.normal(size=(MEMBERS, len(clock)))
    xr.Dataset(
        {
            "vorticity": (("member", "time", "layer", "y", "x"), (growth * rng.normal(size=(MEMBERS, FRAMES, 1, 16, 16))).astype("f4")),
            "kinetic_energy": (("member", "clock", "layer"), energy[..., None]),
        },
        {"clock": clock, "time": np.arange(FRAMES) * 0.1, "member": np.arange(MEMBERS)}, {"format": FORMAT},
    ).to_netcdf(path)  # fmt: skip
    return [str(path)]


@pytest.fixture
def settings(tmp_path):
    write_json(tmp_path / "manifest.json", {"system": SYSTEM, "emulator": EMULATOR})
    return {"manifest": tmp_path / "manifest.json", "spin_up": SPIN_UP, "output": tmp_path / "stationarity.csv"}


def test_stationary_frames_pass_and_drifting_ones_end_the_job_where_they_must_not_drift(tmp_path, settings):
    rng = np.random.default_rng(0)
    steady = {split: write_split(tmp_path / f"{split}.nc", rng) for split in ("train", "test")}
    check_stationarity(trajectories=steady, required=True, **settings)
    table = pd.read_csv(settings["output"])
    assert len(table) == 6 and not table["drifts"].any() and (table["error"] > 0).all()
    growing = {**steady, "train": write_split(tmp_path / "growing.nc", rng, trend=0.2)}
    check_stationarity(trajectories=growing, required=False, **settings)
    table = pd.read_csv(settings["output"]).set_index(["split", "quantity"])
    assert table.loc["train", "drifts"].all() and not table.loc["test", "drifts"].any()
    # The middle of the last third lies two thirds of the growth above that of the first.
    assert table.loc[("train", "enstrophy"), "drift"] == pytest.approx(2 * 0.2 * 2 / 3, rel=0.05)
    with pytest.raises(
        UserError, match=r"data\.require_stationary: after a spin-up of 4, .*enstrophy of train \+2[678] ± "
    ):
        check_stationarity(trajectories=growing, required=True, **settings)


def test_the_way_out_is_the_spin_up_that_the_energies_tell_or_twice_the_present_one():
    row = {
        "split": "train",
        "quantity": "kinetic_energy",
        "layer": "flow",
        "drift": 0.041,
        "error": 0.012,
        "drifts": True,
        "spin_up": 12.0,
    }
    table = pd.DataFrame([{**row, "settled": 26.5}, {**row, "split": "test", "drifts": False, "settled": np.nan}])
    assert way_out(table) == (
        "after a spin-up of 12, the first and last third of the frames differ (kinetic energy of train +4.1 ± 1 %); "
        "the energy is stationary from 26.5 on; set data.spin_up to that or more"
    )
    assert way_out(table.assign(settled=10.0)).endswith(
        "no energy series is long enough to say which would do; try data.spin_up 24"
    )
    assert "24" in way_out(table.assign(settled=np.nan))


def test_both_detectors_have_to_be_content():
    rng, clock = np.random.default_rng(1), np.arange(400) * 0.1
    energy = 1 + 2 * np.exp(-clock / 2) + 0.05 * rng.normal(size=(30, 400))
    assert 5 < settled_from(clock, energy) < 20
    assert np.isnan(settled_from(clock, 1 + 0.1 * clock + 0.01 * rng.normal(size=(30, 400))))
