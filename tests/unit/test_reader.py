"""Trajectories of other programs: one recording from any file, with what cannot be understood refused in one line."""

import os

import netCDF4
import numpy as np
import pytest
import xarray as xr

from sns_core.data import stores
from sns_core.data.reader import open_recording, open_static
from sns_core.errors import UserError
from sns_core.units import conversion, parse, short_name

TIMES, SIDE = 6, 8
RANDOM = np.random.default_rng(3).normal(size=(2, TIMES, SIDE, SIDE)).astype("f4")


@pytest.fixture
def field() -> xr.DataArray:
    """Two members of a field b, 6 frames 0.5 apart, on 8 x 8 points."""
    positions = np.arange(SIDE) * 2.0
    coordinates = {"member": [0, 1], "time": np.arange(TIMES) * 0.5, "y": positions, "x": positions}
    return xr.DataArray(RANDOM, coordinates, ("member", "time", "y", "x"), "b", {"units": "m s-1"})


def frames_of(recording) -> np.ndarray:
    return np.stack([recording.read(member, slice(None)) for member in range(len(recording.members))])[:, :, 0]


def written(folder, field, name="a.nc", **options):
    path = folder / name
    (field.to_dataset() if isinstance(field, xr.DataArray) else field).to_netcdf(path, **options)
    return path


