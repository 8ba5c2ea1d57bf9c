"""The engine, and an emulator around it, with methods that count or stand still: no file, no network."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from sns_core.data.emulation import Emulation
from sns_core.errors import UserError
from sns_core.library import AXES, Emulator, load
from sns_core.methods import Hardware, Method, StepRecord, StochasticSurrogate, Surrogate
from sns_core.methods.portable import PortableMethod
from sns_core.rollout import Observer, iterate, roll
from sns_core.rollout.engine import Clock
from sns_core.streams import MemberStreams


class Counter(Method):
    """A method that adds a random number of each member's stream to its frame."""

    def start(self, states):
        return {"frame": states.clone()}

    def step(self, carry, streams):
        noise = torch.stack([torch.randn(1, generator=g) for g in streams])
        return {"frame": carry["frame"] + noise}, StepRecord.nothing(len(noise))


class Notes(Observer):
    """An observer that notes the order of its calls."""

    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def before(self, step):
        self.notes.append((self.name, "before", step))

    def after(self, step, frame, record):
        self.notes.append((self.name, "after", step))
        self.frame, self.record = frame, record


def rolled(first, last, carry=None, members=(0, 1, 2), observers=()):
    method, streams = Counter(), MemberStreams(0, "engine", members=members)
    carry = method.start(torch.zeros(len(members), 1)) if carry is None else carry
    return roll(method, carry, streams, range(first, last + 1), observers)


def test_every_observer_sees_every_step_in_order():
    notes = []
    first, second = Notes("first", notes), Notes("second", notes)
    carry = rolled(1, 2, observers=[first, second])
    moments = [(name, when, step) for step in (1, 2) for when in ("before", "after") for name in ("first", "second")]
    assert notes == moments
    assert torch.equal(second.frame, carry["frame"]) and second.record.calls.tolist() == [0, 0, 0]


def test_two_stretches_give_the_bits_of_one():
    whole, half = rolled(1, 10), rolled(1, 4)
    assert torch.equal(rolled(5, 10, half)["frame"], whole["frame"])


def test_a_member_does_not_depend_on_the_other_members():
    assert torch.equal(rolled(1, 5, members=(1,))["frame"][0], rolled(1, 5)["frame"][1])


def test_no_steps_leave_the_carry_as_it_is():
    assert rolled(1, 0)["frame"].tolist() == [[0.0]] * 3


def test_an_endless_rollout_is_consumed_step_by_step():
    method, streams = Counter(), MemberStreams(0, "engine", members=[0])
    steps = iterate(method, method.start(torch.zeros(1, 1)), streams, iter(range(1, 10**12)))
    frames = [frame.item() for (_, frame, _), _ in zip(steps, range(3), strict=False)]
    assert frames == [rolled(1, count, members=(0,))["frame"].item() for count in (1, 2, 3)]


def test_the_clock_leaves_out_the_other_observers(monkeypatch):
    time = iter(range(1000))
    monkeypatch.setattr("sns_core.rollout.engine.time.perf_counter", lambda: next(time))

    class Slow(Observer):
        def after(self, step, frame, record):
            for _ in range(100):
                next(time)

    clock = Clock(10, 6, 3, torch.device("cpu"))
    rolled(11, 16, observers=[clock, Slow()])
    assert clock.seconds.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("surrogate", "made"),
    [
        (lambda frames: frames[:, :, ::2], r"\(2, 1, 2, 3\) of torch.float32"),
        (lambda frames: frames.double(), r"\(2, 1, 4, 3\) of torch.float64"),
        (lambda frames: frames.numpy(), "a ndarray"),
    ],
    ids=["shape", "precision", "numpy"],
)
def test_what_a_surrogate_makes_is_like_its_frames_or_named(surrogate, made):
    method = Surrogate(surrogate)
    with pytest.raises(
        UserError, match=rf"^surrogate: made {made} of frames \(2, 1, 4, 3\) of torch.float32; return a tensor"
    ):
        roll(method, method.start(torch.zeros(2, 1, 4, 3)), MemberStreams(0, "engine", members=[0, 1]), range(1, 3))


def test_a_surrogate_with_parameters_keeps_no_graph():
    method = Surrogate(torch.nn.Linear(3, 3))
    carry = roll(method, method.start(torch.ones(2, 3)), MemberStreams(0, "engine", members=[0, 1]), range(1, 4))
    assert not carry["frame"].requires_grad


# --- an emulator's states ---

FLOW = {"resolution": [8, 16], "dt": 0.5, "length": 32.0, "layers": ["u", "v"], "length_units": "km"}


