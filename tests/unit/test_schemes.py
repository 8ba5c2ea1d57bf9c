"""Time-stepping schemes on linear equations whose solutions are known."""

import math

import pytest
import torch

from sns_core.systems.schemes import AdamsBashforth, CrankNicolsonRungeKutta

FREQUENCY = torch.tensor([0.3, 1.0, -2.0], dtype=torch.float64)
DAMPING = torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64)


def rotation(values):
    """Return `evaluate(out)` of the explicit tendency i FREQUENCY w."""
    return lambda out: torch.mul(1j * FREQUENCY, values, out=out)


def error_of_runge_kutta(steps: int, damping: torch.Tensor) -> float:
    """Return the error at time 1 of dw/dt = i FREQUENCY w - damping w from w = 1."""
    values = torch.ones(3, dtype=torch.complex128)
    CrankNicolsonRungeKutta(-damping, 1 / steps).run(values, rotation(values), steps)
    return float((values - torch.exp(1j * FREQUENCY - damping)).abs().max())


def advance_adams_bashforth(values, steps, dt, stored=()):
    scheme = AdamsBashforth(dt)
    return scheme.run(values, rotation(values), steps, list(stored), lambda: torch.empty_like(values))


def test_the_explicit_part_converges_with_fourth_order_and_the_implicit_part_with_second():
    for damping, order in ((torch.zeros(3, dtype=torch.float64), 4), (DAMPING, 2)):
        errors = [error_of_runge_kutta(steps, damping) for steps in (16, 32)]
        assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_modes_without_an_explicit_tendency_only_decay():
    values = torch.ones(3, dtype=torch.complex128)
    explicit = values[:2]
    scheme = CrankNicolsonRungeKutta(-DAMPING, 0.01, explicit_modes=slice(2))
    scheme.run(values, lambda out: torch.mul(1j * FREQUENCY[:2], explicit, out=out), 100, explicit_values=explicit)
    expected = torch.exp(1j * FREQUENCY * torch.tensor([1, 1, 0]) - DAMPING)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-4)


def test_adams_bashforth_converges_with_second_order_from_its_euler_step_and_third_order_afterwards():
    errors = {True: [], False: []}
    for steps in (64, 128):
        dt = 1 / steps
        for exact_start in errors:
            values, stored = torch.ones(3, dtype=torch.complex128), []
            if exact_start:
                stored = [1j * FREQUENCY * torch.exp(-1j * FREQUENCY * dt * n) for n in (1, 2)]
            advance_adams_bashforth(values, steps, dt, stored)
            errors[exact_start].append(float((values - torch.exp(1j * FREQUENCY)).abs().max()))
    orders = {exact_start: math.log2(first / second) for exact_start, (first, second) in errors.items()}
    assert orders[True] == pytest.approx(3, abs=0.15)
    assert orders[False] == pytest.approx(2, abs=0.15)


def test_adams_bashforth_in_two_calls_has_the_bits_of_one_call():
    values, parts = (torch.ones(3, dtype=torch.complex128) for _ in range(2))
    advance_adams_bashforth(values, 9, 0.1)
    stored = []
    for steps in (1, 3, 5):
        stored = advance_adams_bashforth(parts, steps, 0.1, stored)
    assert torch.equal(values, parts)


def test_finish_is_called_after_every_step():
    values, calls = torch.ones(3, dtype=torch.complex128), []
    CrankNicolsonRungeKutta(-DAMPING, 0.1).run(values, rotation(values), 4, finish=lambda: calls.append(1))
    AdamsBashforth(0.1).run(
        values, rotation(values), 3, [], lambda: torch.empty_like(values), finish=lambda: calls.append(1)
    )
    assert len(calls) == 7
