"""Data that somebody else simulated take the solver's place: the whole workflow from files, on a square and on a rectangle."""

import json
import re
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from safetensors import safe_open
from snakemake_calls import SYSTEM, snakemake

from sns_core.data import load_dataset
from sns_core.data.emulation import Emulation
from sns_core.data.reader import open_recording
from sns_core.errors import UserError
from sns_core.export import export, open_rollout
from sns_core.figures.movie import GAP, PANEL
from sns_core.metrics.reference import compute_reference
from sns_workflow import inspect_source

OVERLAY = """
run: files
use: {systems: [rectangle], methods: [solver, pointwise, sns]}
systems:
  square:
    source:
      files: {train: "in/train_*.nc", validation: in/validation.nc, test: in/test_*.nc}
      variables: [omega]
      velocity: vorticity
      start: 59
    data: {shard_members: 2, spin_up: 0.0}
  rectangle:
    source:
      files: "in/waves_*.nc"
      variables: [h, u]
      splits: {by: member, validation: 0.25, test: 0.5}
      homogeneous: {x: true}
      static: {file: in/bottom.nc, variables: [bottom]}
    data: {shard_members: 2}
    override: {models: {sns_residual: {diffusion: {anchor_gap: 4}}}, rollout: {members: 2}}
  channel:
    source:
      files: "in/channel_*.nc"
      variables: [b]
      splits: {by: member, validation: 0.25, test: 0.5}
      homogeneous: {x: true}
      periodic: {y: false}
"""
# The rectangle has a whole run. Of the others a second run makes only what the tests look at.
OTHERS = OVERLAY.replace("run: files", "run: others").replace("[rectangle]", "[square, channel]")
RECTANGLE, SQUARE, CHANNEL = (Path("results", name) for name in ("files/rectangle", "others/square", "others/channel"))
LOOKED_AT = [
    "results/others/provenance.json", f"{SQUARE}/scorecard.csv",
    *(f"{CHANNEL}/{name}" for name in ("scorecard.csv", "explorer.html", "figures/fields.png")),
]  # fmt: skip
HEIGHT, WIDTH = 16, 32


def write_square(run: Path, folder: Path) -> None:
    """Write the solver's trajectories of a smoke run, and its rollout after them, as another program would."""

    def field(path: Path) -> xr.DataArray:
        with xr.open_dataset(path) as dataset:
            return dataset["vorticity"].isel(layer=0, drop=True).load()

    # Training: a file for each member, y from above, other names.
    train = field(run / SYSTEM / "data/train.nc")
    for member in range(train.sizes["member"]):
        trajectory = train.isel(member=member, drop=True).isel(y=slice(None, None, -1)).rename(y="lat", x="lon")
        trajectory.rename("omega").to_netcdf(folder / f"train_{member}.nc")
    validation = field(run / SYSTEM / "data/validation.nc").rename("omega").rename(member="trajectory")
    validation.to_netcdf(folder / "validation.nc")
    # The test: files that follow each other in time; the last one is the solver's rollout, which its rule makes, too.
    test = field(run / SYSTEM / "data/test.nc")
    test.isel(time=slice(0, 30)).rename("omega").to_netcdf(folder / "test_a.nc")
    test.isel(time=slice(30, None)).rename("omega").to_netcdf(folder / "test_b.nc")
    solver = Emulation.read(run / SYSTEM / "shards/manifest.json").build_system()
    with xr.open_dataset(run / SYSTEM / "data/test.nc") as dataset:
        state, frames = torch.from_numpy(dataset["final_state"].values), []
    for _ in range(60):
        state = solver.advance(state, 5)
        frames.append(solver.observe(state, 16)[:, 0].numpy())
    after = test.isel(time=[0] * 60).assign_coords(time=("time", 6.0 + 0.1 * np.arange(60), test["time"].attrs))
    after.copy(data=np.stack(frames, 1)).rename("omega").to_netcdf(folder / "test_c.nc")


