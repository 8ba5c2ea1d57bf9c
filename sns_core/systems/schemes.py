"""Time-stepping schemes for an equation dw/dt = explicit(w) + linear w, in place and mode by mode.

A scheme works on a tensor `values` that holds the state, and on a function `evaluate(out)` that writes the explicit
tendency of the current state into `out` and returns `out`. The schemes allocate no memory in the loop over steps. A
scheme of the user's own system works on complex spectra; the systems of this project pass real views of them, which are
faster to multiply by real factors.
"""

from collections.abc import Callable

import torch

Evaluate = Callable[[torch.Tensor], torch.Tensor]

# Low-storage coefficients of Carpenter and Kennedy (NASA TM-109112, 1994). Python floats are double precision, so
# float32 runs use the same coefficients.
ALPHA = (0.0, 0.1496590219993, 0.3704009573644, 0.6222557631345, 0.9582821306748, 1.0)
BETA = (0.0, -0.4178904745, -1.192151694643, -1.697784692471, -1.514183444257)
GAMMA = (0.1496590219993, 0.3792103129999, 0.8229550293869, 0.6994504559488, 0.1530572479681)

# Weights of the newest tendency and of the stored ones, by the number of stored tendencies: Euler, AB2, AB3.
ADAMS_BASHFORTH = ((1.0,), (1.5, -0.5), (23 / 12, -16 / 12, 5 / 12))


class CrankNicolsonRungeKutta:
    """Explicit five-stage Runge-Kutta scheme of fourth order, with the linear part by Crank-Nicolson in each stage.

    The explicit scheme is the low-storage one of Carpenter and Kennedy. The linear part is of second order in `dt`.

    `linear`: the real factor of each mode, <= 0 for damping, which broadcasts against the values. `dt`: the time step.
    `explicit_modes`: the index of the modes that have an explicit tendency (default: all). `as_factor`: converts a
    factor to the type and layout of the values.
    """

    def __init__(
        self,
        linear: torch.Tensor,
        dt: float,
        explicit_modes=...,
        as_factor: Callable[[torch.Tensor], torch.Tensor] = lambda factor: factor,
    ):
        self.stages = []
        for stage in range(len(BETA)):
            mu = 0.5 * dt * (ALPHA[stage + 1] - ALPHA[stage])
            keep = as_factor((1 + mu * linear) / (1 - mu * linear))
            gain = as_factor((GAMMA[stage] * dt / (1 - mu * linear))[explicit_modes])
            self.stages.append((BETA[stage], keep, gain))

    def run(
        self,
        values: torch.Tensor,
        evaluate: Evaluate,
        count: int,
        explicit_values: torch.Tensor | None = None,
        finish: Callable[[], None] | None = None,
    ) -> None:
        """Advance `values` in place by `count` steps.

        `explicit_values`: the view of the values that `evaluate` gives tendencies for (default: all values). `finish`
        is called after every step.
        """
        explicit_values = values if explicit_values is None else explicit_values
        total, tendency = (torch.empty_like(explicit_values, memory_format=torch.contiguous_format) for _ in range(2))
        for _ in range(count):
            for stage, (beta, keep, gain) in enumerate(self.stages):
                evaluate(tendency)
                if stage:
                    tendency.add_(total, alpha=beta)
                total, tendency = tendency, total
                values.mul_(keep)
                explicit_values.addcmul_(total, gain)
            if finish:
                finish()


class AdamsBashforth:
    """Explicit Adams-Bashforth scheme of third order, which starts with one Euler step and one step of second order.

    `dt`: the time step. `as_values`: converts a tendency to the type and layout of the values, without a copy.
    """

    def __init__(self, dt: float, as_values: Callable[[torch.Tensor], torch.Tensor] = lambda tendency: tendency):
        self.dt, self.as_values = dt, as_values

    def run(
        self,
        values: torch.Tensor,
        evaluate: Evaluate,
        count: int,
        stored: list[torch.Tensor],
        new_tendency: Callable[[], torch.Tensor],
        finish: Callable[[], None] | None = None,
    ) -> list[torch.Tensor]:
        """Advance `values` in place by `count` steps, and return the tendencies to store for the next call.

        `stored`: the tendencies of the last two steps, the newest first; fewer at the start of an integration.
        `new_tendency` returns an empty tensor for `evaluate` to write into. `finish` is called after every step.
        """
        spare = None
        for _ in range(count):
            newest = evaluate(new_tendency() if spare is None else spare)
            for weight, tendency in zip(ADAMS_BASHFORTH[len(stored)], [newest, *stored], strict=True):
                values.add_(self.as_values(tendency), alpha=weight * self.dt)
            if finish:
                finish()
            spare, stored = stored[1] if len(stored) == 2 else None, [newest, *stored[:1]]
        return stored