class Still:
    """The origin of an emulator of recorded fields that do not change."""

    name, path, card, options, states = "still", Path("here"), "", {"kind": "pointwise", "models": {}}, None

    def __init__(self, system="RecordedFlow", **parameters):
        self.system, self.parameters = system, {**FLOW, **parameters} if system == "RecordedFlow" else parameters

    def emulation(self):
        std = {"std": [2.0] * len(self.parameters.get("layers", "u"))}
        return Emulation(self.system, self.parameters, self.parameters["resolution"], 0.5, std, "")

    def build(self, emulation, system, hardware, frames):
        return Surrogate(lambda x: x, frames=frames)


def first_frame(x0, *origin, **parameters) -> np.ndarray:
    """Return frame 0 (member, layer, y, x) of a rollout from x0."""
    rollout = Emulator(Still(*origin, **parameters), Hardware(), 1).rollout(x0, 1)
    return next(iter(rollout.data_vars.values())).values[:, 0]


@pytest.fixture
def state() -> xr.DataArray:
    """A state whose coordinates are those of the emulator's grid."""
    values = np.random.default_rng(0).normal(size=(1, 2, 8, 16)).astype(np.float32)
    coordinates = {"layer": ["u", "v"], "y": 2.0 * np.arange(8), "x": ("x", 2.0 * np.arange(16), {"units": "km"})}
    return xr.DataArray(values, coordinates, AXES)


def test_a_state_stands_where_its_coordinates_say(state):
    in_metres = state.assign_coords(x=("x", 2000.0 * np.arange(16), {"units": "m"}))
    numbered = state.assign_coords(layer=[1, 2], y=np.arange(8), x=np.arange(16))
    for form in (
        state, state.drop_vars(AXES[1:]), state.isel(layer=[1, 0]), state.roll(y=3, x=5, roll_coords=True), in_metres, numbered,
        state.roll(x=-4).assign_coords(x=state["x"] + 8), state.transpose("x", "layer", "y", "member").isel(member=0),
    ):  # fmt: skip
        np.testing.assert_allclose(first_frame(form), state.values, rtol=1e-6)


@pytest.mark.parametrize(
    ("coordinates", "words"),
    [
        ({"layer": ["u", "w"]}, r"x0: its layers are called u, w, the system's are u, v; rename them"),
        ({"x": np.arange(16) + 0.5}, "x0: the points of 'x' are 1 apart"),
        ({"y": 2.0 * np.arange(8) + 1}, "x0: the points of 'y' begin at 1, between .* interpolate"),
        ({"y": [0, 2, 4, 6, 8, 10, 12, 15]}, "x0: the points of 'y' are not evenly spaced"),
        ({"y": list("abcdefgh")}, "x0: the coordinate 'y' holds a, b, c, …; it needs finite numbers"),
        ({"x": np.datetime64("2000-01-01") + np.arange(16)}, "x0: the points of 'x' are .* apart"),
    ],
)
def test_a_state_of_other_layers_or_points_is_one_line(state, coordinates, words):
    with pytest.raises(UserError, match=words) as caught:
        first_frame(state.assign_coords(coordinates))
    assert "\n" not in str(caught.value)


def test_a_stream_does_not_see_what_happens_to_its_state_afterwards(state):
    values = state.values.copy()
    stream = Emulator(Still(), Hardware(), 1).stream(values)
    values += 100
    np.testing.assert_allclose(next(stream)[1], state.values, rtol=1e-6)


def test_what_is_no_path_and_a_file_that_is_not_there_are_one_line(tmp_path):
    path = tmp_path / "none.safetensors"
    with pytest.raises(UserError, match=f"{path}: missing; write it by python -m sns_core export RUN METHOD --output"):
        load(path)
    with pytest.raises(UserError, match="path: None is no path"):
        load(None)
    with pytest.raises(UserError, match="compile: 'no' is neither True nor False"):
        load(path, compile="no")


def test_a_file_of_one_method_has_no_system_to_choose(tmp_path):
    path = tmp_path / "still.safetensors"
    PortableMethod("still", Still.options, {}, {}, None, "float32", "").write(path)
    with pytest.raises(UserError, match=r"still.safetensors: holds one method, .* no 'nonsense'; leave system= out"):
        load(path, system="nonsense")


