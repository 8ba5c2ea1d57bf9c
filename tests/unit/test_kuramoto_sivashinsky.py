"""Kuramoto-Sivashinsky flow against its exact linear solution, its conservation laws and exponax; Lyapunov exponents."""

import math

import pytest
import torch

from sns_core.evaluation.lyapunov import lyapunov_exponents, step_map
from sns_core.methods.base import FrameMethod, StepRecord
from sns_core.streams import generator, normal
from sns_core.systems.kuramoto_sivashinsky import KuramotoSivashinsky
from sns_core.systems.schemes import ExponentialRungeKutta

F64 = torch.float64


# u at x = 0, 16 dx, 32 dx, ... after 80 steps of 0.25 from `large_waves(96)` on a circle of 22, by exponax 0.2.0
# (KuramotoSivashinskyConservative(1, 22.0, 96, 0.25, order=4), November 2026). Its products keep one mode less.
EXPONAX = [
    1.3074256464067107, -1.8366432058436173, 0.5934810071369172, 0.3429965197629102, 1.2950949748256164, -2.2584659931411335,
]  # fmt: skip


def circle(points: int) -> torch.Tensor:
    return torch.arange(points, dtype=F64) * 2 * math.pi / points


def large_waves(points: int) -> torch.Tensor:
    """A start of three waves without a symmetry, (1, 1, 1, N)."""
    x = circle(points)
    return (torch.cos(x) + 0.5 * torch.sin(2 * x) + 0.2 * torch.cos(3 * x + 1))[None, None, None]


def test_the_flow_is_that_of_exponax():
    end = KuramotoSivashinsky((1, 96), dt=0.25, length=22.0).advance(large_waves(96), 80)[0, 0, 0, ::16]
    torch.testing.assert_close(end, torch.tensor(EXPONAX, dtype=F64), rtol=0, atol=1e-11)


def test_an_infinitesimal_wave_grows_or_decays_at_the_exact_rate():
    flow = KuramotoSivashinsky((1, 32), dt=0.5, length=22.0)
    x = circle(32)
    for mode in (1, 2, 3, 4, 6):
        start = 1e-9 * torch.cos(mode * x)[None, None, None]
        k = 2 * math.pi * mode / 22.0
        expected = start * math.exp((k**2 - k**4) * 10.0)
        torch.testing.assert_close(flow.advance(start, 20), expected, rtol=1e-6, atol=1e-16)


def test_the_scheme_is_exact_for_its_linear_part_and_of_fourth_order_for_the_rest():
    linear = torch.tensor([-1e3, -1.0, -1e-9, 0.0, 0.5], dtype=F64)
    values = torch.ones(5, dtype=F64)
    scheme = ExponentialRungeKutta(linear, 0.1)
    torch.testing.assert_close(scheme.step(values, torch.zeros_like), torch.exp(0.1 * linear), rtol=1e-13, atol=0)
    constant = torch.full((5,), 2.0, dtype=F64)
    expected = torch.where(
        linear == 0, 0.2, 2 * torch.expm1(0.1 * linear) / linear.where(linear != 0, torch.ones(5, dtype=F64))
    )
    torch.testing.assert_close(scheme.step(0 * values, lambda v: constant), expected, rtol=1e-12, atol=0)
    errors = []
    for steps in (40, 80, 160):  # dv/dt = -v - v^2, v(0) = 1
        scheme, v = ExponentialRungeKutta(torch.full((1,), -1.0, dtype=F64), 1 / steps), torch.ones(1, dtype=F64)
        for _ in range(steps):
            v = scheme.step(v, lambda v: -v.square())
        errors.append(abs(float(v) - 1 / (2 * math.e - 1)))
    assert [math.log2(errors[i] / errors[i + 1]) for i in (0, 1)] == pytest.approx([4, 4], abs=0.15)


def test_the_flow_converges_with_fourth_order():
    x = circle(64)
    start = (torch.cos(x) * (1 + torch.sin(x)))[None, None, None]  # of Kassam and Trefethen
    ends = [
        KuramotoSivashinsky((1, 64), dt=dt, length=32 * math.pi).advance(start, round(20 / dt))
        for dt in (0.5, 0.25, 0.125)
    ]
    order = math.log2(float((ends[0] - ends[1]).norm() / (ends[1] - ends[2]).norm()))
    assert order == pytest.approx(4, abs=0.3)


