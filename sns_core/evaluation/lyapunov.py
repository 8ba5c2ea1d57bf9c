"""Lyapunov exponents of any map of fields: a solver, a surrogate, a refined surrogate.

Small disturbances of one trajectory are carried along with it, as further members of its batch, and are made orthogonal
again after every few steps (Benettin et al. 1980). The mean logarithms of their growth are the largest exponents. No
derivative of the map is needed. A map that draws must give all members the same random numbers.
"""

from collections.abc import Callable

import torch


def lyapunov_exponents(
    advance: Callable[[torch.Tensor], torch.Tensor],
    state: torch.Tensor,
    count: int,
    stretches: int,
    duration: float,
    generator: torch.Generator,
    size: float = 1e-6,
    settling: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `count` largest exponents and their standard errors, each (count,), per unit of time, the largest first.

    `advance`: states (B, C, H, W) -> states after the time `duration`, between two orthogonalisations. `state` (C, H, W): a
    state on the attractor. `stretches`: their number, after `settling` more in which the disturbances turn into their
    directions. `size`: root mean square of a disturbance, small against the state and large against its rounding. The
    standard errors are those of means over ten parts of the stretches.
    """
    points = state.numel()
    frame = torch.linalg.qr(torch.randn(points, count, generator=generator, dtype=torch.float64)).Q
    scale, growth = size * points**0.5, []
    for stretch in range(settling + stretches):
        disturbances = (scale * frame.T).reshape(count, *state.shape).to(state)
        after = advance(torch.cat([state[None], state + disturbances]))
        state = after[0]
        changes = ((after[1:] - state) / scale).reshape(count, points).T
        frame, triangle = torch.linalg.qr(changes.double())
        if stretch >= settling:
            growth.append(triangle.diagonal().abs().log() / duration)
    growth = torch.stack(growth)
    parts = torch.stack([part.mean(0) for part in growth.tensor_split(min(10, len(growth)))])
    return growth.mean(0), parts.std(0) / len(parts) ** 0.5
