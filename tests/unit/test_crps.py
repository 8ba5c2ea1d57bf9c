"""The almost-fair score and its objective: exact expectations for Gaussians, the optimum of a linear process, the draws."""

import math

import numpy as np
import pytest
import torch

from sns_core.data.emulation import Emulation
from sns_core.methods import Hardware, StochasticSurrogate, build_method
from sns_core.metrics.ensembles import fair_crps
from sns_core.streams import MemberStreams, generator
from sns_core.training import load_model
from sns_core.training.crps import CRPSObjective, almost_fair_score

F64, HARDWARE = torch.float64, Hardware(precision="float32")
SPREAD = 1 / math.sqrt(math.pi)  # half the mean distance of two standard normal numbers


def normals(*shape, purpose="numbers"):
    return torch.randn(*shape, generator=generator("test", purpose), dtype=F64)


def expected_score(bias: float, spread: float, members: int, fairness: float) -> float:
    """The expected almost-fair CRPS of draws from N(bias, spread^2) against a truth of N(0, 1)."""
    size = math.hypot(1, spread)
    z = bias / size
    error = size * (z * math.erf(z / math.sqrt(2)) + math.sqrt(2 / math.pi) * math.exp(-0.5 * z * z))
    return error - (1 - (1 - fairness) / members) * spread * SPREAD


@pytest.mark.parametrize(("members", "fairness"), [(2, 1.0), (2, 0.95), (4, 0.95), (2, 0.0), (4, 0.0)])
@pytest.mark.parametrize(("bias", "spread"), [(0.0, 1.0), (0.7, 0.5)])
def test_the_mean_score_of_gaussian_draws_is_the_exact_one(members, fairness, bias, spread):
    ensemble, truth = bias + spread * normals(60, members, 1, 50, 50), normals(60, 1, 50, 50, purpose="truth")
    assert float(almost_fair_score(ensemble, truth, fairness)) == pytest.approx(
        expected_score(bias, spread, members, fairness), abs=0.006
    )


def test_a_fair_score_is_that_of_the_metrics_and_an_unfair_one_that_of_the_ensemble_itself():
    ensemble, truth = normals(1, 4, 1, 5, 5), normals(1, 1, 5, 5, purpose="truth")
    reference = fair_crps(ensemble[0].numpy(), truth[0].numpy()).mean()
    assert float(almost_fair_score(ensemble, truth, 1.0)) == pytest.approx(reference, rel=1e-12)
    pairs = np.abs(ensemble.numpy()[0][:, None] - ensemble.numpy()[0][None]).mean((0, 1))
    unfair = (np.abs(ensemble - truth[:, None]).numpy()[0].mean(0) - pairs / 2).mean()
    assert float(almost_fair_score(ensemble, truth, 0.0)) == pytest.approx(unfair, rel=1e-12)
    assert float(almost_fair_score(torch.tensor([[1.0, 3.0]]).view(1, 2, 1, 1, 1), torch.zeros(1, 1, 1, 1), 1.0)) == 1.0


def test_only_the_energy_score_tells_whether_places_belong_together():
    """Places that vary alike are given an ensemble whose places are independent, with the same law at each place."""
    truth = normals(4000, 1, 1, 1, purpose="truth").expand(-1, 1, 4, 4)
    together, apart = normals(4000, 4, 1, 1, 1, purpose="a").expand(-1, -1, 1, 4, 4), normals(4000, 4, 1, 4, 4)
    crps, energy = (
        [float(almost_fair_score(ensemble, truth, 1.0, score)) for ensemble in (together, apart)]
        for score in ("crps", "energy")
    )
    assert crps[1] == pytest.approx(crps[0], abs=0.03)
    assert energy[0] == pytest.approx(crps[0], abs=0.03) and energy[1] > energy[0] + 0.05


@pytest.mark.parametrize("score", ["crps", "energy"])
def test_members_that_agree_have_a_finite_gradient(score):
    ensemble = torch.zeros(2, 3, 1, 4, 4, requires_grad=True)
    almost_fair_score(ensemble, torch.ones(2, 1, 4, 4), 0.95, score).backward()
    assert torch.isfinite(ensemble.grad).all() and (ensemble.grad < 0).all()


def linear_network(rate, amplitude):
    return lambda x, condition: ((rate - 1) * x + amplitude * condition[:, :, None, None, None], None)