def test_frame_0_has_nothing_that_no_frame_of_the_system_has(state):
    wave = np.sin(2 * np.pi * np.arange(16) / 16, dtype=np.float32)[None, None, None]
    row = {"resolution": [1, 16]}
    np.testing.assert_allclose(first_frame(wave + 3, "KuramotoSivashinsky", **row), wave, atol=1e-6)
    np.testing.assert_array_equal(
        first_frame(wave, "KuramotoSivashinsky", **row), wave
    )  # possible, so it keeps its bits
    between_walls = first_frame(state, mirrored=[True, False])
    np.testing.assert_allclose(between_walls, 0.5 * (state.values + state.values[:, :, ::-1]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": -1}, "count: -1 is not a whole number of at least 1"),
        ({"count": 257}, "count: 257 exceeds the 256 numbers of a frame"),
        ({"steps": 0}, "steps: 0 is not a whole number of at least 2"),
        ({"steps": 2.5}, "steps: 2.5 is not a whole number"),
        ({"settling": -1}, "settling: -1 is not a whole number of at least 0"),
        ({"size": 0}, "size: 0 is no positive number"),
        ({"size": float("nan")}, "size: nan is no positive number"),
        ({"size": True}, "size: True is no positive number"),
        ({"size": 1e-6}, "size: 1e-06 is not from 1e-05 to 0.1: smaller disturbances are rounded off"),
        ({"size": 1}, "size: 1 is not from 1e-05 to 0.1"),
        ({"members": 3}, r"x0: holds 3 states; give one of them, x0\[:1\]"),
    ],
)
def test_exponents_of_numbers_that_do_not_fit_are_one_line(state, change, words):
    emulator, x0 = Emulator(Still(), Hardware(), 1), np.repeat(state.values, change.pop("members", 1), 0)
    arguments = {"count": 1, "steps": 4, "settling": 1, "size": 1e-3}
    with pytest.raises(UserError, match=words) as caught:
        emulator.lyapunov_exponents(x0, **{**arguments, **change})
    assert "\n" not in str(caught.value)
    exponents, _ = emulator.lyapunov_exponents(state.values, **arguments)
    assert exponents == pytest.approx([0], abs=1e-3), "in a flow that stands still a disturbance stays"


def test_exponents_are_not_measured_where_bfloat16_rounds_the_disturbances_off(state):
    origin = Still()
    origin.options = {"kind": "pointwise", "models": {"surrogate": "pointwise"}}
    with pytest.raises(UserError, match=r'still: its networks compute in bfloat16.* load it with precision="float32"'):
        Emulator(origin, Hardware(precision="bfloat16"), 1).lyapunov_exponents(state.values, 1, 2)
    Emulator(origin, Hardware(precision="float32"), 1).lyapunov_exponents(state.values, 1, 2)


@pytest.mark.parametrize("units", ["m s-2", "m/s^2", "metre / s / s", "", None])
def test_a_state_in_the_emulators_units_may_write_them_differently(state, units):
    still = Emulator(Still(units="m s-2"), Hardware(), 1)
    frames = still.rollout(state.assign_attrs(units=units), 1)
    np.testing.assert_allclose(frames[still.system.variable].values[:, 0], state.values, rtol=1e-6)
    for others in ("km s-2", "m s-1", "m"):
        with pytest.raises(UserError, match=f"x0: is in '{others}', this emulator works in 'm s-2'; convert it first"):
            still.rollout(state.assign_attrs(units=others), 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.to_sparse(),
        lambda values: values.to(torch.float8_e4m3fn),
        lambda values: values.to("meta"),
    ],
)
def test_a_tensor_that_is_no_array_of_numbers_is_one_line(state, change):
    with pytest.raises(UserError, match=r"x0: a tensor \(.*\) is no array .*give a dense one of float32") as caught:
        first_frame(change(torch.from_numpy(state.values)))
    assert "\n" not in str(caught.value)


def test_a_state_may_be_a_view_that_numpy_does_not_have(state):
    tensor = torch.from_numpy(state.values)
    np.testing.assert_allclose(first_frame(torch._neg_view(tensor)), -state.values, rtol=1e-6)


def test_one_step_stays_on_the_device_of_the_emulator(state):
    """The device "meta" stands for a GPU: it computes with shapes, and refuses tensors from a CPU."""

    class Noisy(Still):
        def build(self, emulation, system, hardware, frames):
            return StochasticSurrogate(lambda x, noise: x + noise.view(-1, 1, 8, 16), 128, frames)

    step = Emulator(Noisy(), Hardware(torch.device("meta")), 1).one_step(state)
    frame = torch.empty(3, 2, 8, 16, device="meta")
    assert step.noise_numbers == 128 and step(frame, frame, torch.empty(3, 128, device="meta")).shape == frame.shape
