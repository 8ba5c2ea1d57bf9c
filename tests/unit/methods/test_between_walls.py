"""Refinements of frames whose second half is the mirror image of the first: their noise keeps its power in the mean of both."""

from types import SimpleNamespace

import pytest
import torch

from sns_core.diffusion import NoiseColour, NoiseSchedule
from sns_core.evaluation.calibration import mean_power
from sns_core.methods import CalibratedRefinement, Calibration, DistilledRefinement, FrameSpace, ResidualNoise
from sns_core.methods.balanced import kept_share
from sns_core.methods.base import Parts
from sns_core.shells import shell_index
from sns_core.streams import MemberStreams
from sns_core.systems.recorded import RecordedFlow

MEMBERS = 3000
SCHEDULE = NoiseSchedule.cosine(20)
WALLS = [([16, 8], (True, False)), ([8, 16], (False, True)), ([16, 16], (True, True)), ([1, 16], (False, True))]


def build(kind, grid, mirrored, denoiser, **options):
    """Build a method of a flow between walls, whose surrogate says 0, with the denoiser that is given."""
    flow = RecordedFlow(grid, 1.0, 1.0, ["a"], mirrored=list(mirrored))
    shells = int(shell_index(grid).max()) + 1
    model = SimpleNamespace(
        surrogate=lambda precision: torch.zeros_like,
        denoiser=lambda precision: denoiser,
        diffusion=SimpleNamespace(schedule=SCHEDULE, colour=NoiseColour(0.0, torch.ones(1, shells), grid)),
        note={"teacher": spectra(grid).to_dict()},
    )
    models = {"surrogate": model, "denoiser": model}
    return kind.build(Parts(None, flow, models, frames=FrameSpace(admissible=flow.admissible)), **options)


def spectra(grid):
    """A calibration whose error has another power in each shell, none of it given back."""
    residual = 0.02 + 0.01 * torch.arange(int(shell_index(grid).max()) + 1, dtype=torch.float64)[None]
    return Calibration(6, residual, torch.full_like(residual, 2.0), torch.zeros_like(residual))


def powers_after_a_step(method, grid):
    """Return the power (C, K) of frames one step after frames of zeros."""
    zeros = torch.zeros(MEMBERS, 1, *grid, dtype=torch.float64)
    carry, _ = method.step(method.start(zeros), MemberStreams("walls", members=range(MEMBERS)).at(1))
    return mean_power(carry["frame"])


@pytest.mark.parametrize(("grid", "mirrored"), WALLS)
def test_the_noise_of_the_surrogates_error_has_its_power(grid, mirrored):
    method, calibration = build(ResidualNoise, grid, mirrored, None), spectra(grid)
    method.calibration = Calibration(0, calibration.residual, calibration.power, calibration.balance)
    inside = kept_share(tuple(grid), mirrored) > 0
    measured = powers_after_a_step(method, grid)
    torch.testing.assert_close(measured[:, inside], calibration.residual[:, inside], rtol=0.1, atol=0)


@pytest.mark.parametrize(("grid", "mirrored"), WALLS)
def test_a_step_of_the_exact_denoiser_keeps_the_law_of_the_next_frame(grid, mirrored):
    """The next frame is noise of the power R. In the mean of both halves, the noise of a level and R have the same share less."""
    calibration, share = spectra(grid), kept_share(tuple(grid), mirrored)
    inside, level = share > 0, torch.tensor(calibration.level)
    a2, sigma2 = float(SCHEDULE.alpha_bar[level]), 1 - float(SCHEDULE.alpha_bar[level])
    whole = torch.where(inside, calibration.residual / share, 0.0)  # R of a field whose mean of halves has the power R
    shells = torch.from_numpy(shell_index(grid))
    gain = (a2**0.5 * whole / (a2 * whole + sigma2))[:, shells]
    flow = RecordedFlow(grid, 1.0, 1.0, ["a"], mirrored=list(mirrored))

    def denoiser(x_prev, x_next, s_prev, s_next, anchor=None):
        clean = torch.fft.irfft2(gain * torch.fft.rfft2(flow.admissible(x_next)), s=x_next.shape[-2:])
        return x_prev, (x_next - a2**0.5 * clean) / sigma2**0.5

    method = build(CalibratedRefinement, grid, mirrored, denoiser, condition_level=0)
    method.calibration = Calibration(
        calibration.level, calibration.residual, calibration.power, share * whole * sigma2 / (a2 * whole + sigma2)
    )
    measured = powers_after_a_step(method, grid)
    torch.testing.assert_close(measured[:, inside], calibration.residual[:, inside], rtol=0.1, atol=0)


@pytest.mark.parametrize(("grid", "mirrored"), WALLS)
def test_a_student_gives_the_balance_back_whole(grid, mirrored):
    def denoiser(x_prev, x_next, s_prev, s_next, anchor=None):
        return x_prev, x_next / float(SCHEDULE.sigma(s_next[0]))  # the clean estimate is 0

    method, calibration = build(DistilledRefinement, grid, mirrored, denoiser), spectra(grid)
    balance = 0.5 * calibration.residual
    method.calibration = Calibration(6, calibration.residual, calibration.power, balance)
    inside = kept_share(tuple(grid), mirrored) > 0
    torch.testing.assert_close(powers_after_a_step(method, grid)[:, inside], balance[:, inside], rtol=0.1, atol=0)


def test_the_share_of_white_noise_that_the_mean_of_halves_keeps():
    for grid, mirrored in WALLS:
        flow = RecordedFlow(grid, 1.0, 1.0, ["a"], mirrored=list(mirrored))
        noise = torch.randn(4000, 1, *grid, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        share = kept_share(tuple(grid), mirrored)
        torch.testing.assert_close(mean_power(flow.admissible(noise))[0], share, rtol=0.1, atol=1e-20)
    assert (kept_share((8, 8), (False, False)) == 1).all()
