"""The movie and the page to explore a run, from the synthetic results of the figures' tests."""

import base64
import json
import math
import os
import re
import resource
import warnings
import zlib

import av
import netCDF4
import numpy as np
import pytest
import xarray as xr
from test_figures import LABELS, Synthetic

from sns_core.errors import UserError
from sns_core.figures.explorer.write import LEVELS, _shells, fitting, quantised, write_explorer
from sns_core.figures.frames import Rollout
from sns_core.figures.movie import GAP, LEFT, PANEL, TOP, panel_size, plot_movie, shown_steps
from sns_core.figures.style import COLOUR_LIMIT

METHODS = ["solver", "pointwise", "published", "generation"]
SIZE = 0.1  # time between steps


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return Synthetic(tmp_path_factory.mktemp("results"))


def manifest(folder, name="KolmogorovFlow", **parameters):
    path = folder / "manifest.json"
    path.write_text(json.dumps({"system": {"name": name, "parameters": parameters}}))
    return path


KOLMOGOROV = {
    "resolution": 8,
    "viscosity": 1e-3,
    "drag": 0.1,
    "forcing_wavenumber": 1,
    "forcing_scale": 1.0,
    "dt": 0.01,
}


def film(source, folder, **changes):
    arguments = {
        "segments": source.segments, "metrics": source.metrics, "reference": source.reference, "labels": LABELS,
        "manifest": manifest(folder, **KOLMOGOROV), "methods": METHODS, "member": 0, "seconds": 10.0, "rate": 10,
        "output": folder / "movie.mp4",
    } | changes  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_movie(**arguments)
    return arguments["output"]