def write_rectangle(folder: Path, members: int = 8, frames: int = 64) -> None:
    """Write two channels of waves that travel along x, twice as long as the domain is high; h is far from zero."""
    rng = np.random.default_rng(3)
    y, x = 0.5 * np.arange(HEIGHT), 0.5 * np.arange(WIDTH)
    time = 0.2 * np.arange(frames)
    for member in range(members):
        h, u = np.full((frames, HEIGHT, WIDTH), 10.0), np.zeros((frames, HEIGHT, WIDTH))
        for k, p in [(1, 0), (2, 1), (3, 1), (4, 2), (6, 3), (8, 4)]:
            phase, speed = rng.uniform(0, 2 * np.pi, 2), rng.normal(1.0, 0.4)
            wave = 2 * np.pi * k / 16 * (x[None, None, :] - speed * time[:, None, None]) + phase[0]
            height = np.cos(wave) * np.cos(2 * np.pi * p / 8 * y[None, :, None] + phase[1]) / k
            h, u = h + height, u + speed * height
        axes = {"time": ("time", time, {"units": "s"}), "y": ("y", y, {"units": "m"}), "x": ("x", x, {"units": "m"})}
        fields = {"h": (("time", "y", "x"), h, {"units": "m"}), "u": (("time", "y", "x"), u, {"units": "m s-1"})}
        xr.Dataset(fields, axes).to_netcdf(folder / f"waves_{member}.nc")
    bottom = np.broadcast_to(np.cos(2 * np.pi * y / 8)[:, None], (HEIGHT, WIDTH))
    xr.Dataset({"bottom": (("y", "x"), bottom)}, {"y": y, "x": x}).to_netcdf(folder / "bottom.nc")


def write_channel(folder: Path, members: int = 8, frames: int = 64) -> None:
    """Write waves that travel along a channel of 6 x 16 points with walls at both sides."""
    rng = np.random.default_rng(8)
    time, y, x = 0.1 * np.arange(frames), np.arange(6) + 0.5, np.arange(16.0)
    for member in range(members):
        b = np.zeros((frames, 6, 16))
        for k, p in [(1, 0), (1, 1), (2, 1), (3, 2), (5, 3)]:
            wave = 2 * np.pi * k / 16 * (x[None, None, :] - rng.normal(1, 0.4) * time[:, None, None]) + rng.uniform(
                0, 6
            )
            b += np.cos(wave) * np.cos(np.pi * p / 6 * y[None, :, None]) / k
        xr.Dataset({"b": (("time", "y", "x"), b)}, {"time": time, "y": y, "x": x}).to_netcdf(
            folder / f"channel_{member}.nc"
        )


@pytest.fixture(scope="module")
def from_files(root, finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "in").mkdir()
    write_square(finished, folder / "in")
    write_rectangle(folder / "in")
    write_channel(folder / "in")
    for overlay, targets in ((OVERLAY, ["all"]), (OTHERS, LOOKED_AT)):
        result = snakemake(root, folder, *targets, overlay=overlay)
        assert result.returncode == 0, result.stdout[-4000:]
    return folder


def test_shards_and_reference_are_those_of_the_solver(finished, from_files, tmp_path):
    """The files hold the solver's frames, so results that need frames alone are the same."""
    manifest = finished / SYSTEM / "shards/manifest.json"
    for split in ("train", "validation", "test"):
        solver, files = (load_dataset(path, split) for path in (manifest, from_files / SQUARE / "shards/manifest.json"))
        np.testing.assert_array_equal(np.concatenate(files.shards), np.concatenate(solver.shards))
        assert files.statistics == solver.statistics
    options = {"lags": 10, "frame_stride": 2, "map_lags": 5, "output": tmp_path / "reference.nc"}
    compute_reference(trajectories=[finished / SYSTEM / "data/test.nc"], manifest=manifest, **options)
    with (
        xr.open_dataset(tmp_path / "reference.nc") as solver,
        xr.open_dataset(from_files / SQUARE / "metrics/reference.nc") as files,
    ):
        for name in ("kinetic_energy", "energy_spectrum", "correlation", "zonal_velocity", "velocity_counts"):
            np.testing.assert_allclose(files[name], solver[name], rtol=1e-4, atol=1e-6 * float(abs(solver[name]).max()))


def test_the_trajectories_measure_as_the_solver_that_made_them(finished, from_files):
    """The trajectories after the start stand for the solver: they are its rollout, so they measure as it does."""
    with (
        xr.open_dataset(finished / SYSTEM / "metrics/solver.nc") as solver,
        xr.open_dataset(from_files / SQUARE / "metrics/solver.nc") as files,
    ):
        for name in ("kinetic_energy", "enstrophy", "energy_spectrum", "relative_change"):
            np.testing.assert_allclose(files[name], solver[name], rtol=2e-3, atol=1e-5 * float(abs(solver[name]).max()))


