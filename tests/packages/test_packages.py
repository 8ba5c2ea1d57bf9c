"""Files that other packages wrote (`write_files.py`) are read, or refused with the call that converts them.

docs/your-own-flow.md has a table of them.
"""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from write_files import FOLDER, VERSIONS, waves

from sns_core.data.reader import open_recording
from sns_core.data.recording import Recording
from sns_core.errors import UserError


@pytest.fixture
def unpacked(tmp_path, monkeypatch):
    """Give a function: name of a file -> that file, in the working directory."""
    monkeypatch.chdir(tmp_path)

    def unpack(name: str) -> Path:
        with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
            archive.extractall(tmp_path)
        return Path(name)

    return unpack


def frames_of(recording: Recording) -> np.ndarray:
    """Return all frames (member, time, layer, y, x)."""
    return np.stack([recording.read(member, slice(None)) for member in range(len(recording.members))])


# File -> variables, dims, and what the reader must find: layers, units, step, units of time, spacing along x.
READ = {
    "pyqg.nc": (["q"], {}, (1, 2), "s^-1", 7200.0, "s", 62500.0),
    "jax-cfd.nc": (["u", "v"], {}, ("u", "v"), "", 0.1, "", 0.25),
    "dedalus.nc": (["b"], {"y": "z"}, None, "", 0.1, "", 0.25),
}


@pytest.mark.parametrize("name", READ)
def test_files_of_solvers_are_read(unpacked, name):
    path = unpacked(name)
    variables, dims, layers, units, step, time_units, spacing = READ[name]
    recording = open_recording([path], variables, dims)
    assert (recording.layers, recording.units[0], recording.time_units) == (layers, units, time_units)
    assert (recording.step, recording.x.spacing) == pytest.approx((step, spacing))
    with xr.open_dataset(path, decode_times=False) as dataset:
        fields = [dataset[each].rename({dims.get("y", "y"): "y"}).transpose(..., "y", "x").values for each in variables]
    expected = np.concatenate([each.reshape(3, -1, *each.shape[-2:]) for each in fields], 1)
    np.testing.assert_array_equal(frames_of(recording)[0], expected)
    assert expected.std() > 0


@pytest.mark.parametrize(
    "name", ["netcdf3.nc", "netcdf4.nc", "h5netcdf.nc", "zarr2", "zarr2-consolidated", "zarr3", "zarr3-consolidated", "the_well.hdf5"]
)  # fmt: skip
def test_every_container_gives_the_same_frames(unpacked, name):
    """The same wave in all of them; `y` descends in netCDF and Zarr, and The Well's axes are (x, y)."""
    if name.startswith("zarr"):
        pytest.importorskip("zarr")
    recording = open_recording([unpacked(name)], ["h"])
    expected = waves()["h"].isel(y=slice(None, None, -1)).values
    np.testing.assert_array_equal(frames_of(recording)[:, :, 0], expected)
    assert (recording.step, recording.y.spacing, recording.members) == (0.5, 1.0, (0, 1))


def test_vectors_of_the_well_are_channels(unpacked):
    recording = open_recording([unpacked("the_well.hdf5")], ["velocity_x", "velocity_y"])
    along, across = frames_of(recording).swapaxes(0, 2)
    np.testing.assert_array_equal(2 * along, across)


# The calls that docs/your-own-flow.md gives for arrays: dimensions of the array, the time between its frames.
ARRAYS = {
    "pyqg-jax.npy": (("time", "layer", "y", "x"), 7200.0),
    "exponax.npy": (("time", "layer", "x", "y"), 0.05),
    "apebench_train.npy": (("member", "time", "layer", "x", "y"), 1.0),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_refused_with_the_call_that_converts_them(unpacked, name):
    path = unpacked(name)
    with pytest.raises(UserError, match=r"name no axes .* xarray\.DataArray\(array, .*\.to_netcdf\(") as caught:
        open_recording([path], ["b"])
    assert "\n" not in str(caught.value)
    array, (dims, step) = np.load(path), ARRAYS[name]
    times = step * np.arange(array.shape[dims.index("time")])
    xr.DataArray(array, dims=dims, coords={"time": times}, name="b").to_netcdf("b.nc")
    recording = open_recording([Path("b.nc")], ["b"])
    expected = xr.DataArray(array, dims=dims)
    expected = expected if "member" in dims else expected.expand_dims("member")
    np.testing.assert_array_equal(frames_of(recording), expected.transpose("member", "time", "layer", "y", "x"))


def test_dedalus_s_own_files_are_refused_with_the_call_that_converts_them(unpacked):
    """`dedalus.nc` is what the call makes of `dedalus.h5` where Dedalus is installed."""
    path = unpacked("dedalus.h5")
    with pytest.raises(UserError, match="as Dedalus writes them; convert it, ") as caught:
        open_recording([path], ["b"])
    assert 'xarray.open_dataset("dedalus.h5", engine="dedalus").to_netcdf("dedalus.nc")' in str(caught.value)
    h5py = pytest.importorskip("h5py")
    with h5py.File(path) as file:
        recording = open_recording([unpacked("dedalus.nc")], ["b"], {"y": "z"})
        np.testing.assert_array_equal(frames_of(recording)[0, :, 0], file["tasks/b"][:].swapaxes(1, 2))


def test_the_table_names_every_package_and_its_version(root):
    page = (root / "docs/your-own-flow.md").read_text()
    table = page[page.index("## Which files are read") : page.index("## Grids and channels")]
    for versions in VERSIONS.values():
        for package, number in versions.items():
            assert re.search(rf"\| [^|]*{re.escape(package)}\S* {re.escape(number)}", table, re.I), (package, number)
