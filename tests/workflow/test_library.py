"""The library's door on a finished run: the bits of the workflow's rollouts, and one line for every mistake."""

import numpy as np
import pytest
import torch
import xarray as xr
from cf_checker import cf_faults
from snakemake_calls import SYSTEM

import sns_core
from sns_core.errors import UserError

METHODS = ("solver", "pointwise", "sns_published", "sns", "sns_generation", "thermalizer", "acdm", "sns_clean")
STEPS, EVERY = 20, 2


@pytest.fixture(scope="module")
def run(finished):
    return finished / "results/smoke"


@pytest.fixture(scope="module")
def emulator(run):
    return sns_core.load(run, method="sns", device="cpu")


@pytest.mark.parametrize("method", METHODS)
def test_a_rollout_has_the_bits_of_the_workflows(finished, run, method):
    emulator = sns_core.load(run, method=method, device="cpu")
    rollout = emulator.rollout(emulator.initial_state(members=2), steps=STEPS, every=EVERY, seed=0)
    with xr.open_dataset(finished / SYSTEM / f"rollouts/{method}/0-1/segment_0000.nc") as segment:
        frames = segment["vorticity"].isel(time=slice(STEPS // EVERY + 1))
        np.testing.assert_array_equal(rollout["vorticity"].values, frames.values)
        np.testing.assert_array_equal(rollout["time"], frames["time"])
        for name in ("levels", "calls"):
            np.testing.assert_array_equal(rollout[name].values, segment[name].isel(step=slice(STEPS)).values, name)


def test_an_emulator_describes_itself(emulator):
    assert emulator.method == "sns" and emulator.grid == emulator.state_grid == (1, 16, 16)
    assert emulator.step == 0.1 and emulator.units == "1" and type(emulator.system).__name__ == "KolmogorovFlow"
    assert emulator.initial_state(members=4).shape == (4, 1, 16, 16)
    assert repr(emulator).endswith("frames (1, 16, 16), step 0.1>")


def test_a_rollout_describes_itself(emulator):
    x0 = emulator.initial_state(members=2)
    rollout = emulator.rollout(x0, steps=4, every=2)
    assert rollout["vorticity"].dims == ("member", "time", "layer", "y", "x")
    np.testing.assert_allclose(rollout["vorticity"].values[:, 0], x0, rtol=1e-6)
    assert all("long_name" in v.attrs for v in rollout.variables.values())
    assert (
        rollout["time"].values.tolist() == pytest.approx([0.0, 0.2, 0.4]) and rollout.attrs["Conventions"] == "CF-1.10"
    )


def test_a_rollout_is_cf_by_the_checker_of_ioos(emulator, tmp_path):
    emulator.rollout(emulator.initial_state(members=2), steps=2).to_netcdf(tmp_path / "rollout.nc")
    assert cf_faults(tmp_path / "rollout.nc", tmp_path) == set()


def test_a_stream_gives_the_frames_of_the_rollout_one_by_one(emulator):
    x0 = emulator.initial_state(members=2)
    rollout, stream = emulator.rollout(x0, steps=3, seed=7), emulator.stream(x0, seed=7)
    for index in (1, 2, 3):
        time, frames = next(stream)
        assert time == pytest.approx(0.1 * index)
        np.testing.assert_array_equal(frames, rollout["vorticity"].values[:, index])
    assert not np.array_equal(frames, next(emulator.stream(x0, seed=8))[1])


def test_lyapunov_exponents_of_a_method_are_the_same_for_the_same_seed(run):
    emulator = sns_core.load(run, method="sns", device="cpu", precision="float32")
    x0 = emulator.initial_state(members=1)
    exponents, errors = emulator.lyapunov_exponents(x0, 2, 12, settling=8)
    assert exponents.shape == (2,) and np.isfinite(exponents).all() and (errors > 0).all()
    np.testing.assert_array_equal(emulator.lyapunov_exponents(x0, 2, 12, settling=8)[0], exponents)
    assert not np.array_equal(emulator.lyapunov_exponents(x0, 2, 12, settling=8, seed=1)[0], exponents)
    with pytest.raises(UserError, match="measures solvers"):
        sns_core.load(run, method="solver", device="cpu").lyapunov_exponents(x0, 1, 2)


def test_a_state_comes_in_many_forms(emulator):
    x0 = emulator.initial_state(members=2)
    array = xr.DataArray(x0, dims=("member", "layer", "y", "x"), attrs={"units": "1"})
    reference = emulator.rollout(x0, steps=1)["vorticity"].values
    for form in (
        torch.from_numpy(x0),
        x0.astype(np.float64),
        x0.tolist(),
        array,
        array.transpose("x", "y", "member", "layer"),
    ):
        np.testing.assert_array_equal(emulator.rollout(form, steps=1)["vorticity"].values, reference)
    for form in (x0[0], x0[0, 0], array[0, 0]):
        assert emulator.rollout(form, steps=1).sizes["member"] == 1
    assert emulator.rollout(array[:, 0], steps=1).sizes["member"] == 2, "axes are matched by their names"


def test_the_number_of_threads_of_the_caller_changes_nothing(emulator):
    x0 = emulator.initial_state(members=2)
    reference = emulator.rollout(x0, steps=3)["vorticity"].values
    torch.set_num_threads(2)
    try:
        np.testing.assert_array_equal(emulator.rollout(x0, steps=3)["vorticity"].values, reference)
        assert torch.get_num_threads() == 2, "the caller's setting is restored"
    finally:
        torch.set_num_threads(1)


MISTAKES = {
    "another grid": (lambda x: x[..., :8], r"x0: shape \(2, 1, 16, 8\) does not fit; 'sns' takes \(1, 16, 16\)"),
    "another channel": (lambda x: np.repeat(x, 2, 1), "x0: shape"),
    "a complex state": (lambda x: x + 1j, "x0: values of the type complex64 are no real numbers"),
    "too large for single precision": (lambda x: x.astype(np.float64) * 1e39, "beyond single precision"),
    "masked": (lambda x: np.ma.masked_array(x, np.arange(x.size).reshape(x.shape) == 3), "x0: has masked values"),
    "a whole dataset": (lambda x: xr.Dataset({"w": (("member", "layer", "y", "x"), x)}), r"give one of its variables.*'w'"),
    "ragged": (lambda x: [[1.0, 2.0], [3.0]], "x0: is no array"),
    "a text": (lambda x: "x0", "x0: values of the type"),
    "not a number": (lambda x: x * np.nan, "x0: holds NaN"),
    "no member": (lambda x: x[:0], "x0: shape"),
    "other units": (lambda x: xr.DataArray(x, dims=("member", "layer", "y", "x"), attrs={"units": "s-1"}), "is in 's-1'"),
    "several times": (
        lambda x: xr.DataArray(x[None], dims=("time", "member", "layer", "y", "x")), r"choose one time.*x0\.isel\(time=-1\)",
    ),
    "other names": (lambda x: xr.DataArray(x, dims=("m", "layer", "lat", "lon")), "name them"),
    "upside down": (
        lambda x: xr.DataArray(x, {"y": np.arange(16)[::-1]}, ("member", "layer", "y", "x")), "'y' descends; sort it first",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_state_that_does_not_fit_is_one_line(emulator, mistake):
    change, words = MISTAKES[mistake]
    with pytest.raises(UserError, match=words) as caught:
        emulator.rollout(change(emulator.initial_state(members=2)), steps=1)
    assert "\n" not in str(caught.value)


def test_steps_that_do_not_fit_are_one_line(emulator):
    x0 = emulator.initial_state()
    with pytest.raises(UserError, match="steps 3 must be a multiple of every, 2"):
        emulator.rollout(x0, steps=3, every=2)
    for name, value in {"steps": 0, "every": 0, "seed": -1}.items():
        for wrong in (value, True, 2.0, "3", None):
            with pytest.raises(UserError, match=f"{name}: .* is not a whole number of at least"):
                emulator.rollout(x0, **{"steps": 4, name: wrong})
    assert emulator.rollout(x0, steps=np.int64(2), seed=np.int32(1)).sizes["time"] == 3
    with pytest.raises(UserError, match="members: 0 is not a whole number"):
        emulator.initial_state(members=0)
    with pytest.raises(UserError, match="x0: shape"):
        emulator.stream(x0[..., :3])
    with pytest.raises(UserError, match="keeps 4 states, 5 were asked for"):
        emulator.initial_state(members=5)


def test_folders_without_a_finished_run_are_one_line(run, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        sns_core.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"no finished run.*; give {run}"):
        sns_core.load(run / "kolmogorov")
    with pytest.raises(UserError, match="is a file"):
        sns_core.load(run / "report.html")
    with pytest.raises(UserError, match="device: 'gpu' is none of"):
        sns_core.load(run, device="gpu")
    with pytest.raises(UserError, match="no finished run"):
        sns_core.load(tmp_path)
    with pytest.raises(UserError, match=r"no method .snss.; did you mean .sns."):
        sns_core.load(run, method="snss")
    for wrong in ("", ["sns"], 3):
        with pytest.raises(UserError, match="no method"):
            sns_core.load(run, method=wrong)
    with pytest.raises(sns_core.UserError, match="no system 'qg'"):
        sns_core.load(run, system="qg")
    with pytest.raises(UserError, match="torch sees no GPU" if not torch.cuda.is_available() else ""):
        sns_core.load(run, device="cuda:7")
    half = tmp_path / "half"
    half.mkdir()
    (half / "provenance.json").write_text((run / "provenance.json").read_text())
    with pytest.raises(UserError, match=r"manifest\.json: missing"):
        sns_core.load(half)
