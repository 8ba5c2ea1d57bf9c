"""A flow that is known by its frames alone: its velocity, its grid, and the stages that read it from files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from cf_checker import cf_faults
from tiny_models import train

from sns_core.data import load_dataset, shard_dataset, simulate_trajectories
from sns_core.data.external import ExternalRollout
from sns_core.data.source import facts_of, mirrored_fields, open_split, read_source
from sns_core.errors import UserError
from sns_core.evaluation.source_check import check_source
from sns_core.metrics.spectra import kinetic_energy_spectrum
from sns_core.systems import KolmogorovFlow, build_system
from sns_core.systems.recorded import RecordedFlow
from sns_core.training import load_model

SOURCE = {
    "variables": ["h", "u"], "dims": {}, "join": None, "pieces": 1, "start": 0, "spin_up": 0.0, "velocity": "none",
    "length": None, "splits": {"by": "member", "validation": 0.2, "test": 0.2, "gap": 0},
    "homogeneous": {"y": False, "x": True}, "periodic": {"y": True, "x": True},
}  # fmt: skip
MEMBERS, FRAMES, HEIGHT, WIDTH = 5, 12, 8, 16


@pytest.fixture
def fields() -> xr.Dataset:
    """Two channels on 8 x 16 points, h around 100 and u around 0."""
    values = np.random.default_rng(5).normal(size=(2, MEMBERS, FRAMES, HEIGHT, WIDTH)).astype("f4")
    axes = {
        "member": range(MEMBERS),
        "time": np.arange(FRAMES) * 0.5,
        "y": np.arange(HEIGHT) * 3.0,
        "x": np.arange(WIDTH) * 3.0,
    }
    arrays = {
        name: (tuple(axes), part, {"units": "m"}) for name, part in zip("hu", (100 + values[0], values[1]), strict=True)
    }
    return xr.Dataset(arrays, axes)


def recorded(**options) -> RecordedFlow:
    return RecordedFlow(resolution=16, dt=0.1, length=2 * np.pi, layers=["w"], **options)


def test_the_velocity_of_a_vorticity_is_the_solver_s():
    flow = KolmogorovFlow(resolution=32, viscosity=1e-2, dt=0.01, dtype=torch.float64)
    frames = flow.observe(flow.initial_state(2, torch.Generator().manual_seed(1)), 16)
    velocity, expected = recorded(velocity="vorticity").frame_velocity(frames), flow.frame_velocity(frames)
    for component, reference in zip(velocity, expected, strict=True):
        torch.testing.assert_close(component, reference)


def test_the_velocity_of_a_vorticity_on_a_rectangle_has_this_curl():
    y, x = (torch.arange(n, dtype=torch.float64) * 0.5 for n in (8, 24))
    ky, kx = 2 * np.pi / 4, 2 * 2 * np.pi / 12  # one wave along y, two along x
    psi = torch.sin(ky * y)[:, None] * torch.cos(kx * x)[None, :]
    flow = RecordedFlow(resolution=[8, 24], dt=1.0, length=12.0, layers=["w"], velocity="vorticity")
    u, v = flow.velocity((-(ky**2 + kx**2) * psi)[None, None])
    torch.testing.assert_close(u[0, 0], -ky * torch.cos(ky * y)[:, None] * torch.cos(kx * x)[None, :])
    torch.testing.assert_close(v[0, 0], -kx * torch.sin(ky * y)[:, None] * torch.sin(kx * x)[None, :])


def test_channels_that_are_the_velocity_give_the_kinetic_energy():
    flow = RecordedFlow(resolution=8, dt=1.0, length=1.0, layers=["h", "v", "u"], velocity=["u", "v"])
    frames = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    u, v = flow.velocity(frames)
    torch.testing.assert_close(u[:, 2], frames[:, 2])
    torch.testing.assert_close(v[:, 1], frames[:, 1])
    assert torch.equal(flow.velocity_components(u, v)[:, :, 0], frames), "each channel has one component, and no zeros"
    energy = flow.kinetic_energy(frames)
    torch.testing.assert_close(energy[:, 1:].sum(1), 0.5 * (frames[:, 1] ** 2 + frames[:, 2] ** 2).mean((1, 2)))


def test_translations_move_frames_along_homogeneous_axes_only():
    flow = recorded(homogeneous=[False, True])
    frames = torch.arange(16.0)[:, None].expand(16, 16).repeat(6, 2, 1, 1, 1)  # varies along y alone
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(flow.augment(frames, generator), frames)
    moved = flow.augment(frames.transpose(-1, -2), generator)
    assert not torch.equal(moved, frames.transpose(-1, -2))
    torch.testing.assert_close(moved.sort(-1).values, frames.transpose(-1, -2))


def test_a_coarser_grid_is_a_truncation_on_a_rectangle_too():
    flow = RecordedFlow(resolution=[8, 24], dt=1.0, length=12.0, layers=["w"])
    x = torch.arange(24.0) * 0.5
    wave = torch.cos(2 * np.pi / 12 * x).expand(8, 24)[None, None]
    coarse = flow.observe(wave + torch.cos(8 * 2 * np.pi / 12 * x), [4, 12])
    torch.testing.assert_close(coarse, wave[..., ::2, ::2])


def read_all(folder: Path, source: dict) -> Path:
    """Read every split of a source as the workflow does, and return the data manifest."""
    facts = facts_of(source)
    emulator = {"resolution": facts["resolution"], "step": facts["step"]}
    system = {
        "name": "RecordedFlow", "parameters": {**facts["parameters"], "resolution": facts["resolution"], "dt": facts["step"]},
    }  # fmt: skip
    for split, size in facts["splits"].items():
        read_source(
            source=source,
            files=[],
            system=system,
            emulator=emulator,
            split=split,
            output=folder / f"{split}.nc",
            **size,
        )
    manifest = folder / "shards" / "manifest.json"
    shard_dataset(trajectories=[folder / f"{split}.nc" for split in facts["splits"]], output=manifest, shard_members=2)
    return manifest


def test_files_become_shards_without_what_is_subtracted(fields, tmp_path):
    fields.to_netcdf(tmp_path / "a.nc")
    manifest = read_all(tmp_path, {**SOURCE, "files": [str(tmp_path / "a.nc")]})
    content = json.loads(manifest.read_text())
    assert content["emulator"] == {"resolution": [HEIGHT, WIDTH], "step": 0.5}
    parameters = content["system"]["parameters"]
    assert parameters["length"] == 48 and parameters["layers"] == ["h", "u"] and parameters["offset"] == [100.0, 0.0]
    train = np.concatenate(load_dataset(manifest, "train").shards)
    expected = np.stack([fields["h"].values[:3] - 100, fields["u"].values[:3]], 2)
    np.testing.assert_allclose(train, expected, atol=2e-5)
    assert np.abs(content["statistics"]["mean"]).max() < 0.2
    flow = build_system(content["system"]["name"], parameters)
    assert flow.energy_units == "1" and flow.units == "m"
    with xr.open_dataset(tmp_path / "test.nc") as dataset:
        np.testing.assert_array_equal(dataset["final_state"].values, dataset["fields"].isel(time=0).values)
        np.testing.assert_array_equal(dataset["x"], fields["x"])


def test_what_is_left_of_a_mean_is_small_beside_a_small_fluctuation(fields, tmp_path):
    noise = fields["u"]
    fields.assign(h=1025.4 + 0.05 * noise, u=101325.3 + 20 * noise).to_netcdf(tmp_path / "a.nc")
    offset = facts_of({**SOURCE, "files": [str(tmp_path / "a.nc")]})["parameters"]["offset"]
    left = (np.array([1025.4, 101325.3]) - offset) / [0.05, 20]
    assert np.abs(left).max() < 0.2 and max(len(str(number)) for number in offset) < 9


def test_frames_of_a_run_are_read_with_their_mean(fields, tmp_path):
    fields.to_netcdf(tmp_path / "a.nc")
    source = {**SOURCE, "files": [str(tmp_path / "a.nc")]}
    read_all(tmp_path, source)
    files = {split: [str(tmp_path / f"{split}.nc")] for split in ("train", "validation", "test")}
    stored = {**source, "variables": ["fields"], "files": files}
    assert facts_of(stored)["parameters"]["offset"] == [100.0, 0.0]
    whole, expected = (open_split(s, "test").read(0, slice(None)) for s in (stored, source))
    np.testing.assert_allclose(whole, expected, rtol=1e-6)
    flow = build_system("RecordedFlow", {**facts_of(stored)["parameters"], "resolution": [HEIGHT, WIDTH], "dt": 0.5})
    with xr.open_dataset(files["test"][0]) as dataset:
        rollout = ExternalRollout(files["test"][0], flow, [HEIGHT, WIDTH], 0.5)
        np.testing.assert_allclose(rollout.frames(3, [0])[0], dataset["fields"][0, 3], atol=1e-6)
        dataset["fields"].assign_attrs(subtracted=[1.0]).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(UserError, match=r"'subtracted' of 'fields' holds 1\.0; it needs a number for each of 2 layers"):
        open_split({**stored, "files": [str(tmp_path / "b.nc")]}, "test")


@pytest.mark.parametrize("name", ["kinetic_energy", "row", "label", "member", "final_state"])
def test_a_variable_may_have_a_name_that_files_of_a_run_use(fields, tmp_path, name):
    axes = {"member": "number", "time": "t", "y": "lat", "x": "lon"}
    fields[["u"]].rename(axes).rename(u=name).to_netcdf(tmp_path / "a.nc")
    manifest = read_all(tmp_path, {**SOURCE, "variables": [name], "files": [str(tmp_path / "a.nc")]})
    assert json.loads(manifest.read_text())["system"]["parameters"]["layers"] == [name]
    with xr.open_dataset(tmp_path / "train.nc") as dataset:
        np.testing.assert_array_equal(dataset["fields"][:, :, 0], fields["u"][:3])


def test_what_is_read_from_files_is_cf_by_the_checker_of_ioos(fields, tmp_path):
    fields.to_netcdf(tmp_path / "a.nc")
    read_all(tmp_path, {**SOURCE, "files": [str(tmp_path / "a.nc")]})
    assert cf_faults(tmp_path / "train.nc", tmp_path) == set()


def test_a_flow_in_one_dimension_is_read_as_the_rows_that_its_solver_made(tmp_path):
    """Kuramoto-Sivashinsky trajectories (member, time, x): the shards and statistics are those of the solver's own frames."""
    system = {"name": "KuramotoSivashinsky", "parameters": {"resolution": [1, 32], "length": 22.0, "dt": 0.25}}
    sizes = {"train": (3, 20), "validation": (1, 20), "test": (2, 20)}
    for split, (members, frames) in sizes.items():
        simulate_trajectories(
            system=system, emulator={"resolution": [1, 32], "step": 1.0}, split=split, members=members, frames=frames,
            spin_up=20.0, seed=1, output=tmp_path / "solver" / f"{split}.nc", device="cpu",
        )  # fmt: skip
        with xr.open_dataset(tmp_path / "solver" / f"{split}.nc") as dataset:
            rows = dataset["u"].isel(y=0, layer=0, drop=True).astype("f4")
            rows.drop_attrs().to_netcdf(tmp_path / f"my_{split}.nc")
    files = {split: [str(tmp_path / f"my_{split}.nc")] for split in sizes}
    source = {**SOURCE, "variables": ["u"], "files": files, "homogeneous": {"y": False, "x": True}}
    facts = facts_of(source)
    assert facts["resolution"] == [1, 32] and facts["parameters"]["length"] == 22.0
    recorded_data = load_dataset(read_all(tmp_path, source), "train")
    manifest = tmp_path / "solver" / "shards" / "manifest.json"
    shard_dataset(
        trajectories=[tmp_path / "solver" / f"{split}.nc" for split in sizes], output=manifest, shard_members=2
    )
    solved = load_dataset(manifest, "train")
    assert recorded_data.statistics == solved.statistics
    for rows, expected in zip(recorded_data.shards, solved.shards, strict=True):
        np.testing.assert_array_equal(rows, expected)
    check = check_source(
        source, recorded_data.manifest["system"], recorded_data.manifest["emulator"], facts["splits"]["train"]
    )
    assert check.frame.shape == (1, 20, 32)
    with xr.open_dataset(files["train"][0]) as dataset:
        np.testing.assert_array_equal(check.frame[0], dataset["u"].values[0])
    for options, words in [
        ({"periodic": {"y": False, "x": True}}, "periodic.y"),
        ({"velocity": "vorticity"}, "velocity"),
    ]:
        with pytest.raises(UserError, match=f"source.{words}: a single row of points"):
            facts_of({**source, **options})


