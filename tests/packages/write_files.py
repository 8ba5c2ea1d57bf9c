"""Writes the small files of tests/packages/files, packed, with the packages themselves, each in an environment of its own:

    python tests/packages/write_files.py pyqg        # or another name in WRITERS, with the versions in VERSIONS installed

pyqg 0.7.2 is built with `pip install "numpy<2" "cython<3" setuptools_scm wheel` and then `pip install --no-build-isolation`;
Dedalus needs MPI and FFTW (Debian: libopenmpi-dev, libfftw3-mpi-dev).
"""

import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xarray as xr

FOLDER = Path(__file__).parent / "files"
VERSIONS = {
    "pyqg": {"pyqg": "0.7.2"},
    "pyqg-jax": {"pyqg-jax": "0.8.1"},
    "jax-cfd": {"jax-cfd": "0.2.1"},
    "exponax": {"exponax": "0.1.0"},
    "apebench": {"apebench": "0.1.1"},
    "dedalus": {"dedalus": "3.0.5"},
    "xarray": {"xarray": "2026.9.0", "netCDF4": "1.7.5.1.post1", "h5netcdf": "1.8.2"},
    "zarr": {"xarray": "2026.9.0", "zarr": "3.1.6"},
    "the_well": {"the_well": "1.2.0"},
}
SMALL = {"zlib": True, "complevel": 9, "dtype": "f4"}  # encoding of variables, so that the copies stay small


def write_pyqg(folder: Path) -> None:
    import pyqg

    model = pyqg.QGModel(nx=16, dt=7200.0, tmax=3 * 7200.0, twrite=10**6, log_level=0)
    snapshots = [model.to_dataset().copy(deep=True) for _ in model.run_with_snapshots(tsnapstart=0, tsnapint=7200.0)]
    frames = xr.concat(snapshots, "time")[["q", "u"]]
    frames.to_netcdf(folder / "pyqg.nc", encoding={name: SMALL for name in frames})


def write_pyqg_jax(folder: Path) -> None:
    import jax
    from pyqg_jax import qg_model, steppers

    jax.config.update("jax_enable_x64", True)
    model = steppers.SteppedModel(qg_model.QGModel(nx=16, ny=16), steppers.AB3Stepper(dt=7200.0))
    state, frames = model.create_initial_state(jax.random.key(0)), []
    for _ in range(3):
        frames.append(np.asarray(model.get_full_state(state).state.q, np.float32))
        state = model.step_model(state)
    np.save(folder / "pyqg-jax.npy", np.stack(frames))


def write_jax_cfd(folder: Path) -> None:
    import jax
    import jax_cfd.base as cfd
    from jax_cfd.data import xarray_utils

    grid = cfd.grids.Grid((16, 8), domain=((0, 4), (0, 2)))
    velocity = cfd.initial_conditions.filtered_velocity_field(jax.random.key(0), grid, 1.0, 2)
    step = cfd.equations.semi_implicit_navier_stokes(density=1.0, viscosity=1e-2, dt=0.01, grid=grid)
    rollout = cfd.funcutils.trajectory(cfd.funcutils.repeated(step, 10), 3, start_with_input=True)
    _, trajectory = jax.device_get(rollout(velocity))
    frames = xarray_utils.velocity_trajectory_to_xarray(
        tuple(component.data for component in trajectory), grid, 0.1 * np.arange(3)
    )
    frames.to_netcdf(folder / "jax-cfd.nc", encoding={name: SMALL for name in frames})


def write_exponax(folder: Path) -> None:
    import exponax
    import jax

    stepper = exponax.stepper.Burgers(2, 4.0, 16, 0.05, diffusivity=0.02)
    start = exponax.ic.RandomTruncatedFourierSeries(2, cutoff=3)(16, key=jax.random.key(0))
    frames = exponax.rollout(stepper, 2, include_init=True)(np.concatenate([start, 0.5 * start]))
    np.save(folder / "exponax.npy", np.asarray(frames, np.float32))


def write_apebench(folder: Path) -> None:
    from apebench._scraper import scrape_data_and_metadata

    options = {"num_spatial_dims": 2, "num_points": 16, "num_train_samples": 2, "num_test_samples": 1}
    options |= {"train_temporal_horizon": 2, "test_temporal_horizon": 2}
    scrape_data_and_metadata(folder, scenario="diff_adv", name="apebench", **options)
    (folder / "apebench_test.npy").unlink()
    (folder / "apebench.json").unlink()


def write_dedalus(folder: Path) -> None:
    import dedalus.public as d3

    coordinates = d3.CartesianCoordinates("x", "z")
    distributor = d3.Distributor(coordinates, dtype=np.float64)
    bases = d3.RealFourier(coordinates["x"], 16, bounds=(0, 4)), d3.RealFourier(coordinates["z"], 8, bounds=(0, 2))
    b = distributor.Field(name="b", bases=bases)
    along_x, _ = coordinates.unit_vector_fields(distributor)
    problem = d3.IVP([b], namespace={"b": b, "ex": along_x, "lap": d3.lap, "grad": d3.grad, "dt": d3.TimeDerivative})
    problem.add_equation("dt(b) - 0.05*lap(b) + ex@grad(b) = 0")
    solver = problem.build_solver(d3.RK222)
    x, z = distributor.local_grids(*bases)
    b["g"] = np.sin(np.pi * x / 2) * np.cos(np.pi * z)
    output = solver.evaluator.add_file_handler(folder / "dedalus", iter=1)
    output.add_task(b, name="b", layout="g")
    for _ in range(3):
        solver.step(0.1)
    (path,) = folder.glob("dedalus/*.h5")
    path.rename(folder / "dedalus.h5")
    path.parent.rmdir()
    xr.open_dataset(folder / "dedalus.h5", engine="dedalus").to_netcdf(folder / "dedalus.nc")