@pytest.mark.parametrize(("members", "fairness"), [(2, 1.0), (2, 0.95), (4, 0.95), (2, 0.0)])
@pytest.mark.parametrize("unroll", [1, 2])
def test_the_optimum_of_a_linear_process_has_its_law(members, fairness, unroll):
    """For x_t = a x_{t-1} + b noise the loss is stationary at a and at b times a factor that is known, and 1 for a fair score."""
    a, b, batch = 0.8, 0.6, 100_000
    frames = [normals(batch)]
    for step in range(unroll):
        frames.append(a * frames[-1] + b * normals(batch, purpose=f"noise {step}"))
    share = 1 - (1 - fairness) / members
    factor = share / math.sqrt(2 - share**2)  # from sqrt(2) s / sqrt(s^2 + b^2) = share
    rate, amplitude = (torch.tensor(value, dtype=F64, requires_grad=True) for value in (a, b * factor))
    objective = CRPSObjective(torch.ones((), dtype=F64), 1, members=members, fairness=fairness, unroll=unroll)
    loss = objective(
        lambda x, condition: tuple(
            None if part is None else part.double() for part in linear_network(rate, amplitude)(x, condition)
        ),
        torch.stack(frames, 1)[..., None, None, None],
        generator("test", "draws"),
    )["loss"]
    loss.backward()
    assert abs(float(rate.grad)) < 0.01 and abs(float(amplitude.grad)) < 0.01


def test_every_step_has_fresh_noise_and_feeds_on_its_own_output():
    calls = []

    def network(x, condition):
        calls.append((x.clone(), condition))
        return condition[:, :1, None, None, None].expand_as(x), None

    objective = CRPSObjective(torch.full((1, 1, 1), 0.5), 3, members=2, unroll=2)
    batch = torch.randn(4, 3, 1, 2, 2, generator=generator("batch"))
    objective(network, batch, generator("objective"))
    (first, noise), (second, fresh) = calls
    assert torch.equal(first[::2, 0], batch[:, 0]) and torch.equal(first[1::2, 0], batch[:, 0])
    torch.testing.assert_close(second[:, 0], first[:, 0] + 0.5 * noise[:, :1, None, None])
    assert noise.shape == fresh.shape == (8, 3) and len(torch.unique(torch.cat([noise, fresh]))) == 48


def test_processes_that_share_a_batch_use_the_same_noise():
    objective = CRPSObjective(torch.ones(1, 1, 1), 1, members=2)
    batch, network = torch.randn(6, 2, 1, 2, 2, generator=generator("batch")), linear_network(0.9, 0.3)
    whole = objective(network, batch, generator("x"))["loss"]
    parts = [objective(network, batch, generator("x"), rows)["loss"] for rows in (slice(0, 3), slice(3, 6))]
    assert float(sum(parts) / 2) == pytest.approx(float(whole), rel=1e-6)


def test_a_stochastic_surrogate_draws_from_the_stream_of_each_member():
    method = StochasticSurrogate(lambda x, noise: 0.5 * x + noise[:, :1, None, None], 2)
    states, streams = torch.ones(3, 1, 4, 4), MemberStreams("test", members=range(3))
    frame = method.step(method.start(states), streams.at(1))[0]["frame"]
    alone = method.step(method.start(states[1:2]), MemberStreams("test", members=[1]).at(1))[0]["frame"]
    assert torch.equal(frame[1:2], alone) and len(frame[:, 0, 0, 0].unique()) == 3
    assert (frame == frame[:, :, :1, :1]).all()


def test_a_trained_surrogate_without_noise_is_the_centre_of_its_ensemble(tiny):
    surrogate = load_model(tiny.models["crps"], "crps").surrogate("float32")
    frames = torch.randn(2, 1, 16, 16, generator=generator("frames"))
    centre = surrogate(frames)
    assert torch.equal(centre, surrogate(frames, torch.zeros(2, 4)))
    draws = surrogate(frames.repeat(64, 1, 1, 1), torch.randn(128, 4, generator=generator("noise")))
    spread = draws.view(64, 2, 1, 16, 16).std(0)
    assert (spread.mean() > 0) and ((draws.view(64, 2, 1, 16, 16).mean(0) - centre).abs().mean() < spread.mean())
    method = build_method(
        {"kind": "stochastic_surrogate"},
        {"surrogate": tiny.models["crps"]},
        Emulation.read(tiny.manifest),
        hardware=HARDWARE,
    )
    assert method.noise_features == 4