def checked(folder: Path, fields: xr.Dataset, stride: int = 1):
    """Return the check of the training split of a file that holds fields h and u, with every stride-th frame."""
    fields.to_netcdf(folder / "checked.nc")
    source = {**SOURCE, "files": [str(folder / "checked.nc")]}
    facts = facts_of(source)
    emulator = {"resolution": facts["resolution"], "step": stride * facts["step"]}
    parameters = {**facts["parameters"], "resolution": facts["resolution"], "dt": emulator["step"]}
    train = {**facts["splits"]["train"], "frames": facts["splits"]["train"]["frames"] // stride}
    return check_source(source, {"name": "RecordedFlow", "parameters": parameters}, emulator, train)


def test_a_step_that_is_too_long_is_that_of_the_emulator_or_of_the_files(fields, tmp_path):
    """Noise forgets itself within a step. No emulator has a smaller step than the files."""
    noise = xr.zeros_like(fields) + np.random.default_rng(8).normal(size=fields["u"].shape)
    for stride, remedy in ((1, "write frames closer in time"), (2, "take a smaller emulator.step")):
        good, text = checked(tmp_path, noise, stride).findings()[3]
        assert not good and text.startswith("decorrelation time") and text.endswith(f"emulator steps; {remedy}")


def test_findings_name_the_channel_and_do_not_depend_on_units(fields, tmp_path):
    """The channel u doubles, h does not change its energy; either may have the smaller unit."""
    growing = fields.assign(u=fields["u"] * xr.DataArray(np.linspace(1, 2, FRAMES), dims="time"))
    findings = checked(tmp_path, growing).findings()
    assert [(good, text.split(":")[0]) for good, text in findings[:2]] == [
        (True, "energy of h"),
        (False, "energy of u"),
    ]
    for name in "hu":
        assert checked(tmp_path, growing.assign({name: 1000 * growing[name]})).findings() == findings


def test_a_skewed_channel_whose_values_count_as_lost_is_named(fields, tmp_path):
    good, text = checked(tmp_path, fields).findings()[2]
    assert (
        good
        and text.startswith("values of ")
        and text.endswith("standard deviations, and a member counts as lost beyond 12")
    )
    good, text = checked(tmp_path, fields.assign(u=np.exp(3 * fields["u"]))).findings()[2]
    reach = float(re.match(r"values of u reach (\d+\.?\d*) standard deviations", text)[1])
    assert not good and reach > 12 and text.endswith("such as its logarithm, to the files and train on that")


@pytest.mark.parametrize("by", ["member", "time"])
def test_one_pattern_is_split_by_member_or_time_with_a_gap(fields, tmp_path, by):
    fields.to_netcdf(tmp_path / "a.nc")
    source = {
        **SOURCE,
        "files": [str(tmp_path / "a.nc")],
        "splits": {"by": by, "validation": 0.2, "test": 0.2, "gap": 1},
    }
    splits = {split: open_split(source, split) for split in ("train", "validation", "test")}
    if by == "member":
        assert [r.members for r in splits.values()] == [(0, 1, 2), (3,), (4,)]
    else:
        assert [list(r.times * 2) for r in splits.values()] == [list(range(6)), [7, 8], [10, 11]]


def test_rollouts_start_inside_the_test_trajectories(fields, tmp_path):
    fields.to_netcdf(tmp_path / "a.nc")
    source = {**SOURCE, "files": [str(tmp_path / "a.nc")], "start": 4}
    assert facts_of(source)["splits"]["test"]["frames"] == 5 and facts_of(source)["continued"] == FRAMES - 4
    assert list(open_split(source, "continued").times * 2) == list(range(4, FRAMES))
    with pytest.raises(UserError, match=r"have 12 frames, so rollouts cannot start at frame 12 \(source.start\)"):
        facts_of({**source, "start": 12})


def test_a_long_test_trajectory_is_cut_into_members(fields, tmp_path):
    fields.isel(member=[0]).to_netcdf(tmp_path / "a.nc")
    source = {**SOURCE, "files": [str(tmp_path / "a.nc")], "splits": {**SOURCE["splits"], "by": "time", "test": 0.5}}
    pieces = open_split({**source, "pieces": 3}, "test")
    assert pieces.members == (0, 1, 2) and len(pieces.times) == 2
    frames = np.concatenate([pieces.read(member, slice(None)) for member in range(3)])
    np.testing.assert_array_equal(frames, open_split(source, "test").read(0, slice(None)))

    with pytest.raises(
        UserError, match=r"a\.nc: 6 frames cannot be cut into 7 pieces; set source\.pieces to 6 or less"
    ):
        open_split({**source, "pieces": 7}, "test")


def test_missing_values_in_a_piece_have_the_time_of_the_file(fields, tmp_path):
    fields.where((fields.member != 4) | (fields.time != 4)).to_netcdf(tmp_path / "a.nc")
    pieces = open_split({**SOURCE, "files": [str(tmp_path / "a.nc")], "pieces": 3, "spin_up": 1.0}, "test")
    for recording, member in ((pieces, 2), (pieces.part(slice(2, 3)), 0), (pieces.part(times=slice(0, None, 2)), 2)):
        with pytest.raises(
            UserError, match=r"a\.nc: member 4 has missing or infinite values from time 4 \(frame 8\) on"
        ):
            recording.read(member, slice(None))


def test_the_spin_up_of_the_files_is_left_out(fields, tmp_path):
    fields.to_netcdf(tmp_path / "a.nc")
    source = {**SOURCE, "files": [str(tmp_path / "a.nc")], "spin_up": 2.0}
    assert list(open_split(source, "train").times) == [2.0 + 0.5 * step for step in range(FRAMES - 4)]
    with pytest.raises(UserError, match=r"12 frames end within the spin-up of 6 \(data.spin_up\)"):
        open_split({**source, "spin_up": 6.0}, "train")


def test_files_of_pyqg_are_read(tmp_path):
    """The layout of pyqg's `Model.to_dataset`: a time for each call, layers by number, points in the middle of cells, units in words."""
    values = np.random.default_rng(7).normal(size=(12, 2, 8, 8))
    for time in range(12):
        coordinates = {
            "time": ("time", [7200.0 * time], {"long_name": "model time", "units": "seconds"}),
            "lev": ("lev", [1, 2], {"long_name": "vertical levels"}),
            "y": ("y", 1e6 / 8 * (np.arange(8) + 0.5), {"units": "grid point"}),
            "x": ("x", 1e6 / 8 * (np.arange(8) + 0.5), {"units": "grid point"}),
            "L": ((), 1e6, {"units": "meters"}),
        }
        q = values[time : time + 1], {"units": "meters squared Kelvin per second per kilogram"}
        dataset = xr.Dataset({"q": (("time", "lev", "y", "x"), *q)}, coordinates)
        dataset["qh"] = ("time", "lev", "l", "k"), np.zeros((1, 2, 8, 5))
        dataset.to_netcdf(tmp_path / f"snapshot_{time}.nc")
    files = [str(tmp_path / f"snapshot_{time}.nc") for time in range(12)]
    splits = {**SOURCE["splits"], "by": "time"}
    facts = facts_of({**SOURCE, "files": files, "variables": ["q"], "splits": splits})
    parameters = facts["parameters"]
    assert (
        facts["resolution"] == 8 and facts["step"] == 7200 and facts["splits"]["train"] == {"members": 1, "frames": 8}
    )
    assert parameters["layers"] == ["1", "2"] and parameters["variable"] == "q" and parameters["length"] == 1e6
    assert (parameters["units"], parameters["length_units"], parameters["time_units"]) == ("1", "1", "s")
    recording = open_split({**SOURCE, "files": files, "variables": ["q"], "splits": splits}, "test")
    np.testing.assert_array_equal(recording.read(0, slice(None)), values[10:])


def test_an_axis_with_walls_is_continued_by_its_mirror_image(fields, tmp_path):
    fields.isel(y=slice(7)).to_netcdf(tmp_path / "a.nc")  # any number of points between walls
    walls = {"periodic": {"y": False, "x": True}, "files": [str(tmp_path / "a.nc")]}
    content = json.loads(read_all(tmp_path, {**SOURCE, **walls}).read_text())
    assert content["emulator"]["resolution"] == [14, WIDTH]
    assert content["system"]["parameters"]["length"] == 48 and content["system"]["parameters"]["mirrored"] == [
        True,
        False,
    ]
    with xr.open_dataset(tmp_path / "train.nc") as dataset:
        frames = dataset["fields"].values
        assert dataset.attrs["mirrored"] == "y"
    np.testing.assert_array_equal(frames[..., :7, :], frames[..., :6:-1, :])
    np.testing.assert_allclose(frames[:, :, 1, :7], fields["u"].values[:3, :, :7], atol=1e-6)
    flow = build_system(content["system"]["name"], content["system"]["parameters"])
    disturbed = torch.from_numpy(frames[0]) + torch.randn(frames[0].shape, generator=torch.Generator().manual_seed(6))
    restored = flow.admissible(disturbed)
    torch.testing.assert_close(restored, restored.flip(-2))
    torch.testing.assert_close(flow.admissible(torch.from_numpy(frames[0])), torch.from_numpy(frames[0]))


def write_static(folder: Path, change=lambda dataset: dataset) -> dict:
    """Write a field that varies along y, on the points of `fields`, and return the key `static` of a source."""
    positions = np.arange(HEIGHT) * 3.0
    depth = np.broadcast_to(np.cos(2 * np.pi * positions / 24)[:, None], (HEIGHT, WIDTH))
    dataset = xr.Dataset({"depth": (("y", "x"), 5 + 3 * depth)}, {"y": positions, "x": np.arange(WIDTH) * 3.0})
    change(dataset).to_netcdf(folder / "static.nc")
    return {"file": str(folder / "static.nc"), "variables": ["depth"]}


def test_every_network_sees_static_fields_and_nothing_predicts_them(fields, tmp_path, specs):
    fields.to_netcdf(tmp_path / "a.nc")
    upside_down = write_static(tmp_path, lambda dataset: dataset.isel(y=slice(None, None, -1)))
    manifest = read_all(tmp_path, {**SOURCE, "files": [str(tmp_path / "a.nc")], "static": upside_down})
    expected = np.sqrt(2) * np.cos(2 * np.pi * np.arange(HEIGHT) / HEIGHT)[:, None] + np.zeros(WIDTH)
    static = load_dataset(manifest, "train").static
    np.testing.assert_allclose(static[0], expected, atol=1e-6)
    network = load_model(train(tmp_path, manifest, "pointwise", specs["pointwise"]), "pointwise").network
    torch.testing.assert_close(network.landmarks, static)
    frames = torch.randn(2, 1, 2, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(4))
    output, _ = network(frames)
    assert output.shape == (2, 1, 2, HEIGHT, WIDTH), "two channels go in and out"
    network.landmarks.neg_()
    assert not torch.allclose(network(frames)[0], output)


def test_without_static_fields_the_data_set_is_as_it_was(fields, tmp_path):
    fields.to_netcdf(tmp_path / "a.nc")
    manifests = [
        json.loads(read_all(tmp_path / name, {**SOURCE, "files": [str(tmp_path / "a.nc")], **more}).read_text())
        for name, more in {"without": {}, "null": {"static": None}, "with": {"static": write_static(tmp_path)}}.items()
    ]
    assert manifests[0] == manifests[1] and "static" not in manifests[0]
    assert manifests[2].pop("static")["shape"] == [1, HEIGHT, WIDTH]
    assert manifests[2].pop("identity") != manifests[0].pop("identity") and manifests[2] == manifests[0]


STATIC_REFUSED = {
    "fewer points": (lambda d: d.isel(x=slice(8)), r"'depth' has 8 points along x .* have 16 .* interpolate it"),
    "other points": (lambda d: d.assign_coords(y=d.y + 1), r"8 points along y \(1 to 22\), the frames of .* 8 \(0 to 21\)"),
    "no points": (lambda d: d.drop_vars("y"), r"along y \(no positions\)"),
    "varies in time": (lambda d: d.expand_dims(time=[0.0, 1.0]), "'depth' varies along time"),
    "land is missing": (lambda d: d.where(d.depth > 4), "missing or infinite values; fill them"),
    "the same everywhere": (lambda d: 0 * d + 7, "'depth' is 7 everywhere"),
    "varies along x": (lambda d: d + d.x, "'depth' varies along x, and source.homogeneous says"),
    "another name": (lambda d: d.rename(depth="coast"), "holds no 'depth', only 'coast'"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), STATIC_REFUSED.values(), ids=STATIC_REFUSED)
def test_static_fields_that_do_not_fit_are_one_line(fields, tmp_path, change, words):
    fields.to_netcdf(tmp_path / "a.nc")
    source = {**SOURCE, "files": [str(tmp_path / "a.nc")], "static": write_static(tmp_path, change)}
    with pytest.raises(UserError, match=words) as caught:
        facts_of(source)
    assert str(caught.value).startswith(source["static"]["file"]) and "\n" not in str(caught.value)


def test_the_spectrum_between_walls_is_the_cosine_series():
    """A cosine with an antinode at each wall has one wavenumber, which no Fourier series of the field alone shows."""
    y, x = np.pi * (np.arange(8) + 0.5) / 8, np.zeros(16)
    field = torch.from_numpy(mirrored_fields(np.cos(3 * y)[:, None] + x, (True, False)))[None]
    _, energy = kinetic_energy_spectrum(field, torch.zeros_like(field), length=2.0)
    assert energy[0].argmax() == 3 and float(energy[0, 3] / energy[0].sum()) == pytest.approx(1.0)


def test_a_channel_may_end_as_it_began(fields, tmp_path):
    """Rain may be absent from the first and the last frame of every member."""
    fields.assign(u=fields.u.where((fields.time > 0) & (fields.time < 5.5), 0)).to_netcdf(tmp_path / "a.nc")
    assert facts_of({**SOURCE, "files": [str(tmp_path / "a.nc")]})["parameters"]["layers"] == ["h", "u"]


def test_ends_of_walls_and_rows_that_are_all_alike_are_no_doubled_points(fields, tmp_path):
    still = fields.assign(
        u=fields.u.where((fields.y > 0) & (fields.y < 21), 0), h=fields.h.where((fields.y > 0) & (fields.y < 21), 9)
    )
    still.to_netcdf(tmp_path / "walls.nc")
    channel = {"periodic": {"y": False, "x": True}, "homogeneous": {"y": False, "x": True}}
    assert facts_of({**SOURCE, "files": [str(tmp_path / "walls.nc")], **channel})["resolution"] == 16
    (0 * fields + fields.isel(x=0)).to_netcdf(tmp_path / "bands.nc")
    assert facts_of({**SOURCE, "files": [str(tmp_path / "bands.nc")]})["parameters"]["layers"] == ["h", "u"]


def in_units(fields: xr.Dataset, y: str, x: str) -> xr.Dataset:
    """Return fields whose positions along y and x have units."""
    return fields.assign_coords(y=fields.y.assign_attrs(units=y), x=fields.x.assign_attrs(units=x))


def test_positions_along_both_axes_may_have_units_of_their_own(fields, tmp_path):
    in_units(fields.assign_coords(y=fields.y * 1e3), "m", "km").to_netcdf(tmp_path / "a.nc")
    parameters = facts_of({**SOURCE, "files": [str(tmp_path / "a.nc")]})["parameters"]
    assert (parameters["length"], parameters["length_units"]) == (48, "km")


REFUSED = {
    "unequal spacing": (lambda f: f.assign_coords(x=f.x * 2), {}, "points are 3 apart along y and 6 along x"),
    "metres and kilometres": (lambda f: in_units(f, "m", "km"), {}, "points are 0.003 apart along y and 3 along x"),
    "metres and degrees": (lambda f: in_units(f, "m", "degrees_east"), {}, "y is in 'm' and x in 'degrees_east', so no distance"),
    "an odd number of points": (lambda f: f.isel(x=slice(15)), {}, "8 x 15 points; along a periodic axis their number must be even"),
    "x with both of its ends": (
        lambda f: f.where(f.x < 45, f.isel(x=0)), {}, "the last points along x repeat the first ones, .*; leave the last ones out"
    ),
    "y with both of its ends": (
        lambda f: f.isel(y=[*range(8), 0]).assign_coords(y=np.arange(9) * 3.0), {}, "the last points along y repeat the first ones"
    ),
    "homogeneous between walls": (
        lambda f: f, {"periodic": {"y": True, "x": False}}, r"source\.homogeneous\.x: a flow that is not periodic along x"
    ),
    "a vorticity between walls": (
        lambda f: f, {"periodic": {"y": False, "x": True}, "velocity": "vorticity"}, "is known on a periodic domain alone"
    ),
    "too few members": (
        lambda f: f.isel(member=slice(2)), {},
        r"2 members cannot be split into 1 for validation, 1 for the test and 1 or more for training; .*source\.splits: \{by: time\}",
    ),
    "too few frames": (
        lambda f: f.isel(time=slice(6)), {"splits": {"by": "time", "validation": 0.2, "test": 0.2, "gap": 2}},
        "6 frames cannot be split into 1 for validation, 1 for the test, two gaps of 2 and 1 or more for training; name more files",
    ),
    "a single frame": (lambda f: f.isel(time=[0]), {}, "holds one frame of each training member, and a step takes two"),
    "no such channel": (lambda f: f, {"velocity": ["u", "w"]}, r"source\.velocity: 'w' is none of the channels h, u"),
    "zero": (lambda f: f.assign(u=0 * f.u), {}, r"the channel 'u' is 0 everywhere; .* source\.static"),
    "constant": (lambda f: f.assign(h=0 * f.h + 7.5), {}, "the channel 'h' is 7.5 everywhere"),
    "never changing": (lambda f: f.assign(u=0 * f.u + f.u[:, 0]), {}, r"the channel 'u' never changes; name it under source\.static"),
    "missing values": (lambda f: f.where(f.time < 5), {}, r"member 0 has missing or infinite values from time 5 \(frame 10\) on"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "keys", "words"), REFUSED.values(), ids=REFUSED)
def test_a_source_that_does_not_fit_is_one_line(fields, tmp_path, change, keys, words):
    change(fields).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(UserError, match=words) as caught:
        facts_of({**SOURCE, "files": [str(tmp_path / "a.nc")], **keys})
    assert "\n" not in str(caught.value)