def waves() -> xr.Dataset:
    """Return two members of a wave that travels along x, with units and positions, and y from above."""
    member, time, y, x = np.arange(2), 0.5 * np.arange(3), np.arange(8.0)[::-1], np.arange(16.0)
    phase = (2 * np.pi / 16) * (x - time[:, None, None] - member[:, None, None, None])
    values = (np.cos(phase) + 0.1 * y[:, None]).astype("f4")
    axes = {
        "member": member,
        "time": ("time", time, {"units": "s"}),
        "y": ("y", y, {"units": "m"}),
        "x": ("x", x, {"units": "m"}),
    }
    return xr.Dataset({"h": (("member", "time", "y", "x"), values, {"units": "m"})}, axes)


def write_xarray(folder: Path) -> None:
    waves().to_netcdf(folder / "netcdf4.nc", engine="netcdf4", encoding={"h": SMALL})
    waves().to_netcdf(folder / "h5netcdf.nc", engine="h5netcdf", encoding={"h": SMALL})
    waves().to_netcdf(folder / "netcdf3.nc", engine="netcdf4", format="NETCDF3_64BIT")


def write_zarr(folder: Path) -> None:
    for layout in (2, 3):
        for consolidated in (True, False):
            name = f"zarr{layout}{'-consolidated' if consolidated else ''}"
            waves().to_zarr(folder / name, zarr_format=layout, consolidated=consolidated)


def write_the_well(folder: Path) -> None:
    """Write a file by h5py as The Well documents it, and pass it through the package, which writes its subsample."""
    import h5py
    from the_well.data import WellDataset
    from the_well.data.miniwell import process_file

    values = waves()["h"].isel(y=slice(None, None, -1)).transpose("member", "time", "x", "y").values
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "source.hdf5"
        with h5py.File(source, "w") as file:
            text = h5py.string_dtype()
            file.attrs.update(
                {"dataset_name": "waves", "grid_type": "cartesian", "n_spatial_dims": 2, "n_trajectories": 2}
            )
            file.attrs["simulation_parameters"] = np.array([], text)
            axes = file.create_group("dimensions")
            axes.attrs["spatial_dims"] = np.array(["x", "y"], text)
            for name, points in (("time", 0.5 * np.arange(3)), ("x", np.arange(16.0)), ("y", np.arange(8.0))):
                axes[name] = points.astype("f4")
                axes[name].attrs.update({"sample_varying": False, "time_varying": name == "time"})
            for name, size in (("x", 16), ("y", 8)):
                ends = file.create_group(f"boundary_conditions/{name}_periodic")
                ends.attrs.update({"bc_type": "PERIODIC", "sample_varying": False, "time_varying": False})
                ends.attrs["associated_dims"] = np.array([name], text)
                ends.attrs["associated_fields"] = np.array([], text)
                ends["mask"] = np.isin(np.arange(size), [0, size - 1])
            for group, names in (("scalars", []), ("t0_fields", ["h"]), ("t1_fields", ["velocity"]), ("t2_fields", [])):
                file.create_group(group).attrs["field_names"] = np.array(names, text)
            file["t0_fields/h"] = values
            file["t1_fields/velocity"] = np.stack([values, 2 * values], -1)
            for field in (file["t0_fields/h"], file["t1_fields/velocity"]):
                field.attrs.update({"dim_varying": [True, True], "sample_varying": True, "time_varying": True})
        target = folder / "the_well.hdf5"
        with h5py.File(source) as before, h5py.File(target, "w") as after:
            process_file(before, after, 1, 1, 1.0, 2)
    sample = WellDataset(path=str(folder), n_steps_input=1, n_steps_output=1, use_normalization=False)[0]
    assert sample["input_fields"].shape == (1, 16, 8, 3)


WRITERS = {name: globals()[f"write_{name.replace('-', '_')}"] for name in VERSIONS}


def pack(path: Path) -> None:
    """Write a file or a folder into FOLDER as NAME.zip, with one date, so that equal content gives equal archives."""
    with zipfile.ZipFile(FOLDER / f"{path.name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for part in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
            archive.writestr(
                zipfile.ZipInfo(str(part.relative_to(path.parent))), part.read_bytes(), zipfile.ZIP_DEFLATED, 9
            )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for wanted in sys.argv[1:]:
        for package, number in VERSIONS[wanted].items():
            assert version(package) == number, f"{package} {version(package)} is installed, {number} is asked for"
        with tempfile.TemporaryDirectory() as temporary:
            WRITERS[wanted](Path(temporary))
            for path in Path(temporary).iterdir():
                pack(path)
