"""A rolling window: its law on a linear Gaussian process, exactly; the loss that nobody can go below; what it carries on."""

import pytest
import torch

from sns_core.data.emulation import Emulation
from sns_core.diffusion.increments import TIME_FEATURES
from sns_core.errors import UserError
from sns_core.evaluation.lyapunov import step_map
from sns_core.methods import Hardware, RollingWindow, build_method, rolling_window
from sns_core.methods.program import OneStep
from sns_core.streams import MemberStreams, generator
from sns_core.training.window import WindowObjective

F64 = torch.float64
# The process x_t = RATE x_{t-1} + AMPLITUDE noise has the variance 1; increments are in units of SCALE.
RATE, SCALE, WINDOW = 0.8, 0.5, 3
AMPLITUDE = (1 - RATE**2) ** 0.5
STD = torch.full((1, 1, 1), SCALE, dtype=F64)
POWERS = RATE ** torch.arange(1, WINDOW + 1, dtype=F64)


def law_of_window():
    """Return mean (W,) per unit of x_{t-1} and covariance (W, W) of the increments x_{t+w} - x_{t-1}."""
    steps = torch.arange(1, WINDOW + 1)
    distance, nearest = (steps[:, None] - steps).abs(), torch.minimum(steps[:, None], steps)
    return (POWERS - 1) / SCALE, (RATE**distance * (1 - RATE ** (2 * nearest))).to(F64) / SCALE**2


def exact_velocities(previous, y, times):
    """Return E[y - noise | y(tau), x_{t-1}] of all frames of a window at the times (W,), or (B, W) of each member."""
    (mean, covariance), times = law_of_window(), times.to(F64)
    signal, noise = torch.diag_embed(times), torch.diag_embed(1 - times)
    gain = (covariance @ signal - noise) @ torch.linalg.inv(signal @ covariance @ signal + noise @ noise)
    mean = mean * previous.flatten(1)
    return (mean + (gain @ (y.flatten(1) - times * mean)[..., None])[..., 0]).view_as(y)


def method(moves, velocities=exact_velocities):
    return RollingWindow(velocities, STD, window=WINDOW, moves=moves, bend=2.0)


def covariance_of_steps(rolling, count, monkeypatch):
    """Return the covariance of x_0, x_1, ... of a method that is linear, exactly: each row of the batch has one number that is
    not zero, the first row its start and each other row one number of the noise."""
    rows = 1 + WINDOW + count - 1
    taken = iter(range(1, rows))

    def unit_noise(streams, shape, like):
        return torch.stack([torch.eye(rows, dtype=F64)[next(taken)] for _ in range(shape[0])], 1)[..., None, None, None]

    monkeypatch.setattr(rolling_window, "normal", unit_noise)
    carry = rolling.start(torch.eye(rows, dtype=F64)[0].view(rows, 1, 1, 1))
    frames = [carry["frame"].flatten()]
    for _ in range(count):
        carry, _ = rolling.step(carry, None)
        frames.append(carry["frame"].flatten())
    return torch.stack(frames) @ torch.stack(frames).mT


def test_the_rolled_window_has_the_law_of_the_process_at_all_lags(monkeypatch):
    lags = torch.arange(6)
    exact = (RATE ** (lags[:, None] - lags).abs()).to(F64)
    errors = [covariance_of_steps(method(moves), 5, monkeypatch) - exact for moves in (20, 40)]
    largest = [float(error.abs().max()) for error in errors]
    assert largest[0] / largest[1] == pytest.approx(2, rel=0.1), "moves of Euler are of the first order"
    assert float((2 * errors[1] - errors[0]).abs().max()) < 0.005, "nothing else is wrong"


