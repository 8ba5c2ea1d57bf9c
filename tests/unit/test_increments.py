"""Flow matching, PDE-Refiner and pushforward: exact laws, orders and optima on a linear Gaussian process; what networks see."""

import itertools
import math

import pytest
import torch

from sns_core.data.emulation import Emulation
from sns_core.diffusion.increments import (
    TIME_FEATURES,
    between,
    move_times,
    refine,
    refinement_noise,
    time_features,
    transport,
)
from sns_core.methods import FlowMatching, Hardware, PDERefiner, build_method
from sns_core.streams import MemberStreams, generator
from sns_core.training.increments import FlowMatchingObjective, PDERefinerObjective
from sns_core.training.objectives import PointwiseObjective
from sns_core.training.pushforward import PushforwardObjective

F64 = torch.float64
# The process x_t = RATE x_{t-1} + AMPLITUDE noise, whose increments in units of SCALE are N(mean(x_{t-1}), VARIANCE).
RATE, AMPLITUDE, SCALE = 0.8, 0.3, 0.5
VARIANCE = (AMPLITUDE / SCALE) ** 2


def mean(previous):
    return (RATE - 1) / SCALE * previous


def velocity(previous, y, time):
    """The exact velocity E[y - noise | y(tau), x_{t-1}]."""
    covariance, variance = time * VARIANCE - (1 - time), time**2 * VARIANCE + (1 - time) ** 2
    return mean(previous) + covariance / variance * (y - time * mean(previous))


def normals(*shape, purpose="numbers", dtype=F64):
    return torch.randn(*shape, generator=generator("test", purpose), dtype=dtype)


def pairs(count):
    previous = normals(count, 1, 1, 1, dtype=torch.float32)
    noise = normals(count, 1, 1, 1, purpose="noise", dtype=torch.float32)
    return torch.stack([previous, RATE * previous + AMPLITUDE * noise], 1)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("bend", [1.0, 2.0])
def test_moves_converge_to_the_law_at_their_order(order, bend):
    previous, noise = normals(50, 1, 2, 2), normals(50, 1, 2, 2, purpose="noise")
    exact = mean(previous) + math.sqrt(VARIANCE) * noise  # the exact velocity keeps the rank of every draw
    errors = []
    for moves in (40, 80, 160):
        y = transport(lambda y, time: velocity(previous, y, time), noise, move_times(moves, bend), order)
        errors.append(float((y - exact).abs().max()))
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize(("moves", "order", "bend", "share"), [(3, 2, 2.0, 0.81), (4, 1, 2.0, 0.62), (4, 1, 1.0, 0.28)])
def test_a_few_moves_keep_a_share_of_a_narrow_law(moves, order, bend, share):
    """The shares that docs/comparison.md gives for a law whose spread is a tenth of that of the increments."""
    narrow = 0.01

    def steep(y, time):
        return (time * narrow - (1 - time)) / (time**2 * narrow + (1 - time) ** 2) * y

    y = transport(steep, torch.ones(1, dtype=F64), move_times(moves, bend), order)
    assert float(y) / math.sqrt(narrow) == pytest.approx(share, abs=0.005)


def test_a_single_move_of_euler_gives_the_mean():
    previous, noise = normals(5, 1, 2, 2), normals(5, 1, 2, 2, purpose="noise")
    y = transport(lambda y, time: velocity(previous, y, time), noise, move_times(1))
    torch.testing.assert_close(y, mean(previous))


def test_times_of_moves():
    assert move_times(4) == [0, 0.25, 0.5, 0.75, 1]
    bent = move_times(4, 2.0)
    lengths = [stop - start for start, stop in itertools.pairwise(bent)]
    assert bent[0] == 0 and bent[-1] == 1 and lengths == sorted(lengths, reverse=True)
    assert time_features(torch.tensor([0.0, 1.0]))[:, :2].tolist() == [[1, 1], [-1, 1]]


def test_the_loss_of_the_exact_velocity_is_what_nobody_can_know_and_no_other_is_lower():
    batch = pairs(200_000)
    times = {}

    def network(stack, condition):
        previous, y = stack.unbind(1)
        time = torch.acos(condition[:, 0].clamp(-1, 1)).view(-1, 1, 1, 1) / math.pi
        times["drawn"] = time.flatten()
        assert condition.shape[1] == TIME_FEATURES
        return (velocity(previous, y, time) + network.error)[:, None], None

    network.error, objective = 0.0, FlowMatchingObjective(torch.full((1, 1, 1), SCALE))
    loss = float(objective(network, batch, generator("x"))["loss"])
    time = times["drawn"].double()
    variance = time**2 * VARIANCE + (1 - time) ** 2
    unknown = VARIANCE + 1 - (time * VARIANCE - (1 - time)) ** 2 / variance
    assert loss == pytest.approx(float(unknown.mean()), rel=0.02)
    network.error = 0.3
    assert float(objective(network, batch, generator("x"))["loss"]) - loss == pytest.approx(0.09, abs=0.01)


def exact_refiner(deviations):
    """The network that PDE-Refiner converges to: the mean for k = 0, then the expected noise."""

    def network(previous, y, k):
        if k == 0:
            return mean(previous)
        return deviations[k - 1] * (y - mean(previous)) / (VARIANCE + deviations[k - 1] ** 2)

    return network