def test_advection_conserves_the_mean_and_half_the_mean_square():
    flow = KuramotoSivashinsky((1, 48))
    state = flow.initial_state(3, generator("test"))
    spectrum = flow.start(state)["spectrum"]
    spectrum = spectrum * (torch.arange(25) < 16)
    rate = torch.fft.irfft(flow.tendency(spectrum), n=48)
    field = torch.fft.irfft(spectrum, n=48)
    assert rate.mean(-1).abs().max() < 1e-14 and (rate * field).mean(-1).abs().max() < 1e-14
    assert flow.advance(state, 200).mean(-1).abs().max() < 1e-12


def test_symmetries_commute_with_the_flow():
    flow = KuramotoSivashinsky((1, 32))
    state = flow.advance(flow.initial_state(4, generator("test")), 100)
    stack = torch.stack([state, flow.advance(state, 20)], 1)
    for symmetries in ("translations", "all"):
        moved = flow.augment(stack, generator("symmetry"), symmetries)
        torch.testing.assert_close(flow.advance(moved[:, 0], 20), moved[:, 1], rtol=0, atol=1e-8)


def test_stopping_and_resuming_gives_the_same_bits():
    flow = KuramotoSivashinsky((1, 32))
    carry = flow.start(flow.initial_state(2, generator("test")))
    once, twice = flow.run(carry, 50), flow.run(flow.run(carry, 13), 37)
    assert torch.equal(once["spectrum"], twice["spectrum"])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_exponents_of_a_linear_map_are_the_logarithms_of_its_eigenvalues(device):
    matrix = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.5, 0.3], [0.0, 0.0, 0.1]], dtype=F64, device=device)
    exponents, errors = lyapunov_exponents(
        lambda x: (x.flatten(1) @ matrix.T).view_as(x),
        torch.zeros(1, 1, 3, dtype=F64, device=device),
        3,
        60,
        0.5,
        generator("x"),
        settling=30,
    )
    torch.testing.assert_close(exponents, 2 * torch.tensor([2.0, 0.5, 0.1], dtype=F64).log(), rtol=1e-6, atol=1e-6)
    assert (errors < 1e-6).all()


class NoisyContraction(FrameMethod):
    """x -> (x - anchor) * rates + anchor + noise: disturbances follow the rates if all of them see the same noise."""

    rates = torch.tensor([0.9, 0.5, 0.2], dtype=F64)

    def start(self, states):
        return {**super().start(states), "anchor": states}

    def step(self, carry, streams):
        anchor, noise = carry["anchor"], normal(streams, (1, 1, 3), carry["frame"])
        return {**carry, "frame": (carry["frame"] - anchor) * self.rates + anchor + noise}, StepRecord.nothing(1)


def test_all_disturbances_of_a_method_that_draws_see_the_same_noise():
    start = torch.ones(1, 1, 1, 3, dtype=F64)
    advance = step_map(NoisyContraction(), start, 0, "noisy")
    moved = advance(torch.cat([start, start + 0.1]))
    torch.testing.assert_close(moved[1] - moved[0], 0.1 * NoisyContraction.rates[None, None])
    assert not torch.equal(advance(start), advance(start)), "each call is a step of its own"
    exponents, _ = lyapunov_exponents(advance, start[0], 3, 60, 2.0, generator("x"), settling=30)
    torch.testing.assert_close(exponents, NoisyContraction.rates.log() / 2, rtol=1e-6, atol=1e-6)


def test_exponents_about_rest_are_the_rates_of_growth_of_the_waves():
    """About u = 0 every wave grows by itself at k^2 - k^4, its sine and its cosine alike."""
    flow = KuramotoSivashinsky((1, 16), dt=0.5)
    exponents, _ = lyapunov_exponents(
        lambda x: flow.advance(x, 4),
        torch.zeros(1, 1, 16, dtype=F64),
        4,
        60,
        2.0,
        generator("x"),
        size=1e-9,
        settling=300,
    )
    rates = flow.growth.sort(descending=True).values[:2]
    torch.testing.assert_close(exponents, rates.repeat_interleave(2), rtol=1e-4, atol=1e-6)
