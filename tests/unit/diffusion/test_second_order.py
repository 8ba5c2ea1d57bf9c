"""Steps of second order along paths, against the exact oracle."""

import pytest
import torch

from sns_core.diffusion import GaussianOracle, NoiseSchedule, Path, Sampler, walk
from sns_core.streams import generator


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("path", ["left_then_down", "down_then_left", "diagonal"])
def test_a_deterministic_walk_is_the_linear_map_that_is_propagated(path, order):
    schedule = NoiseSchedule.cosine(20)
    oracle = GaussianOracle(torch.tensor([[0.8, 0.1], [0.0, 0.7]]), 0.3 * torch.eye(2), schedule)
    chosen, sampler = getattr(Path, path)(9, 14, 3), Sampler(eta=0.0, order=order)
    x_prev, x_next = torch.randn(2, 1, 1, 1, 2, generator=generator("heun"), dtype=torch.float64)
    walked = walk(oracle, chosen, x_prev, x_next, schedule=schedule, generator=generator("w"), sampler=sampler)
    pair = torch.cat([x_prev.flatten(), x_next.flatten()])
    mean, _ = oracle.propagate(chosen, pair, torch.zeros(4, 4, dtype=torch.float64), sampler)
    assert torch.allclose(torch.cat([x.flatten() for x in walked]), mean, atol=1e-12)


@pytest.mark.parametrize("path", ["left_then_down", "down_then_left", "diagonal"])
def test_second_order_steps_come_closer_with_fewer_calls(path):
    def error_and_calls(levels, order):
        schedule, sampler = NoiseSchedule.cosine(levels), Sampler(eta=0.0, order=order)
        oracle = GaussianOracle(torch.tensor([[0.9]]), torch.tensor([[0.19]]), schedule)
        chosen = getattr(Path, path)(round(0.45 * levels), round(0.6 * levels))
        start = oracle.noised_covariance(*chosen.start.unbind(1))[0]
        _, covariance = oracle.propagate(chosen, torch.zeros(2, dtype=torch.float64), start, sampler)
        return float((covariance - oracle.covariance).abs().max()), int(sampler.calls(chosen)[0])

    euler, heun = error_and_calls(80, 1), error_and_calls(20, 2)
    assert heun[0] < euler[0] and heun[1] < 0.5 * euler[1]


def test_order_2_is_refused_for_samplers_without_a_second_order():
    with pytest.raises(ValueError, match="needs eta 0"):
        Sampler(order=2)
    with pytest.raises(ValueError, match="order 3"):
        Sampler(eta=0.0, order=3)
    schedule = NoiseSchedule.cosine(4)
    oracle, x = GaussianOracle(torch.tensor([[0.5]]), torch.tensor([[0.75]]), schedule), torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="no second order"):
        walk(oracle, Path.acdm(4, 4), x, x, schedule=schedule, generator=generator("w"), sampler=Sampler(0.0, order=2))