# Functions of what the network sees, in which an error may point.
DIRECTIONS = {
    "a constant": lambda stack, times: torch.ones_like(stack[:, 1:]),
    "the previous frame": lambda stack, times: stack[:, :1].expand_as(stack[:, 1:]),
    "the nearest increment": lambda stack, times: (stack[:, 1:2] * times[:, :1]).expand_as(stack[:, 1:]),
}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_loss_of_the_exact_velocities_is_the_least(name):
    direction = DIRECTIONS[name]
    steps = [torch.randn(20_000, 1, 1, 1, generator=generator("x", step), dtype=F64) for step in range(WINDOW + 1)]
    for step in range(1, WINDOW + 1):
        steps[step] = RATE * steps[step - 1] + AMPLITUDE * steps[step]
    batch, objective = torch.stack(steps, 1), WindowObjective(STD, WINDOW)

    def network(stack, condition):
        assert condition.shape[1] == WINDOW * TIME_FEATURES
        times = torch.acos(condition.view(len(stack), WINDOW, -1)[..., 0].clamp(-1, 1)) / torch.pi
        exact = exact_velocities(stack[:, 0], stack[:, 1:], times)
        return exact + network.error * direction(stack, times[..., None, None, None]), None

    losses = []
    for error in (0.0, 0.3, -0.3):
        network.error = error
        losses.append(float(objective(network, batch, generator("loss"))["loss"]))
    raised = [loss - losses[0] for loss in losses[1:]]
    assert min(raised) > 0 and raised[0] == pytest.approx(raised[1], abs=0.04), "no error in this direction would help"
    assert losses[0] < 0.9 * (1 + float(law_of_window()[1].diagonal().mean())), "far below that of the mean"


def test_the_times_fall_from_the_nearest_frame_to_the_farthest_and_meet_at_the_end_of_a_step():
    rolling = method(moves=2)
    like = torch.zeros((), dtype=F64)
    assert rolling.times(0, like).tolist() == [0, 0, 0]
    before, after = rolling.times(WINDOW - 1, like), rolling.times(WINDOW, like)
    assert after[0] == 1 and before[-1] == 0 and torch.equal(before[:-1], after[1:])
    assert before[0] == pytest.approx(1 - (1 / 3) ** 2)


def test_the_first_step_fills_the_window_and_the_next_ones_take_few_calls():
    rolling, streams = method(moves=2), MemberStreams("x", members=range(2))
    carry = rolling.start(torch.zeros(2, 1, 1, 1, dtype=F64))
    calls = []
    for step in range(1, 4):
        carry, record = rolling.step(carry, streams.at(step))
        calls.append(record.calls.tolist())
        assert carry["window"].shape == (2, WINDOW - 1, 1, 1, 1)
    assert calls == [[6, 6], [2, 2], [2, 2]]


def test_a_window_is_more_than_a_frame_so_single_steps_are_refused():
    frames, scale = torch.zeros(2, 1, 1, 1, dtype=F64), torch.ones(1, 1, 1, dtype=F64)
    with pytest.raises(
        UserError, match=r"rolling: carries window .*, so it is no map of frames; measure another method"
    ):
        step_map(method(moves=2), frames[:1], 0, "rolling")(frames)
    with pytest.raises(UserError, match=r"RollingWindow: carries window .*; use the emulator's rollout"):
        OneStep(method(moves=2), scale, 0 * scale, frames)
    single = RollingWindow(lambda previous, y, times: 3.0 - y / (1 - times[0]), STD, window=1, moves=4)
    assert step_map(single, frames[:1], 0, "single")(frames).isfinite().all(), "its window is empty after a step"


def test_a_window_of_one_frame_is_flow_matching():
    """Without neighbours a step is a whole way from noise, for any number of moves."""
    rolling = RollingWindow(lambda previous, y, times: 3.0 - y / (1 - times[0]), STD, window=1, moves=4)
    carry, record = rolling.step(
        rolling.start(torch.ones(2, 1, 4, 4, dtype=F64)), MemberStreams("x", members=range(2)).at(1)
    )
    assert record.calls.tolist() == [4, 4] and carry["window"].shape[1] == 0


def test_a_window_is_built_from_its_file(tiny):
    emulation, models = Emulation.read(tiny.manifest), {"velocities": tiny.models["rolling_window"]}
    built = build_method({"kind": "rolling_window"}, models, emulation, hardware=Hardware(precision="float32"))
    states = emulation.build_system().initial_state(2, [generator("test", member) for member in range(2)])
    streams = MemberStreams("test", members=range(2))
    carry, _ = built.step(built.start(states), streams.at(1))
    carry, record = built.step(carry, streams.at(2))
    assert torch.isfinite(carry["frame"]).all() and record.calls.tolist() == [2, 2]