@pytest.mark.parametrize("system", [SQUARE, RECTANGLE, CHANNEL], ids=["square", "rectangle", "channel"])
def test_methods_are_scored_against_the_trajectories(from_files, system):
    card = pd.read_csv(from_files / system / "scorecard.csv").set_index(["method", "score"])
    assert {"solver", "pointwise", "sns"} == set(card.index.get_level_values("method"))
    for method in ("solver", "sns"):
        row = card.loc[(method, "spectrum_error")]
        assert np.isfinite(row[["value", "floor_low", "floor_high"]].to_numpy(dtype=float)).all()
    assert np.isfinite(card.loc[("sns", "crps"), "value"]).all()
    with xr.open_dataset(from_files / system / "metrics/sns.nc") as metrics:
        assert np.isfinite(metrics["mse"]).all() and float(metrics["mse"][:, 0].max()) < 1e-9


def test_a_rectangle_keeps_its_shape_its_channels_and_their_mean(from_files):
    with xr.open_dataset(from_files / RECTANGLE / "rollouts/sns/0-1/segment_0000.nc") as segment:
        assert segment["fields"].dims == ("member", "time", "layer", "y", "x")
        assert segment["fields"].shape[2:] == (2, HEIGHT, WIDTH)
        assert list(segment["layer"].values) == ["h", "u"]
        assert segment["fields"].attrs["subtracted"][0] == pytest.approx(10, rel=0.01)
        np.testing.assert_allclose(np.diff(segment["x"]), 0.5)
    with xr.open_dataset(from_files / RECTANGLE / "metrics/reference.nc") as reference:
        # The power of all shells is half the mean square of a channel: Parseval's identity on a rectangle.
        energy = reference["energy_spectrum"].sum("wavenumber") * float(np.diff(reference["wavenumber"])[0])
        np.testing.assert_allclose(energy, reference["kinetic_energy"], rtol=1e-4)


def test_networks_see_the_bottom_and_emulate_two_channels(from_files):
    for model in ("pointwise", "sns_residual"):
        with safe_open(from_files / RECTANGLE / f"models/{model}.safetensors", "np") as file:
            bottom = file.get_tensor("landmarks")
        assert bottom.shape == (1, HEIGHT, WIDTH) and bottom.std() == pytest.approx(1)
        with safe_open(from_files / CHANNEL / f"models/{model}.safetensors", "np") as file:
            assert "landmarks" not in set(file.keys())
    with xr.open_dataset(from_files / RECTANGLE / "rollouts/sns/0-1/segment_0000.nc") as segment:
        assert segment.sizes["layer"] == 2 and "static" not in segment


def test_frames_between_walls_are_mirror_images_and_pictures_show_the_channel(from_files, tmp_path):
    with xr.open_dataset(from_files / CHANNEL / "rollouts/sns/0-1/segment_0000.nc") as segment:
        frames = segment["b"].values
        assert frames.shape[-2:] == (12, 16) and segment.attrs["mirrored"] == "y"
        np.testing.assert_allclose(frames, frames[..., ::-1, :], atol=1e-6)
    page = (from_files / CHANNEL / "explorer.html").read_text()
    description = json.loads(re.search(r'id="description">(.*?)</script>', page, re.S).group(1))
    assert (description["height"], description["width"]) == (6, 16)
    rollout = open_rollout(from_files / "results/others", "sns", "channel")
    np.testing.assert_array_equal(rollout["b"][:, :10], frames[:, :10, :, :6])


def test_what_a_run_without_a_solver_cannot_say_is_absent(from_files):
    assert not (from_files / RECTANGLE / "cost.csv").exists() and not (from_files / RECTANGLE / "cost").exists()
    report = (from_files / "results/files/report.html").read_text()
    assert "Speed-up at equal accuracy" not in report and "cheaper than the solver" not in report
    result = re.findall(r'<p class="result">(.*?)</p>', report)
    assert len(result) == 1 and not any("solver" in sentence for sentence in result)
    assert report.count("This flow has no solver.") == 1


def test_inspect_says_what_the_files_hold(root, from_files):
    result = snakemake(root, from_files, "inspect", overlay=OVERLAY)
    assert result.returncode == 0, result.stdout[-4000:]
    assert "rectangle: h, u on 16 x 32 points (y, x), longer side 16 m, a frame every 0.2 s" in result.stdout
    assert "train      2 members of 64 frames" in result.stdout
    assert "static     bottom, which every network sees, from in/bottom.nc" in result.stdout
    assert re.search(r"training +sns_residual: about \d+", result.stdout)
    assert (from_files / RECTANGLE / "source.png").stat().st_size > 10_000