def test_refinement_noise_falls_to_the_least():
    assert refinement_noise(3, 0.001) == pytest.approx([0.1, 0.01, 0.001])


@pytest.mark.parametrize("refinements", [1, 3])
def test_refined_increments_have_the_variance_that_follows_from_the_exact_network(refinements):
    """Refinement k keeps the share c = V / (V + sigma_k^2) of what stands apart from the mean, its own noise included."""
    deviations, previous = refinement_noise(refinements, 0.05), normals(3, 1, 2, 2)
    noises, network = [normals(3, 1, 2, 2, purpose=k) for k in range(refinements)], exact_refiner(deviations)
    expected = torch.zeros_like(previous)
    for noise, deviation in zip(noises, deviations, strict=True):
        expected = VARIANCE / (VARIANCE + deviation**2) * (expected + deviation * noise)
    y = refine(lambda y, k: network(previous, y, k), noises, deviations)
    torch.testing.assert_close(y, mean(previous) + expected)


def test_the_loss_of_the_exact_refiner_is_what_nobody_can_know():
    deviations = refinement_noise(3, 0.05)
    batch, network, shares = pairs(200_000), exact_refiner(deviations), []

    def every(stack, condition):
        previous, y = stack.unbind(1)
        assert not y[condition[:, 0] == 1].any(), "the first call sees no increment"
        shares.append(condition.mean(0))
        outputs = torch.stack([network(previous, y, k) for k in range(4)])
        return (outputs * condition.T[:, :, None, None, None]).sum(0)[:, None], None

    loss = float(PDERefinerObjective(torch.full((1, 1, 1), SCALE), deviations)(every, batch, generator("x"))["loss"])
    torch.testing.assert_close(shares[0], torch.full((4,), 0.25), rtol=0.02, atol=0)
    unknown = [VARIANCE, *(VARIANCE / (VARIANCE + deviation**2) for deviation in deviations)]
    assert loss == pytest.approx(sum(unknown) / 4, rel=0.02)


def test_the_increment_starts_as_noise_and_ends_as_the_increment():
    noise, increment = normals(3, 1, 2, 2), normals(3, 1, 2, 2, purpose="increment")
    assert torch.equal(between(noise, increment, torch.zeros(3)), noise)
    assert torch.equal(between(noise, increment, torch.ones(3)), increment)


def test_methods_add_the_increment_in_its_unit_and_count_their_calls():
    states, streams = torch.ones(2, 1, 4, 4), MemberStreams("test", members=range(2))
    flow = FlowMatching(lambda previous, y, time: 3.0 - y / (1 - time), torch.full((1, 1, 1), SCALE), moves=4)
    carry, record = flow.step(flow.start(states), streams.at(1))
    assert record.calls.tolist() == [4, 4] and torch.isfinite(carry["frame"]).all()
    refiner = PDERefiner(
        lambda previous, y, k: y if k else torch.full_like(y, 2.0), torch.full((1, 1, 1), SCALE), [0.0, 0.0]
    )
    carry, record = refiner.step(refiner.start(states), streams.at(1))
    assert record.calls.tolist() == [3, 3] and record.levels.unique().tolist() == [-1]
    assert torch.equal(carry["frame"], torch.full_like(states, 1 + 2.0 * SCALE))


@pytest.mark.parametrize(
    ("kind", "role", "options", "calls"),
    [("flow_matching", "velocity", {"moves": 3, "order": 2}, 5), ("pde_refiner", "refiner", {}, 4)],
)
def test_both_are_built_from_files(tiny, kind, role, options, calls):
    emulation = Emulation.read(tiny.manifest)
    hardware = Hardware(precision="float32")
    method = build_method({"kind": kind, **options}, {role: tiny.models[kind]}, emulation, hardware=hardware)
    states = emulation.build_system().initial_state(2, [generator("test", member) for member in range(2)])
    carry, record = method.step(method.start(states), MemberStreams("test", members=range(2)).at(1))
    assert torch.isfinite(carry["frame"]).all() and record.calls.tolist() == [calls] * 2


def test_pushforward_learns_the_last_step_alone():
    weight = torch.tensor(1.5, requires_grad=True)
    batch, inputs = torch.randn(2, 4, 1, 4, 4, generator=generator("batch")), []

    def network(x):
        inputs.append(x)
        return weight * x, None

    objective, drawn = PushforwardObjective(torch.ones(1, 1, 1), unroll=3), set()
    for draw in range(12):
        inputs.clear()
        loss = objective(network, batch, generator("x", draw))["loss"]
        steps = len(inputs) - 1
        drawn.add(steps)
        assert not any(x.requires_grad for x in inputs)
        x = batch[:, 0] * 2.5**steps
        torch.testing.assert_close(loss, (2.5 * x - batch[:, steps + 1]).square().mean())
    assert drawn == {0, 1, 2}
    plain = PointwiseObjective(torch.ones(1, 1, 1), unroll=1)(network, batch[:, :2], generator("x"))["loss"]
    single = PushforwardObjective(torch.ones(1, 1, 1), unroll=1)(network, batch[:, :2], generator("x"))["loss"]
    assert torch.equal(plain, single)