CHANGES = {
    "as it is": lambda f: f,
    "y down": lambda f: f.isel(y=slice(None, None, -1)),
    "times out of order": lambda f: f.isel(time=[3, 0, 1, 2, 5, 4]),
    "a step twice": lambda f: f.isel(time=[0, 1, 2, 2, 3, 4, 5]),
    "axes in another order": lambda f: f.transpose("x", "time", "y", "member"),
    "names by convention": lambda f: f.rename(y="lat", x="lon", member="trajectory", time="t"),
    "CF axes": lambda f: f.rename(y="p", x="q").assign_coords(p=("p", f.y.values, {"axis": "Y"}), q=("q", f.x.values, {"axis": "X"})),
    "CF standard names": lambda f: f.rename(member="z").assign_coords(z=("z", [0, 1], {"standard_name": "realization"})),
    "an axis of one point": lambda f: f.expand_dims(surface=[0.0]),
    "durations": lambda f: f.assign_coords(time=(f.time * 1e3).astype("timedelta64[ms]")),
    "dates": lambda f: f.assign_coords(time=np.datetime64("1999-12-31T23:59:59", "ms") + (f.time.values * 1e3).astype("timedelta64[ms]")),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_coordinates_are_understood(field, tmp_path, change):
    recording = open_recording([written(tmp_path, change(field))], ["b"])
    np.testing.assert_array_equal(frames_of(recording), RANDOM)
    unit = conversion(recording.time_units, "s") if recording.time_units else 1.0
    np.testing.assert_allclose(recording.step * unit, 0.5)
    assert (recording.x.spacing, recording.units, recording.members) == (2.0, ("m s-1",), (0, 1))


def in_units(field, units, calendar="standard"):
    return field.assign_coords(time=("time", field.time.values, {"units": units, "calendar": calendar}))


@pytest.mark.parametrize("unit", ["seconds", "Seconds", "SECOND", "secs", "s"])
@pytest.mark.parametrize(
    ("since", "calendar"), [("since", "noleap"), ("Since", "360_day"), (" since", ""), ("since ", "NOLEAP ")]
)
def test_dates_are_understood_as_models_write_them(field, tmp_path, unit, since, calendar):
    dated = in_units(field, f"{unit} {since} 1850-01-01 00:00:00", calendar)
    recording = open_recording([written(tmp_path, dated)], ["b"])
    assert (recording.time_units, recording.step, recording.dated) == ("s", 0.5, True)


def test_messages_name_dates_of_the_calendar_of_the_files(field, tmp_path):
    """In a calendar of 30 days each month the day 59.5 is the last of February."""
    dated = in_units(field.assign_coords(time=np.arange(TIMES) + 55.5), "days since 1850-01-01", "360_day")
    path = written(tmp_path, dated.where(dated.time < 59))
    with pytest.raises(UserError, match=r"values from time 1850-02-30 12:00:00 \(frame 4\) on"):
        open_recording([path], ["b"]).read(0, slice(None))
    path = written(tmp_path, dated.isel(time=[0, 1, 2, 3, 5]), "gap.nc")
    with pytest.raises(
        UserError, match=r"from 1850-02-29 12:00:00 to 1850-03-01 12:00:00 in a step, and elsewhere by 1 day; fill"
    ):
        open_recording([path], ["b"])


@pytest.mark.parametrize(
    "text", ["degrees_north", "degree_north", "degree_N", "degrees_N", "degreeN", "degreesN", "degrees_east", "degreeE"]
)
def test_degrees_are_understood_as_cf_writes_them(text):
    assert short_name(text) == "degree" and conversion(text, "degrees") == 1


def long_row(first: float, frames: int) -> xr.DataArray:
    """Return a row of two points with a frame every 0.01, whose times and points are in single precision."""
    times = (first + 0.01 * np.arange(frames)).astype("f4")
    return xr.DataArray(
        np.arange(2.0 * frames).reshape(-1, 2), {"time": times, "x": np.float32([0, 1])}, ("time", "x"), "b"
    )


def test_times_in_single_precision_are_even_up_to_their_rounding(tmp_path):
    """From time 1024 on single precision rounds to more than a hundredth of the step of 0.01."""
    row = long_row(1030, 3000)
    paths = [written(tmp_path, part, name) for name, part in (("a.nc", row[:1500]), ("b.nc", row[1500:]))]
    recording = open_recording(paths, ["b"])
    assert len(recording.times) == 3000 and recording.step == pytest.approx(0.01, rel=1e-5)
    path = written(tmp_path, row.isel(time=np.r_[:700, 701:3000]), "gap.nc")
    with pytest.raises(UserError, match=r"time goes from 1036\.99 to 1037\.01 in a step, and elsewhere by 0\.01"):
        open_recording([path], ["b"])
    with pytest.raises(
        UserError, match=r"rounds its times to multiples of 0\.0078125, and frames are about 0\.01 apart"
    ):
        open_recording([written(tmp_path, long_row(1e5, 100), "late.nc")], ["b"])


def test_points_in_single_precision_are_even_up_to_their_rounding(field, tmp_path):
    points = (5e5 + 10 / 3 * np.arange(SIDE)).astype("f4")
    recording = open_recording([written(tmp_path, field.assign_coords(x=points))], ["b"])
    assert recording.x.spacing == pytest.approx(10 / 3, rel=1e-2)


def test_packed_numbers_are_unpacked_and_fill_values_are_missing(field, tmp_path):
    packing = {"b": {"dtype": "i2", "scale_factor": 1e-3, "add_offset": 0.5, "_FillValue": -32768}}
    path = written(tmp_path, field, encoding=packing)
    np.testing.assert_allclose(frames_of(open_recording([path], ["b"])), RANDOM, atol=6e-4)
    hole = field.copy()
    hole[1, 4, 0, 0] = np.nan
    path = written(tmp_path, hole, "hole.nc", encoding=packing)
    with pytest.raises(
        UserError, match=r"hole\.nc: member 1 has missing or infinite values from time 2 \(frame 4\) on"
    ):
        open_recording([path], ["b"]).read(1, slice(2, None))


def by_the_library(path, frames, form="NETCDF4", fill_value=None, missing_value=None, growing=False):
    """Write frames (time, y, x) without xarray, which adds attributes of its own; times are six, however many frames there are."""
    with netCDF4.Dataset(path, "w", format=form) as file:
        for name, size in {"time": TIMES, "y": SIDE, "x": SIDE}.items():
            file.createDimension(name, None if growing and name == "time" else size)
            file.createVariable(name, "f8", (name,))[:] = np.arange(size)
        variable = file.createVariable("b", frames.dtype, ("time", "y", "x"), fill_value=fill_value)
        variable.set_auto_mask(False)
        if missing_value is not None:
            variable.setncattr("missing_value", missing_value)
        variable[: len(frames)] = frames
    return path


LAND = {
    "a fill value": {"_FillValue": np.float32(1e20)},
    "in double precision": {"missing_value": 1e20},
    "as a text": {"missing_value": "1e20"},
    "two": {"missing_value": np.array([-999.0, 1e20])},
    "that of the library, without a word": {},
}  # fmt: skip


@pytest.mark.parametrize("stated", LAND.values(), ids=LAND)
def test_missing_values_are_seen_however_the_file_states_them(tmp_path, stated):
    land = RANDOM[0].copy()
    land[4:, :2, :2] = 1e20 if stated else netCDF4.default_fillvals["f4"]
    path = by_the_library(
        tmp_path / "land.nc", land, fill_value=stated.get("_FillValue"), missing_value=stated.get("missing_value")
    )
    recording = open_recording([path], ["b"])
    np.testing.assert_array_equal(recording.read(0, slice(4))[:, 0], land[:4])
    with pytest.raises(UserError, match=r"missing or infinite values from time 4 \(frame 4\) on"):
        recording.read(0, slice(None))


def test_frames_that_were_never_written_are_missing(tmp_path):
    path = by_the_library(tmp_path / "early.nc", RANDOM[0, :3].astype("i2"))
    with pytest.raises(UserError, match=r"missing or infinite values from time 3 \(frame 3\) on"):
        open_recording([path], ["b"]).read(0, slice(None))


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
@pytest.mark.parametrize("growing", [False, True])
def test_a_classic_file_that_was_cut_off_is_refused(tmp_path, form, growing):
    """The netCDF library reads the bytes that are missing as those before, without an error."""
    path = by_the_library(tmp_path / "a.nc", RANDOM[0], form, growing=growing)
    np.testing.assert_array_equal(frames_of(open_recording([path], ["b"])), RANDOM[:1])
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(UserError, match=r"a\.nc: lacks \d+ bytes or more at its end; copy or write it again"):
        open_recording([path], ["b"])


def test_channels_come_from_variables_and_layers(field, tmp_path):
    layered = xr.concat([field, 2 * field], "lev").assign_coords(lev=["upper", "lower"])
    path = written(tmp_path, xr.Dataset({"q": layered, "h": (3 * field).assign_attrs(units="m")}))
    recording = open_recording([path], ["h", "q"])
    assert recording.layers == ("h", "q_upper", "q_lower")
    assert recording.units == ("m", "m s-1", "m s-1")
    np.testing.assert_allclose(recording.read(0, slice(1))[0, :, 0, 0], RANDOM[0, 0, 0, 0] * np.array([3, 1, 2]))


def on_other_axes(field, change) -> xr.Dataset:
    """Return fields b and c = 2 b, whose axes have other names; the change is made to c."""
    return xr.Dataset({"b": field, "c": change(2 * field).rename(y="lat", x="lon", time="t")})


def test_each_variable_is_sorted_by_its_own_coordinates(field, tmp_path):
    path = written(tmp_path, on_other_axes(field, lambda f: f.isel(y=slice(None, None, -1), time=[1, 0, 2, 3, 4, 5])))
    frames = open_recording([path], ["b", "c"]).read(1, slice(None))
    np.testing.assert_array_equal(frames, np.stack([RANDOM[1], 2 * RANDOM[1]], 1))


def test_a_variable_without_members_belongs_to_each_of_them(field, tmp_path):
    path = written(tmp_path, xr.Dataset({"c": 2 * field.isel(member=0, drop=True), "b": field}))
    frames = open_recording([path], ["c", "b"]).read(1, slice(None))
    np.testing.assert_array_equal(frames, np.stack([2 * RANDOM[0], RANDOM[1]], 1))


OTHER_POINTS = {
    "half a spacing apart": (lambda f: f.assign_coords(x=f.x + 1), "'c' has x of 1 to 15, 'b' has 0 to 14; interpolate them"),
    "no positions": (lambda f: f.drop_vars("y"), "'c' has y of no positions, 'b' has 0 to 14"),
    "other times": (lambda f: f.assign_coords(time=f.time + 0.25), r"'c' has times of 0\.25 to 2\.75, 'b' has 0 to 2\.5"),
    "fewer points": (lambda f: f.isel(y=slice(4)), "'c' has the shape time 6, y 4, x 8, 'b' has time 6, y 8, x 8"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), OTHER_POINTS.values(), ids=OTHER_POINTS)
def test_variables_on_other_points_are_one_line(field, tmp_path, change, words):
    path = written(tmp_path, on_other_axes(field, change))
    with pytest.raises(UserError, match=words) as caught:
        open_recording([path], ["b", "c"])
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_variable_may_be_a_coordinate_of_another_one(field, tmp_path):
    """A depth, or a latitude of a curvilinear grid, even with the name of an axis, as CF allows."""
    path = written(tmp_path, field.assign_coords(depth=(("y", "x"), RANDOM[0, 0]), speed=2 * field))
    recording = open_recording([path], ["b", "speed"])
    np.testing.assert_array_equal(recording.read(1, slice(None)), np.stack([RANDOM[1], 2 * RANDOM[1]], 1))
    np.testing.assert_array_equal(open_static(path, ["depth"], {}, recording), RANDOM[0, :1])
    with netCDF4.Dataset(by_the_library(tmp_path / "curved.nc", RANDOM[0]), "a") as file:
        file.renameDimension("y", "lat")
        file.createVariable("lat", "f8", ("lat", "x"))[:] = RANDOM[0, 1]
    np.testing.assert_array_equal(frames_of(open_recording([tmp_path / "curved.nc"], ["b"])), RANDOM[:1])


def test_variables_may_have_layers_of_their_own(field, tmp_path):
    three, two = (xr.concat([field] * len(z), "lev").assign_coords(lev=z) for z in ([10, 20, 30], [5, 15]))
    path = written(tmp_path, xr.Dataset({"b": three, "c": two.rename(lev="height")}))
    recording = open_recording([path], ["b", "c"])
    assert recording.layers == ("b_10", "b_20", "b_30", "c_5", "c_15") and recording.frames.sizes["layer"] == 5


@pytest.mark.parametrize("axis", ["absent", "one point", "without a coordinate"])
def test_a_field_without_y_is_a_row_of_points(field, tmp_path, axis):
    row = field.isel(y=[0])
    row = {"absent": row.isel(y=0, drop=True), "one point": row, "without a coordinate": row.drop_vars("y")}[axis]
    recording = open_recording([written(tmp_path, row)], ["b"])
    np.testing.assert_array_equal(frames_of(recording), RANDOM[:, :, :1])
    assert recording.y.positions is None and recording.x.spacing == 2.0


def test_rows_have_layers_where_the_configuration_says_so(field, tmp_path):
    path = written(tmp_path, field.rename(y="z"))
    recording = open_recording([path], ["b"], {"layer": "z"})
    np.testing.assert_array_equal(recording.read(1, slice(None))[:, :, 0], RANDOM[1])


@pytest.mark.parametrize("split", ["time", "member", "both", "overlapping", "overlapping twice", "alone"])
def test_files_are_joined_along_time_and_members(field, tmp_path, split):
    parts = {
        "time": [field.isel(time=slice(0, 2)), field.isel(time=slice(2, None))],
        "member": [field.isel(member=[1]), field.isel(member=[0])],
        "both": [field.isel(member=[m], time=t) for m in (1, 0) for t in (slice(0, 4), slice(4, None))],
        "overlapping": [field.isel(time=slice(0, 3)), field.isel(time=slice(2, None))],
        "overlapping twice": [
            field.isel(time=slice(0, 4)),
            field.isel(time=slice(1, 5)),
            field.isel(time=slice(2, None)),
        ],
        "alone": [field.isel(member=m, drop=True) for m in (0, 1)],
    }[split]
    paths = [written(tmp_path, part, f"part_{index}.nc") for index, part in enumerate(parts)]
    np.testing.assert_array_equal(frames_of(open_recording(paths[::-1], ["b"])), RANDOM)


def test_files_of_several_members_without_numbers_hold_members_of_their_own(field, tmp_path):
    parts = [(1 + index) * field.drop_vars("member").isel(member=slice(n)) for index, n in enumerate((2, 2, 1))]
    paths = [written(tmp_path, part, f"part_{index}.nc") for index, part in enumerate(parts)]
    recording = open_recording(paths, ["b"])
    assert recording.members == (0, 1, 2, 3, 4)
    np.testing.assert_array_equal(frames_of(recording), np.concatenate(parts))


@pytest.mark.parametrize("names", [["r1i1p1f1", "r2i1p1f1"], [0.5, 1.5], [3, 4]], ids=["texts", "shares", "numbers"])
def test_members_of_files_that_follow_each_other_are_told_by_their_names(field, tmp_path, names):
    """The second file holds them the other way round; files of single members are joined by their names, too."""
    named = field.assign_coords(member=names)
    parts = [named.isel(time=slice(0, 2)), named.isel(time=slice(2, None), member=[1, 0])]
    paths = [written(tmp_path, part, f"part_{index}.nc") for index, part in enumerate(parts)]
    recording = open_recording(paths, ["b"])
    np.testing.assert_array_equal(frames_of(recording), RANDOM)
    assert recording.members == ((3, 4) if names == [3, 4] else (0, 1))
    singles = [part.isel(member=[row]) for part in parts for row in (0, 1)]
    paths = [written(tmp_path, part, f"single_{index}.nc") for index, part in enumerate(singles)]
    np.testing.assert_array_equal(frames_of(open_recording(paths, ["b"])), RANDOM)


def test_units_of_files_may_be_written_otherwise(field, tmp_path):
    """xarray writes days for a single frame, where frames of other files are hours apart."""
    dates = np.datetime64("2000-01-01") + np.arange(TIMES) * np.timedelta64(1, "h")
    dated = field.isel(member=0, drop=True).assign_coords(time=dates.astype("M8[ns]"))
    parts = [dated[:5], dated[5:].assign_attrs(units="m/s")]
    paths = [written(tmp_path, part, f"part_{index}.nc") for index, part in enumerate(parts)]
    with netCDF4.Dataset(paths[0]) as hours, netCDF4.Dataset(paths[1]) as days:
        assert [file["time"].units.split()[0] for file in (hours, days)] == ["hours", "days"]
    recording = open_recording(paths, ["b"])
    assert (recording.step, recording.time_units) == (1.0, "h")
    np.testing.assert_array_equal(frames_of(recording), RANDOM[:1])


def test_files_that_differ_where_they_overlap_are_named(field, tmp_path):
    member = field.isel(member=0, drop=True)
    paths = [
        written(tmp_path, part, name)
        for name, part in (("a.nc", member.isel(time=slice(4))), ("b.nc", 2 * member.isel(time=slice(2, None))))
    ]
    words = r"b\.nc: holds another frame at time 1 than .*a\.nc, and both cover 1 to 1\.5; leave out one of them"
    with pytest.raises(UserError, match=words):
        open_recording(paths, ["b"], join="time")


def test_names_of_dimensions_may_be_said(field, tmp_path):
    path = written(tmp_path, field.rename(member="seed", y="p", x="q", time="n"))
    with pytest.raises(
        UserError, match=r"a\.nc: 'b' has the dimension 'seed', which is neither .* say which under dims"
    ):
        open_recording([path], ["b"])
    recording = open_recording([path], ["b"], {"member": "seed", "time": "n", "y": "p", "x": "q"})
    np.testing.assert_array_equal(frames_of(recording), RANDOM)


REFUSED = {
    "no such variable": (lambda f: f.rename("c"), "holds no 'b', only 'c'"),
    "a missing step": (lambda f: f.isel(time=[0, 1, 3, 4, 5]), "time goes from 0.5 to 1.5 in a step, and elsewhere by 0.5; fill"),
    "uneven times": (lambda f: f.assign_coords(time=f.time**1.5), r"its frames are 0\.354 to 1\.12 apart in time; interpolate them"),
    "months as days": (lambda f: f.assign_coords(time=[0, 31, 59, 90, 120, 151]), "its frames are 28 to 31 apart in time"),
    "land": (lambda f: f.where(f.x > 2), r"from time 0 \(frame 0\) on; leave the member out, or fill them, such as with 0 on land"),
    "a crash": (lambda f: f.where(f.time < 1), r"from time 1 \(frame 2\) on; leave the member out, or keep the frames before"),
    "two frames at a time": (lambda f: f.assign_coords(time=[0, 0.5, 0.5, 1, 1.5, 2]), "two different frames at time 0.5"),
    "no times": (lambda f: f.drop_vars("time"), "no coordinate 'time'"),
    "no times under another name": (lambda f: f.drop_vars("time").rename(time="t"), "no coordinate 't'"),
    "no frames": (lambda f: f.isel(time=slice(0)), "'b' has no values, its dimension 'time' has the length 0; leave the file out"),
    "text as times": (lambda f: f.assign_coords(time=list("abcdef")), "'time' holds a, b, c, …; it needs finite numbers"),
    "a time that is NaN": (lambda f: f.assign_coords(time=f.time.where(f.time < 2)), "'time' holds .*finite numbers"),
    "digits of dates": (lambda f: in_units(f, "day as %Y%m%d.%f"), "digits of dates, which do not count the days"),
    "months": (lambda f: in_units(f, "months since 2000-01-01"), "in no known unit of a fixed length"),
    "uneven points": (lambda f: f.assign_coords(x=f.x**2), "points of 'x' are not evenly spaced"),
    "a member twice": (lambda f: f.assign_coords(member=[1, 1]), "the member 1 twice"),
    "two axes for x": (lambda f: f.rename(member="lon"), "two dimensions that may be x, 'lon' and 'x'"),
    "no axis x": (lambda f: f.isel(x=0), "none is known as x"),
    "one point along x": (lambda f: f.isel(x=[0]), "has one point along x; a single row lies along x"),
    "a plane of x and z": (lambda f: f.rename(y="z"), "has x and 'z', and no y; say dims: {y: z} for planes, or dims: {layer: z}"),
    "text": (lambda f: f.astype(str), "holds .*, not numbers"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_understood_is_one_line(field, tmp_path, change, words):
    path = written(tmp_path, change(field))
    with pytest.raises(UserError, match=words) as caught:
        open_recording([path], ["b"]).read(0, slice(None))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


UNLIKE = {
    "another grid": (lambda f: f.assign_coords(x=f.x * 2), "has x of 0 to 28, "),
    "fewer points": (lambda f: f.isel(x=slice(4)), r"frames \(layer, y, x\) of \(1, 8, 4\)"),
    "other units": (lambda f: f.assign_attrs(units="km s-1"), r"b\.nc: has units km s-1, \S+a\.nc has m s-1; name files of one data set"),
    "no units": (lambda f: f.drop_attrs(), r"b\.nc: has units none, \S+a\.nc has m s-1"),
    "shorter": (lambda f: f.isel(time=slice(3)), "holds 3 frames, .* 6; members of one split are of one length"),
    "a gap between files": (lambda f: f.assign_coords(time=f.time + 9), r"neither the same times nor the next ones; say source\.join"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), UNLIKE.values(), ids=UNLIKE)
def test_files_that_do_not_fit_together_are_one_line(field, tmp_path, change, words):
    member = field.isel(member=0, drop=True)
    paths = [written(tmp_path, member, "a.nc"), written(tmp_path, change(member), "b.nc")]
    with pytest.raises(UserError, match=words) as caught:
        open_recording(paths, ["b"])
    assert str(caught.value).startswith(f"{paths[1]}: ")


@pytest.mark.parametrize(
    ("stored", "chunk"),
    [(None, (1, 4, 1, 8, 8)), ((2, 3, 8, 8), (2, 3, 1, 8, 8)), ((1, 1, 8, 8), (1, 4, 1, 8, 8))],
    ids=["in one piece", "in large pieces", "in frames"],
)
def test_no_more_is_read_at_once_than_a_chunk_that_holds_whole_pieces(field, tmp_path, monkeypatch, stored, chunk):
    """A variable that lies in one piece must not be read whole for each block of frames."""
    monkeypatch.setattr(stores, "CHUNK_BYTES", 4 * SIDE * SIDE * 4)  # four frames
    path = written(tmp_path, field, encoding={"b": {"chunksizes": stored}} if stored else {})
    recording = open_recording([path], ["b"])
    assert recording.frames.data.chunksize == chunk
    np.testing.assert_array_equal(frames_of(recording), RANDOM)


def test_groups_and_other_files_are_named(field, tmp_path):
    path = tmp_path / "groups.nc"
    field.to_dataset().to_netcdf(path, group="run/out")
    with pytest.raises(UserError, match=r"its variables lie in the groups /run/out"):
        open_recording([path], ["b"])
    (tmp_path / "text.nc").write_text("no frames")
    with pytest.raises(UserError, match=r"text\.nc: not readable as netCDF"):
        open_recording([tmp_path / "text.nc"], ["b"])
    with pytest.raises(UserError, match=r"gone\.nc: missing"):
        open_recording([tmp_path / "gone.nc"], ["b"])


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
def test_zarr_stores_are_read(field, tmp_path, version, consolidated):
    pytest.importorskip("zarr")
    path = tmp_path / "a.zarr"
    field.to_dataset().to_zarr(path, zarr_format=version, consolidated=consolidated)
    np.testing.assert_array_equal(frames_of(open_recording([path], ["b"])), RANDOM)


@pytest.mark.parametrize("version", [2, 3])
def test_zeros_of_zarr_are_numbers(tmp_path, version):
    """A text beside them, whose fill value is no number, changes nothing."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "zeros.zarr", mode="w", zarr_format=version)
    sizes = {"time": 3, "y": 4, "x": 4}
    for name, dims, values in [
        ("b", tuple(sizes), np.zeros((3, 4, 4))),
        ("place", ("x",), np.array(list("abcd"))),
        *((d, (d,), np.arange(n) * 1.0) for d, n in sizes.items()),
    ]:
        array = group.create_array(name, data=values, **({"dimension_names": dims} if version == 3 else {}))
        array.attrs["_ARRAY_DIMENSIONS"] = dims
    assert (frames_of(open_recording([tmp_path / "zeros.zarr"], ["b"])) == 0).all()


def test_a_zero_that_zarr_states_as_missing_is_missing(field, tmp_path):
    pytest.importorskip("zarr")
    hole = field.where(field.time < 2)
    packing = {"dtype": "i2", "scale_factor": 1e-3, "_FillValue": 0}
    hole.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=3, encoding={"b": packing})
    with pytest.raises(UserError, match=r"missing or infinite values from time 2 \(frame 4\) on"):
        open_recording([tmp_path / "a.zarr"], ["b"]).read(0, slice(None))


@pytest.mark.parametrize("form", ["netCDF", 2, 3])
def test_a_damaged_chunk_is_named_with_its_file(field, tmp_path, form):
    parts, paths = [field.isel(time=slice(2)), field.isel(time=slice(2, None))], []
    for index, part in enumerate(parts):
        if form == "netCDF":
            encoding = {"b": {"fletcher32": True, "chunksizes": (1, 1, SIDE, SIDE)}}
            paths.append(written(tmp_path, part, f"{index}.nc", encoding=encoding))
        else:
            pytest.importorskip("zarr")
            paths.append(tmp_path / f"{index}.zarr")
            part.chunk(time=1).to_dataset().to_zarr(paths[-1], zarr_format=form)
    place = {"netCDF": paths[1], 2: paths[1] / "b/0.1.0.0", 3: paths[1] / "b/c/0/1/0/0"}[form]
    content = bytearray(place.read_bytes())
    if form == "netCDF":
        first = content.index(RANDOM[0, 3].tobytes())
        content[first : first + 40] = bytes(40)
    else:
        content = content[:9]
    place.write_bytes(content)
    recording = open_recording(paths, ["b"])
    with pytest.raises(
        UserError, match=r"frames from time 1(\.5)? on are not readable \(.*\); copy or write it again"
    ) as caught:
        recording.read(0, slice(None))
    assert str(caught.value).startswith(f"{paths[1]}: ") and "\n" not in str(caught.value)


def of_the_well(path, fields=None, times=None, space=("x", "y"), **attributes):
    """Write a file in the layout of The Well: group -> name -> array. Times are in single precision, as its own are."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs.update({"n_trajectories": 2} if attributes.get("trajectories", True) else {})
        axes = file.create_group("dimensions")
        if space:
            axes.attrs["spatial_dims"] = space
        if times is not False:
            axes["time"] = (np.arange(TIMES) * 0.5 if times is None else times).astype("f4")
        for name in "xy":
            axes[name] = np.arange(SIDE) * 0.5
        for group in stores.WELL_GROUPS:
            file.create_group(group)
        for place, values in (fields or {"t0_fields/b": RANDOM.swapaxes(2, 3)}).items():
            file[place] = values
    return path


def test_the_layout_of_the_well_is_read(tmp_path):
    vector = np.random.default_rng(4).normal(size=(2, TIMES, SIDE, SIDE, 2)).astype("f4")
    fields = {"t0_fields/b": RANDOM.swapaxes(2, 3), "t1_fields/velocity": vector}
    recording = open_recording([of_the_well(tmp_path / "well.hdf5", fields)], ["b", "velocity_y"])
    np.testing.assert_array_equal(recording.read(1, slice(None))[:, 0], RANDOM[1])
    np.testing.assert_array_equal(recording.read(1, slice(None))[:, 1], vector[1, ..., 1].swapaxes(1, 2))


def test_late_times_of_the_well_are_even_up_to_their_rounding(tmp_path):
    """From 4096 on single precision rounds to 1/20 of the step."""
    recording = open_recording([of_the_well(tmp_path / "well.hdf5", times=5000 + 0.01 * np.arange(TIMES))], ["b"])
    assert recording.step == pytest.approx(0.01, rel=0.05)


ODD_WELLS = {
    "no number of trajectories": ({"trajectories": False}, "but not all of their n_trajectories"),
    "no times": ({"times": False}, "dimensions/time"),
    "no names of axes": ({"space": None}, "spatial_dims of dimensions"),
    "an axis too many": ({"fields": {"t0_fields/b": RANDOM[None]}}, "'b' has 5 axes, and .* of rank 0 at most 4: trajectory"),
    "times of their own": ({"times": np.arange(TIMES) * np.ones((2, 1)) + [[0], [1]]}, "'time' differs between trajectories"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), ODD_WELLS.values(), ids=ODD_WELLS)
def test_what_is_not_quite_the_layout_of_the_well_is_one_line(tmp_path, change, words):
    path = of_the_well(tmp_path / "well.hdf5", **change)
    with pytest.raises(UserError, match=words) as caught:
        open_recording([path], ["b"])
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("source", "target", "factor"),
    [("day-1", "s-1", 1 / 86400), ("km", "m", 1e3), ("m/s", "m s-1", 1), ("m**2 s**-2", "m2 s-2", 1), ("1/s", "Hz", 1), ("%", "1", 0.01),
     ("Meters", "m", 1), ("10^6 m", "m", 1e6), ("10**3 g m-3", "kg m-3", 1), ("10^-5 s-1", "s-1", 1e-5), ("1/10^3 m^2", "m2", 1e-3),
     ("10 ** 2 m", "cm", 1e4)],
)  # fmt: skip
def test_units_are_converted(source, target, factor):
    assert conversion(source, target) == pytest.approx(factor)
    assert conversion(source, "kg") is None


@pytest.mark.parametrize("text", ["10^2.5 m", "10^400 m", "0^-1 m", "1e3^2 m", "m2^3"])
def test_a_power_that_is_not_understood_is_no_number(text):
    assert parse(text) is None
