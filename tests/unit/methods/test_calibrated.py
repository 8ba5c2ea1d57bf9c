"""Calibrated refinement around the exact denoiser of a Gaussian field, whose surrogate is the exact conditional mean; its student.

Per mode of shell K the field has the power P, and 0.97^K is the correlation of successive frames, so the surrogate leaves
R = P (1 - 0.97^2K). At level s1 with the signal a and the noise variance sigma^2, the estimate leaves
V = R sigma^2 / (a^2 R + sigma^2).
"""

import math
from dataclasses import replace

import pytest
import torch

from sns_core.diffusion import NoiseColour, NoiseSchedule, Prediction
from sns_core.errors import UserError
from sns_core.evaluation.calibration import departure_factor, find_balance, loop_gain, mean_power, residual_spectrum
from sns_core.methods import CalibratedRefinement, DistilledRefinement, FrameSpace
from sns_core.methods.balanced import scale_shells
from sns_core.methods.calibrated import least_level
from sns_core.methods.calibration import Calibration
from sns_core.methods.refinement_student import RUN_EXPONENT, RefinementDistillationObjective, mean_run_up
from sns_core.shells import filtered, shell_index
from sns_core.streams import MemberStreams, generator
from sns_core.theory.compute import field_process

POINTS, MEMBERS = 8, 400
SCHEDULE = NoiseSchedule.cosine(100)
SHELLS = torch.arange(int(shell_index(POINTS).max()) + 1, dtype=torch.float64)[None]
CORRELATION = 0.97 ** SHELLS.clamp(min=1)


@pytest.fixture(scope="module")
def oracle():
    return field_process(POINTS, SCHEDULE)


