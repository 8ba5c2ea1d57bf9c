"""Time-stepping schemes for an equation dw/dt = explicit(w) + linear w, in place and mode by mode.

A scheme works on a tensor `values` that holds the state, and on a function `evaluate(out)` that writes the explicit
tendency of the current state into `out` and returns `out`. The schemes allocate no memory in the loop over steps. A
scheme of the user's own system works on complex spectra; the systems of this project pass real views of them, which are
faster to multiply by real factors. `ExponentialRungeKutta` returns new values instead: it is for small systems.
"""

import math
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


class ExponentialRungeKutta:
    """Exponential Runge-Kutta scheme of fourth order, ETDRK4 (Cox and Matthews 2002), with an exact linear part.

    Its coefficients are means over a circle in the complex plane, because their formulas cancel where the linear part
    is small (Kassam and Trefethen, SIAM J. Sci. Comput. 26, 2005).

    `linear`: the real factor of each mode. `dt`: the time step. The scheme has the type and the device of `linear`.
    """

    POINTS = 32  # on the half circle of radius 1 around each linear * dt; double precision is reached with fewer

    def __init__(self, linear: torch.Tensor, dt: float):
        exact = linear.to(torch.float64) * dt
        angles = math.pi * (torch.arange(self.POINTS, dtype=torch.float64, device=linear.device) + 0.5) / self.POINTS
        z = exact[..., None] + torch.exp(1j * angles)
        half, whole = torch.exp(z / 2), torch.exp(z)
        factors = {
            "decay": torch.exp(exact),
            "half_decay": torch.exp(exact / 2),
            "middle": dt * ((half - 1) / z).mean(-1).real,
            "first": dt * ((-4 - z + whole * (4 - 3 * z + z**2)) / z**3).mean(-1).real,
            "second": dt * (2 * (2 + z + whole * (z - 2)) / z**3).mean(-1).real,
            "third": dt * ((-4 - 3 * z - z**2 + whole * (4 - z)) / z**3).mean(-1).real,
        }
        for name, factor in factors.items():
            setattr(self, name, factor.to(linear.dtype))

    def step(self, values: torch.Tensor, tendency: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return the values (..., modes) one time step later.

        `tendency`: function of values that returns the explicit part of their rate of change, in the same shape.
        """
        start = tendency(values)
        left = self.half_decay * values + self.middle * start
        at_left = tendency(left)
        right = self.half_decay * values + self.middle * at_left
        at_right = tendency(right)
        end = self.half_decay * left + self.middle * (2 * at_right - start)
        return (
            self.decay * values + self.first * start + self.second * (at_left + at_right) + self.third * tendency(end)
        )
