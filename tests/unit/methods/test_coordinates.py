"""Methods in the coordinates of a noise colour: a step commutes with them, and a student learns its teacher's step in them.

The diffusion runs in the coordinates z, so a step from a frame x must be the step that the same denoiser makes from the field
z, taken back to frames. The coordinates here are far from white noise, and the denoiser is an arbitrary function of all that
it sees, so nothing cancels.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sns_core.diffusion import NoiseColour, NoiseSchedule, Prediction
from sns_core.evaluation.calibration import data_power, mean_power
from sns_core.methods import (
    ACDM,
    BlindLevels,
    CalibratedRefinement,
    Calibration,
    DistilledRefinement,
    EstimatedLevels,
    FrameSpace,
    Generation,
    Refinement,
    ResampledAnchor,
    ResidualNoise,
    Thermalizer,
    WalkBack,
)
from sns_core.methods.refinement_student import RefinementDistillationObjective
from sns_core.shells import shell_index, shell_power
from sns_core.streams import GivenNoise, MemberStreams, generator

F64 = torch.float64
POINTS, MEMBERS, S = 8, 5, 10
SCHEDULE = NoiseSchedule.linear(S)
SHELLS = torch.arange(int(shell_index(POINTS).max()) + 1, dtype=F64)[None]
COLOUR = NoiseColour(0.6, (SHELLS + 1) ** -1.5, POINTS)
# The balance takes power from some shells, and gives others more than R: the teacher has a factor and noise of its own.
CALIBRATION = Calibration(
    level=4,
    residual=0.1 + 0.02 * SHELLS,
    power=torch.full_like(SHELLS, 0.8),
    balance=torch.tensor([[0.05, -0.2, 0.05, 0.3, -0.1, 0.1, 0.0]], dtype=F64)[:, : SHELLS.shape[1]],
    departure=0.4 + 0.1 * (SHELLS % 3),
)


class ArbitraryDenoiser:
    """A function of everything that a denoiser may see."""

    def __call__(self, x_prev, x_next, s_prev, s_next, anchor=None):
        levels = ((s_prev + 2 * s_next) / (3 * S)).to(F64)[:, None, None, None]
        mixed = 0.7 * x_prev.roll(1, -1) - 0.4 * x_next.roll(2, -2) + 0.3 * anchor
        return torch.tanh(mixed + levels), torch.tanh(x_next - 0.5 * mixed * levels)

    def level_logits(self, x_prev, x_next, anchor=None):
        strength = torch.stack([field.square().mean((1, 2, 3)) for field in (x_prev, x_next + 0.1 * anchor)], 1)
        return -((torch.arange(S + 1) - 3 * strength[..., None]) ** 2)


def surrogate(frames):
    return 0.9 * frames.roll(1, -1) + 0.2 * torch.sin(frames)


def fields(*address, count=MEMBERS):
    return torch.randn(count, 1, POINTS, POINTS, generator=generator("coordinates", *address), dtype=F64)


def step(method, frame, anchor):
    streams = MemberStreams("coordinates", members=range(MEMBERS)).at(1)
    return method.step({**method.start(frame), "anchor": anchor}, streams)[0]["frame"]


METHODS = {
    "calibrated": lambda call, **space: CalibratedRefinement(
        call, ArbitraryDenoiser(), SCHEDULE, calibration=CALIBRATION, condition_level=2, **space
    ),
    "estimated levels": lambda call, **space: CalibratedRefinement(
        call, ArbitraryDenoiser(), SCHEDULE, calibration=CALIBRATION, **space
    ),
    "residual noise": lambda call, **space: ResidualNoise(
        call, ArbitraryDenoiser(), SCHEDULE, calibration=replace(CALIBRATION, level=0, departure=None), **space
    ),
    "refinement": lambda call, **space: Refinement(
        call, ArbitraryDenoiser(), SCHEDULE, levels=BlindLevels(level=3), gain=(1.5, 1.0), **space
    ),
    "in place": lambda call, **space: Refinement(
        call, ArbitraryDenoiser(), SCHEDULE, levels=BlindLevels(level=3), renoise=False, **space
    ),
    "thermalizer": lambda call, **space: Thermalizer(
        call, ArbitraryDenoiser(), SCHEDULE, levels=BlindLevels(level=3), **space
    ),
    "generation": lambda call, **space: Generation(
        ArbitraryDenoiser(), SCHEDULE, levels=EstimatedLevels(condition_level=2), walk=WalkBack(stride=3), **space
    ),
    "acdm": lambda call, **space: ACDM(
        ArbitraryDenoiser(), SCHEDULE, start_from="previous", walk=WalkBack("acdm", 3), **space
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_step_in_coordinates_is_the_step_of_the_whitened_frame(name):
    frame, anchor = fields("frame"), fields("anchor")
    coloured = METHODS[name](surrogate, coordinates=COLOUR)
    plain = METHODS[name](lambda z: COLOUR.whiten(surrogate(COLOUR.unwhiten(z))))
    moved = step(coloured, frame, anchor)
    torch.testing.assert_close(moved, COLOUR.unwhiten(step(plain, COLOUR.whiten(frame), anchor)), rtol=1e-4, atol=1e-4)
    assert (moved - step(METHODS[name](surrogate), frame, anchor)).abs().amax() > 0.1, "the coordinates matter"


def test_a_rollout_keeps_its_first_frame_as_anchor_in_the_coordinates():
    method = METHODS["calibrated"](surrogate, coordinates=COLOUR)
    torch.testing.assert_close(method.start(fields("frame"))["anchor"], COLOUR.whiten(fields("frame")))
    resampled = METHODS["calibrated"](surrogate, coordinates=COLOUR, anchors=ResampledAnchor(fields("bank")))
    assert "anchor" not in resampled.start(fields("frame"))


def test_the_power_of_the_data_is_that_of_the_whitened_training_frames():
    frames = COLOUR.unwhiten(fields("training", count=200))
    amplitude = np.sqrt(shell_power(frames[:, None].numpy()) / len(frames))
    method = METHODS["calibrated"](surrogate, coordinates=NoiseColour(0.6, amplitude, POINTS))
    measured = mean_power(method.whiten(frames))
    power = data_power(method, SimpleNamespace(statistics={"shell_amplitude": amplitude.tolist()}))
    torch.testing.assert_close(power, measured, rtol=1e-5, atol=0)
    plain = data_power(
        METHODS["calibrated"](surrogate), SimpleNamespace(statistics={"shell_amplitude": amplitude.tolist()})
    )
    torch.testing.assert_close(plain, mean_power(frames), rtol=1e-5, atol=0)


def without_mean(frames):
    return frames - frames.mean((-2, -1), keepdim=True)


@pytest.fixture
def teacher():
    return METHODS["estimated levels"](surrogate, coordinates=COLOUR, frames=FrameSpace(admissible=without_mean))


def student_objective(teacher, run_up):
    return RefinementDistillationObjective(
        teacher,
        run_up=run_up,
        schedule=SCHEDULE,
        colour=COLOUR,
        anchored=True,
        prediction=Prediction("clean", SCHEDULE),
    )


def batch_of_frames(count=MEMBERS):
    """Anchors, previous frames and next frames, (B, 3, C, H, W)."""
    return torch.stack([fields(name, count=count) for name in ("anchor", "previous", "next")], 1)


def test_a_student_without_loss_makes_the_step_of_its_teacher_before_the_noise_of_its_balance(teacher):
    # The candidate has no mean, as the teacher's; the estimate after it has one, which only a whole step takes away.
    quiet = METHODS["estimated levels"](lambda frames: without_mean(surrogate(frames)), coordinates=COLOUR)
    quiet.returned, inputs = None, []
    assert teacher.factor is not None and (quiet.factor != 1).any()

    def answer(stack, levels=None):
        anchor, z_prev, noise = stack.unbind(1)
        inputs.append((anchor, z_prev))
        carry = {"frame": COLOUR.unwhiten(z_prev), "anchor": anchor}
        z = COLOUR.whiten(quiet.step(carry, GivenNoise(noise.flatten(1)))[0]["frame"])
        return torch.stack([z_prev, z], 1), None

    batch = batch_of_frames()
    loss = student_objective(teacher, 1)(answer, batch, generator("student"))["loss"]
    assert loss < 1e-9
    torch.testing.assert_close(inputs, [(COLOUR.whiten(batch[:, 0]), COLOUR.whiten(batch[:, 1]))])
    prediction = Prediction("clean", SCHEDULE)

    def denoiser(x_prev, x_next, s_prev, s_next, anchor=None):
        noised, levels = torch.stack([x_prev, x_next], 1), torch.stack([s_prev, s_next], 1)
        return prediction.noise(answer(torch.cat([anchor[:, None], noised], 1))[0], noised, levels).unbind(1)

    distilled = DistilledRefinement(denoiser, SCHEDULE, coordinates=COLOUR)
    distilled.calibration = CALIBRATION.without_balance()
    anchor = COLOUR.whiten(batch[:, 0])
    torch.testing.assert_close(
        step(distilled, batch[:, 1], anchor), step(quiet, batch[:, 1], anchor), rtol=1e-4, atol=1e-4
    )


def test_the_students_own_frames_have_the_noise_that_its_teacher_gives_back_and_are_admissible(teacher):
    """A student that says 0 is at the teacher's noise alone after any number of steps; its teacher then sees that frame."""
    members, shown = 400, []
    batch, exact = batch_of_frames(members), teacher.surrogate
    teacher.surrogate = lambda frames: shown.append(frames) or exact(frames)
    number = next(n for n in range(99) if 4 * torch.rand((), generator=generator("run-up", n)) ** 3 >= 2)
    student_objective(teacher, 4)(
        lambda stack: (torch.zeros_like(stack[:, 1:]), None), batch, generator("run-up", number)
    )
    z = COLOUR.whiten(shown[-1])
    power = mean_power(z)
    expected = CALIBRATION.returned.clone()
    assert 0 < expected[0, 2] < expected[0, 3] and expected[0, 1] == 0
    torch.testing.assert_close(power[:, 1:], expected[:, 1:], rtol=0.1, atol=1e-6)
    assert shown[-1].mean((-2, -1)).abs().amax() < 1e-6