@pytest.fixture(scope="module")
def power(oracle):
    modes = torch.fft.fft2(oracle.stationary.view(-1, POINTS, POINTS)).reshape(POINTS**2, POINTS, POINTS)[0].real
    half = modes[:, : POINTS // 2 + 1].flatten()
    index = torch.from_numpy(shell_index(POINTS)).flatten()
    return torch.stack([half[index == shell].mean() for shell in range(SHELLS.shape[1])])[None]


@pytest.fixture(scope="module")
def pairs(oracle):
    return oracle.sample(MEMBERS, torch.Generator().manual_seed(1), (1, POINTS, POINTS))


@pytest.fixture
def streams():
    return MemberStreams("test", members=range(MEMBERS))


def posterior_power(calibration):
    a2 = float(SCHEDULE.alpha_bar[calibration.level])
    return calibration.residual * (1 - a2) / (a2 * calibration.residual + 1 - a2)


@pytest.fixture
def method(oracle, power):
    def surrogate(x):
        return (x.flatten(1) @ oracle.transition.mT).view_as(x)

    refinement = CalibratedRefinement(surrogate, oracle, SCHEDULE, condition_level=0)
    refinement.calibrate(power * (1 - CORRELATION**2), power)
    return refinement


def test_the_residual_is_the_innovation_of_the_process(method, pairs, power):
    measured = residual_spectrum(method, *pairs)
    torch.testing.assert_close(measured[0, 1:5], method.calibration.residual[0, 1:5], rtol=0.12, atol=0)
    assert method.calibration.level == least_level(SCHEDULE, method.calibration.residual) > 1


def test_an_error_that_no_frame_can_have_counts_neither_in_the_residual_nor_in_the_next_frame(oracle, pairs, streams):
    """A surrogate that adds a mean to frames without a mean. With its power in R, the level would be that of pure noise."""
    without_mean = FrameSpace(admissible=lambda x: x - x.mean((-2, -1), keepdim=True))
    previous, true_next = map(without_mean.admissible, pairs)
    levels, residuals, frames = [], [], []
    for shift in (0.0, 0.3):
        method = CalibratedRefinement(
            lambda x, shift=shift: (x.flatten(1) @ oracle.transition.mT).view_as(x) + shift,
            oracle, SCHEDULE, condition_level=0, frames=without_mean,
        )  # fmt: skip
        residuals.append(residual_spectrum(method, previous, true_next))
        method.calibrate(residuals[-1], mean_power(true_next))
        levels.append(method.calibration.level)
        frames.append(method.step(method.start(previous), streams.at(1))[0]["frame"])
        departure = departure_factor(method, previous, residuals[-1], streams)
        torch.testing.assert_close(departure[0, 1:5], torch.ones(4, dtype=torch.float64))
    assert levels[0] == levels[1] < SCHEDULE.levels
    torch.testing.assert_close(residuals[1], residuals[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(frames[1], frames[0], rtol=1e-9, atol=1e-9)


def test_the_least_level_has_noise_as_strong_as_the_residual_and_no_stronger():
    residual = torch.tensor([[0.0, 0.03, 0.01]], dtype=torch.float64)
    level = least_level(SCHEDULE, residual)
    assert 1 - float(SCHEDULE.alpha_bar[level]) >= 0.03 > 1 - float(SCHEDULE.alpha_bar[level - 1])
    assert least_level(SCHEDULE, residual / math.inf) == 0
    assert least_level(SCHEDULE, residual * 1e3) == SCHEDULE.levels


def test_a_method_that_is_not_calibrated_yet_makes_no_step(oracle, pairs, streams):
    method = CalibratedRefinement(lambda x: x, oracle, SCHEDULE, condition_level=0)
    with pytest.raises(UserError, match=r"CalibratedRefinement: has no calibration, .* give calibration="):
        method.step(method.start(pairs[0]), streams.at(1))


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ({"balance": False}, {"balance": torch.zeros_like(SHELLS)}),
        ({"match_departure": False}, {"departure": None}),
        ({"level": 9}, {"level": 9}),
    ],
)
def test_an_option_leaves_its_part_out_of_a_calibration_that_holds_it(method, oracle, pairs, streams, option, change):
    balance, departure = 0.1 * method.calibration.residual, torch.full_like(SHELLS, 0.5)
    whole = replace(method.calibration, balance=balance, departure=departure)
    expected = replace(whole, **change)
    control = CalibratedRefinement(method.surrogate, oracle, SCHEDULE, condition_level=0, calibration=whole, **option)
    frames = [control.step(control.start(pairs[0]), streams.at(1))[0]["frame"]]
    for calibration in (expected, whole):
        method.calibration = calibration
        frames.append(method.step(method.start(pairs[0]), streams.at(1))[0]["frame"])
    assert torch.equal(frames[0], frames[1]) and not torch.allclose(frames[0], frames[2])


def test_a_completed_start_and_the_power_given_back_keep_the_law_of_the_pair(method, pairs, power, streams):
    method.calibration = replace(method.calibration, balance=posterior_power(method.calibration))
    carry, record = method.step(method.start(pairs[0]), streams.at(1))
    frame = carry["frame"]
    torch.testing.assert_close(mean_power(frame)[0, 1:5], power[0, 1:5], rtol=0.15, atol=0)
    change = mean_power(frame - scale_shells(pairs[0], CORRELATION))
    torch.testing.assert_close(change[0, 1:5], method.calibration.residual[0, 1:5], rtol=0.12, atol=0)
    assert record.calls.tolist() == [1] * MEMBERS
    assert record.levels.unique(dim=0).tolist() == [[0, method.calibration.level]]


def test_without_the_power_given_back_a_step_loses_it(method, pairs, streams):
    carry, _ = method.step(method.start(pairs[0]), streams.at(1))
    lost = method.calibration.residual - mean_power(carry["frame"] - scale_shells(pairs[0], CORRELATION))
    torch.testing.assert_close(lost[0, 1:5], posterior_power(method.calibration)[0, 1:5], rtol=0.15, atol=0)


def test_a_negative_balance_damps_a_shell_by_that_power(method, pairs, power, streams):
    balance = torch.zeros_like(power)
    balance[0, 2] = -0.2 * power[0, 2]
    frames = []
    for value in (torch.zeros_like(power), balance):
        method.calibration = replace(method.calibration, balance=value)
        frames.append(method.step(method.start(pairs[0]), streams.at(1))[0]["frame"])
    factor = torch.ones_like(power)
    factor[0, 2] = math.sqrt(0.8)
    torch.testing.assert_close(frames[1], scale_shells(frames[0], factor), rtol=1e-9, atol=1e-12)


def test_an_error_of_the_surrogate_shrinks_by_the_factor_that_theory_gives(method, pairs, streams, oracle):
    """An error b of f moves the clean estimate by a^2 R / (a^2 R + sigma^2) of b."""
    drift = torch.randn(1, 1, POINTS, POINTS, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    exact, frames = method.surrogate, []
    for shift in (0.0, drift):
        method.surrogate = lambda x, shift=shift: exact(x) + shift
        frames.append(method.step(method.start(pairs[0]), streams.at(1))[0]["frame"])
    a2, residual = float(SCHEDULE.alpha_bar[method.calibration.level]), method.calibration.residual
    factor = a2 * residual / (a2 * residual + 1 - a2)
    expected = scale_shells(drift, factor)
    torch.testing.assert_close((frames[1] - frames[0])[:1], expected, rtol=1e-6, atol=1e-9)


def test_the_loop_finds_the_power_that_the_estimate_lacks(method, pairs, power):
    starts, member_streams = pairs[0][:32], MemberStreams("loop", members=range(32))
    calibration, history, _ = find_balance(method, starts, member_streams, loop_gain(method, *pairs), steps=400)
    torch.testing.assert_close(calibration.balance[0, 1:5], posterior_power(calibration)[0, 1:5], rtol=0.2, atol=0)
    late = torch.stack(history[len(history) // 2 :]).mean(0)
    torch.testing.assert_close(late[0, 1:5], power[0, 1:5], rtol=0.1, atol=0)


def test_the_balance_changes_a_shell_by_no_more_than_the_surrogates_error():
    power = torch.tensor([[4.0, 4.0, 4.0, 0.0]], dtype=torch.float64)
    residual = torch.tensor([[0.04, 1.0, 9.0, 1.0]], dtype=torch.float64)
    calibration = Calibration(3, residual, power, torch.zeros_like(power))
    half = 0.5**0.5
    for bound, factor, noise in zip(
        calibration.bounds,
        ([0.9, half, half, 1], [1.1, 2 - half, 2 - half, 1]),
        ([0.0] * 4, [0.04, 1, 4, 0]),
        strict=True,
    ):
        limit = replace(calibration, balance=bound)
        torch.testing.assert_close(limit.factor, torch.tensor([factor], dtype=torch.float64))
        assert limit.returned.tolist() == [noise]
    torch.testing.assert_close((1 - limit.factor[0, 0]).square() * power[0, 0], residual[0, 0])


@pytest.mark.parametrize("balance", [-0.1, 0.1, 0.5])
def test_a_shell_with_the_power_of_the_data_gains_the_balance(balance):
    power, residual = torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([[0.3]], dtype=torch.float64)
    calibration = Calibration(3, residual, power, torch.full_like(power, balance))
    after = calibration.factor.square() * power + calibration.returned
    torch.testing.assert_close(after, power + balance)


@pytest.mark.parametrize(("factor", "side"), [(2.0, 0), (0.0, 1)])
def test_the_balance_stays_within_its_bounds_where_it_cannot_mend_the_estimate(method, pairs, power, factor, side):
    starts, streams = pairs[0][:64], MemberStreams("loop", members=range(64))
    levels = torch.zeros(len(starts), 2, dtype=torch.int64)
    method.clean_estimate = lambda z_prev, z_next, anchor, streams: (factor * starts, levels)
    calibration, _, _ = find_balance(method, starts, streams, 9 * torch.ones_like(power), steps=80)
    torch.testing.assert_close(calibration.balance[0, 1:5], calibration.bounds[side][0, 1:5])


def test_the_exact_estimate_departs_by_less_than_the_true_frame_and_keeps_its_departure(method, pairs, streams):
    residual = method.calibration.residual
    expected = mean_power(method.step(method.start(pairs[0]), streams.at(1))[0]["frame"] - method.surrogate(pairs[0]))
    assert (expected[0, 1:] < residual[0, 1:]).all()
    factor = departure_factor(method, pairs[0], residual, streams)
    assert torch.equal(factor[:, 1:], torch.ones_like(factor[:, 1:]))


def test_an_estimate_with_an_error_of_its_own_departs_as_the_true_frame_does(method, pairs, streams):
    """The departure of the erroneous estimate, 9 R of its own in shell 3, is scaled to R there and nowhere else."""
    residual, exact = method.calibration.residual, method.clean_estimate
    amplitude = torch.zeros_like(residual)
    amplitude[0, 3] = 3 * residual[0, 3].sqrt()

    def erroneous(z_prev, z_next, anchor, streams):
        z, levels = exact(z_prev, z_next, anchor, streams)
        error = torch.randn(z.shape, generator=torch.Generator().manual_seed(6), dtype=z.dtype)
        return z + scale_shells(error, amplitude), levels

    method.clean_estimate = erroneous
    factor = departure_factor(method, pairs[0], residual, streams)
    method.calibration = replace(method.calibration, departure=factor)
    frame = method.step(method.start(pairs[0]), streams.at(1))[0]["frame"]
    departure = mean_power(frame - method.surrogate(pairs[0]))
    torch.testing.assert_close(departure[0, 3], residual[0, 3], rtol=0.1, atol=0)
    assert factor[0, 3] < 0.35 and (factor[0, [1, 2, 4]] == 1).all()


class LinearStudent:
    """A clean next frame that is a linear function of the previous frame and noise, with a gain for each mode of both."""

    def __init__(self, gain: float = 0.0):
        self.gains = torch.full((2, POINTS, POINTS // 2 + 1), gain, dtype=torch.float64, requires_grad=True)
        self.prediction = Prediction("clean", SCHEDULE)

    def __call__(self, stack, levels=None):
        z_prev, noise = stack.unbind(1)
        z = filtered(z_prev, self.gains[0]) + filtered(noise, self.gains[1])
        return torch.stack([z_prev, z], 1), None

    @torch.no_grad()
    def noise(self, x_prev, x_next, s_prev, s_next, anchor=None):
        noised, levels = torch.stack([x_prev, x_next], 1), torch.stack([s_prev, s_next], 1)
        return self.prediction.noise(self(noised)[0], noised, levels).unbind(1)


@pytest.fixture
def objective(method):
    method.calibration = replace(method.calibration, balance=posterior_power(method.calibration))
    colour = NoiseColour(0.0, torch.ones_like(SHELLS).tolist(), POINTS)
    return RefinementDistillationObjective(
        method, run_up=6, schedule=SCHEDULE, colour=colour, anchored=False, prediction=Prediction("clean", SCHEDULE)
    )


def test_a_student_that_has_learnt_all_keeps_the_law_in_one_call(objective, method, pairs, power, streams):
    student, batch = LinearStudent(), torch.stack(pairs, 1)[:64]
    minimiser = torch.optim.LBFGS([student.gains], max_iter=60, line_search_fn="strong_wolfe")

    def loss():
        minimiser.zero_grad()
        total = objective(student, batch, generator("student", 1))["loss"]
        total.backward()
        return total

    minimiser.step(loss)
    assert objective(student, batch, generator("student", 2))["loss"] < 1e-5, "nothing is averaged away"
    distilled = DistilledRefinement(student.noise, SCHEDULE)
    distilled.calibration = method.calibration
    carry, record = distilled.step(distilled.start(pairs[0]), streams.at(1))
    torch.testing.assert_close(mean_power(carry["frame"])[0, 1:5], power[0, 1:5], rtol=0.15, atol=0)
    change = mean_power(carry["frame"] - scale_shells(pairs[0], CORRELATION))
    torch.testing.assert_close(change[0, 1:5], method.calibration.residual[0, 1:5], rtol=0.12, atol=0)
    assert record.calls.tolist() == [1] * MEMBERS
    assert record.levels.unique(dim=0).tolist() == [[0, SCHEDULE.levels]]


@pytest.mark.parametrize("kind", ["noise", "velocity", "clean"])
def test_a_student_that_gives_its_target_makes_its_teachers_frame(objective, method, pairs, kind):
    objective.prediction = Prediction(kind, SCHEDULE)
    frame, noise = pairs[0][:4], torch.randn(4, 1, POINTS, POINTS, generator=generator("x"), dtype=torch.float64)
    target = objective.target(frame, noise, None)
    z, _ = objective.draw(lambda stack: (torch.stack([frame, target], 1), None), frame, noise, None)
    exact, _ = method.before_balance(frame, method.propose(frame), noise, None, [None] * 4)
    expected = exact if method.factor is None else scale_shells(exact, method.factor)
    torch.testing.assert_close(z, expected, rtol=1e-3, atol=1e-3)  # the output of a network is float32


def test_a_student_learns_what_its_teacher_does_on_frames_of_its_own(objective, method, pairs):
    """Its own frames are far too strong after some steps; the teacher is asked about them, and of a lost flow about the start."""
    batch, powers = torch.stack(pairs, 1)[:4], []
    exact = method.surrogate
    method.surrogate = lambda x: powers.append(mean_power(x)[0, 1:5].sum()) or exact(x)
    true = mean_power(batch[:, 0])[0, 1:5].sum()
    number = next(n for n in range(99) if 6 * torch.rand((), generator=generator("run-up", n)) ** 3 >= 2)
    for gain, least, most in ((1.1, 1.2, 100.0), (10.0, 0.999, 1.001)):
        objective(LinearStudent(gain), batch, generator("run-up", number))
        assert least < powers[-1] / true < most


def test_the_mean_of_the_students_own_steps_is_that_of_what_is_drawn():
    drawn = (6 * torch.rand(10**6, generator=torch.Generator().manual_seed(0)) ** RUN_EXPONENT).int()
    assert mean_run_up(6) == pytest.approx(drawn.double().mean().item(), abs=0.01) and mean_run_up(1) == 0