def pictures(path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


@pytest.fixture(scope="module")
def movie(source, tmp_path_factory):
    return film(source, tmp_path_factory.mktemp("movie"))


def panel(picture: np.ndarray, column: int) -> np.ndarray:
    """Return the middle of a panel, without words and edges."""
    left = LEFT + column * (PANEL + GAP)
    return picture[TOP + 20 : TOP + PANEL // 2 - 20, left + 20 : left + PANEL - 20].astype(int)


def test_every_stored_frame_is_a_picture(movie):
    shown = pictures(movie)
    assert len(shown) == 21 and shown.shape[2] == LEFT + 4 * (PANEL + GAP) - GAP + 26
    small = pictures(movie.with_name("movie_small.mp4"))
    assert small.shape == (21, *(2 * round(0.375 * n) for n in shown.shape[1:3]), 3)
    assert movie.with_name("movie_small.mp4").stat().st_size < movie.stat().st_size
    with av.open(str(movie)) as file:
        video = file.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt, video.average_rate) == ("h264", "yuv420p", 10)


def test_fields_move_and_methods_differ(movie):
    first, later = pictures(movie)[[0, 9]]
    for column in range(4):
        assert np.ptp(panel(first, column)) > 100, "a field has both colours"
    assert abs(panel(first, 0) - panel(later, 0)).mean() > 5
    assert abs(panel(later, 0) - panel(later, 1)).mean() > 5


def test_the_charts_below_the_fields_move(movie):
    shown = pictures(movie).astype(int)
    below = TOP + PANEL + GAP + 40
    middle = shown.shape[2] // 2
    for chart in (shown[:, below:-60, 90:middle], shown[:, below:-60, middle + 40 :]):
        assert (abs(chart[18] - chart[4]) > 60).any(-1).sum() > 30, "the lines differ between frames"


def test_a_lost_member_is_a_grey_panel_from_its_step_on(movie):
    shown = pictures(movie)
    # Member 0 of `published` is lost at step 21; frames are stored every 2 steps. `generation` is run for 5 steps.
    gone = [np.ptp(panel(picture, 2)) < 12 for picture in shown]
    assert gone == [False] * 11 + [True] * 10
    ended = [np.ptp(panel(picture, 3)) < 12 for picture in shown]
    assert ended == [False] * 3 + [True] * 18
    words = shown[12][TOP + PANEL // 2 - 15 : TOP + PANEL // 2 + 15, LEFT + 2 * (PANEL + GAP) :][:, :PANEL]
    assert np.ptp(words.astype(int)) > 60, "the panel shows the step"


def test_the_movie_is_the_same_byte_for_byte(source, movie, tmp_path):
    repeated = film(source, tmp_path)
    for name in ("movie.mp4", "movie_small.mp4"):
        assert repeated.with_name(name).read_bytes() == movie.with_name(name).read_bytes()


def test_two_layers_are_two_rows(tmp_path):
    layered = Synthetic(tmp_path / "layered", layers=("upper", "lower"))
    eddies = {"resolution": 8, "length": 1.0e6, "beta": 1.5e-11, "bottom_drag": 5.8e-7, "layer_ratio": 0.25, "dt": 1e4,
              "deformation_radius": 15000.0, "upper_velocity": 0.025, "lower_velocity": 0.0, "eddy_frames": False}  # fmt: skip
    path = film(layered, tmp_path, manifest=manifest(tmp_path, "TwoLayerQG", **eddies), methods=["solver", "pointwise"])
    shown = pictures(path)[3].astype(int)
    upper, lower = (
        shown[TOP + 20 : TOP + 200, LEFT + 20 : LEFT + 200],
        shown[TOP + 20 + PANEL + GAP :][:180, LEFT + 20 : LEFT + 200],
    )
    assert np.ptp(upper) > 100 and np.ptp(lower) > 100 and abs(upper - lower).mean() > 1


def test_a_failed_movie_leaves_nothing(source, tmp_path):
    folder = tmp_path / "figures"
    with pytest.raises(UserError, match="7 is no member of the rollouts; known: 0, 1, 2"):
        film(source, tmp_path, member=7, output=folder / "movie.mp4")
    assert not folder.exists() or not list(folder.iterdir())


def test_frames_are_left_out_evenly(source):
    with Rollout(source.segments["solver"], SIZE) as long, Rollout(source.segments["generation"], SIZE) as short:
        assert shown_steps([short, long], 100).tolist() == list(range(0, 41, 2))
        assert shown_steps([long], 21).tolist() == list(range(0, 41, 2))
        assert shown_steps([long], 20).tolist() == list(range(0, 41, 4))
    stored = {"a": {0: np.arange(0, 20, 2), 1: np.arange(0, 10, 2)}}
    assert fitting(stored, 1000, 0.015).tolist() == list(range(0, 20, 2))
    assert fitting(stored, 1000, 0.0149).tolist() == list(range(0, 20, 4))
    assert fitting(stored, 1000, 0).tolist() == [0], "the first frame is always included"


def test_rollouts_are_read_by_member_and_step(source):
    with Rollout(source.segments["solver"], SIZE) as rollout:
        assert rollout.members == [0, 1, 2] and rollout.last_step == 40 and rollout.variable == "vorticity"
        assert rollout.steps.tolist() == list(range(0, 41, 2))
        whole = xr.concat([xr.open_dataset(path)["vorticity"] for path in source.segments["solver"]], "time")
        for step in (0, 20, 21, 22, 40):
            stored, frame = rollout.frame(1, step)
            assert stored == step // 2 * 2 and np.array_equal(frame, whole.sel(member=1).isel(time=stored // 2))
        assert rollout.frame(1, 41) is None
        with pytest.raises(UserError, match="7 is no member of the rollouts; known: 0, 1, 2"):
            rollout.frame(7, 0)


@pytest.fixture
def few_open_files():
    """At most 140 more files may be open than are open now; a rollout of more segments must close some."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 140, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_rollout_may_have_more_segments_than_files_may_be_open(source, tmp_path, few_open_files):
    """Segments of one step each, as many as a chain of 200 has; ten thousand names reach a stage by tests/workflow/test_places.py."""
    with xr.open_dataset(source.segments["solver"][0]) as dataset:
        first = dataset.isel(time=[0])[["vorticity"]].load()
    first.attrs = {"first_step": 0, "steps": 1}
    first.to_netcdf(tmp_path / "0.nc")
    content = (tmp_path / "0.nc").read_bytes()
    paths = [tmp_path / f"{index}.nc" for index in range(200)]
    for index, path in enumerate(paths):
        path.write_bytes(content)
        with netCDF4.Dataset(path, "a") as file:
            file["time"][:], file["vorticity"][:] = index * SIZE, index
            file.setncattr("first_step", index)
    with Rollout(paths, SIZE) as rollout:
        assert rollout.steps.tolist() == list(range(200))
        for step in (0, 199, 0, 100):
            stored, frame = rollout.frame(2, step)
            assert stored == step and (frame == step).all()


def test_every_grid_point_is_a_square_of_whole_pixels(movie):
    assert [panel_size(points, 296) for points in (8, 16, 32, 64, 128, 400)] == [296, 288, 288, 320, 256, 296]
    square = PANEL // 8
    picture = pictures(movie)[0].astype(int)
    field = picture[TOP : TOP + PANEL, LEFT : LEFT + PANEL].reshape(8, square, 8, square, 3)[:, 9:-9, :, 9:-9]
    assert np.ptp(field, axis=(1, 3)).max() < 16, "one colour per point, up to the compression"
    assert np.ptp(field[:, 5, :, 5], axis=(0, 1)).max() > 100


# The page


@pytest.fixture(scope="module")
def page(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    arguments = {
        "segments": source.segments, "metrics": source.metrics, "reference": source.reference, "labels": LABELS,
        "methods": METHODS, "members": 2, "megabytes": 1.0, "title": "Kolmogorov, run <x> & y",
    }  # fmt: skip
    write_explorer(**arguments, output=path)
    write_explorer(**arguments, output=path.with_name("again.html"))
    assert path.read_bytes() == path.with_name("again.html").read_bytes()
    return path.read_text(encoding="utf-8")


def element(page: str, name: str) -> str:
    return re.search(rf'<script type="[^"]+" id="{name}">(.*?)</script>', page, re.S).group(1)


@pytest.fixture(scope="module")
def page_data(page):
    """Return the description in the page, and a function that reads its arrays."""
    block = zlib.decompress(base64.b64decode(element(page, "data")))

    def read(place, kind):
        count = math.prod(place["shape"])
        return np.frombuffer(block, kind, count, place["offset"]).reshape(place["shape"])

    return json.loads(element(page, "description")), read


def test_the_page_loads_nothing(page):
    assert "default-src 'none'" in page
    # The first text is the name of a namespace, the second refers to a part of the page.
    plain = page.replace("http://www.w3.org/2000/svg", "").replace("url(#clip", "")
    assert not re.search(r"https?://|@import|url\(|<link|<iframe|<img|\bsrc=|\bimport\b[\s(]|fetch\(", plain)
    assert "run &lt;x&gt; &amp; y" in page and "<x>" not in page and "<published>" not in page


def test_the_page_holds_the_fields_up_to_the_loss(source, page_data):
    description, read = page_data
    scale = np.sqrt(2 * xr.open_dataset(source.reference)["enstrophy"].mean().item())
    assert description["steps"] == list(range(0, 41, 2)) and description["members"] == [0, 1]
    for method in description["methods"]:
        with Rollout(source.segments[method["name"]], SIZE) as rollout:
            for member, place in enumerate(method["frames"]):
                lost = method["lost"][member]
                steps = [s for s in description["steps"] if s <= rollout.last_step and (lost < 0 or s < lost)]
                fields = (read(place, np.uint8) / (LEVELS - 1) * 2 - 1) * COLOUR_LIMIT
                assert len(fields) == len(steps)
                truth = np.array([rollout.frame(member, step)[1] for step in steps]) / scale
                assert abs(fields - truth.clip(-COLOUR_LIMIT, COLOUR_LIMIT)).max() < 0.501 * 2 * COLOUR_LIMIT / (
                    LEVELS - 1
                )
    assert description["methods"][2]["lost"] == [21, 30] and [m["shown"] for m in description["methods"]] == [
        True
    ] * 3 + [
        False,
        True,
    ]


def test_the_page_holds_the_numbers_of_the_metrics(source, page_data):
    description, read = page_data
    shells = slice(1, 1 + len(description["wavenumber"]))
    for index, method in enumerate(description["methods"]):
        result = xr.open_dataset(source.metrics[method["name"]])
        spectra = (
            result["energy_spectrum"]
            .isel(member=slice(2), wavenumber=shells)
            .transpose("member", "block", "layer", ...)
        )
        spectrum = read(description["arrays"]["spectrum"], "<f4")[index, :, : spectra.sizes["block"]]
        living = np.isfinite(spectrum)
        assert np.array_equal(spectrum[living], spectra.values.astype("f4")[living]) and living.any()
        lost = np.array(method["lost"])[:, None]
        expected = (lost < 0) | (result["block"].values < lost)
        assert np.array_equal(living.all((2, 3)), expected) and np.array_equal(living.any((2, 3)), expected)
        for name in ("kinetic_energy", "enstrophy"):
            series = read(description["arrays"][name], "<f4")[index]
            at = [step for step in description["steps"] if 0 < step <= result.sizes["step"]]
            expected_values = (
                result[name].isel(member=slice(2)).sel(step=at).transpose("member", "step", "layer").values
            )
            shown = series[:, [description["steps"].index(step) for step in at]]
            alive = (lost < 0) | (np.array(at) < lost)
            assert np.array_equal(shown[alive], expected_values.astype("f4")[alive]) and np.isnan(shown[~alive]).all()
            assert np.isnan(series[:, 0]).all(), "the initial state has no energies"


def test_a_layer_with_small_units_keeps_its_shells():
    wavenumber = np.arange(8.0)
    spectra = np.stack([1e20 * np.exp(-20.0 * wavenumber), np.exp(-wavenumber)])  # the first is empty after two shells
    solver = xr.Dataset({"energy_spectrum": (("member", "layer", "wavenumber"), spectra[None])})
    assert _shells(solver) == slice(1, 8)


def test_values_beyond_the_range_are_bounded():
    assert quantised(np.array([-99.0, -COLOUR_LIMIT, 0.0, COLOUR_LIMIT, 1e20])).tolist() == [
        0,
        0,
        64,
        LEVELS - 1,
        LEVELS - 1,
    ]
