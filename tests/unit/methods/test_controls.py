"""The controls on Gaussian fields: the noise of the surrogate's error keeps the law, and shells relax at the rate that is set."""

import math

import pytest
import torch

from sns_core.data.emulation import Emulation
from sns_core.diffusion import NoiseSchedule
from sns_core.evaluation.calibration import calibrate_refinement, mean_power, residual_spectrum
from sns_core.files import read_json
from sns_core.methods import Hardware, RelaxedSpectrum, ResidualNoise, build_method
from sns_core.methods.balanced import scale_shells
from sns_core.shells import shell_index
from sns_core.streams import MemberStreams, generator
from sns_core.theory.compute import field_process

POINTS, MEMBERS = 8, 400
SHELLS = int(shell_index(POINTS).max()) + 1


@pytest.fixture(scope="module")
def oracle():
    return field_process(POINTS, NoiseSchedule.cosine(20))


@pytest.fixture(scope="module")
def pairs(oracle):
    return oracle.sample(MEMBERS, generator("test", "pairs"), (1, POINTS, POINTS))


def exact_mean(oracle):
    return lambda x: (x.flatten(1) @ oracle.transition.mT).view_as(x)


def test_noise_of_the_residual_spectrum_draws_from_the_law_of_the_next_frame(oracle, pairs):
    method = ResidualNoise(exact_mean(oracle), oracle, oracle.schedule, level=0, balance=False)
    method.denoiser = None  # it must not be called
    residual = residual_spectrum(method, *pairs)
    method.calibrate(residual, mean_power(pairs[1]))
    carry, record = method.step(method.start(pairs[0]), MemberStreams("test", members=range(MEMBERS)).at(1))
    added = carry["frame"] - method.surrogate(pairs[0])
    torch.testing.assert_close(mean_power(added)[0, 1:5], residual[0, 1:5], rtol=0.12, atol=0)
    torch.testing.assert_close(mean_power(carry["frame"])[0, 1:5], mean_power(pairs[1])[0, 1:5], rtol=0.15, atol=0)
    assert record.calls.unique().tolist() == [0] and record.levels.unique().tolist() == [-1]


@pytest.mark.parametrize("rate", [1 / 60, 0.5, 1.0])
def test_each_shell_moves_by_the_rate_towards_the_power_of_the_data(rate):
    frames = torch.randn(3, 2, POINTS, POINTS, generator=generator("test", "frames"), dtype=torch.float64)
    power = torch.rand(2, SHELLS, generator=generator("test", "power"), dtype=torch.float64)
    method = RelaxedSpectrum(lambda x: x, power, rate)
    carry, _ = method.step(method.start(frames), None)
    for before, after in zip(frames, carry["frame"], strict=True):
        left, right = mean_power(before[None]), mean_power(after[None])
        torch.testing.assert_close(right, left + rate * (power - left), rtol=1e-10, atol=1e-12)
    phases = [torch.fft.rfft2(x)[..., 1:-1, 1:-1].angle() for x in (frames, carry["frame"])]
    torch.testing.assert_close(phases[1], phases[0], rtol=1e-9, atol=1e-9)


def test_a_drift_of_a_shell_decays_at_the_rate_and_the_spectrum_of_the_data_stays():
    frames = torch.randn(1, 1, POINTS, POINTS, generator=generator("test", "frames"), dtype=torch.float64)
    power, drift = mean_power(frames), torch.ones(1, SHELLS, dtype=torch.float64)
    drift[0, 2] = 1.2
    method = RelaxedSpectrum(lambda x: x, power, 0.1)
    torch.testing.assert_close(method.relax(frames), frames, rtol=1e-10, atol=1e-12)
    carry = method.start(scale_shells(frames, drift))
    for _ in range(20):
        carry, _ = method.step(carry, None)
    left = 1 + 0.9**20 * (1.2**2 - 1)
    drift[0, 2] = math.sqrt(left)
    torch.testing.assert_close(carry["frame"], scale_shells(frames, drift), rtol=1e-9, atol=1e-11)


def test_a_shell_without_power_and_a_lost_member_stay():
    frames = torch.zeros(2, 1, POINTS, POINTS)
    frames[1] = torch.nan
    method = RelaxedSpectrum(lambda x: x, torch.ones(1, SHELLS, dtype=torch.float64), 1.0)
    frame = method.relax(frames)
    torch.testing.assert_close(frame[0], frames[0])
    assert frame[1].isnan().all()


def test_both_controls_are_built_from_files_and_the_calibration_closes_no_loop(tiny, tmp_path):
    emulation, models = Emulation.read(tiny.manifest), {role: tiny.models[role] for role in ("surrogate", "denoiser")}
    calibration = tmp_path / "residual_noise.json"
    arguments = {
        "method": {"kind": "residual_noise"},
        "models": models,
        "manifest": tiny.manifest,
        "output": calibration,
    }
    calibrate_refinement(name="noise", seed=3, device="cpu", precision="float32", **arguments)
    content = read_json(calibration)
    assert content["loop"]["steps"] == 0 and content["level"] == 0 and not any(map(any, content["balance"]))
    residual = torch.tensor(content["residual"])
    assert (residual[:, 1:] > 0).all()
    states = emulation.build_system().initial_state(2, [generator("test", member) for member in range(2)])
    for kind, options in {"residual_noise": {}, "relaxed_spectrum": {"rate": 1.0}}.items():
        files = (
            {**models, "calibration": calibration} if kind == "residual_noise" else {"surrogate": models["surrogate"]}
        )
        method = build_method({"kind": kind, **options}, files, emulation, hardware=Hardware(precision="float32"))
        carry, _ = method.step(method.start(states), MemberStreams("test", members=range(2)).at(1))
        assert torch.isfinite(carry["frame"]).all()
    power = torch.tensor(emulation.statistics["shell_amplitude"], dtype=torch.float64).square()
    torch.testing.assert_close(mean_power(carry["frame"][:1])[0, 1:9], power[0, 1:9], rtol=1e-4, atol=1e-9)
