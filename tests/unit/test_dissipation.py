"""Surrogates with a penalty: the exact optima of a linear surrogate with the dissipation penalty and with noise on its input."""

import pytest
import torch

from sns_core.data.emulation import Emulation
from sns_core.methods import Hardware, build_method
from sns_core.streams import generator
from sns_core.training.dissipation import DissipativeObjective
from sns_core.training.objectives import PointwiseObjective

F64 = torch.float64
RATE, SCALE = 0.8, 0.5
STD = torch.full((1, 1, 1), SCALE)


class Gain:
    """The surrogate G(x) = gain * x."""

    def __init__(self, gain):
        self.gain = torch.tensor(gain, dtype=F64, requires_grad=True)

    def __call__(self, frames):
        return (self.gain - 1) / SCALE * frames, None


def pairs(count):
    previous = torch.randn(count, 1, 2, 2, generator=generator("test"))
    return torch.stack([previous, RATE * previous], 1)


def slope(objective, gain, batch):
    surrogate = Gain(gain)
    objective(surrogate, batch, generator("x"))["loss"].backward()
    return float(surrogate.gain.grad)


@pytest.mark.parametrize(("weight", "contraction"), [(1.0, 0.5), (0.2, 0.1)])
def test_the_penalty_weighs_the_pull_of_far_frames_against_the_data(weight, contraction):
    """The loss is (gain - RATE)^2 <x^2> / SCALE^2 + weight (gain - contraction)^2 for any far frames."""
    batch = pairs(20)
    objective = DissipativeObjective(STD, dissipation_weight=weight, contraction=contraction, radii=(2.0, 5.0))
    data = float(batch[:, 0].square().mean()) / SCALE**2
    best = (RATE * data + weight * contraction) / (data + weight)
    assert slope(objective, best, batch) == pytest.approx(0, abs=1e-5)
    assert slope(objective, best + 1, batch) == pytest.approx(2 * (data + weight), rel=1e-5)


def test_far_frames_lie_between_the_radii_in_all_directions():
    objective = DissipativeObjective(STD, radii=(2.0, 5.0))
    far, radius = objective.far_frames((2000, 1, 2, 2), generator("far"))
    size = far.square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(size, radius.flatten())
    assert 2 <= size.min() < 2.05 and 4.95 < size.max() <= 5
    direction = (far / radius).flatten(1)
    torch.testing.assert_close(direction.mT @ direction / len(direction), torch.eye(4), rtol=0, atol=0.08)


def test_a_surrogate_that_tells_inside_from_outside_pays_nothing():
    def network(frames):
        outside = frames.square().mean((1, 2, 3, 4), keepdim=True) > 1.9**2
        return torch.where(outside, 0.5 - 1, RATE - 1) / SCALE * frames, None

    batch = 0.1 * pairs(20)
    assert float(DissipativeObjective(STD)(network, batch, generator("x"))["loss"]) < 1e-12
    assert float(DissipativeObjective(STD, contraction=0.4)(network, batch, generator("x"))["loss"]) > 0.009


def test_processes_that_share_a_batch_see_its_far_frames():
    batch, objective = pairs(6), DissipativeObjective(STD, input_noise=0.1)
    whole, *halves = (
        objective(Gain(0.7), batch, generator("x"), rows)["loss"].item()
        for rows in (slice(None), slice(3), slice(3, 6))
    )
    assert whole == pytest.approx(sum(halves) / 2)


def test_noise_on_the_input_is_a_penalty_on_the_jacobian():
    """Noise of the variance V adds V gain^2 / SCALE^2 to the loss: the best gain keeps <x^2> / (<x^2> + V) of the rate."""
    batch, noise = pairs(100_000), 0.5
    objective = PointwiseObjective(STD, input_noise=noise)
    power = float(batch[:, 0].square().mean())
    assert slope(objective, RATE * power / (power + noise**2), batch) == pytest.approx(0, abs=0.02)
    extra = [o(Gain(0.7), batch, generator("x"))["loss"].item() for o in (objective, PointwiseObjective(STD))]
    assert extra[0] - extra[1] == pytest.approx(noise**2 * 0.7**2 / SCALE**2, rel=0.02)


def test_a_dissipative_surrogate_is_built_from_its_file(tiny):
    emulation = Emulation.read(tiny.manifest)
    models = {"surrogate": tiny.models["dissipative"]}
    method = build_method({"kind": "pointwise"}, models, emulation, hardware=Hardware(precision="float32"))
    states = emulation.build_system().initial_state(2, [generator("test", member) for member in range(2)])
    assert torch.isfinite(method.step(method.start(states), None)[0]["frame"]).all()