def test_inspect_says_in_one_line_what_is_not_readable(tmp_path, monkeypatch, capsys):
    """Frames are read for the first time by this call: the facts of a configuration need the first and the last ones."""
    config = {"use": {"systems": ["mine"]}, "systems": {"mine": {"source": {}}}, "results": str(tmp_path), "run": "a"}
    (tmp_path / "config.json").write_text(json.dumps(config))

    def describe(*_):
        raise UserError("a.nc: member 0 has missing values; fill them")

    monkeypatch.setattr(inspect_source, "describe", describe)
    monkeypatch.setattr(inspect_source.configuration, "resolve", lambda *_: {})
    monkeypatch.setattr("sys.argv", ["", "--snakefile", "", "--configuration", str(tmp_path / "config.json")])
    assert inspect_source.main() == 1
    assert capsys.readouterr().out == "mine: a.nc: member 0 has missing values; fill them\n"


@pytest.fixture
def rollout_in_files_units(from_files) -> np.ndarray:
    """The frames (member, time, layer, y, x) of a rollout on the rectangle, with the mean depth."""
    paths = sorted((from_files / RECTANGLE / "rollouts/sns/0-1").glob("segment_*.nc"))
    fields = [xr.load_dataset(path)["fields"] for path in paths]
    offset = fields[0].attrs["subtracted"].astype("f4")
    return xr.concat(fields, "time").values + offset[:, None, None]


@pytest.mark.parametrize(("name", "package"), [("a.zarr", "zarr"), ("a.hdf5", "h5py")])
def test_a_rollout_goes_out_and_comes_back(from_files, rollout_in_files_units, tmp_path, name, package):
    pytest.importorskip(package)
    line = export(from_files / "results/files", "sns", output=tmp_path / name, system="rectangle")
    assert "member 2" in line and "y 16, x 32" in line
    recording = open_recording([tmp_path / name], ["fields"] if package == "zarr" else ["h", "u"])
    frames = np.stack([recording.read(member, slice(None)) for member in range(2)])
    np.testing.assert_array_equal(frames, rollout_in_files_units)
    np.testing.assert_allclose(recording.step, 0.4)
    with pytest.raises(UserError, match="is there already"):
        export(from_files / "results/files", "sns", output=tmp_path / name, system="rectangle")


def test_the_well_reads_a_rollout(from_files, rollout_in_files_units, tmp_path):
    well = pytest.importorskip("the_well.data")
    export(from_files / "results/files", "sns", output=tmp_path / "a.hdf5", system="rectangle")
    dataset = well.WellDataset(path=str(tmp_path), n_steps_input=2, n_steps_output=1, use_normalization=False)
    sample = dataset[0]
    fields = torch.cat([sample["input_fields"], sample["output_fields"]]).numpy()
    np.testing.assert_array_equal(fields.transpose(0, 3, 2, 1), rollout_in_files_units[0, :3])


def test_an_export_of_nothing_is_one_line(from_files, tmp_path):
    for words, arguments in {
        "several systems; give --system, one of channel, square": {"output": tmp_path / "a.zarr"},
        "no rollout of 'acdm'; it has pointwise, sns, solver": {"output": tmp_path / "a.zarr", "system": "square"},
        "name it NAME.zarr for a Zarr store": {"output": tmp_path / "a.nc"},
    }.items():
        with pytest.raises(UserError, match=words):
            export(from_files / "results/others", "acdm", **arguments)


def test_movie_and_explorer_show_the_whole_rectangle(from_files):
    page = (from_files / RECTANGLE / "explorer.html").read_text()
    description = json.loads(re.search(r'id="description">(.*?)</script>', page, re.S).group(1))
    assert (description["height"], description["width"]) == (HEIGHT, WIDTH)
    assert description["methods"][0]["frames"][0]["shape"][1:] == [2, HEIGHT, WIDTH]
    with av.open(str(from_files / RECTANGLE / "figures/movie.mp4")) as movie:
        stream = movie.streams.video[0]
        # Three panels side by side, each twice as wide as high; two channels and a row of charts below each other.
        assert stream.width > 3 * PANEL and stream.height < 2 * (PANEL // 2 + GAP) + 500
