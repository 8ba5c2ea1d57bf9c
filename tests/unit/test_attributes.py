"""Units and long names of the variables in files: those of a system with units, and all that the writers write."""

import netCDF4
import numpy as np
import pytest
import xarray as xr
from tiny_models import EMULATOR, SYSTEM

from sns_core.data import shard_dataset, simulate_trajectories
from sns_core.data.attributes import VARIABLES, attributes_of, described, product
from sns_core.metrics.reference import compute_reference
from sns_core.metrics.rollout_metrics import compute_metrics
from sns_core.rollout import rollout_segment
from sns_core.rollout.statistics import SERIES
from sns_core.systems import KolmogorovFlow, TwoLayerQG

UNITS = {
    "kinetic_energy": "m2 s-2", "enstrophy": "s-2", "enstrophy_square": "s-4", "energy_spectrum": "m3 s-2",
    "zonal_profile": "m s-1", "velocity_scale": "m s-1", "gradient_scale": "s-1 m-1", "wavenumber": "m-1", "lag": "s",
    "rate_of_change": "s-1", "potential_vorticity": "s-1", "final_state": "s-1", "correlation": "1", "distance": "m",
}  # fmt: skip


@pytest.mark.parametrize(("name", "units"), UNITS.items())
def test_quantities_of_the_ocean_have_its_units_and_those_of_a_flow_without_units_have_none(name, units):
    assert attributes_of(name, TwoLayerQG)["units"] == units
    assert attributes_of(name, KolmogorovFlow).get("units", "1") == "1"


def test_products_of_units_are_written_as_udunits_writes_them():
    assert product([("m", 1), ("s-1", 2)]) == "m s-2" and product([("1", 3)]) == "1" == product([("s", 1), ("s-1", 1)])
    assert product([("kg m-3", 2)]) == "kg2 m-6" and product([("m", 1), ("1/s", 1)]) == "m (1/s)"


def test_every_statistic_of_a_rollout_is_listed():
    assert set(SERIES) <= set(VARIABLES)


def test_variables_of_a_user_keep_their_attributes():
    dataset = xr.Dataset(
        {"heat_flux": ("x", [1.0], {"units": "W m-2"}), "mse": ("x", [1.0], {"units": "wrong"})}, {"x": [0.0]}
    )
    dataset = described(dataset, TwoLayerQG)
    assert dataset["heat_flux"].attrs == {"units": "W m-2", "long_name": "heat flux"}
    assert dataset["mse"].attrs["units"] == "1" and dataset["x"].attrs["units"] == "m"
    assert dataset["x"].encoding["_FillValue"] is None and dataset.attrs["Conventions"] == "CF-1.10"


QG = {"name": "TwoLayerQG", "parameters": {"resolution": 16, "dt": 7200.0}}


@pytest.mark.parametrize(("system", "emulator"), [(SYSTEM, EMULATOR), (QG, {"resolution": 16, "step": 14400.0})])
def test_every_variable_of_every_file_has_units_and_a_long_name(tmp_path, system, emulator):
    files = [tmp_path / f"{split}.nc" for split in ("train", "test")]
    for path in files:
        simulate_trajectories(
            system=system, emulator=emulator, split=path.stem, members=2, frames=12, spin_up=emulator["step"], seed=1,
            output=path, device="cpu",
        )  # fmt: skip
    manifest, reference, segment = (tmp_path / name for name in ("manifest.json", "reference.nc", "segment.nc"))
    shard_dataset(trajectories=files, output=manifest)
    compute_reference(trajectories=files[1:], manifest=manifest, lags=3, frame_stride=1, map_lags=2, output=reference)
    rollout_segment(
        name="solver", method={"kind": "solver"}, models={}, manifest=manifest, initial=files[1:], first_step=0, steps=10,
        members=[0, 1], seed=1, frame_stride=1, block=5, lags=3, output=segment, restart=tmp_path / "restart.safetensors",
        device="cpu",
    )  # fmt: skip
    compute_metrics(
        segments=[segment], solver=[segment], reference=reference, manifest=manifest, window=10, shells=[1, 5], map_lags=2,
        output=tmp_path / "metrics.nc", output_windows=tmp_path / "windows.csv",
    )  # fmt: skip
    for path in tmp_path.glob("*.nc"):
        with netCDF4.Dataset(path) as dataset:
            assert dataset.Conventions == "CF-1.10"
            for name, variable in dataset.variables.items():
                assert variable.long_name, (path.name, name)
                assert name == "layer" or variable.units, (path.name, name)
                assert not (name in dataset.dimensions and "_FillValue" in variable.ncattrs()), (path.name, name)
    with xr.open_dataset(reference) as opened:
        assert opened["kinetic_energy"].attrs["units"] == ("m2 s-2" if system is QG else "1")
        assert np.isfinite(opened["kinetic_energy"]).all()
