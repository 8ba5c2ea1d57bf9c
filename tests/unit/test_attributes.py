"""Units and long names of the variables in files, and what files say of themselves, by CF and by the checker of IOOS."""

import netCDF4
import numpy as np
import pytest
import xarray as xr
from cf_checker import cf_faults
from tiny_models import EMULATOR, SYSTEM

from sns_core.data import shard_dataset, simulate_trajectories
from sns_core.data.attributes import VARIABLES, attributes_of, described, product
from sns_core.metrics.reference import compute_reference
from sns_core.metrics.rollout_metrics import compute_metrics
from sns_core.rollout import rollout_segment
from sns_core.rollout.ensemble import rollout_ensemble
from sns_core.rollout.statistics import SERIES
from sns_core.stages import STAGES
from sns_core.systems import KolmogorovFlow, TwoLayerQG
from sns_core.version import __version__

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
    dataset = described(dataset, TwoLayerQG, title="Heat", stage="compute_metrics")
    assert dataset["heat_flux"].attrs == {"units": "W m-2", "long_name": "heat flux"}
    assert dataset["mse"].attrs["units"] == "1" and dataset["x"].attrs["units"] == "m"
    assert dataset["x"].encoding["_FillValue"] is None and dataset.attrs["Conventions"] == "CF-1.10"


QG = {"name": "TwoLayerQG", "parameters": {"resolution": 16, "dt": 7200.0}}


@pytest.fixture(
    scope="module", params=[(SYSTEM, EMULATOR), (QG, {"resolution": 16, "step": 14400.0})], ids=["flow", "ocean"]
)
def files(request, tmp_path_factory):
    """The netCDF files of a run of the solver alone, by name, and their system."""
    system, emulator = request.param
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{split}.nc" for split in ("train", "test")]
    for path in paths:
        simulate_trajectories(
            system=system, emulator=emulator, split=path.stem, members=2, frames=12, spin_up=emulator["step"], seed=1,
            output=path, device="cpu",
        )  # fmt: skip
    manifest, reference, segment = (folder / name for name in ("manifest.json", "reference.nc", "segment.nc"))
    shard_dataset(trajectories=paths, output=manifest)
    compute_reference(trajectories=paths[1:], manifest=manifest, lags=3, frame_stride=1, map_lags=2, output=reference)
    rollout_segment(
        name="solver", method={"kind": "solver"}, models={}, manifest=manifest, initial=paths[1:], first_step=0, steps=10,
        members=[0, 1], seed=1, frame_stride=1, block=5, lags=3, output=segment, restart=folder / "restart.safetensors",
        device="cpu",
    )  # fmt: skip
    compute_metrics(
        segments=[segment], solver=[segment], reference=reference, manifest=manifest, window=10, shells=[1, 5], map_lags=2,
        output=folder / "metrics.nc", output_windows=folder / "windows.csv",
    )  # fmt: skip
    rollout_ensemble(
        name="solver", method={"kind": "solver"}, models={}, manifest=manifest, initial=paths[1:], members=2, starts=1,
        leads=[1, 2], disturbance=0.01, seed=1, output=folder / "ensemble.nc", device="cpu",
    )  # fmt: skip
    return {path.stem: path for path in folder.glob("*.nc")}, system


def test_every_variable_of_every_file_has_units_and_a_long_name(files):
    paths, system = files
    for path in paths.values():
        with netCDF4.Dataset(path) as dataset:
            assert dataset.Conventions == "CF-1.10"
            for name, variable in dataset.variables.items():
                assert variable.long_name, (path.name, name)
                assert name == "layer" or variable.units, (path.name, name)
                assert not (name in dataset.dimensions and "_FillValue" in variable.ncattrs()), (path.name, name)
    with xr.open_dataset(paths["reference"]) as opened:
        assert opened["kinetic_energy"].attrs["units"] == ("m2 s-2" if system is QG else "1")
        assert np.isfinite(opened["kinetic_energy"]).all()


def test_a_file_says_what_it_is_and_what_made_it(files):
    paths, system = files
    titles = set()
    for path in paths.values():
        with xr.open_dataset(path) as dataset:
            titles.add(dataset.attrs["title"])
            assert dataset.attrs["title"].startswith(f"{system['name']}: ")
            assert dataset.attrs["source"] == f"sns-core {__version__}" and dataset.attrs["references"]
            stages = [line.removeprefix(f"sns-core {__version__}: ") for line in dataset.attrs["history"].split("\n")]
            assert set(stages) <= set(STAGES), path.name
    assert len(titles) == len(paths)
    assert stages_of(paths["metrics"]) == ["rollout_segment", "compute_metrics"]


def test_the_page_of_files_lists_every_variable(files, root):
    paths, system = files
    rows = {
        line.split("|")[1].strip(): line for line in (root / "docs/files.md").read_text().splitlines() if ".nc`" in line
    }
    names = {"test": "data/<split>", "segment": "segment_*", "reference": "reference", "ensemble": "ensembles/<method>"}
    field = {True: "potential_vorticity", False: "vorticity"}[system is QG]
    for name, part in names.items():
        row = next(line for title, line in rows.items() if f"{part}.nc" in title)
        with xr.open_dataset(paths[name]) as dataset:
            missing = [v for v in dataset.data_vars if f"`{v.replace(field, 'vorticity')}`" not in row]
        assert not missing, (part, missing)
    row = next(line for title, line in rows.items() if title.startswith("`metrics/<method>"))
    with xr.open_dataset(paths["metrics"]) as metrics, xr.open_dataset(paths["segment"]) as segment:
        assert not [v for v in set(metrics.data_vars) - set(segment.data_vars) if f"`{v}`" not in row]


def stages_of(path) -> list[str]:
    with xr.open_dataset(path) as dataset:
        return [line.split(": ")[1] for line in dataset.attrs["history"].split("\n")]


def test_times_stay_numbers(files):
    paths, system = files
    for name in ("test", "segment", "metrics"):
        with xr.open_dataset(paths[name]) as dataset:
            assert dataset["time"].dtype == float and dataset["time"].attrs["units"] == ("s" if system is QG else "1")


def test_files_are_cf_by_the_checker_of_ioos(files, tmp_path):
    for path in files[0].values():
        assert cf_faults(path, tmp_path) == set(), path.name
